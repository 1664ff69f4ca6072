/* model/tokenizer_bytes.h -- a tokenizer as bytes: what st_tokenizer_save writes and st_tokenizer_load reads.
 *
 * Little-endian, without padding; "text" is a length and so many bytes, "list" a count and so many of what follows.
 *
 *     magic      8 bytes, "STTOKENS"
 *     version    u32
 *     flags      u32, ST_TB_... below
 *     strip, unk u32 each; unk of 0xffffffff is none
 *     tokens     list of u32: n << 2 | added << 1 | special, or 0xffffffff for an id without a token;
 *                then the bytes of all of them, one behind the other
 *     spelled    list of (id, text): tokens as they are looked for in a text; a text of length 0 is the token's own bytes
 *     loose      list of text: characters that are part of tokens but no token
 *     single     256 + 128 u32: tokens of bytes, and of ASCII characters; 0xffffffff is none
 *     crosses    32 bytes, a bit for each byte
 *     pairs      list of (left, right, rank, merged), by rank, then left, then right
 *     words      a set of characters (chars.h)
 *     names      list of (text, id): added tokens as they are written in files
 *     added      twice list of (text, id, flags of added tokens), in the order of their bytes
 *     around     list of u32 in front of a text, list of u32 behind it, list of u32 that end one
 *     normalizer rules.c, pre-tokenizer pieces.c
 */
#ifndef ST_MODEL_TOKENIZER_BYTES_H
#define ST_MODEL_TOKENIZER_BYTES_H

#define ST_TB_MAGIC "STTOKENS"
#define ST_TB_VERSION 1
#define ST_TB_NONE 0xffffffffu

#define ST_TB_CHARS         1u
#define ST_TB_BYTE_FALLBACK 2u
#define ST_TB_FUSE_UNK      4u
#define ST_TB_IGNORE_MERGES 8u
#define ST_TB_LOOSE         16u /* merged by score: loose characters have numbers of their own */
#define ST_TB_ALL           31u

#define ST_TB_SPECIAL 1u
#define ST_TB_ALONE   2u
#define ST_TB_LEFT    4u
#define ST_TB_RIGHT   8u

#endif

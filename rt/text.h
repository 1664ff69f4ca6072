/* rt/text.h -- text in a bundle: its tokenizer and its chat template, as two blocks of bytes.
 *
 * Neither has code of its own here.  A tokenizer is the one of model/tokenizer.h, read from bytes instead
 * of from tokenizer.json (st_tokenizer_load): what cuts, merges and decodes are the same objects, so the
 * same text has the same tokens.  A template is data (model/turns.h), and tokens are drawn by
 * runtime/sample.c.  The sources that this needs, all of them C and libc alone, besides base/:
 *
 *     model/bpe.c model/jscan.c model/encode.c model/detok.c model/pieces.c model/rules.c model/chars.c
 *     model/pattern.c model/bytes.c model/tokenizer_load.c model/turns.c model/dialog.c runtime/sample.c
 *
 * The other side is runtime/export_text.h.  Bytes are little-endian and need no alignment; every count and
 * offset is checked, and a block that lies is refused with a sentence that begins with `name`. */
#ifndef ST_RT_TEXT_H
#define ST_RT_TEXT_H

#include "model/tokenizer.h" /* st_tokenizer_load, _close, _encode, _bytes, _bos, _size; st_detok_start, _push */
#include "model/turns.h"     /* st_turns_load, _free; why there is none */
#include "setun/setun.h"     /* setun_sampler_new, _pick, _accept, _free */

#endif

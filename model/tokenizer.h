/* model/tokenizer.h -- BPE from tokenizer.json, a GGUF file or a bundle, over bytes or over characters.
 *
 * Text is split on added tokens, normalized, split by the pre-tokenizer, then merged by
 * rank.  Immutable after opening; [any] for all functions with a const tokenizer (each call has its
 * own scratch).  Ids are int32. */
#ifndef ST_MODEL_TOKENIZER_H
#define ST_MODEL_TOKENIZER_H

#include "base/str.h"
#include "setun/types.h"

typedef struct st_tokenizer st_tokenizer;

/* path: a directory that holds tokenizer.json, or a GGUF file.  Refuses what it does not know (model
 * type, normalizer, pre-tokenizer, decoder, post-processor), naming it. */
setun_status st_tokenizer_open(st_tokenizer **t, const char *path, setun_error *err);
/* The same tokenizer as bytes that are read without any library, from which it makes the same ids.  Refuses, naming
 * it, what that cannot do.  Equal tokenizers are equal bytes. */
setun_status st_tokenizer_save(const st_tokenizer *t, st_str *out, setun_error *err);
/* bytes must stay as long as the tokenizer; name begins what is said of them. */
setun_status st_tokenizer_load(st_tokenizer **t, const void *bytes, int64_t n, const char *name, setun_error *err);
void         st_tokenizer_close(st_tokenizer *t);
int64_t      st_tokenizer_size(const st_tokenizer *t); /* 1 + largest id */

#define ST_TOK_BOS     1u /* what the post-processor puts around the text */
#define ST_TOK_SPECIAL 2u /* recognise special tokens written in the text */

/* ids is malloc'ed (free it); text must be valid UTF-8, else SETUN_BAD_ARG with the byte offset. */
setun_status st_tokenizer_encode(const st_tokenizer *t, const char *text, int64_t n_bytes, uint32_t flags,
                                 int32_t **ids, int64_t *n, setun_error *err);
/* The parts as one text, except that special tokens are recognised in markers only, each as a whole; so no
 * part of what somebody typed ever becomes one.  control lists tokens that are treated like that although the
 * vocabulary does not call them special.  flags: ST_TOK_BOS for what stands before a text, without what
 * stands behind it; ST_TOK_MIDST when other text stands there, and no space is to be put before this one. */
#define ST_TOK_MIDST 4u
typedef struct st_tok_part {
    const char *text;
    int64_t     n;
    int         marker;
} st_tok_part;
setun_status st_tokenizer_encode_parts(const st_tokenizer *t, const st_tok_part *part, int64_t n_parts,
                                       const int32_t *control, int64_t n_control, uint32_t flags,
                                       int32_t **ids, int64_t *n, setun_error *err);
/* The bytes of one token as decoding yields them (special tokens: their text); not NUL-terminated.
 * Fails for an id that the vocabulary does not have. */
setun_status st_tokenizer_bytes(const st_tokenizer *t, int32_t id, const char **bytes, int64_t *n,
                                int *special, setun_error *err);
int32_t      st_tokenizer_find(const st_tokenizer *t, const char *token); /* added token or vocabulary entry; -1 */
int32_t      st_tokenizer_bos(const st_tokenizer *t); /* -1: none */
/* Of a vocabulary over bytes: the first ordinary token that its own merges do not make, and that some text may
 * have as a piece; -1: there is none, and "ignore_merges", which takes such pieces as a whole, changes no text.
 * For pre-tokenizers that a GGUF file can name: a piece of a text is one piece also where it stands alone. */
setun_status st_tokenizer_unmade(const st_tokenizer *t, int64_t *id, setun_error *err);
/* Tokens at which generation stops, by a GGUF file's keys or by their well-known names.  None for
 * tokenizer.json, which does not say: other files do. */
int64_t      st_tokenizer_ends(const st_tokenizer *t, const int32_t **ids);
/* One line: what a GGUF file's tokenizer is, and what was decided where the file is silent.  NULL for
 * tokenizer.json, which says everything itself. */
const char  *st_tokenizer_about(const st_tokenizer *t);

/* Streaming detokeniser: feed tokens, get whole UTF-8 characters; invalid sequences become U+FFFD. */
typedef struct st_detok {
    char    held[7];
    uint8_t drop; /* leading spaces still to be dropped */
    int32_t n_held;
} st_detok;
/* Begins a whole text, whose first spaces the decoder may drop (Strip).  A zeroed state continues one. */
void st_detok_start(st_detok *d, const st_tokenizer *t);
#define ST_TOK_MAX_STRIP 255
/* Appends to out (at least 4 * (n + 8) bytes); returns the bytes written.  bytes NULL flushes. */
int64_t st_detok_push(st_detok *d, const char *bytes, int64_t n, char *out);

#endif

/* model/gguf_vocab.h -- the tokenizer of a GGUF file, said in the words of tokenizer.json. */
#ifndef ST_MODEL_GGUF_VOCAB_H
#define ST_MODEL_GGUF_VOCAB_H

#include <jansson.h>

#include "base/str.h"
#include "model/bpe.h"
#include "model/gguf.h"

#define ST_GGUF_VOCAB_ENDS 16

/* What tokenizer.ggml.token_type says of a token.  UNUSED ones fill ids that stand for nothing. */
enum { ST_TOKEN_NORMAL = 1, ST_TOKEN_UNKNOWN, ST_TOKEN_CONTROL, ST_TOKEN_USER_DEFINED, ST_TOKEN_UNUSED, ST_TOKEN_BYTE };

typedef struct st_gguf_vocab {
    const st_gguf *g; /* not owned; outlives this */
    json_t        *root;   /* a tokenizer.json without model.vocab and model.merges */
    int64_t        n;      /* tokens */
    const st_gguf_value *tokens, *types, *scores, *merges; /* scores or merges is NULL */
    int32_t        end[ST_GGUF_VOCAB_ENDS]; /* tokens that end a text or a turn */
    int64_t        n_end;
    st_str         about; /* one line: what was read, and what was decided where the file is silent */
} st_gguf_vocab;

/* Zero-initialise; after a failure, too, call st_gguf_vocab_free.  Refuses what it does not know,
 * naming it. */
setun_status st_gguf_vocab_read(st_gguf_vocab *v, const st_gguf *g, setun_error *err);
/* The other way round: the value of the key pre that means this pre_tokenizer of tokenizer.json, and whether it
 * also means ignore_merges; NULL: none is known to. */
const char  *st_gguf_vocab_pre(const json_t *pre_tokenizer, int *ignore_merges);
void         st_gguf_vocab_free(st_gguf_vocab *v);
int          st_gguf_vocab_type(const st_gguf_vocab *v, int64_t id); /* one of the above; 0: none of them */
/* Merge i, whose string is at *at, which moves behind it: two tokens, with a space between at pair[*space]. */
setun_status st_gguf_vocab_merge(const st_gguf_vocab *v, const uint8_t **at, int64_t i, const char **pair, size_t *n, size_t *space,
                                 setun_error *err);
/* Tokens, and merges or scores; b->chars and how tokens decode are set by then. */
setun_status st_gguf_vocab_fill(const st_gguf_vocab *v, st_bpe *b, setun_error *err);

#endif

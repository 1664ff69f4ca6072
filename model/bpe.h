/* model/bpe.h -- byte-pair encoding over bytes or over characters: tokens, merges, and merging. */
#ifndef ST_MODEL_BPE_H
#define ST_MODEL_BPE_H

#include "base/table.h"
#include "model/jscan.h"
#include "setun/types.h"

#define ST_BPE_MAX_ID ((1 << 22) - 1) /* bounds tables that are indexed by id */
#define ST_BPE_LOOSE (ST_BPE_MAX_ID + 1) /* numbers of loose characters, from here on */
#define ST_BPE_MAX_PAIRS (1 << 23)
#define ST_BPE_NO_PAIR UINT64_MAX

typedef struct st_token {
    const char *bytes; /* NULL: no token has this id */
    int32_t     n;
    uint8_t     special, added;
} st_token;

typedef struct st_pair_slot {
    uint64_t key; /* left << 32 | right; all ones when free */
    uint32_t rank;
    int32_t  merged;
} st_pair_slot;

typedef struct st_bpe {
    st_token     *token;
    int64_t       n_tokens; /* 1 + largest id */
    char         *pool;     /* the bytes of the vocabulary's tokens */
    int64_t       n_pool;
    st_table     *by_bytes; /* ordinary tokens, by what they are spelled as in a text */
    int32_t       byte_id[256]; /* of one byte; over characters, "<0x00>" and so on, or -1 */
    st_pair_slot *pair;
    uint64_t      mask, seed;
    int64_t       n_pairs;
    struct st_waiting *waiting; /* merges that are read, but not looked up yet */
    int           ignore_merges;

    /* Set before the vocabulary is read.  Over characters, tokens are spelled as in the file, and
     * decoding may turn U+2581 into a space and "<0x41>" into a byte. */
    int     chars, byte_fallback, fuse_unk, decode_space, decode_bytes;
    uint8_t crosses[256]; /* does a merge join U+2581 to a character before it that ends in this byte? */
    int32_t unk, ascii[128]; /* over characters; -1: none */
    st_table *loose; /* with scores: characters that are no token, but part of one; else NULL */
} st_bpe;

/* Ids grow by doubling; fills in the bytes of one token.  Refuses a second token of an id. */
setun_status st_bpe_add(st_bpe *b, int64_t id, const char *bytes, int64_t n, const char *path,
                        setun_error *err);
/* "vocab" and "merges" of tokenizer.json; st_bpe_ready, after both, checks what texts will need. */
setun_status st_bpe_vocab(st_bpe *b, st_jscan *j, const char *path, setun_error *err);
setun_status st_bpe_merges(st_bpe *b, st_jscan *j, const char *path, setun_error *err);
/* The same one by one: room for entries tokens of together at most so many bytes, and about so many
 * merges, then each of them.  s is valid UTF-8.  literal: s is the text itself, and no part of an
 * ordinary text is this token. */
setun_status st_bpe_begin(st_bpe *b, int64_t entries, int64_t bytes, int64_t merges, const char *path,
                          setun_error *err);
setun_status st_bpe_entry(st_bpe *b, int64_t id, const char *s, size_t n, int literal,
                          const char *path, setun_error *err);
/* The next merge, "left right" with a space at split: both must be tokens, and so must their union. */
setun_status st_bpe_merge(st_bpe *b, const char *text, size_t n, size_t split, const char *path,
                          setun_error *err);
/* Instead of merges, over characters: a score for each id; NaN for those which never merge. */
setun_status st_bpe_scores(st_bpe *b, const float *score, const char *path, setun_error *err);
setun_status st_bpe_ready(st_bpe *b, const char *unk, const char *path, setun_error *err);
/* Or the pairs as they are merged, from a file that has been through all of that: room for so many, then each. */
setun_status st_bpe_begin_pairs(st_bpe *b, int64_t pairs, const char *path, setun_error *err);
setun_status st_bpe_pair(st_bpe *b, const st_pair_slot *pair, const char *path, setun_error *err);
void         st_bpe_free(st_bpe *b);

/* A byte-mapped string ("\u0120the") as bytes (" the").  Returns the length, or -1 when a character is
 * not of the map.  out has room for n bytes. */
int64_t st_bpe_unmap(const char *text, size_t n, char *out);
/* The other way; out has room for 2 * n bytes. */
int64_t st_bpe_map(const char *bytes, size_t n, char *out);

/* What a token of characters decodes to; never longer than its spelling. */
int64_t st_bpe_spell(const st_bpe *b, const char *s, size_t n, char *out);

/* Growing list of ids. */
typedef struct st_ids {
    int32_t *id;
    int64_t  n, cap;
} st_ids;
setun_status st_ids_add(st_ids *ids, int32_t id, setun_error *err);

/* Appends the tokens of one piece, which is valid UTF-8 if merging is over characters.  [any] */
setun_status st_bpe_piece(const st_bpe *b, const char *piece, int64_t n, st_ids *out,
                          setun_error *err);

#endif

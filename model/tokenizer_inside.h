/* model/tokenizer_inside.h -- what a tokenizer has inside: for those who read, write and use it. */
#ifndef ST_MODEL_TOKENIZER_INSIDE_H
#define ST_MODEL_TOKENIZER_INSIDE_H

#include "base/arena.h"
#include "model/bpe.h"
#include "model/pieces.h"
#include "model/rules.h"
#include "model/tokenizer.h"
#include "model/words.h"

#define ST_TOKENIZER_ENDS 16
#define ST_TOKENIZER_AROUND 64 /* tokens before a text, and behind it */

/* An added token.  Sets are sorted by bytes, so that matching narrows a range byte by byte. */
typedef struct st_added {
    const char *text;
    int64_t     n;
    int32_t     id;
    int         special;
    int         alone;       /* "single_word": only where no word character stands next to it */
    int         left, right; /* "lstrip", "rstrip": white space before it, behind it, is part of it */
} st_added;

typedef struct st_added_set {
    st_added *item;
    int64_t n;
    uint8_t first[256]; /* does any begin with this byte? */
} st_added_set;

struct st_tokenizer {
    st_arena  *arena;
    const char *path;
    st_bpe     bpe;
    st_normal *normal;
    st_chars   words;   /* \w, if an added token needs it */
    st_pretok *pretok;
    st_table  *names; /* added tokens, as written in the file */
    int32_t    strip; /* spaces that decoding drops at the start of a text */
    st_added_set set[2]; /* 0: "normalized" false, matched first; 1: the others */
    int32_t    before[ST_TOKENIZER_AROUND], after[ST_TOKENIZER_AROUND];
    int64_t    n_before, n_after;
    int32_t    end[ST_TOKENIZER_ENDS];
    int64_t    n_end;
    const char *about;
};

/* The order of a set: by bytes. */
int st_added_compare(const void *a, const void *b);

#endif

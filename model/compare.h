/* model/compare.h -- two models, tensor by tensor: codes, scales, floats, keys of the configuration.
 *
 * The proof behind a conversion, and what `setun diff` prints.  Exact: numbers are equal if their bits
 * are, save that -0 equals 0. */
#ifndef ST_MODEL_COMPARE_H
#define ST_MODEL_COMPARE_H

#include "base/str.h"
#include "model/source.h"

/* Two tensors of one name.  A scale is compared where it has a weight that is not 0. */
typedef struct st_difference {
    const char *name, *type_a, *type_b; /* type NULL: that model does not have it */
    int         ternary_a, ternary_b, shape_differs, use_differs; /* use: int8 activations, or floats */
    int64_t     weights, codes;         /* codes: that differ; and the first one */
    int64_t     row, col;
    int         code_a, code_b;
    int64_t     scales, idle;           /* scales: groups of weights whose scales differ; idle: groups of 0s alone */
    double      scale_rel;              /* largest relative change of a scale */
    int64_t     values;                 /* floats that differ */
    double      value_abs, value_rel;   /* largest changes, relative to a */
} st_difference;

typedef struct st_comparison {
    st_difference *row; /* in the order of a, then what b has alone; the arena of a has them */
    int64_t        n;
    const char   **key; /* "key: value of a, value of b" where configurations differ; in the same arena */
    int64_t        n_keys;
    const char   **note; /* the same where that changes nothing that is computed */
    int64_t        n_notes;
    int64_t        missing, shapes, uses;  /* tensors of one model alone; with another shape; used otherwise */
    int64_t        matrices, weights, codes, code_matrices; /* code_...: matrices where some codes differ */
    int64_t        scaled, scale_matrices; /* matrices compared by scales, and those where some differ */
    double         scale_rel;
    int64_t        floats, values, value_tensors; /* float tensors, values that differ and in how many */
    double         value_abs, value_rel;
} st_comparison;

typedef struct st_watch {
    int   (*progress)(void *user, int64_t done, int64_t total); /* bytes of tensors; nonzero cancels */
    void   *user;
    int64_t done, total;
} st_watch;

/* Everything.  w may be NULL. */
setun_status st_compare(st_source *a, st_source *b, st_comparison *c, st_watch *w, setun_error *err);
/* After st_compare: do both give every token the same bytes, and difficult texts the same tokens, and do
 * all tokens that end a text in a do so in b?  SETUN_BAD_FILE says where not; others that do so in b are
 * notes.  A model without a tokenizer is equal to any. */
setun_status st_compare_tokens(const st_source *a, const st_source *b, st_comparison *c, setun_error *err);
#define ST_COMPARE_ENDS 64
int          st_compare_ends(const st_source *s, int64_t id); /* does its configuration say that id ends a text? */
/* Do all numbers agree?  Keys of the configuration are not numbers. */
int          st_compare_equal(const st_comparison *c);
/* Adds `bytes` to what is done; SETUN_CANCELLED if the caller has had enough. */
setun_status st_watch_add(st_watch *w, int64_t bytes, setun_error *err);

#endif

/* setun/inspect.h -- models while they are written: scripts run again, tensors looked at, a console.
 *
 * Beside setun/setun.h, for tools.  The same rules hold: statuses, one sentence, `size` first. */
#ifndef SETUN_INSPECT_H
#define SETUN_INSPECT_H

#include "setun/setun.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- reload */

/* A model of the files that `of` has open, by scripts that are read anew.  Files stay mapped as they were; packed weights
 * and the tokenizer are shared, unless a script needs a matrix that none before did, and then all is loaded as at first.
 * Either may be freed first.  script: another architecture script; NULL: as `of` was loaded.  All other options are
 * those of `of`.  A failure changes nothing.  [any] */
SETUN_EXPORT setun_status setun_model_reload(setun_model **m, const setun_model *of, const char *script, setun_error *err);
/* A number for the sizes and times of all script files that were read for the model: then, or now if `now` is not 0. */
SETUN_EXPORT uint64_t setun_model_scripts(const setun_model *m, int32_t now);
/* Does m have its packed weights from the model that it was reloaded from? */
SETUN_EXPORT int32_t setun_model_shares(const setun_model *m);

/* Two rows of logits, q beside p. */
typedef struct setun_logits_diff {
    uint32_t size;
    int32_t  same_top;  /* the largest is the same one */
    int64_t  n_differ;  /* whose bits differ */
    double   max, rms;  /* of the differences */
    double   kl;        /* the sum of p ln(p / q) over all tokens, in nats */
} setun_logits_diff;
SETUN_EXPORT void setun_logits_compare(const float *p, const float *q, int64_t n, setun_logits_diff *d);

/* ---------------------------------------------------------------- tensors */

/* A constant of the graph by its name there, "blk.0.attn_q" (a matrix that is kept transposed also without its ".t"), or
 * with "@" in front a tensor of setun_trace, "@blk.0.attn_q": what a step computes behind the tokens.  A ternary matrix
 * has its codes times its scales as values.  A constant is the model's, which must outlive it; tokens are copied. */
typedef struct setun_tensor setun_tensor;
SETUN_EXPORT setun_status setun_tensor_get(setun_tensor **t, const setun_model *m, const char *name, const int32_t *tokens,
                                           int64_t n_tokens, setun_error *err);
SETUN_EXPORT void setun_tensor_free(setun_tensor *t);

typedef struct setun_tensor_info {
    uint32_t size, rank;
    int64_t  dim[SETUN_MAX_RANK];
    char     type[16];        /* "f32", "t2" */
    int64_t  count, n_finite; /* numbers; NaN and infinities are not in what follows */
    double   min, max, mean, rms;
    int64_t  n_code[3];       /* of a ternary matrix: how many are -1, 0, +1; else all 0 */
    int64_t  n_scale;         /* and its scales; 0: none */
    double   scale_min, scale_max;
} setun_tensor_info;
/* stop: asked now and then, nonzero gives SETUN_CANCELLED; NULL: nobody is asked. */
SETUN_EXPORT setun_status setun_tensor_about(const setun_tensor *t, setun_tensor_info *i, int (*stop)(void *user), void *user,
                                             setun_error *err);
/* One number; n indices, as many as dimensions, from 0. */
SETUN_EXPORT setun_status setun_tensor_at(const setun_tensor *t, const int64_t *index, int32_t n, double *value, setun_error *err);
/* As NumPy prints an array of 32-bit floats (or integers).  slice: "[0:2, :, 5]", where what is missing is ":" and
 * negative numbers count from the end; NULL: all of it, whose middle is left out where it has more than 1000 numbers. */
SETUN_EXPORT setun_status setun_tensor_print(const setun_tensor *t, const char *slice, setun_write_fn *write, void *user,
                                             setun_error *err);
/* Names and types, a line each: of constants that match the pattern (* ? [...]; NULL: all), and behind tokens of what
 * steps compute, with "@" in front. */
SETUN_EXPORT setun_status setun_tensors_list(const setun_model *m, const char *pattern, const int32_t *tokens, int64_t n_tokens,
                                             setun_write_fn *write, void *user, setun_error *err);

/* ---------------------------------------------------------------- console */

/* Lua in the same closed world as scripts, and tensor(name).  Global variables stay from input to input.  [owner] */
typedef struct setun_console setun_console;
/* write gets what is printed; stop as in setun_tensor_about. */
SETUN_EXPORT setun_status setun_console_new(setun_console **c, setun_write_fn *write, int (*stop)(void *user), void *user,
                                            setun_error *err);
SETUN_EXPORT void setun_console_free(setun_console *c);
/* The model and the tokens that tensor() asks; tokens are borrowed until the next call.  Tensors of an earlier model
 * are gone, and say so. */
SETUN_EXPORT void setun_console_use(setun_console *c, const setun_model *m, const int32_t *tokens, int64_t n_tokens);
/* An expression, whose values are printed, or statements. */
SETUN_EXPORT setun_status setun_console_run(setun_console *c, const char *text, setun_error *err);

#ifdef __cplusplus
}
#endif
#endif

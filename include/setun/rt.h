/* setun/rt.h -- running a bundle of `setun export`: one conversation, with nothing but the C library.
 *
 * Link with libsetun_rt.a -lpthread -lm.  A bundle is code for one kind of machine: it is refused on others, and whoever
 * opens one trusts who made it.  An object of this interface belongs to one thread at a time; several may be open, also of
 * the same bundle, whose pages they share.  Functions that can fail return a status and fill err (may be NULL) with one
 * sentence.  Logits have the bits that Setun itself computes, on every machine and with any number of threads. */
#ifndef SETUN_RT_H
#define SETUN_RT_H

#include "setun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct setun_rt setun_rt;

/* Does the file begin as a bundle does?  0 also for what cannot be opened. */
SETUN_EXPORT int32_t setun_rt_is_bundle(const char *path);
/* n_threads: 0 for one per core.  All checksums of the bundle are compared before anything of it is used. */
SETUN_EXPORT setun_status setun_rt_open(setun_rt **rt, const char *path, int32_t n_threads, setun_error *err);
SETUN_EXPORT void setun_rt_close(setun_rt *rt); /* NULL is allowed */

typedef struct setun_rt_info {
    uint32_t    size;        /* set it to sizeof(setun_rt_info) */
    int32_t     n_threads;
    const char *name;        /* of the model's file; strings live as long as the object */
    const char *made_by;     /* version of the Setun that made the bundle */
    const char *target, *cpu, *features; /* "x86_64-unknown-linux-gnu", ... */
    int64_t     n_ctx;       /* positions there is room for */
    int64_t     n_batch;     /* most tokens in one step of reading a prompt */
    int64_t     n_vocab;     /* ids and columns of the logits */
    int64_t     weight_bytes;
} setun_rt_info;
SETUN_EXPORT void setun_rt_get_info(const setun_rt *rt, setun_rt_info *info);

/* Feed n tokens at the current position.  *logits gets n_vocab floats, after the last token; they stay valid until the next
 * call.  logits NULL: none are wanted.  After a failure the position is what it was. */
SETUN_EXPORT setun_status setun_rt_feed(setun_rt *rt, const int32_t *tokens, int64_t n, const float **logits, setun_error *err);
SETUN_EXPORT int64_t setun_rt_position(const setun_rt *rt);
/* Forget everything from position p on; 0 begins anew. */
SETUN_EXPORT setun_status setun_rt_rewind(setun_rt *rt, int64_t p, setun_error *err);
SETUN_EXPORT int32_t setun_rt_is_end(const setun_rt *rt, int32_t token); /* does it end a text or a turn? */
/* The token with the largest logit, of equals the lower id. */
SETUN_EXPORT int32_t setun_rt_best(const setun_rt *rt, const float *logits);
/* Hash of floats' bits, to be chained; start with 0.  Equal where `setun logits --hash` is. */
SETUN_EXPORT uint64_t setun_rt_hash(uint64_t h, const float *values, int64_t n);

/* The program setun-rt: what follows a command's name; returns an exit code. */
SETUN_EXPORT int setun_rt_main(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif

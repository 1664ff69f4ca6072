/* runtime/kernels.h -- from an operator and shapes to something callable.
 *
 *   lower -> verify -> (cache | compile, link) -> load -> (check against eval, store) -> setun_code
 *   |---- ask -----|   |--------------------------- build ---------------------------|
 *
 * Asking is cheap and done in the graph's order; building is done for many kernels at once, on the
 * threads of a pool.  The compiler is opened when the first kernel is not in the cache.  Two steps with the same kernel text share one entry.  Always a callable answer:
 * when lower declines or no code generator exists, there is no code and the backend runs eval. */
#ifndef ST_RUNTIME_KERNELS_H
#define ST_RUNTIME_KERNELS_H

#include "base/pool.h"
#include "runtime/engine.h"

typedef struct st_kernel {
    const st_kir *kir;
    uint64_t      hash;
    const char   *name;     /* "ternary_matmul-0123456789abcdef" */
    char         *symbol;   /* the same with '_' */
    setun_args    shape;    /* of who asked first */
    const char   *where;    /* in a script, for messages; may be NULL */
    setun_code    code;     /* once it is built */
    setun_status  status;   /* of building it, and why it failed */
    setun_error   why;
    int64_t       made_ns, checked_ns;
    int           compiled; /* 1: now, 0: from the cache, or interpreted */
    int           interpreted; /* 1: it could not be compiled or executed; why says so, status is SETUN_OK */
    int           writes;   /* 0: it stores nothing (a view of other memory); such steps need not run */
} st_kernel;

/* What was asked before: layers repeat the same question, and lowering is the dear part of the answer. */
typedef struct st_asked {
    struct st_asked *next;
    st_kernel       *kernel;
    size_t           n;
    const char      *key; /* operator, shapes and attributes as bytes */
} st_asked;

typedef struct st_kernels {
    st_engine  *engine;
    st_arena   *arena;
    st_kernel **kernel;
    st_asked   *asked;
    int32_t     n, cap, n_built;
    int         wary; /* operators that are only being checked: what a kernel is tried on is interpreted first, which refuses
                       * what reaches outside its arrays, where machine code would do it */
} st_kernels;

setun_status st_kernels_new(st_kernels **k, st_engine *e, st_arena *arena, setun_error *err);
/* The kernel for these shapes (dim[0] may be symbolic), to be built.  SETUN_DECLINED: run eval.  shape's
 * arrays and where must outlive the kernels. */
setun_status st_kernels_ask(st_kernels *k, const setun_args *shape, const char *where, st_kernel **out, setun_error *err);
/* Build all that were asked for since the last time; pool may be NULL.  Of several failures the first in the
 * order of asking is reported. */
setun_status st_kernels_build(st_kernels *k, st_pool *pool, setun_error *err);
/* Both at once. */
setun_status st_kernels_get(st_kernels *k, const setun_args *shape, const st_kernel **out, setun_error *err);
/* Compile any verified kernel, through the cache.  SETUN_DECLINED: it could only be interpreted. */
setun_status st_kernels_compile(st_kernels *k, const st_kir *kir, const char *symbol, setun_kernel_fn **fn,
                                int *from_cache, setun_error *err);
/* A kernel as an object: in the usual way or, if that takes too long, in a simple one.  SETUN_FULL: in neither.
 * note: what is worth a word, untouched if nothing is; err is not NULL.  [any] */
setun_status st_kernel_object(const st_engine *e, const st_kir *kir, const char *symbol, char **object, int64_t *n,
                              setun_error *note, setun_error *err);
/* What a kernel's code is kept under in a cache. */
setun_status st_kernel_key(const st_engine *e, const st_kir *kir, const char *symbol, st_str *key, setun_error *err);
/* A kernel's image, malloc'ed: from the cache, or compiled now.  Refused when it could only be interpreted. */
setun_status st_kernel_image(st_kernels *k, const st_kernel *kernel, char **image, int64_t *n, setun_error *err);
/* Fill code's launch data for a kernel. */
void         st_kernel_code(const st_kir *kir, setun_kernel_fn *fn, setun_code *code);

/* Run every unit of a kernel on concrete args, cut into n_tile tiles. */
setun_status st_kernel_launch(const setun_code *code, const setun_args *a, int64_t n_tile, setun_error *err);
/* The same by the interpreter, as one tile; fails where the kernel reaches outside its arguments. */
setun_status st_kernel_interpret(const st_kir *kir, const setun_args *a, setun_error *err);
/* Are the outputs of a and b equal, bit for bit or within the operator's tolerance?  The sentence
 * says where they differ first. */
setun_status st_outputs_equal(const setun_args *want, const setun_args *got, setun_error *err);

#endif

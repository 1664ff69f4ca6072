/* setun/backend.h -- extension "setun.backend/1": a place that computes.
 *
 * A backend never sees a graph.  It receives a program: steps in order, each an operator (with its
 * scalar eval), operands in buffers, attributes, and a compiled kernel when there is one.  The
 * boundary is crossed once per program run, not once per operator.
 * Built-in backends come through this same table; there is no second way in. */
#ifndef SETUN_BACKEND_H
#define SETUN_BACKEND_H

#include "setun/op.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SETUN_EXT_BACKEND "setun.backend/1"

typedef struct setun_context setun_context; /* threads, streams: one per session owner */
typedef struct setun_buffer  setun_buffer;
typedef struct setun_program setun_program;

typedef struct setun_backend_info {
    uint32_t    size;
    uint32_t    wants_code; /* 1: give steps host kernels (setun_code) when they exist */
    const char *name;       /* "cpu": what --backend takes */
    const char *doc;        /* one line for people */
} setun_backend_info;

/* A compiled (or interpreted) kernel and what is needed to launch it. */
typedef struct setun_code {
    uint32_t          size;
    uint32_t          launch_abi;
    setun_kernel_fn  *fn;
    const void       *self;   /* for launch->self */
    const setun_slot *slot;   /* run-time sizes for launch->dim */
    uint32_t          n_slot;
    uint32_t          reserved;
    setun_grid        grid;
    int64_t           scratch_bytes; /* per worker */
} setun_code;

typedef struct setun_operand {
    setun_buffer *buffer;
    int64_t       offset; /* bytes; a multiple of 64 in buffers made by buffer_new */
    setun_view    shape;  /* data NULL; dim[0] may be symbolic */
} setun_operand;

typedef struct setun_step {
    uint32_t             size;
    uint32_t             n_in, n_out, n_attr;
    const setun_op      *op;
    const setun_operand *in, *out;
    const setun_value   *attr;
    const setun_code    *code;  /* NULL: none */
    const char          *label; /* "blk.0.attn_q ternary_matmul", for profiles */
} setun_step;

/* Sees a step that has just run: concrete views with host addresses, valid until it returns. */
typedef void setun_observe_fn(void *user, uint32_t step, const setun_args *args);

/* Functions that can fail fill err.  Everything passed in stays the caller's and is copied if kept,
 * except op, code, attr strings and label, which outlive the program. */
typedef struct setun_backend_v1 {
    uint32_t size;
    uint32_t reserved;
    setun_status (*describe)(void *self, setun_backend_info *info); /* [any] */
    /* SETUN_OK and an estimate in seconds, or SETUN_DECLINED.  Operand buffers are not set.  [any] */
    setun_status (*supports)(void *self, const setun_step *step, double *seconds);

    setun_status (*context_new)(void *self, int32_t n_threads, setun_context **c, setun_error *err); /* [load] */
    void         (*context_free)(setun_context *c);

    setun_status (*buffer_new)(setun_context *c, int64_t bytes, setun_buffer **b, setun_error *err); /* zeroed */
    /* Use host memory in place; it must outlive the buffer.  Weights come so, often read-only, and are
     * no step's output; memory shared with another backend may be one.  buffer_write refuses both. */
    setun_status (*buffer_wrap)(setun_context *c, const void *data, int64_t bytes, setun_buffer **b, setun_error *err);
    void         (*buffer_free)(setun_buffer *b);
    setun_status (*buffer_write)(setun_buffer *b, int64_t offset, const void *data, int64_t bytes, setun_error *err);
    setun_status (*buffer_read)(setun_buffer *b, int64_t offset, void *data, int64_t bytes, setun_error *err);
    void        *(*buffer_map)(setun_buffer *b); /* host address, or NULL if it has none */

    setun_status (*program_new)(setun_context *c, const setun_step *step, uint32_t n, setun_program **p,
                                setun_error *err); /* [load] */
    void         (*program_free)(setun_program *p);
    /* size[s] replaces symbol s (-1 - s) in dim[0].  [owner]; returns when done, or before if wait is
     * offered. */
    setun_status (*program_run)(setun_program *p, const int64_t *size, uint32_t n_size, setun_error *err);
    setun_status (*wait)(setun_context *c, setun_error *err); /* [owner] */
    /* Optional: from now on add nanoseconds spent per step to ns[0..n); NULL switches off.  [owner] */
    void         (*program_times)(setun_program *p, int64_t *ns);
    /* Optional, and only while times are taken: from now on add to ns[0..n) the nanoseconds that the
     * threads together waited behind each step for the last of them; NULL switches off.  [owner] */
    void         (*program_waits)(setun_program *p, int64_t *ns);
    /* Optional: call fn after each step of the runs from now on, while no step runs, on the thread that
     * runs the program; NULL switches off.  [owner] */
    void         (*program_observe)(setun_program *p, setun_observe_fn *fn, void *user);
} setun_backend_v1;

#ifdef __cplusplus
}
#endif
#endif

/* tests/abi/v1/old_plugin.c -- a plugin as it was written for revision 1.
 *
 * Compiled against the headers beside it, which never change.  Every later host must load it and be
 * able to use its operator and its backend.  Never edit this file to make a test pass. */
#include <stdlib.h>
#include <string.h>

#include "setun/backend.h"
#include "setun/plugin.h"

/* ---------------------------------------------------------------- operator */

static setun_status infer(setun_args *a, setun_error *err)
{
    if (a->in[0].dtype != SETUN_F32)
        return setun_fail(err, SETUN_BAD_SHAPE, "old_double: x is no f32");
    a->out[0] = a->in[0];
    return SETUN_OK;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = 2.0f * x[i];
    return SETUN_OK;
}

static const setun_port in[] = { { "x", "f32", 0, 0 } };
static const setun_port out[] = { { "y", "f32", 0, 0 } };
static const char *const cases[] = { "x:f32[7]", NULL };
static const setun_op old_double = {
    .size = sizeof(setun_op), .version = 1, .name = "old_double", .doc = "y = 2 x",
    .in = in, .out = out, .n_in = 1, .n_out = 1, .infer = infer, .eval = eval, .cases = cases,
};

/* ---------------------------------------------------------------- backend */

struct setun_context {
    int32_t n_threads;
};

struct setun_buffer {
    char   *data;
    int64_t bytes;
    int32_t wrapped;
};

/* One step with one input and one output: all that this backend supports. */
struct setun_program {
    const setun_op *op;
    setun_view      view[2];
    int64_t         dim0[2];
};

static setun_status describe(void *self, setun_backend_info *info)
{
    (void)self;
    info->wants_code = 0;
    info->name = "old";
    info->doc = "built from the headers of revision 1";
    return SETUN_OK;
}

static setun_status supports(void *self, const setun_step *step, double *seconds)
{
    (void)self;
    *seconds = 100;
    return step->n_in == 1 && step->n_out == 1 && step->n_attr == 0 ? SETUN_OK : SETUN_DECLINED;
}

static setun_status context_new(void *self, int32_t n_threads, setun_context **c, setun_error *err)
{
    (void)self;
    *c = malloc(sizeof **c);
    if (!*c)
        return setun_fail(err, SETUN_NO_MEMORY, "old: no memory");
    (*c)->n_threads = n_threads;
    return SETUN_OK;
}

static void context_free(setun_context *c)
{
    free(c);
}

static setun_status make(char *data, int64_t bytes, int32_t wrapped, setun_buffer **b,
                         setun_error *err)
{
    *b = malloc(sizeof **b);
    if (!*b || !data) {
        free(*b);
        *b = NULL;
        return setun_fail(err, SETUN_NO_MEMORY, "old: no memory");
    }
    (*b)->data = data;
    (*b)->bytes = bytes;
    (*b)->wrapped = wrapped;
    return SETUN_OK;
}

static setun_status buffer_new(setun_context *c, int64_t bytes, setun_buffer **b, setun_error *err)
{
    (void)c;
    char *data = calloc(1, (size_t)bytes + 1);
    setun_status s = make(data, bytes, 0, b, err);
    if (s != SETUN_OK)
        free(data);
    return s;
}

static setun_status buffer_wrap(setun_context *c, const void *data, int64_t bytes, setun_buffer **b,
                                setun_error *err)
{
    (void)c;
    return make((char *)(uintptr_t)data, bytes, 1, b, err);
}

static void buffer_free(setun_buffer *b)
{
    if (b && !b->wrapped)
        free(b->data);
    free(b);
}

static setun_status buffer_write(setun_buffer *b, int64_t offset, const void *data, int64_t bytes,
                                 setun_error *err)
{
    if (offset < 0 || bytes < 0 || offset > b->bytes || bytes > b->bytes - offset || b->wrapped)
        return setun_fail(err, SETUN_BAD_ARG, "old: cannot write there");
    memcpy(b->data + offset, data, (size_t)bytes);
    return SETUN_OK;
}

static setun_status buffer_read(setun_buffer *b, int64_t offset, void *data, int64_t bytes,
                                setun_error *err)
{
    if (offset < 0 || bytes < 0 || offset > b->bytes || bytes > b->bytes - offset)
        return setun_fail(err, SETUN_BAD_ARG, "old: cannot read there");
    memcpy(data, b->data + offset, (size_t)bytes);
    return SETUN_OK;
}

static void *buffer_map(setun_buffer *b)
{
    return b->data;
}

static setun_status program_new(setun_context *c, const setun_step *step, uint32_t n,
                                setun_program **p, setun_error *err)
{
    (void)c;
    *p = n == 1 ? malloc(sizeof **p) : NULL;
    if (!*p)
        return setun_fail(err, SETUN_FAILED, "old: one step at a time");
    const setun_operand *o[2] = { step->in, step->out };
    (*p)->op = step->op;
    for (int i = 0; i < 2; i++) {
        (*p)->view[i] = o[i]->shape;
        (*p)->view[i].data = o[i]->buffer->data + o[i]->offset;
        (*p)->dim0[i] = o[i]->shape.dim[0];
    }
    return SETUN_OK;
}

static void program_free(setun_program *p)
{
    free(p);
}

static setun_status program_run(setun_program *p, const int64_t *size, uint32_t n_size,
                                setun_error *err)
{
    for (int i = 0; i < 2; i++)
        if (p->dim0[i] < 0 && -1 - p->dim0[i] < (int64_t)n_size)
            p->view[i].dim[0] = size[-1 - p->dim0[i]];
    setun_args a = { sizeof a, 1, 1, 0, p->op, &p->view[0], &p->view[1], NULL };
    return p->op->eval(&a, err);
}

/* ---------------------------------------------------------------- plugin */

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    *self = NULL;
    if (!SETUN_HAS(setun_host, host, log) || host->abi != 1)
        return setun_fail(err, SETUN_UNKNOWN, "old: this is not a host of ABI 1");
    host->log(host->context, 2, "old: here I am");
    return SETUN_OK;
}

static void fini(void *self)
{
    (void)self;
}

static const void *extension(void *self, const char *id)
{
    static const setun_op *const list[] = { &old_double };
    static const setun_ops_v1 ops = { sizeof ops, 1, list };
    static const setun_backend_v1 backend = {
        .size = sizeof backend,
        .describe = describe,
        .supports = supports,
        .context_new = context_new,
        .context_free = context_free,
        .buffer_new = buffer_new,
        .buffer_wrap = buffer_wrap,
        .buffer_free = buffer_free,
        .buffer_write = buffer_write,
        .buffer_read = buffer_read,
        .buffer_map = buffer_map,
        .program_new = program_new,
        .program_free = program_free,
        .program_run = program_run,
    };
    (void)self;
    if (!strcmp(id, "setun.ops/1"))
        return &ops;
    return strcmp(id, "setun.backend/1") ? NULL : &backend;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, 1, "org.setun.test.old", "1", "", init, fini, extension,
    };
    return host_abi == 1 ? &plugin : NULL;
}

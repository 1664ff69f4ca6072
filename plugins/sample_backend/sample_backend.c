/* plugins/sample_backend/sample_backend.c -- a complete small backend that tells what it does.
 *
 * `--backend trace` runs every step by its operator's eval, in host memory, on one thread, and logs
 * a line for each: number, label, shapes, time.  It is the least that a backend must do, and a
 * place to start from; it sees the public headers only.
 *
 *     cc -std=c11 -shared -fPIC -Iinclude sample_backend.c -o sample_backend.so */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "setun/backend.h"
#include "setun/plugin.h"

#define N_SYMBOLS 8 /* more than there are; a program that uses more is refused */
#define ALIGN 64

/* What init makes, what a context remembers: where to log. */
typedef struct tracer {
    const setun_host *host;
} tracer;

struct setun_context {
    const setun_host *host;
};

struct setun_buffer {
    char   *data;
    int64_t bytes;
    int     wrapped; /* somebody else's memory: not freed, and not for buffer_write */
};

typedef struct step {
    const setun_op *op;
    const char     *label;
    uint32_t        n_in, n_out, n_attr;
    setun_view     *view; /* inputs, then outputs; symbolic sizes are filled in for each run */
    int64_t        *dim0; /* what dim[0] was */
    int64_t        *room; /* bytes up to the end of the operand's buffer */
    setun_value    *attr;
} step;

struct setun_program {
    const setun_host *host;
    uint32_t          n;
    step             *step;
    int64_t          *ns;
};

static void say(const setun_host *host, int32_t level, const char *text)
{
    if (SETUN_HAS(setun_host, host, log))
        host->log(host->context, level, text);
}

static int64_t now_ns(void)
{
    struct timespec t = { 0, 0 };
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---------------------------------------------------------------- what it is */

static setun_status describe(void *self, setun_backend_info *info)
{
    (void)self;
    info->wants_code = 0;
    info->name = "trace";
    info->doc = "sample plugin: runs scalar definitions and logs every step";
    return SETUN_OK;
}

static setun_status supports(void *self, const setun_step *s, double *seconds)
{
    (void)self;
    *seconds = 1.0; /* never anybody's first choice */
    return s->op && SETUN_HAS(setun_op, s->op, eval) ? SETUN_OK : SETUN_DECLINED;
}

static setun_status context_new(void *self, int32_t n_threads, setun_context **c, setun_error *err)
{
    (void)n_threads;
    *c = malloc(sizeof **c);
    if (!*c)
        return setun_fail(err, SETUN_NO_MEMORY, "trace: no memory for a context");
    (*c)->host = ((const tracer *)self)->host;
    return SETUN_OK;
}

static void context_free(setun_context *c)
{
    free(c);
}

/* ---------------------------------------------------------------- buffers */

static setun_status buffer_make(char *data, int64_t bytes, int wrapped, setun_buffer **b,
                                setun_error *err)
{
    *b = data ? malloc(sizeof **b) : NULL;
    if (!*b)
        return setun_fail(err, SETUN_NO_MEMORY, "trace: no memory for a buffer of %lld bytes",
                          (long long)bytes);
    (*b)->data = data;
    (*b)->bytes = bytes;
    (*b)->wrapped = wrapped;
    return SETUN_OK;
}

static setun_status buffer_new(setun_context *c, int64_t bytes, setun_buffer **b, setun_error *err)
{
    (void)c;
    *b = NULL;
    if (bytes < 0 || bytes > INT64_MAX / 2)
        return setun_fail(err, SETUN_BAD_ARG, "trace: a buffer of %lld bytes was asked for",
                          (long long)bytes);
    size_t n = ((size_t)bytes + 2 * ALIGN - 1) / ALIGN * ALIGN; /* whole lines, at least one */
    char *data = aligned_alloc(ALIGN, n);
    if (data)
        memset(data, 0, n);
    setun_status s = buffer_make(data, bytes, 0, b, err);
    if (s != SETUN_OK)
        free(data);
    return s;
}

static setun_status buffer_wrap(setun_context *c, const void *data, int64_t bytes, setun_buffer **b,
                                setun_error *err)
{
    (void)c;
    return buffer_make((char *)(uintptr_t)data, bytes, 1, b, err);
}

static void buffer_free(setun_buffer *b)
{
    if (b && !b->wrapped)
        free(b->data);
    free(b);
}

static setun_status range(const setun_buffer *b, int64_t offset, int64_t bytes, setun_error *err)
{
    if (offset < 0 || bytes < 0 || offset > b->bytes || bytes > b->bytes - offset)
        return setun_fail(err, SETUN_BAD_ARG,
                          "trace: %lld bytes at %lld are outside a buffer of %lld",
                          (long long)bytes, (long long)offset, (long long)b->bytes);
    return SETUN_OK;
}

static setun_status buffer_write(setun_buffer *b, int64_t offset, const void *data, int64_t bytes,
                                 setun_error *err)
{
    setun_status s = range(b, offset, bytes, err);
    if (s == SETUN_OK && b->wrapped)
        s = setun_fail(err, SETUN_BAD_ARG, "trace: a wrapped buffer is read-only");
    if (s == SETUN_OK && bytes)
        memcpy(b->data + offset, data, (size_t)bytes);
    return s;
}

static setun_status buffer_read(setun_buffer *b, int64_t offset, void *data, int64_t bytes,
                                setun_error *err)
{
    setun_status s = range(b, offset, bytes, err);
    if (s == SETUN_OK && bytes)
        memcpy(data, b->data + offset, (size_t)bytes);
    return s;
}

static void *buffer_map(setun_buffer *b)
{
    return b->data;
}

/* ---------------------------------------------------------------- programs */

static void program_free(setun_program *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->n; i++) {
        free(p->step[i].view);
        free(p->step[i].dim0);
        free(p->step[i].attr);
    }
    free(p->step);
    free(p);
}

/* Steps are the caller's: keep copies of all but op, attribute strings and label. */
static setun_status copy_step(step *to, const setun_step *from, setun_error *err)
{
    uint32_t n = from->n_in + from->n_out;
    to->op = from->op;
    to->label = from->label ? from->label : from->op->name;
    to->n_in = from->n_in;
    to->n_out = from->n_out;
    to->n_attr = from->n_attr;
    to->view = calloc(n + 1, sizeof *to->view);
    to->dim0 = calloc(2 * (size_t)n + 1, sizeof *to->dim0);
    to->attr = calloc(from->n_attr + (size_t)1, sizeof *to->attr);
    if (!to->view || !to->dim0 || !to->attr)
        return setun_fail(err, SETUN_NO_MEMORY, "trace: no memory for a program");
    to->room = to->dim0 + n;
    for (uint32_t i = 0; i < n; i++) {
        const setun_operand *o = i < from->n_in ? &from->in[i] : &from->out[i - from->n_in];
        if (!o->buffer || o->offset < 0 || o->offset > o->buffer->bytes ||
            o->shape.dim[0] < -N_SYMBOLS)
            return setun_fail(err, SETUN_BAD_ARG, "trace: %s: operand %u is not in a buffer",
                              to->label, (unsigned)i);
        to->view[i] = o->shape;
        to->view[i].data = o->buffer->data + o->offset;
        to->dim0[i] = o->shape.dim[0];
        to->room[i] = o->buffer->bytes - o->offset;
    }
    if (from->n_attr)
        memcpy(to->attr, from->attr, from->n_attr * sizeof *to->attr);
    return SETUN_OK;
}

static setun_status program_new(setun_context *c, const setun_step *from, uint32_t n,
                                setun_program **out, setun_error *err)
{
    setun_program *p = calloc(1, sizeof *p);
    setun_status s = SETUN_OK;
    *out = NULL;
    if (p)
        p->step = calloc((size_t)n + 1, sizeof *p->step);
    if (!p || !p->step) {
        program_free(p);
        return setun_fail(err, SETUN_NO_MEMORY, "trace: no memory for a program");
    }
    p->host = c->host;
    p->n = n;
    /* A newer host has longer steps: walk by the size they state, not by ours. */
    for (uint32_t i = 0; i < n && s == SETUN_OK; i++)
        s = copy_step(
            &p->step[i],
            (const setun_step *)(const void *)((const char *)from + (size_t)i * from->size), err);
    if (s != SETUN_OK) {
        program_free(p);
        return s;
    }
    *out = p;
    return SETUN_OK;
}

/* "x 3x256": sizes of one operand, behind what text holds already. */
static void print_shape(char *text, size_t cap, const char *name, const setun_view *v)
{
    size_t n = strlen(text);
    (void)snprintf(text + n, cap - n, " %s", name);
    for (uint32_t i = 0; i < v->rank; i++) {
        n = strlen(text);
        (void)snprintf(text + n, cap - n, "%c%lld", i ? 'x' : ' ', (long long)v->dim[i]);
    }
}

static setun_status bind(step *s, const int64_t *size, uint32_t n_size, setun_error *err)
{
    for (uint32_t i = 0; i < s->n_in + s->n_out; i++) {
        if (s->view[i].rank && s->dim0[i] < 0) {
            if (-1 - s->dim0[i] >= (int64_t)n_size)
                return setun_fail(err, SETUN_BAD_ARG, "trace: %s: a symbolic size was not given",
                                  s->label);
            s->view[i].dim[0] = size[-1 - s->dim0[i]];
        }
        if (setun_view_bytes(&s->view[i]) > s->room[i])
            return setun_fail(err, SETUN_BAD_ARG,
                              "trace: %s: operand %u does not fit into its buffer", s->label,
                              (unsigned)i);
    }
    return SETUN_OK;
}

static setun_status program_run(setun_program *p, const int64_t *size, uint32_t n_size,
                                setun_error *err)
{
    for (uint32_t i = 0; i < p->n; i++) {
        step *s = &p->step[i];
        setun_status status = bind(s, size, n_size, err);
        if (status != SETUN_OK)
            return status;
        setun_args args = { sizeof args, s->n_in, s->n_out,          s->n_attr,
                            s->op,       s->view, s->view + s->n_in, s->attr, NULL };
        setun_error why = { 0, "no reason given" };
        int64_t start = now_ns();
        status = s->op->eval(&args, &why);
        int64_t took = now_ns() - start;
        if (status != SETUN_OK)
            return setun_fail(err, status < 0 ? status : SETUN_FAILED, "%s: %s", s->label,
                              why.text);
        if (p->ns)
            p->ns[i] += took;
        char text[512];
        (void)snprintf(text, sizeof text, "trace: step %u %s:", (unsigned)i, s->label);
        for (uint32_t k = 0; k < s->n_in + s->n_out; k++)
            print_shape(text, sizeof text,
                        k < s->n_in ? s->op->in[k].name : s->op->out[k - s->n_in].name,
                        &s->view[k]);
        size_t n = strlen(text);
        (void)snprintf(text + n, sizeof text - n, ", %lld us", (long long)(took / 1000));
        say(p->host, 1, text);
    }
    return SETUN_OK;
}

static void program_times(setun_program *p, int64_t *ns)
{
    p->ns = ns;
}

/* ---------------------------------------------------------------- the plugin */

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    tracer *t = malloc(sizeof *t);
    *self = t;
    if (!t)
        return setun_fail(err, SETUN_NO_MEMORY, "trace: no memory");
    t->host = host; /* lives until fini */
    return SETUN_OK;
}

static void fini(void *self)
{
    free(self);
}

static const void *extension(void *self, const char *id)
{
    static const setun_backend_v1 table = {
        .size = sizeof table,
        .describe = describe, .supports = supports,
        .context_new = context_new, .context_free = context_free,
        .buffer_new = buffer_new, .buffer_wrap = buffer_wrap, .buffer_free = buffer_free,
        .buffer_write = buffer_write, .buffer_read = buffer_read, .buffer_map = buffer_map,
        .program_new = program_new, .program_free = program_free, .program_run = program_run,
        .program_times = program_times, /* no wait: program_run returns when all is done */
    };
    (void)self;
    return strcmp(id, SETUN_EXT_BACKEND) ? NULL : &table;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, SETUN_ABI, "org.setun.sample_backend", "1", __VERSION__, init,
        fini,          extension,
    };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}

/* backends/cpu/cpu.c -- the cpu backend: compiled kernels on a pool of threads.
 *
 * Contexts, programs and the plugin table; the running itself is in run.c, buffers in hostmem.c.
 * Kernels come with the steps: this backend knows no compiler.  A step without a kernel is run by
 * its eval on one thread, slowly and correctly, and the log says so once. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "backends/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/str.h"

typedef struct backend {
    const setun_host *host;
} backend;

static setun_status describe(void *self, setun_backend_info *info)
{
    (void)self;
    info->wants_code = 1;
    info->name = "cpu";
    info->doc = "kernels compiled for this machine, on all its cores";
    return SETUN_OK;
}

static setun_status supports(void *self, const setun_step *step, double *seconds)
{
    (void)self;
    ST_TRY(st_steps_cost(step, seconds));
    /* Before kernels are made, a lower is the promise of one. */
    if (!step->code && !SETUN_HAS(setun_op, step->op, lower))
        *seconds *= 20;
    return SETUN_OK;
}

/* n_threads < 1: one per core. */
static setun_status context_new(void *self, int32_t n_threads, setun_context **out,
                                setun_error *err)
{
    *out = NULL;
    if (n_threads < 1) {
        st_cpu cpu;
        st_cpu_detect(&cpu);
        n_threads = cpu.n_cores;
    }
    setun_context *c = calloc(1, sizeof *c);
    if (!c)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a context of the cpu backend");
    c->host = ((const backend *)self)->host;
    c->n_threads = n_threads;
    setun_status s = st_pool_new(&c->pool, n_threads, 1, err);
    if (s != SETUN_OK) {
        free(c);
        return s;
    }
    *out = c;
    return SETUN_OK;
}

static void context_free(setun_context *c)
{
    if (!c)
        return;
    st_pool_free(c->pool);
    free(c);
}

#define SHORT_OPS 1e6 /* a fraction of a millisecond */

/* An operator that says itself that it has little to do for a token needs no kernel. */
static int is_short(const setun_args *a)
{
    setun_cost c = { 0, 0, 0 };
    if (!SETUN_HAS(setun_op, a->op, cost))
        return 0;
    a->op->cost(a, &c);
    return c.int_ops + c.float_ops < SHORT_OPS;
}

/* Which operators run without a kernel, each named once in the life of the context. */
static void report_slow(setun_context *c, const st_steps *s)
{
    char text[256];
    for (uint32_t i = 0; i < s->n; i++) {
        const setun_op *op = s->step[i].args.op;
        uint32_t k = 0;
        while (k < c->n_reported && c->reported[k] != op)
            k++;
        if (s->step[i].code || k < c->n_reported || k == MOST_REPORTED || is_short(&s->step[i].args))
            continue;
        c->reported[c->n_reported++] = op;
        (void)snprintf(
            text, sizeof text,
            "cpu: %s has no kernel; its scalar definition runs on one thread (first: %s)",
            op->name ? op->name : "an operator without a name", s->step[i].label);
        if (c->host && c->host->log)
            c->host->log(c->host->context, 1, text);
    }
}

static void program_free(setun_program *p)
{
    if (!p)
        return;
    st_steps_fini(&p->steps);
    free(p->scratch);
    free(p->arrived);
    free(p->taken);
    free(p);
}

static setun_status new_scratch(setun_program *p, setun_error *err)
{
    /* Two lines of padding keep neighbours from sharing one, prefetched pairs included. */
    int64_t n = p->context->n_threads, bytes;
    p->scratch_step = (p->steps.scratch_bytes + 63) / 64 * 64 + 128;
    if (st_mul_i64(p->scratch_step, n, &bytes) == 0)
        p->scratch = aligned_alloc(64, (size_t)bytes);
    if (!p->scratch)
        return st_fail(err, SETUN_NO_MEMORY,
                       "no memory for %lld bytes of scratch on each of %lld threads",
                       (long long)p->steps.scratch_bytes, (long long)n);
    memset(p->scratch, 0, (size_t)bytes);
    return SETUN_OK;
}

static setun_status program_new(setun_context *c, const setun_step *step, uint32_t n,
                                setun_program **out, setun_error *err)
{
    *out = NULL;
    setun_program *p = calloc(1, sizeof *p);
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a program");
    p->context = c;
    setun_status s = st_steps_init(&p->steps, step, n, 1, err);
    if (s == SETUN_OK)
        s = new_scratch(p, err);
    if (s == SETUN_OK && !(p->arrived = calloc(2 * (size_t)c->n_threads, sizeof *p->arrived)))
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for a program");
    if (s == SETUN_OK && !(p->taken = aligned_alloc(64, ((size_t)n + 1) * (size_t)c->n_threads * sizeof *p->taken)))
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for a program");
    if (s != SETUN_OK) {
        program_free(p);
        return s;
    }
    report_slow(c, &p->steps);
    *out = p;
    return SETUN_OK;
}

static void program_times(setun_program *p, int64_t *ns)
{
    p->ns = ns;
}

static void program_waits(setun_program *p, int64_t *ns)
{
    p->waits = ns;
}

static void program_observe(setun_program *p, setun_observe_fn *fn, void *user)
{
    p->observe = fn;
    p->observer = user;
}

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    backend *b = calloc(1, sizeof *b);
    *self = b;
    if (!b)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the cpu backend");
    b->host = host;
    return SETUN_OK;
}

static void fini(void *self)
{
    free(self);
}

static const void *extension(void *self, const char *id)
{
    static const setun_backend_v1 table = {
        sizeof table,    0,
        describe,        supports,
        context_new,     context_free,
        st_hostmem_new,  st_hostmem_wrap,
        st_hostmem_free, st_hostmem_write,
        st_hostmem_read, st_hostmem_map,
        program_new,     program_free,
        st_cpu_run,      NULL,
        program_times,   program_waits,
        program_observe,
    };
    (void)self;
    return strcmp(id, SETUN_EXT_BACKEND) ? NULL : &table;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, SETUN_ABI, "org.setun.cpu", SETUN_VERSION, ST_BUILD, init, fini, extension,
    };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}

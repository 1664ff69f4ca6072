/* backends/reference/reference.c -- the judge: every step by its operator's scalar eval.
 *
 * No kernels, no threads, no LLVM.  Slow, and right by definition: whatever another backend
 * computes is compared with this. */
#include <stdlib.h>
#include <string.h>

#include "backends/hostmem.h"
#include "backends/steps.h"
#include "base/clock.h"
#include "base/error.h"
#include "setun/plugin.h"

struct setun_context {
    int32_t reserved; /* there is nothing to remember; programs and buffers stand alone */
};

struct setun_program {
    st_steps          steps;
    int64_t          *ns;
    setun_observe_fn *observe;
    void             *observer;
};

static setun_status describe(void *self, setun_backend_info *info)
{
    (void)self;
    info->wants_code = 0;
    info->name = "reference";
    info->doc = "every operator's scalar definition on one thread; slow, the judge of all others";
    return SETUN_OK;
}

static setun_status supports(void *self, const setun_step *step, double *seconds)
{
    (void)self;
    ST_TRY(st_steps_cost(step, seconds));
    *seconds *= 20; /* scalar code against vectors */
    return SETUN_OK;
}

static setun_status context_new(void *self, int32_t n_threads, setun_context **c, setun_error *err)
{
    (void)self;
    (void)n_threads;
    *c = calloc(1, sizeof **c);
    return *c ? SETUN_OK
              : st_fail(err, SETUN_NO_MEMORY, "no memory for a context of the reference backend");
}

static void context_free(setun_context *c)
{
    free(c);
}

static setun_status program_new(setun_context *c, const setun_step *step, uint32_t n,
                                setun_program **out, setun_error *err)
{
    (void)c;
    *out = NULL;
    setun_program *p = calloc(1, sizeof *p);
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a program");
    setun_status s = st_steps_init(&p->steps, step, n, 0, err);
    if (s != SETUN_OK) {
        free(p);
        return s;
    }
    *out = p;
    return SETUN_OK;
}

static void program_free(setun_program *p)
{
    if (!p)
        return;
    st_steps_fini(&p->steps);
    free(p);
}

static setun_status program_run(setun_program *p, const int64_t *size, uint32_t n_size,
                                setun_error *err)
{
    ST_TRY(st_steps_bind(&p->steps, size, n_size, err));
    for (uint32_t i = 0; i < p->steps.n; i++) {
        int64_t start = p->ns ? st_now_ns() : 0;
        ST_TRY(st_steps_eval(&p->steps.step[i], err));
        if (p->ns)
            p->ns[i] += st_now_ns() - start;
        if (p->observe)
            p->observe(p->observer, i, &p->steps.step[i].args);
    }
    return SETUN_OK;
}

static void program_times(setun_program *p, int64_t *ns)
{
    p->ns = ns;
}

static void program_observe(setun_program *p, setun_observe_fn *fn, void *user)
{
    p->observe = fn;
    p->observer = user;
}

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    (void)host;
    (void)err;
    *self = NULL;
    return SETUN_OK;
}

static void fini(void *self)
{
    (void)self;
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
        program_run,     NULL,
        program_times,   NULL,
        program_observe,
    };
    (void)self;
    return strcmp(id, SETUN_EXT_BACKEND) ? NULL : &table;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, SETUN_ABI, "org.setun.reference", SETUN_VERSION, ST_BUILD, init,
        fini,          extension,
    };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}

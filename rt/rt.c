/* rt/rt.c -- a bundle that runs: its buffers, its two programs, one position.  See setun/rt.h.
 *
 * The programs are the plan's steps as the cpu backend takes them, so this is the engine's own code: what is missing here is
 * all that comes before (files, scripts, rules, lowering, compiling).  A prompt is cut as a session cuts it: up to n_batch
 * tokens at a time, and one alone with its logits by the program for one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/hash.h"
#include "codegen/loader.h"
#include "rt/bundle.h"
#include "setun/plugin.h"
#include "setun/rt.h"

struct setun_rt {
    st_bundle               bundle;
    st_loader              *loader;
    const setun_plugin     *plugin;
    void                   *self;  /* the backend's */
    const setun_backend_v1 *api;
    setun_context          *context;
    setun_buffer          **buffer;
    setun_program          *program[ST_RT_N_PROGRAM];
    int32_t                *positions; /* of one chunk */
    int32_t                 n_threads;
    int64_t                 position;
};

/* ---------------------------------------------------------------- opening */

int32_t setun_rt_is_bundle(const char *path) { return st_bundle_is(path); }

static setun_status start_backend(setun_rt *rt, int32_t n_threads, setun_error *err)
{
    static const setun_host host = { sizeof host, SETUN_ABI, SETUN_VERSION, "setun-rt", NULL, NULL, NULL };
    st_cpu cpu;
    const setun_plugin *cpu_backend = setun_plugin_entry(SETUN_ABI);
    if (n_threads < 0 || n_threads > 1024)
        return st_fail(err, SETUN_BAD_ARG, "%d threads asked for; 1 to 1024 are possible", n_threads);
    if (!n_threads) {
        st_cpu_detect(&cpu);
        n_threads = cpu.n_cores;
    }
    rt->n_threads = n_threads;
    ST_TRY(cpu_backend->init(&host, &rt->self, err));
    rt->plugin = cpu_backend;
    rt->api = cpu_backend->extension(rt->self, SETUN_EXT_BACKEND);
    return rt->api->context_new(rt->self, n_threads, &rt->context, err);
}

static setun_status load_kernels(setun_rt *rt, setun_error *err)
{
    st_bundle *b = &rt->bundle;
    st_image *image = calloc((size_t)b->n_kernel + 1, sizeof *image);
    setun_kernel_fn **fn = calloc((size_t)b->n_kernel + 1, sizeof *fn);
    setun_status s = image && fn ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its kernels", b->path);
    for (uint32_t i = 0; i < b->n_kernel && s == SETUN_OK; i++)
        image[i] = b->kernel[i].image;
    if (s == SETUN_OK)
        s = st_loader_new(&rt->loader, err);
    if (s == SETUN_OK && (s = st_loader_load(rt->loader, image, (int32_t)b->n_kernel, fn, err)) != SETUN_OK)
        st_wrap(err, "%s", b->path);
    for (uint32_t i = 0; i < b->n_kernel && s == SETUN_OK; i++)
        b->kernel[i].code.fn = fn[i];
    free(image);
    free(fn);
    return s;
}

static setun_status make_buffers(setun_rt *rt, setun_error *err)
{
    const st_bundle *b = &rt->bundle;
    rt->buffer = st_arena_array(b->arena, b->n_buffer, sizeof *rt->buffer);
    rt->positions = st_arena_array(b->arena, b->n_batch, sizeof *rt->positions);
    if (!rt->buffer || !rt->positions)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its buffers", b->path);
    for (uint32_t i = 0; i < b->n_buffer; i++) {
        const st_rt_buffer *f = &b->buffer[i];
        setun_status s = f->kind == ST_BUFFER_CONST
            ? rt->api->buffer_wrap(rt->context, b->section[ST_BUNDLE_WEIGHTS] + f->at, f->bytes, &rt->buffer[i], err)
            : rt->api->buffer_new(rt->context, f->bytes, &rt->buffer[i], err);
        if (s != SETUN_OK)
            return st_wrap(err, "%s", b->path), s;
    }
    return SETUN_OK;
}

static setun_status make_programs(setun_rt *rt, setun_error *err)
{
    for (int i = 0; i < ST_RT_N_PROGRAM; i++) {
        const st_rt_program *p = &rt->bundle.program[i];
        const uint32_t *buffer = p->buffer;
        for (uint32_t k = 0; k < p->n; k++) {
            /* The reader made the operands, one behind the other: outputs follow inputs. */
            setun_operand *o = (setun_operand *)(uintptr_t)p->step[k].in;
            for (uint32_t j = 0; j < p->step[k].n_in + p->step[k].n_out; j++)
                o[j].buffer = rt->buffer[*buffer++];
        }
        setun_status s = rt->api->program_new(rt->context, p->step, p->n, &rt->program[i], err);
        if (s != SETUN_OK)
            return st_wrap(err, "%s", rt->bundle.path), s;
    }
    return SETUN_OK;
}

setun_status setun_rt_open(setun_rt **out, const char *path, int32_t n_threads, setun_error *err)
{
    setun_rt *rt = calloc(1, sizeof *rt);
    *out = NULL;
    if (!rt)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", path);
    setun_status s = st_bundle_open(&rt->bundle, path, err);
    if (s == SETUN_OK)
        s = st_bundle_fits(&rt->bundle, err);
    if (s == SETUN_OK)
        s = start_backend(rt, n_threads, err);
    if (s == SETUN_OK)
        s = load_kernels(rt, err);
    if (s == SETUN_OK)
        s = make_buffers(rt, err);
    if (s == SETUN_OK)
        s = make_programs(rt, err);
    if (s != SETUN_OK) {
        setun_rt_close(rt);
        return s;
    }
    *out = rt;
    return SETUN_OK;
}

void setun_rt_close(setun_rt *rt)
{
    if (!rt)
        return;
    for (int i = 0; i < ST_RT_N_PROGRAM; i++)
        if (rt->program[i])
            rt->api->program_free(rt->program[i]);
    for (uint32_t i = 0; rt->buffer && i < rt->bundle.n_buffer; i++)
        if (rt->buffer[i])
            rt->api->buffer_free(rt->buffer[i]);
    if (rt->context)
        rt->api->context_free(rt->context);
    if (rt->plugin)
        rt->plugin->fini(rt->self);
    st_loader_free(rt->loader);
    st_bundle_close(&rt->bundle);
    free(rt);
}

const st_bundle *st_rt_bundle(const setun_rt *rt) { return &rt->bundle; }

/* ---------------------------------------------------------------- feeding */

static setun_status check(const setun_rt *rt, const int32_t *tokens, int64_t n, setun_error *err)
{
    const st_bundle *b = &rt->bundle;
    if (n < 1)
        return st_fail(err, SETUN_BAD_ARG, "no tokens to feed");
    if (n > b->n_ctx - rt->position)
        return st_fail(err, SETUN_FULL, "no room for %lld tokens: the context holds %lld positions and %lld are taken",
                       (long long)n, (long long)b->n_ctx, (long long)rt->position);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= b->n_vocab)
            return st_fail(err, SETUN_BAD_ARG, "token %d is outside the vocabulary of %lld", tokens[i], (long long)b->n_vocab);
    return SETUN_OK;
}

/* Up to n_batch tokens; n_out: 1 if the last one's logits are wanted. */
static setun_status run_chunk(setun_rt *rt, int which, const int32_t *tokens, int64_t n, int64_t n_out, setun_error *err)
{
    const int32_t output = (int32_t)(n - 1);
    const int64_t size[SETUN_N_SYMBOLS] = { n, n_out };
    for (int64_t i = 0; i < n; i++)
        rt->positions[i] = (int32_t)(rt->position + i);
    ST_TRY(rt->api->buffer_write(rt->buffer[rt->bundle.input[ST_RT_TOKENS]], 0, tokens, 4 * n, err));
    ST_TRY(rt->api->buffer_write(rt->buffer[rt->bundle.input[ST_RT_POSITIONS]], 0, rt->positions, 4 * n, err));
    ST_TRY(rt->api->buffer_write(rt->buffer[rt->bundle.input[ST_RT_OUTPUTS]], 0, &output, sizeof output, err));
    ST_TRY(rt->api->program_run(rt->program[which], size, SETUN_N_SYMBOLS, err));
    rt->position += n;
    return SETUN_OK;
}

setun_status setun_rt_feed(setun_rt *rt, const int32_t *tokens, int64_t n, const float **logits, setun_error *err)
{
    int64_t start = rt->position, chunk;
    int which = ST_RT_MANY;
    if (logits)
        *logits = NULL;
    ST_TRY(check(rt, tokens, n, err));
    for (int64_t done = 0; done < n; done += chunk) {
        chunk = n - done < rt->bundle.n_batch ? n - done : rt->bundle.n_batch;
        int last = logits && done + chunk == n;
        /* The program for one token always makes logits. */
        which = last && chunk == 1 ? ST_RT_ONE : ST_RT_MANY;
        setun_status s = run_chunk(rt, which, tokens + done, chunk, last, err);
        if (s != SETUN_OK) {
            rt->position = start;
            return s;
        }
    }
    if (logits)
        *logits = (const float *)(const void *)((const char *)rt->api->buffer_map(rt->buffer[0]) + rt->bundle.program[which].logits);
    return SETUN_OK;
}

int64_t setun_rt_position(const setun_rt *rt) { return rt->position; }

setun_status setun_rt_rewind(setun_rt *rt, int64_t p, setun_error *err)
{
    if (p < 0 || p > rt->position)
        return st_fail(err, SETUN_BAD_ARG, "cannot rewind to position %lld of %lld", (long long)p, (long long)rt->position);
    rt->position = p; /* later rows of the caches are never read before they are written again */
    return SETUN_OK;
}

/* ---------------------------------------------------------------- small questions */

void setun_rt_get_info(const setun_rt *rt, setun_rt_info *info)
{
    const st_bundle *b = &rt->bundle;
    uint32_t size = info->size;
    const setun_rt_info all = { size, rt->n_threads, b->name, b->made_by, b->target.triple, b->target.cpu, b->target.features,
                                b->n_ctx, b->n_batch, b->n_vocab, b->bytes[ST_BUNDLE_WEIGHTS] };
    memcpy(info, &all, size < sizeof all ? size : sizeof all);
}

int32_t setun_rt_is_end(const setun_rt *rt, int32_t token)
{
    for (int32_t i = 0; i < rt->bundle.n_end; i++)
        if (rt->bundle.end[i] == token)
            return 1;
    return 0;
}

int32_t setun_rt_best(const setun_rt *rt, const float *logits)
{
    int32_t best = 0;
    float most = -INFINITY; /* a NaN is never it */
    for (int64_t i = 0; i < rt->bundle.n_vocab; i++)
        if (logits[i] > most) {
            most = logits[i];
            best = (int32_t)i;
        }
    return best;
}

uint64_t setun_rt_hash(uint64_t h, const float *values, int64_t n) { return st_hash_floats(h, values, n); }

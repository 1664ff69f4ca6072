/* runtime/limits.c -- what the machine can do, measured with loops generated for the same target as
 * the kernels, so that a share of the limit means something.
 *
 * read     every thread streams its part of a large array and folds it into registers: asking for four pages
 *          side by side, as the kernels do, and in plain order, as most programs that measure memory do
 * int8     independent chains of the best multiply-add idiom, all in registers
 * float    independent chains of a multiplication and an addition, each rounded, as operators round
 * barrier  the thread pool's own barrier
 *
 * All of it with 1, 2, 4, ... threads and with as many as were asked for. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pool.h"
#include "runtime/kernels.h"

#define READ_BYTES ((int64_t)512 << 20)
#define READ_STEP 4096 /* bytes a loop iteration and a grid unit cover */
#define CHAINS 10
#define DOT_STEPS (1 << 20)
#define TILE_STEPS (1 << 15)
#define TILE_MACS (16 * 16 * 64)
#define FLOAT_STEPS (1 << 19)
#define REPEATS 9

/* Fold bytes [begin, end) * READ_STEP of argument 0 into one word of argument 1. */
static void read_all(setun_kernel *k, int hints)
{
    uint32_t lanes = (uint32_t)k_info(k, K_VECTOR_BYTES) / 4;
    k_val p = k_arg(k, 0, K_I32), acc[4];
    k_grid(k, 0, 0, READ_STEP / 4);
    for (int i = 0; i < 4; i++)
        acc[i] = k_var(k, k_int(k, K_TYPE(K_I32, lanes), 0));
    k_val u = k_for(k, k_begin(k), k_end(k), 1);
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, READ_STEP / 4), 4 * lanes);
    k_val at = k_add(k, k_muli(k, u, READ_STEP / 4), i);
    for (int64_t line = 0; hints && line < 4 * lanes * 4; line += 64)
        k_fetch_ahead(k, p, k_addi(k, k_shl(k, at, 2), line), 4 * K_PAGE);
    for (int j = 0; j < 4; j++)
        k_set(k, acc[j], k_xor(k, k_get(k, acc[j]), k_load(k, p, k_addi(k, at, (int64_t)lanes * j), lanes)));
    k_stop(k);
    k_stop(k);
    k_val all = k_get(k, acc[0]);
    for (int j = 1; j < 4; j++)
        all = k_xor(k, all, k_get(k, acc[j]));
    k_store(k, k_arg(k, 1, K_I32), k_begin(k), k_rsum(k, all));
}

static setun_status lower_read(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)a; (void)err;
    read_all(k, 1);
    return SETUN_OK;
}

static setun_status lower_read_plain(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)a; (void)err;
    read_all(k, 0);
    return SETUN_OK;
}

/* CHAINS independent accumulators, one idiom each per step; operands come from memory once. */
static setun_status lower_dot(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int dot4 = k_info(k, K_HAS_DOT4) != 0;
    uint32_t bytes = (uint32_t)k_info(k, K_VECTOR_BYTES);
    k_type t = dot4 ? K_TYPE(K_I32, bytes / 4) : K_TYPE(K_I16, bytes / 2);
    k_val zero = k_i64(k, 0), p = k_arg(k, 0, K_I8), acc[CHAINS];
    (void)a; (void)err;
    k_grid(k, 0, 0, 4096);
    k_val w = k_and(k, k_load(k, p, zero, bytes), k_int(k, K_TYPE(K_I8, bytes), 3)), x = k_load(k, p, k_i64(k, 64), bytes);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = k_var(k, k_int(k, t, i));
    k_val n = k_for(k, zero, k_i64(k, DOT_STEPS), 1);
    (void)n;
    for (int i = 0; i < CHAINS; i++) {
        k_val v = k_get(k, acc[i]);
        /* Without dot4 the operand depends on the chain, or the product would leave the loop. */
        k_set(k, acc[i], dot4 ? k_dot4(k, v, w, x) : k_dot2(k, w, k_cast(k, v, K_TYPE(K_I8, bytes))));
    }
    k_stop(k);
    k_val sum = k_get(k, acc[0]);
    for (int i = 1; i < CHAINS; i++)
        sum = k_xor(k, sum, k_get(k, acc[i]));
    k_store(k, k_arg(k, 1, K_I8), k_muli(k, k_begin(k), 64), k_cast(k, sum, K_TYPE(K_I8, bytes)));
    return SETUN_OK;
}

/* Four tiles of sums, so that no product waits for the one before. */
static setun_status lower_tiles(setun_kernel *k, const setun_args *a, setun_error *err)
{
    k_val zero = k_i64(k, 0), p = k_arg(k, 0, K_I8);
    (void)a; (void)err;
    k_grid(k, 0, 0, 4096);
    for (int i = 0; i < 4; i++) {
        k_tile_zero(k, i);
        k_tile_load(k, 4 + i, p, zero, 64);
    }
    (void)k_for(k, zero, k_i64(k, TILE_STEPS), 1);
    for (int i = 0; i < 4; i++)
        k_tile_dot(k, i, 4 + i / 2, 6 + i % 2);
    k_stop(k);
    k_tile_store(k, 0, k_arg(k, 1, K_I8), k_muli(k, k_begin(k), 1024), 64);
    return SETUN_OK;
}

/* v = v / 2 + 1: no number becomes large, small or special. */
static setun_status lower_float(setun_kernel *k, const setun_args *a, setun_error *err)
{
    uint32_t lanes = (uint32_t)k_info(k, K_VECTOR_BYTES) / 4;
    k_val zero = k_i64(k, 0), p = k_arg(k, 1, K_F32), half = k_f32v(k, 0.5f, lanes), one = k_f32v(k, 1.0f, lanes), acc[CHAINS];
    (void)a; (void)err;
    k_grid(k, 0, 0, 4096);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = k_var(k, k_f32v(k, (float)i, lanes));
    k_val n = k_for(k, zero, k_i64(k, FLOAT_STEPS), 1);
    (void)n;
    for (int i = 0; i < CHAINS; i++)
        k_set(k, acc[i], k_add(k, k_mul(k, k_get(k, acc[i]), half), one));
    k_stop(k);
    k_val sum = k_get(k, acc[0]);
    for (int i = 1; i < CHAINS; i++)
        sum = k_add(k, sum, k_get(k, acc[i]));
    k_store(k, p, k_muli(k, k_begin(k), 16), sum);
    return SETUN_OK;
}

static setun_status make(st_kernels *k, setun_status (*lower)(setun_kernel *, const setun_args *, setun_error *),
                         const char *name, const setun_view view[2], setun_code *code, setun_error *err)
{
    setun_op op = {.size = sizeof op, .name = name, .n_in = 1, .n_out = 1, .lower = lower};
    setun_view v[2] = {view[0], view[1]};
    setun_args a = {.size = sizeof a, .n_in = 1, .n_out = 1, .op = &op, .in = &v[0], .out = &v[1]};
    st_kir *kir;
    setun_kernel_fn *fn;
    int cached;
    ST_TRY(st_kir_lower(&kir, &a, &k->engine->target, k->arena, err));
    setun_status s = st_kernels_compile(k, kir, name, &fn, &cached, err);
    if (s == SETUN_OK)
        st_kernel_code(kir, fn, code);
    return s == SETUN_DECLINED ? SETUN_OK : s; /* there is no compiler: what is not known is not measured */
}

typedef struct job {
    st_pool   *pool;
    setun_code code;
    void      *arg[2];
    int64_t    units, rounds;
} job;

static void run_kernel(void *user, int32_t worker)
{
    job *j = user;
    int64_t n = st_pool_size(j->pool);
    setun_launch l = {j->arg, NULL, NULL};
    setun_tile t = {j->units * worker / n, j->units * (worker + 1) / n, NULL};
    j->code.fn(&l, &t);
}

static void run_barriers(void *user, int32_t worker)
{
    job *j = user;
    for (int64_t i = 0; i < j->rounds; i++)
        st_pool_barrier(j->pool, worker);
}

/* Least nanoseconds of REPEATS runs after one to warm up: a limit is what the machine can do, and a
 * neighbour on a shared host only ever makes it look smaller. */
static double best(job *j, void (*fn)(void *, int32_t))
{
    int64_t least = INT64_MAX;
    st_pool_run(j->pool, fn, j);
    for (int i = 0; i < REPEATS; i++) {
        int64_t t = st_now_ns();
        st_pool_run(j->pool, fn, j);
        t = st_now_ns() - t;
        least = t < least ? t : least;
    }
    return (double)(least > 0 ? least : 1);
}

/* What is run: kernels for the largest number of threads serve smaller ones too. */
typedef struct loops {
    setun_code read, plain, int8, floats; /* fn NULL: there is none */
    double     int8_macs;          /* of one thread */
} loops;

static setun_status make_loops(st_kernels *k, int32_t n_threads, loops *c, setun_error *err)
{
    const setun_view words[2] = {{NULL, SETUN_I32, 1, {READ_BYTES / 4, 1, 1, 1}}, {NULL, SETUN_I32, 1, {READ_BYTES / READ_STEP, 1, 1, 1}}};
    const setun_view bytes[2] = {{NULL, SETUN_I8, 1, {(int64_t)n_threads * 4096, 1, 1, 1}}, {NULL, SETUN_I8, 1, {READ_BYTES, 1, 1, 1}}};
    const setun_view floats[2] = {bytes[0], {NULL, SETUN_F32, 1, {READ_BYTES / 4, 1, 1, 1}}};
    if (!k->engine->compiles)
        return SETUN_OK;
    ST_TRY(make(k, lower_read, "limit_read", words, &c->read, err));
    ST_TRY(make(k, lower_read_plain, "limit_read_plain", words, &c->plain, err));
    ST_TRY(make(k, lower_float, "limit_float", floats, &c->floats, err));
    const st_target *t = &k->engine->target;
    if (t->tiles) {
        ST_TRY(make(k, lower_tiles, "limit_tiles", bytes, &c->int8, err));
        c->int8_macs = (double)TILE_STEPS * 4 * TILE_MACS;
    } else if (t->dot4 || t->dot2) {
        ST_TRY(make(k, lower_dot, "limit_dot", bytes, &c->int8, err));
        c->int8_macs = (double)DOT_STEPS * CHAINS * (double)t->vector_bytes;
    }
    return SETUN_OK;
}

static setun_status measure_at(const st_target *t, const loops *c, char *big, setun_limit *l, double *plain, setun_error *err)
{
    /* sums are left where the read loop leaves its own, past the array. */
    job j = {.arg = {big, big + READ_BYTES}, .rounds = 10000};
    ST_TRY(st_pool_new(&j.pool, l->n_threads, 1, err));
    l->barrier_ns = best(&j, run_barriers) / (double)j.rounds;
    if (c->read.fn) {
        j.code = c->read;
        j.units = READ_BYTES / READ_STEP;
        l->read_gb_s = (double)READ_BYTES / best(&j, run_kernel);
        j.code = c->plain;
        *plain = (double)READ_BYTES / best(&j, run_kernel);
    }
    j.units = l->n_threads;
    if (c->int8.fn) {
        j.code = c->int8;
        l->int8_gmac_s = c->int8_macs * (double)l->n_threads / best(&j, run_kernel);
    }
    if (c->floats.fn) {
        j.code = c->floats;
        l->float_gmac_s = (double)FLOAT_STEPS * CHAINS * (double)(t->vector_bytes / 4) * (double)l->n_threads / best(&j, run_kernel);
    }
    st_pool_free(j.pool);
    return SETUN_OK;
}

static setun_status measure(st_kernels *k, char *big, setun_limits *l, setun_error *err)
{
    loops c;
    const st_target *t = &k->engine->target;
    memset(&c, 0, sizeof c);
    ST_TRY(make_loops(k, l->n_threads, &c, err));
    for (int32_t n = 1; l->n_at < SETUN_MAX_LIMITS; n = 2 * n < l->n_threads ? 2 * n : l->n_threads) {
        setun_limit *at = &l->at[l->n_at++];
        at->n_threads = n;
        ST_TRY(measure_at(t, &c, big, at, &l->plain_gb_s[l->n_at - 1], err));
        l->read_gb_s = at->read_gb_s;
        l->int8_gmac_s = at->int8_gmac_s;
        l->float_gmac_s = at->float_gmac_s;
        l->barrier_ns = at->barrier_ns;
        if (n == l->n_threads)
            break;
    }
    if (t->tiles && c.int8.fn)
        (void)snprintf(l->int8_with, sizeof l->int8_with, "tiles");
    else if (c.int8.fn)
        (void)snprintf(l->int8_with, sizeof l->int8_with, "%s %d", t->dot4 ? "dot4" : "dot2", (int)t->vector_bytes);
    const st_cpu *cpu = &k->engine->cpu;
    l->cache_bytes = cpu->l2_bytes * (l->n_threads < cpu->n_cores ? l->n_threads : cpu->n_cores);
    l->all_cache_bytes = l->cache_bytes + cpu->l3_bytes;
    return SETUN_OK;
}

setun_status setun_limits_measure(const setun_options *o, int32_t n_threads, setun_limits *out, setun_error *err)
{
    st_engine *e;
    st_kernels *k;
    setun_limits l = {.size = out->size, .n_threads = n_threads};
    ST_TRY(st_engine_open(&e, o, err));
    int64_t extra = READ_BYTES / READ_STEP * 4 + 4096;
    char *big = aligned_alloc(4096, (size_t)(READ_BYTES + extra));
    setun_status s = big ? st_kernels_new(&k, e, e->arena, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to measure limits");
    if (s == SETUN_OK) {
        memset(big, 1, (size_t)(READ_BYTES + extra)); /* real pages, not the shared zero page */
        s = measure(k, big, &l, err);
    }
    free(big);
    st_engine_close(e);
    memcpy(out, &l, l.size < sizeof l ? l.size : sizeof l);
    return s;
}

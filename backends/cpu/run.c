/* backends/cpu/run.c -- one run of a program: the workers walk its steps together.
 *
 *     worker 0   |units 0..k |   |eval     |   |units 0..m |
 *     worker 1   |units k..n |   |  (idle) |   |units m..n |
 *                         barrier       barrier
 *
 * The pool is entered once.  Units are cut into one contiguous range per worker: ranges of weights stay
 * with the same core, token after token, and what a unit computes never depends on who runs it.  Where
 * it pays, the end of each range is left to whoever comes first: see run_shared.  Barriers stand only
 * where a step depends on one since the last barrier.
 * Nothing here allocates. */
#include <stdatomic.h>

#include "backends/cpu/cpu.h"
#include "base/clock.h"
#include "base/error.h"

#define NEVER UINT32_MAX
#define TAIL   8 /* a range's last part in so many is left to whoever comes first, */
#define PIECES 4 /* in so many pieces */
#define LEAST_SHARED (TAIL * PIECES) /* units of a worker: a piece has one at least */

typedef struct job {
    setun_program *p;
    setun_error   *err;       /* only worker 0, the caller's thread, runs what can fail */
    setun_status   status;    /* of the step that failed; worker 0's own */
    atomic_uint    failed_at; /* its number */
} job;

typedef struct range {
    int64_t begin, end;
} range;

/* The first `rest` of the workers take one unit more; the ranges are contiguous and cover every unit.  Who is
 * first goes round between barriers: else few units of many steps would leave the same ones waiting. */
static range range_of(const setun_program *p, const st_bound *b, int32_t worker)
{
    int64_t n = p->context->n_threads, each = b->units / n, rest = b->units % n;
    int64_t place = (worker + b->turn) % n, begin = place * each + (place < rest ? place : rest);
    return (range){ begin, begin + each + (place < rest) };
}

static void run_range(const setun_program *p, const st_bound *b, int32_t worker, int64_t begin, int64_t end)
{
    setun_tile tile = { .begin = begin, .end = end, .scratch = p->scratch + worker * p->scratch_step };
    if (begin < end)
        b->code->fn(&b->launch, &tile);
}

/* A step of one row reads its weights once and prepares next to nothing, so that calls for short ranges cost
 * little.  Kernels of many rows rearrange those at every call: their ranges stay whole. */
static int is_shared(const setun_program *p, const st_bound *b)
{
    const setun_view *y = b->args.n_out ? &b->args.out[0] : NULL;
    int32_t n = p->context->n_threads;
    return n > 1 && b->code && y && y->rank && y->dim[0] == 1 && b->units / n >= LEAST_SHARED;
}

/* How many pieces of a worker's tail have been asked for. */
static atomic_uint *taken_of(const setun_program *p, uint32_t step, int32_t worker)
{
    return &p->taken[(int64_t)step * p->context->n_threads + worker].v;
}

/* Cores are not equally fast: some share theirs with other programs or machines, some are built
 * smaller.  Equal ranges make all wait for the slowest.  So each worker does its own range but for a
 * tail; then the pieces of its tail, unless others have taken them, and then theirs.
 *
 *     worker 0   |=====================|-|-|-|-|          each piece is taken by
 *     worker 1   |=====================|-|-|-|-|          adding 1 to its worker's count */
static void run_shared(const setun_program *p, uint32_t step, int32_t worker)
{
    const st_bound *b = &p->steps.step[step];
    for (int32_t i = 0, n = p->context->n_threads; i < n; i++) {
        int32_t who = (worker + i) % n;
        atomic_uint *taken = taken_of(p, step, who);
        range r = range_of(p, b, who);
        int64_t tail = (r.end - r.begin) / TAIL, from = r.end - tail, piece;
        if (i == 0)
            run_range(p, b, worker, r.begin, from);
        while ((piece = atomic_fetch_add_explicit(taken, 1, memory_order_relaxed)) < PIECES)
            run_range(p, b, worker, from + tail * piece / PIECES, from + tail * (piece + 1) / PIECES);
    }
}

static void run_units(const setun_program *p, uint32_t step, int32_t worker)
{
    const st_bound *b = &p->steps.step[step];
    if (is_shared(p, b)) {
        run_shared(p, step, worker);
        return;
    }
    range r = range_of(p, b, worker);
    run_range(p, b, worker, r.begin, r.end);
}

/* Worker 0 may be a step ahead of those who look at failed_at; they compare it with their own
 * place, so that all leave at the same one. */
static int failed_before(job *j, uint32_t i)
{
    return atomic_load_explicit(&j->failed_at, memory_order_relaxed) < i;
}

/* The barrier behind a step.  Worker 0 is still reading one set of arrivals while the others may
 * already write the next; a third one cannot begin before it has come along.  began: worker 0's time. */
static void meet(const setun_program *p, uint32_t step, int32_t worker, int64_t began)
{
    int32_t n = p->context->n_threads;
    int64_t *arrived = p->arrived + (step & 1) * (uint32_t)n, last = 0, sum = 0;
    if (p->waits && p->ns)
        arrived[worker] = st_now_ns();
    st_pool_barrier(p->context->pool, worker);
    if (!p->waits || !p->ns || worker != 0)
        return;
    for (int32_t i = 0; i < n; i++) {
        int64_t t = arrived[i] > began ? arrived[i] : began; /* what was early waited for the step before */
        last = t > last ? t : last;
        sum += t;
    }
    p->waits[step] += n * last - sum;
}

/* Step i is done by all.  Those who look at it do so while nothing runs. */
static void show(const setun_program *p, uint32_t step, int32_t worker)
{
    if (!p->observe)
        return;
    if (worker == 0)
        p->observe(p->observer, step, &p->steps.step[step].args);
    st_pool_barrier(p->context->pool, worker);
}

static void walk(void *arg, int32_t worker)
{
    job *j = (job *)arg;
    const setun_program *p = j->p;
    int apart = p->ns || p->observe; /* a barrier everywhere: each step's time and data are its own */
    int64_t then = p->ns && worker == 0 ? st_now_ns() : 0;

    for (uint32_t i = 0; i < p->steps.n; i++) {
        const st_bound *b = &p->steps.step[i];
        /* What follows an eval waits for it, dependent or not: it may have failed. */
        if (i > 0 && (b->ordered || !b[-1].code || apart)) {
            meet(p, i - 1, worker, then);
            if (failed_before(j, i))
                return;
        }
        if (p->ns && worker == 0 && i > 0) {
            int64_t now = st_now_ns();
            p->ns[i - 1] += now - then;
            then = now;
        }
        if (i > 0)
            show(p, i - 1, worker);
        if (b->code) {
            run_units(p, i, worker);
        } else if (worker == 0) {
            j->status = st_steps_eval(b, j->err);
            if (j->status != SETUN_OK)
                atomic_store_explicit(&j->failed_at, i, memory_order_relaxed);
        }
    }
    if (apart && p->steps.n) {
        meet(p, p->steps.n - 1, worker, then);
        if (failed_before(j, p->steps.n))
            return;
        if (p->ns && worker == 0)
            p->ns[p->steps.n - 1] += st_now_ns() - then;
        show(p, p->steps.n - 1, worker);
    }
}

setun_status st_cpu_run(setun_program *p, const int64_t *size, uint32_t n_size, setun_error *err)
{
    job j = { p, err, SETUN_OK, NEVER };
    ST_TRY(st_steps_bind(&p->steps, size, n_size, err));
    for (uint32_t i = 0; i < p->steps.n; i++)
        for (int32_t w = 0; w < p->context->n_threads && is_shared(p, &p->steps.step[i]); w++)
            atomic_store_explicit(taken_of(p, i, w), 0, memory_order_relaxed);
    st_pool_run(p->context->pool, walk, &j);
    return j.status;
}

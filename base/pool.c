/* base/pool.c -- worker threads.  See pool.h.
 *
 *   caller (worker 0)                      worker i
 *     store fn, arg                          spin on `call` for SPIN_NS, then park
 *     call++  (and wake the parked)          sees call, runs fn(arg, i)
 *     fn(arg, 0)                             done++
 *     spin until done == n - 1
 *
 * A token of a small model takes less than a millisecond and crosses a few hundred barriers, so
 * sleeping is only for the gaps between calls.  Every wait gives the core away after a while: with
 * more threads than cores the one that everybody waits for must get to run. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"

#define LINE 64
#define SPIN_NS                                                                                    \
    80000 /* the gap between two tokens is shorter, a wake-up call costs about as much */
#define SPINS_BEFORE_YIELD 4000
#define MOST_WORKERS 1024

/* Each on a line of its own: a spinning reader must not slow the writer of something else. */
typedef struct padded {
    _Alignas(LINE) atomic_uint v;
} padded;

typedef struct worker {
    _Alignas(LINE) st_pool *pool;
    pthread_t thread;
    int32_t   index;
    uint32_t  sense; /* the barrier phase this worker waits for next; its own */
} worker;

struct st_pool {
    padded call;    /* number of the present call */
    padded done;    /* workers finished with it, worker 0 not counted */
    padded arrived; /* at the barrier */
    padded phase;   /* of the barrier */
    padded parked;
    _Alignas(LINE) void (*fn)(void *, int32_t);
    void           *arg;
    int             stop;
    int32_t         n;
    uint32_t        patience; /* spins before a wait yields */
    int64_t         spin_ns;
    pthread_mutex_t lock; /* for parking */
    pthread_cond_t  wake;
    pthread_mutex_t users; /* of st_pool_lock */
    worker         *worker;
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static inline void wait_a_little(const st_pool *p, uint32_t *spins)
{
    if (++*spins < p->patience) {
        relax();
    } else {
        *spins = 0;
        (void)sched_yield();
    }
}

/* Returns when `call` has moved on from seen.
 *
 * Parking: the worker raises `parked` before it looks at `call` for the last time, the caller
 * raises `call` before it looks at `parked`, all sequentially consistent; so at least one sees the
 * other. */
static void wait_for_call(st_pool *p, uint32_t seen)
{
    int64_t until = p->spin_ns ? st_now_ns() + p->spin_ns : 0;
    for (uint32_t i = 1; p->spin_ns; i++) {
        if (atomic_load_explicit(&p->call.v, memory_order_acquire) != seen)
            return;
        relax();
        if (i % 64 == 0 && st_now_ns() > until)
            break;
    }
    (void)pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->parked.v, 1);
    while (atomic_load(&p->call.v) == seen)
        (void)pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->parked.v, 1);
    (void)pthread_mutex_unlock(&p->lock);
}

static void *work(void *arg)
{
    worker *w = (worker *)arg;
    st_pool *p = w->pool;
    for (uint32_t seen = 0;; ) {
        wait_for_call(p, seen);
        seen++;
        if (p->stop)
            return NULL;
        p->fn(p->arg, w->index);
        atomic_fetch_add_explicit(&p->done.v, 1, memory_order_release);
    }
}

static void start_call(st_pool *p)
{
    atomic_fetch_add(&p->call.v, 1);
    if (atomic_load(&p->parked.v)) {
        (void)pthread_mutex_lock(&p->lock);
        (void)pthread_cond_broadcast(&p->wake);
        (void)pthread_mutex_unlock(&p->lock);
    }
}

void st_pool_run(st_pool *p, void (*fn)(void *arg, int32_t worker), void *arg)
{
    uint32_t spins = 0;
    if (p->n == 1) {
        fn(arg, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->done.v, 0, memory_order_relaxed);
    start_call(p);
    fn(arg, 0);
    while (atomic_load_explicit(&p->done.v, memory_order_acquire) != (uint32_t)p->n - 1)
        wait_a_little(p, &spins);
}

void st_pool_barrier(st_pool *p, int32_t index)
{
    worker *w = &p->worker[index];
    uint32_t spins = 0, next = ++w->sense;
    if (p->n == 1)
        return;
    if (atomic_fetch_add_explicit(&p->arrived.v, 1, memory_order_acq_rel) == (uint32_t)p->n - 1) {
        /* Last one in: reset the count before the phase lets anyone reach the next barrier. */
        atomic_store_explicit(&p->arrived.v, 0, memory_order_relaxed);
        atomic_store_explicit(&p->phase.v, next, memory_order_release);
        return;
    }
    while (atomic_load_explicit(&p->phase.v, memory_order_acquire) != next)
        wait_a_little(p, &spins);
}

void st_pool_lock(st_pool *p) { (void)pthread_mutex_lock(&p->users); }
void st_pool_unlock(st_pool *p) { (void)pthread_mutex_unlock(&p->users); }

/* Stop and join workers 1..n-1. */
static void stop_workers(st_pool *p, int32_t n)
{
    p->stop = 1;
    start_call(p);
    for (int32_t i = 1; i < n; i++)
        (void)pthread_join(p->worker[i].thread, NULL);
}

static void release(st_pool *p)
{
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_mutex_destroy(&p->users);
    free(p->worker);
    free(p);
}

/* Binding is a favour to the caches: where the system refuses it, work goes on unbound.  The
 * caller's thread is not ours to bind, and threads it starts later would inherit that; so it stays
 * where it is now, and the others take the cores after that one. */
static void bind_workers(st_pool *p)
{
    st_cpu cpu;
    int here = sched_getcpu(), first = 0;
    st_cpu_detect(&cpu);
    if (p->n > cpu.n_cores)
        return;
    for (int32_t i = 0; i < cpu.n_cores; i++)
        if (cpu.core_pu[i] == here)
            first = i;
    for (int32_t i = 1; i < p->n; i++) {
        cpu_set_t one;
        int32_t pu = cpu.core_pu[(first + i) % cpu.n_cores];
        CPU_ZERO(&one);
        if (pu >= CPU_SETSIZE)
            return;
        CPU_SET((size_t)pu, &one);
        (void)pthread_setaffinity_np(p->worker[i].thread, sizeof one, &one);
    }
}

setun_status st_pool_new(st_pool **out, int32_t n, int pin, setun_error *err)
{
    cpu_set_t mine;
    *out = NULL;
    if (n < 1 || n > MOST_WORKERS)
        return st_fail(err, SETUN_BAD_ARG, "%d threads were asked for; 1 to %d are possible",
                       (int)n, MOST_WORKERS);
    st_pool *p = aligned_alloc(LINE, sizeof *p);
    worker *w = aligned_alloc(LINE, (size_t)n * sizeof *w);
    if (!p || !w) {
        free(p);
        free(w);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a pool of %d threads", (int)n);
    }
    memset(p, 0, sizeof *p);
    memset(w, 0, (size_t)n * sizeof *w);
    p->n = n;
    p->worker = w;
    p->patience = SPINS_BEFORE_YIELD;
    p->spin_ns = SPIN_NS;
    if (sched_getaffinity(0, sizeof mine, &mine) == 0 && n > CPU_COUNT(&mine)) {
        /* More threads than processors: a spinning one only keeps a working one from running. */
        p->patience = 64;
        p->spin_ns = 0;
    }
    if (pthread_mutex_init(&p->lock, NULL) || pthread_mutex_init(&p->users, NULL) ||
        pthread_cond_init(&p->wake, NULL)) {
        free(w);
        free(p);
        return st_fail(err, SETUN_IO, "the system refused a lock for the thread pool");
    }
    for (int32_t i = 0; i < n; i++) {
        w[i].pool = p;
        w[i].index = i;
        if (i > 0 && pthread_create(&w[i].thread, NULL, work, &w[i])) {
            stop_workers(p, i);
            release(p);
            return st_fail(err, SETUN_IO, "the system refused thread %d of %d", (int)i + 1, (int)n);
        }
    }
    if (pin && n > 1)
        bind_workers(p);
    *out = p;
    return SETUN_OK;
}

void st_pool_free(st_pool *p)
{
    if (!p)
        return;
    stop_workers(p, p->n);
    release(p);
}

int32_t st_pool_size(const st_pool *p)
{
    return p->n;
}

/* base/pool.h -- worker threads that run one function at a time together.
 *
 * The only user of <pthread.h>.  The caller is worker 0.  Workers spin for a while after each call,
 * then park.  Work is cut by index, so results never depend on the number of threads. */
#ifndef ST_POOL_H
#define ST_POOL_H

#include "setun/types.h"

typedef struct st_pool st_pool;

/* n >= 1 threads in all; pin != 0 binds each but the caller's to a core of its own.  [owner] */
setun_status st_pool_new(st_pool **p, int32_t n, int pin, setun_error *err);
void         st_pool_free(st_pool *p);
int32_t      st_pool_size(const st_pool *p);

/* Run fn(arg, worker) once on every worker; returns when all are done.  [owner] */
void st_pool_run(st_pool *p, void (*fn)(void *arg, int32_t worker), void *arg);

/* Inside fn: wait until every worker has come here.  All workers must call it equally often. */
void st_pool_barrier(st_pool *p, int32_t worker);

/* Inside fn: one worker at a time comes past the first before the last. */
void st_pool_lock(st_pool *p);
void st_pool_unlock(st_pool *p);

#endif

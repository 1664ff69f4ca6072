/* runtime/compile.c -- a model's kernels as code for another machine, and the record that says which.
 *
 * The model was loaded with a target: its kernels are lowered for it, and interpreted here.  What is
 * written is a cache as every Setun keeps one, of flat images that load without a compiler, and TARGET
 * (record.h).  Each file gets its name when it is complete, and TARGET is the last: a directory without it is
 * not one of kernels, and doing it again completes one that was interrupted.  A kernel that cannot be compiled
 * in reasonable time is left out, which is said, and interpreted where it is missing. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/model.h"
#include "runtime/record.h"

typedef struct job {
    const setun_model           *m;
    const setun_compile_options *o;
    st_cache                    *to;
    st_pool                     *pool;
    atomic_int                   next, stop; /* kernel to be taken; 1 + the first worker's that failed */
    int32_t                      done, left_out; /* kernels; under the pool's lock, as what follows */
    setun_status                 status;
    setun_error                  why;
} job;

/* SETUN_FULL: the kernel has no file; note says why. */
static setun_status compile_one(const job *j, const st_kernel *k, setun_error *note, setun_error *err)
{
    const st_engine *e = j->m->engine;
    char *object = NULL, *image = NULL;
    int64_t n = 0, image_n = 0;
    st_str key = { 0 };
    setun_status s = st_kernel_key(e, k->kir, k->symbol, &key, err);
    if (s == SETUN_OK)
        s = st_kernel_object(e, k->kir, k->symbol, &object, &n, note, err);
    if (s == SETUN_OK)
        s = st_image_link(object, n, k->symbol, &image, &image_n, err);
    if (s == SETUN_OK)
        s = st_cache_put(j->to, key.text, (int64_t)key.len, image, image_n, err);
    free(object);
    free(image);
    st_str_free(&key);
    return s;
}

static void compile_some(void *arg, int32_t worker)
{
    job *j = arg;
    (void)worker;
    for (int i; (i = atomic_fetch_add(&j->next, 1)) < j->m->kernels->n && !atomic_load(&j->stop);) {
        setun_error why = { 0, "" }, note = { 0, "" };
        setun_status s = compile_one(j, j->m->kernels->kernel[i], &note, &why);
        st_pool_lock(j->pool);
        if (note.text[0])
            st_logf(&j->m->engine->log, s == SETUN_FULL ? ST_LOG_WARN : ST_LOG_INFO, "%s", note.text);
        j->left_out += s == SETUN_FULL;
        if (s == SETUN_FULL)
            s = SETUN_OK;
        j->done += s == SETUN_OK;
        if (s == SETUN_OK && j->o->progress && j->o->progress(j->o->user, j->done, j->m->kernels->n))
            s = st_fail(&why, SETUN_CANCELLED, "%s: cancelled", j->o->out);
        if (s != SETUN_OK && !atomic_exchange(&j->stop, 1)) {
            j->status = s;
            j->why = why;
        }
        st_pool_unlock(j->pool);
    }
}

setun_status setun_model_compile(const setun_model *m, const setun_compile_options *o, setun_error *err)
{
    char record[4096];
    if (!o || !SETUN_HAS(setun_compile_options, o, out))
        return st_fail(err, SETUN_BAD_ARG, "setun_model_compile: options.size is too small, or there is no directory to write to");
    if (!m->engine->o.target)
        return st_fail(err, SETUN_BAD_ARG, "%s was loaded without a target: there is no machine to compile for", m->path);
    if (snprintf(record, sizeof record, "%s/TARGET", o->out) >= (int)sizeof record)
        return st_fail(err, SETUN_BAD_ARG, "%s: the path is too long", o->out);
    job j = { .m = m, .o = o };
    ST_TRY(st_cache_open(&j.to, o->out, err));
    (void)remove(record); /* from here on the directory is not complete */
    atomic_init(&j.next, 0);
    atomic_init(&j.stop, 0);
    j.status = st_pool_new(&j.pool, m->engine->o.n_threads, 0, &j.why);
    if (j.status == SETUN_OK)
        st_pool_run(j.pool, compile_some, &j);
    st_pool_free(j.pool);
    if (j.status == SETUN_OK)
        j.status = st_record_write(m->engine, m->kernels->n - j.left_out, o->out, &j.why);
    st_cache_close(j.to);
    if (j.status != SETUN_OK && err)
        *err = j.why;
    return j.status;
}

/* runtime/compile.c -- a model's kernels as code for another machine, and the record that says which.
 *
 * The model was loaded with a target: its kernels are lowered for it, and interpreted here.  What is
 * written is a directory:
 *
 *     TARGET                   text, one "key value" a line; see docs/isa.md
 *     NAME-0123456789abcdef.o  one object per kernel: position-independent, and calls nothing
 *
 * Each file gets its name when it is complete, and TARGET is the last: a directory without it is not
 * one of kernels. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "runtime/model.h"

typedef struct job {
    const setun_model           *m;
    const setun_compile_options *o;
    st_pool                     *pool;
    atomic_int                   next, stop; /* kernel to be taken; 1 + the first worker's that failed */
    int32_t                      done;       /* kernels whose file is there; under the pool's lock */
    setun_status                 status;
    setun_error                  why;
} job;

static setun_status write_file(const char *dir, const char *name, const char *end, const void *bytes, int64_t n, setun_error *err)
{
    char path[4096];
    st_out *f;
    if (snprintf(path, sizeof path, "%s/%s%s", dir, name, end) >= (int)sizeof path)
        return st_fail(err, SETUN_BAD_ARG, "%s: the path is too long", dir);
    ST_TRY(st_out_open(&f, path, 0, err));
    setun_status s = st_out_write(f, bytes, n, err);
    if (s != SETUN_OK) {
        st_out_abort(f);
        return s;
    }
    return st_out_commit(f, err);
}

static setun_status compile_one(const job *j, const st_kernel *k, setun_error *err)
{
    const st_engine *e = j->m->engine;
    const st_emit how = { ST_EMIT_OBJECT, 0, 0 };
    char *object = NULL;
    int64_t n = 0;
    ST_TRY(e->codegen->emit(k->kir, &e->target, k->symbol, &how, &object, &n, err));
    setun_status s = write_file(j->o->out, k->name, ".o", object, n, err);
    free(object);
    return s;
}

static void compile_some(void *arg, int32_t worker)
{
    job *j = arg;
    (void)worker;
    for (int i; (i = atomic_fetch_add(&j->next, 1)) < j->m->kernels->n && !atomic_load(&j->stop);) {
        setun_error why;
        setun_status s = compile_one(j, j->m->kernels->kernel[i], &why);
        st_pool_lock(j->pool);
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

/* Everything the other machine must agree to before it runs a byte of this. */
static setun_status write_record(const setun_model *m, const char *dir, setun_error *err)
{
    const st_target *t = &m->engine->target;
    st_str r = { 0 };
    st_str_addf(&r, "setun %s\nlaunch %u\ntriple %s\ncpu %s\nfeatures %s\nisa %s\nvlen %d\nbig_endian %d\n"
                "l1_bytes %" PRId64 "\nl2_bytes %" PRId64 "\nllvm %u\nkernels %d\n",
                SETUN_VERSION, SETUN_LAUNCH_ABI, t->triple, t->cpu, t->features, t->isa, t->vlen, t->big_endian,
                t->l1_bytes, t->l2_bytes, t->llvm_version, m->kernels->n);
    setun_status s = r.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for %s/TARGET", dir)
                              : write_file(dir, "TARGET", "", r.text, (int64_t)r.len, err);
    st_str_free(&r);
    return s;
}

static void remove_all(const setun_model *m, const char *dir)
{
    char path[4096];
    for (int32_t i = 0; i < m->kernels->n; i++)
        if (snprintf(path, sizeof path, "%s/%s.o", dir, m->kernels->kernel[i]->name) < (int)sizeof path)
            (void)remove(path);
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
    ST_TRY(st_make_dirs(o->out, 0, err));
    (void)remove(record); /* from here on the directory is not complete */
    job j = { .m = m, .o = o };
    atomic_init(&j.next, 0);
    atomic_init(&j.stop, 0);
    ST_TRY(st_pool_new(&j.pool, m->engine->o.n_threads, 0, err));
    st_pool_run(j.pool, compile_some, &j);
    st_pool_free(j.pool);
    if (j.status == SETUN_OK)
        j.status = write_record(m, o->out, &j.why);
    if (j.status != SETUN_OK) {
        remove_all(m, o->out);
        if (err)
            *err = j.why;
    }
    return j.status;
}

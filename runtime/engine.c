/* runtime/engine.c -- see engine.h. */
#include "runtime/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "runtime/record.h"
#include "runtime/machine.h"

#define DEFAULT_BATCH 512

static char *copy(st_engine *e, const char *s)
{
    return s ? st_arena_strdup(e->arena, s) : NULL;
}

static setun_status take_options(st_engine *e, const setun_options *o, setun_error *err)
{
    setun_options_init(&e->o);
    if (o) {
        /* A caller built against an older header has a shorter struct; the rest keeps its default. */
        uint32_t n = o->size < sizeof e->o ? o->size : (uint32_t)sizeof e->o;
        if (n < offsetof(setun_options, n_ctx))
            return st_fail(err, SETUN_BAD_ARG, "setun_options.size is %u; call setun_options_init first", o->size);
        memcpy(&e->o, o, n);
        e->o.size = (uint32_t)sizeof e->o;
    }
    e->o.backend = copy(e, e->o.backend ? e->o.backend : "cpu");
    e->o.plugins = copy(e, e->o.plugins);
    e->o.script = copy(e, e->o.script);
    e->o.cpu_features = copy(e, e->o.cpu_features);
    e->o.kv = copy(e, e->o.kv ? e->o.kv : "f16");
    e->o.cache_dir = copy(e, e->o.cache_dir);
    e->o.i2s_layout = copy(e, e->o.i2s_layout);
    e->o.activations = copy(e, e->o.activations);
    e->o.packing = copy(e, e->o.packing);
    e->o.quantizer = copy(e, e->o.quantizer);
    e->o.target = copy(e, e->o.target);
    e->o.kernels = copy(e, e->o.kernels);
    e->o.down = copy(e, e->o.down ? e->o.down : "auto");
    if (!e->o.backend || !e->o.kv || !e->o.down)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for options");
    if (e->o.n_threads < 0 || e->o.n_threads > 1024)
        return st_fail(err, SETUN_BAD_ARG, "%d threads asked for; 1 to 1024 are possible", e->o.n_threads);
    if (e->o.n_ctx < 0 || e->o.n_batch < 0 || e->o.n_outputs < 0)
        return st_fail(err, SETUN_BAD_ARG, "context, batch and output sizes must not be negative");
    if (!e->o.n_threads)
        e->o.n_threads = e->cpu.n_cores;
    if (!e->o.n_batch)
        e->o.n_batch = DEFAULT_BATCH;
    if (!e->o.n_outputs)
        e->o.n_outputs = 1;
    e->log.write = NULL;
    if (e->o.log) {
        e->log.write = (void (*)(void *, int, const char *))e->o.log;
        e->log.user = e->o.log_user;
        e->log.level = e->o.log_level;
    }
    return SETUN_OK;
}

static setun_status load_backends(st_engine *e, setun_error *err)
{
    static const char *const own[] = {"backend_reference.so", "backend_cpu.so"};
    ST_TRY(st_plugins_new(&e->plugins, &e->log, err));
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        const char *file = st_arena_printf(e->arena, "%s/%s", e->modules, own[i]);
        if (!file)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for a path");
        ST_TRY(st_plugins_load(e->plugins, file, err));
    }
    if (e->o.plugins)
        ST_TRY(st_plugins_load_list(e->plugins, e->o.plugins, err));
    e->reference = st_plugins_backend(e->plugins, "reference");
    e->backend = st_plugins_backend(e->plugins, e->o.backend);
    if (!e->backend) {
        st_str names = {0};
        for (int64_t i = 0; i < st_plugins_count(e->plugins); i++)
            if (st_plugins_at(e->plugins, i)->backend)
                st_str_addf(&names, "%s%s", names.len ? ", " : "", st_plugins_at(e->plugins, i)->backend_info.name);
        setun_status s = st_fail(err, SETUN_UNKNOWN, "there is no backend named '%s'; loaded are: %s", e->o.backend,
                                 names.text ? names.text : "none");
        st_str_free(&names);
        return s;
    }
    if (!e->reference)
        return st_fail(err, SETUN_FAILED, "%s: the backend 'reference' is missing from this installation", e->modules);
    return SETUN_OK;
}

static setun_status load_operators(st_engine *e, setun_error *err)
{
    ST_TRY(st_registry_new(&e->registry, err));
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        ST_TRY(st_registry_add(e->registry, *op, "built-in", err));
    for (int64_t i = 0; i < st_plugins_count(e->plugins); i++) {
        const st_plugin_info *p = st_plugins_at(e->plugins, i);
        for (uint32_t j = 0; p->ops && j < p->ops->n; j++)
            ST_TRY(st_registry_add(e->registry, p->ops->op[j], p->file, err));
    }
    return SETUN_OK;
}

setun_status st_engine_compiler(const st_engine *e, const st_codegen **cg, setun_error *err)
{
    union { void *p; const st_codegen *(*fn)(uint32_t); } entry;
    *cg = e->codegen;
    if (*cg)
        return SETUN_OK;
    if (!e->codegen_file)
        return st_fail(err, SETUN_DECLINED, "no code generator is installed");
    ST_TRY(st_module_symbol(e->codegen_file, "st_codegen_entry", &entry.p, err));
    *cg = entry.fn(ST_CODEGEN_ABI);
    return *cg ? SETUN_OK
               : st_fail(err, SETUN_UNKNOWN, "%s was built for another Setun; install both from one build", e->codegen_file);
}

/* Kernels are made as for another machine, also those that this one runs: interpreted, and with the same
 * results, since a kernel means the same everywhere.  Its caches are not known; these are small ones. */
static setun_status load_target(st_engine *e, setun_error *err)
{
    if (!e->codegen_file)
        return st_fail(err, SETUN_BAD_ARG, "a target needs the code generator, which this Setun was built without");
    ST_TRY(st_file_stat(e->codegen_file, &e->codegen_bytes, &e->codegen_mtime, err));
    ST_TRY(st_engine_compiler(e, &e->codegen, err));
    ST_TRY(e->codegen->target(e->o.target, e->o.cpu_features, e->o.vlen, &e->target, err));
    e->target.l1_bytes = 32 * 1024;
    e->target.l2_bytes = 256 * 1024;
    e->compiles = 1; /* there is code to look at */
    e->o.interpret = 1;
    e->o.tune = SETUN_TUNE_NEVER;
    return SETUN_OK;
}

/* All code comes from there; what is missing is interpreted, for the compiler would make it for this machine,
 * and not for the record's. */
static setun_status open_kernels(st_engine *e, setun_error *err)
{
    if (e->o.target || e->o.cpu_features || e->o.interpret)
        return st_fail(err, SETUN_BAD_ARG, "kernels that were compiled ahead of time have a target and features of their own");
    ST_TRY(st_record_read(e, e->o.kernels, err));
    ST_TRY(st_cache_open(&e->kernels, e->o.kernels, err));
    e->codegen_file = NULL;
    e->compiles = 1;
    e->o.tune = SETUN_TUNE_NEVER;
    return SETUN_OK;
}

/* A Setun built without LLVM has no such module.  It can still use what another one left in the cache. */
static setun_status find_machine(st_engine *e, setun_error *err)
{
    st_target_generic(&e->target);
    const char *file = st_arena_printf(e->arena, "%s/codegen_llvm.so", e->modules);
    if (!file)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a path");
    e->codegen_file = st_is_file(file) ? file : NULL;
    if (e->o.kernels)
        return open_kernels(e, err);
    if (e->o.target)
        return load_target(e, err);
    if (e->o.vlen)
        return st_fail(err, SETUN_BAD_ARG, "a vector length is only of use with a target");
    setun_status s = e->o.interpret ? SETUN_DECLINED : st_machine_find(e, err);
    if (s != SETUN_OK && s != SETUN_DECLINED)
        return s;
    e->compiles = s == SETUN_OK;
    if (!e->codegen_file && !e->compiles)
        st_logf(&e->log, ST_LOG_INFO, "no code generator is installed: operators run as scalar C, which is slow");
    if (e->o.cpu_features && !e->compiles && !e->o.interpret)
        return st_fail(err, SETUN_BAD_ARG, "--cpu-features needs the code generator, which this Setun was built without");
    if (!e->target.l1_bytes)
        e->target.l1_bytes = e->cpu.l1d_bytes ? e->cpu.l1d_bytes : 32 * 1024;
    if (!e->target.l2_bytes)
        e->target.l2_bytes = e->cpu.l2_bytes ? e->cpu.l2_bytes : 256 * 1024;
    return SETUN_OK;
}

/* A cache directory that cannot be had costs time, not correctness: go on without, and say so. */
static setun_status open_cache(st_engine *e, setun_error *err)
{
    setun_error why;
    if (st_cache_open(&e->cache, e->o.cache_dir, &why) == SETUN_OK)
        return SETUN_OK;
    st_logf(&e->log, ST_LOG_WARN, "no cache: %s", why.text);
    e->o.cache_dir = NULL;
    return st_cache_open(&e->cache, NULL, err);
}

setun_status st_engine_open(st_engine **out, const setun_options *o, setun_error *err)
{
    st_arena *arena = st_arena_new();
    st_engine *e = arena ? st_arena_alloc(arena, sizeof *e) : NULL;
    *out = NULL;
    if (!e) {
        st_arena_free(arena);
        return st_fail(err, SETUN_NO_MEMORY, "no memory to start");
    }
    e->arena = arena;
    st_cpu_detect(&e->cpu);
    setun_status s = take_options(e, o, err);
    if (s == SETUN_OK)
        s = st_install_dirs(e->modules, e->scripts, sizeof e->modules, err);
    if (s == SETUN_OK)
        s = load_backends(e, err);
    if (s == SETUN_OK)
        s = load_operators(e, err);
    if (s == SETUN_OK)
        s = open_cache(e, err);
    if (s == SETUN_OK)
        s = find_machine(e, err);
    if (s == SETUN_OK)
        s = st_loader_new(&e->loader, err);
    if (s != SETUN_OK) {
        st_engine_close(e);
        return s;
    }
    *out = e;
    return SETUN_OK;
}

void st_engine_close(st_engine *e)
{
    if (!e)
        return;
    st_loader_free(e->loader);
    st_cache_close(e->kernels);
    st_cache_close(e->cache);
    st_registry_free(e->registry);
    st_plugins_free(e->plugins);
    st_arena_free(e->arena);
}

const char *st_engine_isa(const st_engine *e)
{
    return e->o.interpret ? "interpreter" : e->compiles ? e->target.isa : "eval";
}

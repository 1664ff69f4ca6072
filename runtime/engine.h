/* runtime/engine.h -- what loading a model and checking operators share: plugins and backends,
 * operators, the machine and its compiler, the cache, the log.  Made from options, torn down in reverse. */
#ifndef ST_RUNTIME_ENGINE_H
#define ST_RUNTIME_ENGINE_H

#include "base/arena.h"
#include "base/cpu.h"
#include "base/log.h"
#include "codegen/cache.h"
#include "codegen/codegen.h"
#include "codegen/loader.h"
#include "graph/registry.h"
#include "plugins/host.h"
#include "setun/setun.h"

typedef struct st_engine {
    st_arena             *arena;     /* owns the strings below */
    setun_options         o;         /* a copy; strings in the arena, defaults filled in */
    st_log                log;
    st_cpu                cpu;
    st_plugins           *plugins;
    st_registry          *registry;
    const st_plugin_info *backend;   /* the one that was asked for */
    const st_plugin_info *reference; /* the judge */
    const char           *codegen_file;  /* the compiler's shared object; NULL: not installed */
    const st_codegen     *codegen;       /* NULL: it was not needed so far */
    int64_t               codegen_bytes, codegen_mtime; /* of its file: a rebuilt one makes other objects */
    int                   compiles;      /* kernels are machine code, compiled or from the cache */
    st_target             target;
    st_loader            *loader;        /* owns that code */
    st_cache             *cache;
    st_cache             *kernels;       /* where kernels were compiled ahead of time, or NULL */
    char                  modules[4096], scripts[4096];
} st_engine;

/* Options as given, or the defaults when NULL. */
setun_status st_engine_open(st_engine **e, const setun_options *o, setun_error *err);
void         st_engine_close(st_engine *e);

/* The compiler, opened now if it was not; SETUN_DECLINED: none is installed.  Changes nothing of the engine.  [any] */
setun_status st_engine_compiler(const st_engine *e, const st_codegen **cg, setun_error *err);

/* "avx512-vnni", "interpreter" or "eval": how kernels run. */
const char *st_engine_isa(const st_engine *e);

#endif

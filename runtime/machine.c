/* runtime/machine.c -- see machine.h.
 *
 * A record is an entry of the kernel cache, so it is checksummed and names its whole key.  It is written
 * twice: for starts with this very compiler, and for a Setun without one that shares the cache and can then
 * use what was compiled. */
#include "runtime/machine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"

typedef struct record {
    st_target target;
    int64_t   codegen_bytes, codegen_mtime; /* of codegen_llvm.so */
    int64_t   llvm_bytes, llvm_mtime;       /* of the library behind it, which may be replaced alone */
    char      llvm[1024];
} record;

static setun_status make_key(const st_engine *e, int any_compiler, st_str *key, setun_error *err)
{
    st_str_addf(key, "setun %s machine %zu codegen %u", SETUN_VERSION, sizeof(record), ST_CODEGEN_ABI);
    if (!any_compiler)
        st_str_addf(key, " %" PRId64 " %" PRId64, e->codegen_bytes, e->codegen_mtime);
    st_str_addf(key, "\n%s\n", e->o.cpu_features ? e->o.cpu_features : "");
    st_cpu_identity(key);
    return key->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory to look for kernels") : SETUN_OK;
}

static int ends(const char *text, size_t n) { return memchr(text, 0, n) != NULL; }

/* Why a record is not used, or NULL. */
static const char *examine(const st_engine *e, const char *bytes, int64_t n, record *r)
{
    int64_t size, mtime;
    if (n != (int64_t)sizeof *r)
        return "it has another length";
    memcpy(r, bytes, sizeof *r);
    const st_target *t = &r->target;
    if (!ends(t->triple, sizeof t->triple) || !ends(t->cpu, sizeof t->cpu) || !ends(t->features, sizeof t->features) ||
        !ends(t->isa, sizeof t->isa) || !ends(r->llvm, sizeof r->llvm))
        return "a text in it has no end";
    if (e->codegen_file && (st_file_stat(r->llvm, &size, &mtime, NULL) != SETUN_OK || size != r->llvm_bytes ||
                            mtime != r->llvm_mtime))
        return "the compiler's library has changed";
    /* The system keeps tiles for those who ask, and who asked was another process. */
    if (t->tiles && !st_cpu_allow_tiles())
        return "the system does not give matrix tiles to this process";
    return NULL;
}

static setun_status recall(st_engine *e, setun_error *err)
{
    st_str key = {0};
    char *bytes = NULL;
    int64_t n = 0;
    setun_error why = {0, ""};
    record *r = malloc(sizeof *r);
    setun_status s = r ? make_key(e, !e->codegen_file, &key, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to start");
    if (s == SETUN_OK)
        s = st_cache_get(e->cache, key.text, (int64_t)key.len, &bytes, &n, &why);
    if (s == SETUN_OK) {
        const char *fault = examine(e, bytes, n, r);
        if (fault)
            s = st_fail(&why, SETUN_BAD_FILE, "%s", fault);
    }
    if (s == SETUN_BAD_FILE)
        st_logf(&e->log, ST_LOG_DEBUG, "what was remembered of this machine is not used: %s", why.text);
    if (s == SETUN_OK) {
        e->target = r->target;
        e->codegen_bytes = r->codegen_bytes;
        e->codegen_mtime = r->codegen_mtime;
    } else if (s != SETUN_NO_MEMORY) {
        s = SETUN_DECLINED;
    } else if (err) {
        *err = why.text[0] ? why : *err;
    }
    free(bytes);
    free(r);
    st_str_free(&key);
    return s;
}

/* A record that cannot be written costs the next start some time, nothing else. */
static void remember(const st_engine *e, const st_codegen *cg)
{
    record *r = calloc(1, sizeof *r);
    setun_error why = {0, ""};
    setun_status s = r ? st_module_file(cg->compiler(), r->llvm, sizeof r->llvm, &why) : SETUN_DECLINED;
    if (s == SETUN_OK)
        s = st_file_stat(r->llvm, &r->llvm_bytes, &r->llvm_mtime, &why);
    if (s == SETUN_OK) {
        r->target = e->target;
        r->codegen_bytes = e->codegen_bytes;
        r->codegen_mtime = e->codegen_mtime;
    }
    for (int any = 0; any < 2 && s == SETUN_OK; any++) {
        st_str key = {0};
        s = make_key(e, any, &key, &why);
        if (s == SETUN_OK)
            s = st_cache_put(e->cache, key.text, (int64_t)key.len, r, sizeof *r, &why);
        st_str_free(&key);
    }
    if (s < 0)
        st_logf(&e->log, ST_LOG_DEBUG, "this machine is not remembered: %s", why.text);
    free(r);
}

setun_status st_machine_find(st_engine *e, setun_error *err)
{
    const st_codegen *cg;
    if (e->codegen_file)
        ST_TRY(st_file_stat(e->codegen_file, &e->codegen_bytes, &e->codegen_mtime, err));
    setun_status s = recall(e, err);
    if (s != SETUN_DECLINED || !e->codegen_file)
        return s;
    ST_TRY(st_engine_compiler(e, &cg, err));
    ST_TRY(cg->host(e->o.cpu_features, &e->target, err));
    remember(e, cg);
    return SETUN_OK;
}

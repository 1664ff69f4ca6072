/* runtime/record.c -- see record.h.
 *
 * Text, one "key value" a line, all keys once and in this order.  Kernels are looked up by what they are
 * and what they were made with, so everything that is part of their keys is here, and that of the compiler's
 * file, too: a Setun that uses them need not have a compiler. */
#include "runtime/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "codegen/isa.h"

#define MOST_BYTES 65536

typedef struct line {
    const char *key;
    char       *text;   /* where a text goes, or NULL */
    size_t      size;
    int64_t    *number; /* where a number goes, or NULL */
} line;

typedef struct numbers {
    int64_t launch, vlen, l1, l2, llvm, codegen, bytes, mtime, kernels;
} numbers;

#define LINES 13

static void lay_out(line row[LINES], st_target *t, numbers *n, char version[32])
{
    const line all[LINES] = {
        { "setun", version, 32, NULL },
        { "launch", NULL, 0, &n->launch },
        { "triple", t->triple, sizeof t->triple, NULL },
        { "cpu", t->cpu, sizeof t->cpu, NULL },
        { "features", t->features, sizeof t->features, NULL },
        { "vlen", NULL, 0, &n->vlen },
        { "l1_bytes", NULL, 0, &n->l1 },
        { "l2_bytes", NULL, 0, &n->l2 },
        { "llvm", NULL, 0, &n->llvm },
        { "codegen", NULL, 0, &n->codegen },
        { "compiler_bytes", NULL, 0, &n->bytes },
        { "compiler_mtime", NULL, 0, &n->mtime },
        { "kernels", NULL, 0, &n->kernels },
    };
    memcpy(row, all, sizeof all);
}

setun_status st_record_write(const st_engine *e, int32_t n_kernels, const char *dir, setun_error *err)
{
    st_target t = e->target;
    numbers n = { SETUN_LAUNCH_ABI, t.vlen, t.l1_bytes, t.l2_bytes, t.llvm_version, ST_CODEGEN_ABI, e->codegen_bytes,
                  e->codegen_mtime, n_kernels };
    char version[32], path[4096];
    line row[LINES];
    st_str r = { 0 };
    st_out *f = NULL;
    lay_out(row, &t, &n, version);
    (void)snprintf(version, sizeof version, "%s", SETUN_VERSION);
    for (int i = 0; i < LINES; i++)
        if (row[i].text)
            st_str_addf(&r, "%s %s\n", row[i].key, row[i].text);
        else
            st_str_addf(&r, "%s %" PRId64 "\n", row[i].key, *row[i].number);
    setun_status s = r.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for %s/TARGET", dir) : SETUN_OK;
    if (s == SETUN_OK && snprintf(path, sizeof path, "%s/TARGET", dir) >= (int)sizeof path)
        s = st_fail(err, SETUN_BAD_ARG, "%s: the path is too long", dir);
    if (s == SETUN_OK)
        s = st_out_open(&f, path, 0, err);
    if (s == SETUN_OK && (s = st_out_write(f, r.text, (int64_t)r.len, err)) != SETUN_OK)
        st_out_abort(f);
    else if (s == SETUN_OK)
        s = st_out_commit(f, err);
    st_str_free(&r);
    return s;
}

/* One line from *at on, which is NUL-terminated. */
static setun_status read_line(const line *row, char **at, const char *path, setun_error *err)
{
    size_t key = strlen(row->key), n = strcspn(*at, "\n");
    char *value = *at + key + 1;
    if (!(*at)[n] || strncmp(*at, row->key, key) || (*at)[key] != ' ')
        return st_fail(err, SETUN_BAD_FILE, "%s: the line '%s ...' is not where it belongs", path, row->key);
    (*at)[n] = 0;
    *at += n + 1;
    if (row->text) {
        if (strlen(value) >= row->size)
            return st_fail(err, SETUN_BAD_FILE, "%s: '%s' is too long", path, row->key);
        memcpy(row->text, value, strlen(value) + 1);
    } else if (st_parse_i64(value, 0, INT64_MAX, row->number)) {
        return st_fail(err, SETUN_BAD_FILE, "%s: '%s' is not a number from 0 on", path, row->key);
    }
    return SETUN_OK;
}

static setun_status take(st_engine *e, const char *path, st_target *t, const numbers *n, const char *version, setun_error *err)
{
    const st_isa_arch *a = st_isa_find(t->triple);
    if (strcmp(version, SETUN_VERSION) || n->launch != SETUN_LAUNCH_ABI || n->codegen != ST_CODEGEN_ABI)
        return st_fail(err, SETUN_UNKNOWN, "%s: these kernels are Setun %s's (launch %" PRId64 ", codegen %" PRId64
                       "); this is %s (launch %u, codegen %u)", path, version, n->launch, n->codegen, SETUN_VERSION,
                       SETUN_LAUNCH_ABI, ST_CODEGEN_ABI);
    if (n->vlen > 65536 || n->l1 < 1 || n->l2 < 1 || n->l1 > (int64_t)1 << 40 || n->l2 > (int64_t)1 << 40 || n->llvm > UINT32_MAX)
        return st_fail(err, SETUN_BAD_FILE, "%s: a number in it is out of range", path);
    t->arch = a ? a->arch : ST_ARCH_OTHER;
    t->big_endian = a ? a->big_endian : 0;
    t->vlen = (int32_t)n->vlen;
    t->l1_bytes = n->l1;
    t->l2_bytes = n->l2;
    t->llvm_version = (uint32_t)n->llvm;
    setun_status s = st_isa_fits(t, err);
    if (s != SETUN_OK)
        return st_wrap(err, "%s: these kernels cannot be used", path), s;
    st_isa_describe(t);
    e->target = *t;
    e->codegen_bytes = n->bytes;
    e->codegen_mtime = n->mtime;
    return SETUN_OK;
}

setun_status st_record_read(st_engine *e, const char *dir, setun_error *err)
{
    char path[4096], version[32], *text, *at;
    int64_t bytes;
    numbers n;
    line row[LINES];
    st_target t;
    memset(&t, 0, sizeof t);
    lay_out(row, &t, &n, version);
    if (snprintf(path, sizeof path, "%s/TARGET", dir) >= (int)sizeof path)
        return st_fail(err, SETUN_BAD_ARG, "%s: the path is too long", dir);
    setun_status s = st_file_read(path, MOST_BYTES, &text, &bytes, err);
    if (s != SETUN_OK)
        return s;
    at = text;
    for (int i = 0; i < LINES && s == SETUN_OK; i++)
        s = read_line(&row[i], &at, path, err);
    if (s == SETUN_OK && *at)
        s = st_fail(err, SETUN_BAD_FILE, "%s: there is more behind the line '%s'", path, row[LINES - 1].key);
    if (s == SETUN_OK)
        s = take(e, path, &t, &n, version, err);
    free(text);
    return s;
}

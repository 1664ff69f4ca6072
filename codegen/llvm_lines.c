/* codegen/llvm_lines.c -- which line of a script an LLVM instruction or a line of assembly comes from.
 *
 * For the texts that people read, never for the code that runs.  The lines travel through LLVM as debug
 * locations; in what it prints they are then replaced by comments, and all else that debugging needs is
 * taken out again:
 *
 *     %5 = load float, ptr %4, align 4, !dbg !7      ->   %5 = load float, ptr %4, align 4  ; relu.lua:12
 *     .loc 1 3 0                                     ->   # relu.lua:12
 *
 * What LLVM takes for a line is the number of an entry in a table of (file, line): a kernel may be made
 * by several files, and LLVM need not know. */
#include <stdlib.h>
#include <string.h>

#include <llvm-c/DebugInfo.h>

#include "base/error.h"
#include "codegen/llvm_priv.h"

struct st_gen_lines {
    LLVMDIBuilderRef builder;
    LLVMMetadataRef  scope;
    uint32_t         n;
    st_origin        at[]; /* [0] unused */
};

setun_status st_gen_lines_begin(st_gen *g, setun_error *err)
{
    static const char name[] = "kernel";
    const size_t len = sizeof name - 1;
    st_gen_lines *l = calloc(1, sizeof *l + (g->k->n_inst + 1) * sizeof l->at[0]);
    if (!l)
        return st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory for its lines", g->k->name);
    g->lines = l;
    LLVMDIBuilderRef b = l->builder = LLVMCreateDIBuilder(g->mod);
    LLVMMetadataRef file = LLVMDIBuilderCreateFile(b, name, len, "", 0);
    (void)LLVMDIBuilderCreateCompileUnit(b, LLVMDWARFSourceLanguageC, file, "", 0, 1, "", 0, 0, "", 0,
                                         LLVMDWARFEmissionLineTablesOnly, 0, 0, 0, "", 0, "", 0);
    LLVMMetadataRef type = LLVMDIBuilderCreateSubroutineType(b, file, NULL, 0, LLVMDIFlagZero);
    l->scope = LLVMDIBuilderCreateFunction(b, file, name, len, name, len, file, 1, type, 0, 1, 1, LLVMDIFlagZero, 1);
    LLVMSetSubprogram(g->fn, l->scope);
    LLVMAddModuleFlag(g->mod, LLVMModuleFlagBehaviorWarning, "Debug Info Version", 18,
                      LLVMValueAsMetadata(LLVMConstInt(g->elem[K_I32], LLVMDebugMetadataVersion(), 0)));
    return SETUN_OK;
}

/* What is built from now on belongs to instruction i. */
void st_gen_lines_at(st_gen *g, uint32_t i)
{
    st_gen_lines *l = g->lines;
    st_origin at = st_kir_origin(g->k, i);
    uint32_t e = 0;
    if (!l)
        return;
    if (at.file) {
        for (e = l->n; e > 0; e--)
            if (l->at[e].line == at.line && strcmp(l->at[e].file, at.file) == 0)
                break;
        if (!e)
            l->at[e = ++l->n] = at;
    }
    LLVMMetadataRef place = LLVMDIBuilderCreateDebugLocation(g->ctx, e, 0, l->scope, NULL);
    LLVMSetCurrentDebugLocation2(g->b, place);
    LLVMSetCurrentDebugLocation2(g->entry, place);
}

void st_gen_lines_end(st_gen *g)
{
    if (g->lines)
        LLVMDIBuilderFinalize(g->lines->builder);
}

void st_gen_lines_free(st_gen *g)
{
    if (g->lines)
        LLVMDisposeDIBuilder(g->lines->builder);
    free(g->lines);
    g->lines = NULL;
}

/* ---------------------------------------------------------------- their texts */

static int begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static void add_place(const st_gen_lines *l, const char *before, unsigned long e, st_str *out)
{
    if (e >= 1 && e <= l->n)
        st_str_addf(out, "%s%s:%d", before, l->at[e].file, (int)l->at[e].line);
}

static const char *next_line(const char *line)
{
    line += strcspn(line, "\n");
    return *line ? line + 1 : line;
}

/* entry[n] for each location !n of the text, n < *n_entry; NULL: no memory. */
static unsigned long *locations(const char *text, unsigned long *n_entry)
{
    static const char head[] = "!DILocation(line: ";
    unsigned long n = 0, *entry;
    for (const char *line = text; *line; line = next_line(line))
        n++; /* each number has a line of its own, and they count from 0 */
    entry = calloc(n + 1, sizeof *entry);
    for (const char *line = text; entry && *line; line = next_line(line)) {
        char *at;
        unsigned long i = *line == '!' ? strtoul(line + 1, &at, 10) : n;
        if (i < n && begins(at, " = ") && begins(at + 3, head))
            entry[i] = strtoul(at + 3 + sizeof head - 1, NULL, 10);
    }
    *n_entry = n;
    return entry;
}

/* One line of LLVM IR, of n bytes. */
static void ir_line(const st_gen_lines *l, const unsigned long *entry, unsigned long n_entry, const char *line, size_t n,
                    st_str *out)
{
    static const char mark[] = "!dbg !";
    const char *at = line, *end = line + n;
    if (*line == '!') { /* aliasing is told in the same way, and stays */
        for (; at < end; at++)
            if (begins(at, "!DI") || begins(at, "!llvm.") || begins(at, "\"Debug Info Version\""))
                return;
        st_str_addn(out, line, n);
        st_str_add(out, "\n");
        return;
    }
    while (at < end && !begins(at, mark))
        at++;
    if (at == end) {
        st_str_addn(out, line, n);
    } else {
        char *rest;
        unsigned long i = strtoul(at + sizeof mark - 1, &rest, 10);
        while (at > line && (at[-1] == ' ' || at[-1] == ','))
            at--;
        st_str_addn(out, line, (size_t)(at - line));
        st_str_addn(out, rest, (size_t)(end - rest));
        add_place(l, "  ; ", i < n_entry ? entry[i] : 0, out);
    }
    st_str_add(out, "\n");
}

/* One line of assembly; *skip: it lies in a section for debuggers. */
static void asm_line(const st_gen *g, const char *line, size_t n, int *skip, st_str *out)
{
    const char *comment = g->t->arch == ST_ARCH_ARM ? "\t// " : "\t# ";
    if (begins(line, "\t.section") || begins(line, "\t.text"))
        *skip = begins(line, "\t.section\t.debug");
    if (*skip || begins(line, "\t.file") || begins(line, "\t.cfi_"))
        return;
    if (begins(line, "\t.loc\t")) {
        char *at;
        (void)strtoul(line + 6, &at, 10);
        unsigned long e = strtoul(at, NULL, 10);
        add_place(g->lines, comment, e, out);
        st_str_add(out, e ? "\n" : "");
        return;
    }
    st_str_addn(out, line, n);
    st_str_add(out, "\n");
}

void st_gen_lines_text(const st_gen *g, uint32_t what, const char *text, st_str *out)
{
    unsigned long n_entry = 0, *entry = NULL;
    int skip = 0;
    if (what == ST_EMIT_IR && !(entry = locations(text, &n_entry)))
        out->failed = 1;
    for (const char *line = text; *line && !out->failed; line = next_line(line)) {
        if (what == ST_EMIT_IR)
            ir_line(g->lines, entry, n_entry, line, strcspn(line, "\n"), out);
        else
            asm_line(g, line, strcspn(line, "\n"), &skip, out);
    }
    free(entry);
}

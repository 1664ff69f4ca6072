/* codegen/jit.c -- load compiled objects into this process, and the door of the shared object.
 *
 * Not here: making the objects (llvm.c) and keeping them (cache.c).
 *
 * LLJIT links an object with JITLink: memory is writable while it is filled and executable, never
 * both, afterwards.  Each object gets a resource tracker, so that one that fails to link can be
 * taken out again and its symbol used once more.  Objects are checked to need no symbol from
 * elsewhere before LLVM sees them: kernels call nothing.
 *
 * Part of LLVM's failures are not error values: it prints and ends the process (running out of
 * memory, an instruction that cannot be selected).  LLVMInstallFatalErrorHandler can only report
 * before that, so it is not used; kir's verifier and LLVM's stand before every compile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

#include <llvm-c/Core.h>
#include <llvm-c/Error.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Object.h>
#include <llvm-c/Orc.h>
#include <llvm-c/Target.h>

#include "base/error.h"
#include "codegen/llvm_priv.h"

/* ---------------------------------------------------------------- objects */

setun_status st_llvm_closed(const void *object, int64_t n, const char *symbol, setun_error *err)
{
    char *why = NULL;
    LLVMMemoryBufferRef buffer =
        LLVMCreateMemoryBufferWithMemoryRangeCopy(object, (size_t)(n < 0 ? 0 : n), symbol);
    LLVMBinaryRef file = LLVMCreateBinary(buffer, NULL, &why);
    if (!file) {
        setun_status s =
            st_fail(err, SETUN_BAD_FILE, "kernel %s: not an object file: %s", symbol, why);
        LLVMDisposeMessage(why);
        LLVMDisposeMemoryBuffer(buffer);
        return s;
    }
    setun_status s = SETUN_OK;
    LLVMSymbolIteratorRef sym = LLVMObjectFileCopySymbolIterator(file);
    LLVMSectionIteratorRef sec = LLVMObjectFileCopySectionIterator(file);
    for (; sym && s == SETUN_OK && !LLVMObjectFileIsSymbolIteratorAtEnd(file, sym);
         LLVMMoveToNextSymbol(sym)) {
        /* Undefined symbols have no section; so has the entry for the source file, without a name,
         * and POWER's table of contents, which the loader itself provides. */
        const char *name = LLVMGetSymbolName(sym);
        LLVMMoveToContainingSection(sec, sym);
        if (name && name[0] && strcmp(name, ".TOC.") != 0 &&
            LLVMObjectFileIsSectionIteratorAtEnd(file, sec))
            s = st_fail(err, SETUN_FAILED,
                        "kernel %s: its code would call %s, and kernels call nothing", symbol,
                        name);
    }
    LLVMDisposeSectionIterator(sec);
    LLVMDisposeSymbolIterator(sym);
    LLVMDisposeBinary(file);
    LLVMDisposeMemoryBuffer(buffer);
    return s;
}

/* ---------------------------------------------------------------- loading */

struct st_jit {
    LLVMOrcLLJITRef lljit;
    setun_error     last; /* what the session reported; errors of linking arrive here */
};

/* Consumes e. */
static setun_status failed(LLVMErrorRef e, const setun_error *more, setun_error *err,
                           const char *doing)
{
    char *text = LLVMGetErrorMessage(e);
    setun_status s = st_fail(err, SETUN_FAILED, "%s: %s%s%s", doing, text,
                             more && more->text[0] ? "; " : "", more ? more->text : "");
    LLVMDisposeErrorMessage(text);
    return s;
}

/* Linking errors are reported to the session first; by default it prints them on stderr. */
static void report(void *ctx, LLVMErrorRef e)
{
    st_jit *j = ctx;
    char *text = LLVMGetErrorMessage(e);
    (void)st_fail(&j->last, SETUN_FAILED, "%s", text);
    LLVMDisposeErrorMessage(text);
}

setun_status st_llvm_jit_new(st_jit **out, const st_target *t, setun_error *err)
{
    *out = NULL;
    LLVMTargetMachineRef tm;
    ST_TRY(st_llvm_machine(t, &tm, err));
    st_jit *j = calloc(1, sizeof *j);
    if (!j) {
        LLVMDisposeTargetMachine(tm);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the kernel loader");
    }
    LLVMOrcLLJITBuilderRef b = LLVMOrcCreateLLJITBuilder();
    /* Both calls take over what they are given, also when they fail. */
    LLVMOrcLLJITBuilderSetJITTargetMachineBuilder(
        b, LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine(tm));
    LLVMErrorRef e = LLVMOrcCreateLLJIT(&j->lljit, b);
    if (e) {
        free(j);
        return failed(e, NULL, err, "creating the kernel loader");
    }
    LLVMOrcExecutionSessionSetErrorReporter(LLVMOrcLLJITGetExecutionSession(j->lljit), report, j);
    *out = j;
    return SETUN_OK;
}

void st_llvm_jit_free(st_jit *j)
{
    if (!j)
        return;
    LLVMErrorRef e = LLVMOrcDisposeLLJIT(j->lljit);
    if (e)
        LLVMConsumeError(e);
    free(j);
}

setun_status st_llvm_jit_load(st_jit *j, const void *object, int64_t n, const char *symbol,
                              setun_kernel_fn **fn, setun_error *err)
{
    *fn = NULL;
    ST_TRY(st_llvm_closed(object, n, symbol, err));
    LLVMOrcJITDylibRef lib = LLVMOrcLLJITGetMainJITDylib(j->lljit);
    LLVMOrcResourceTrackerRef rt = LLVMOrcJITDylibCreateResourceTracker(lib);
    LLVMMemoryBufferRef copy = LLVMCreateMemoryBufferWithMemoryRangeCopy(object, (size_t)n, symbol);
    LLVMOrcExecutorAddress address = 0;
    memset(&j->last, 0, sizeof j->last);

    LLVMErrorRef e = LLVMOrcLLJITAddObjectFileWithRT(j->lljit, rt, copy); /* takes over the copy */
    int added = !e;
    if (!e)
        e = LLVMOrcLLJITLookup(j->lljit, &address, symbol);
    setun_status s = SETUN_OK;
    if (e) {
        char doing[160];
        (void)snprintf(doing, sizeof doing, "loading kernel %s", symbol);
        s = failed(e, &j->last, err, doing);
        if (added && (e = LLVMOrcResourceTrackerRemove(rt)))
            LLVMConsumeError(e);
    }
    LLVMOrcReleaseResourceTracker(rt);
    if (s != SETUN_OK)
        return s;
    /* The address as a function pointer; C has no conversion for that, POSIX has this one. */
    uintptr_t p = (uintptr_t)address;
    memcpy(fn, &p, sizeof *fn);
    return SETUN_OK;
}

static const void *compiler(void)
{
    LLVMContextRef (*inside)(void) = LLVMContextCreate;
    const void *p;
    memcpy(&p, &inside, sizeof p); /* as in st_llvm_jit_load */
    return p;
}

static const st_codegen table = {
    sizeof(st_codegen), ST_CODEGEN_ABI, st_llvm_host, st_llvm_emit,
    st_llvm_jit_new, st_llvm_jit_free, st_llvm_jit_load, compiler
};

/* LLVM's list of targets is process-wide, and filling it is not safe for threads; models may be loaded by
 * several at once.  This flag is the one variable of Setun that is neither constant nor anybody's
 * own.  Where LLVM lacks this machine's target, st_llvm_machine says so. */
static once_flag targets_filled = ONCE_FLAG_INIT;

static void fill_targets(void)
{
    (void)LLVMInitializeNativeTarget();
    (void)LLVMInitializeNativeAsmPrinter();
    (void)LLVMInitializeNativeAsmParser();
}

/* [any] */
SETUN_EXPORT const st_codegen *st_codegen_entry(uint32_t abi)
{
    if (abi != ST_CODEGEN_ABI)
        return NULL;
    call_once(&targets_filled, fill_targets);
    return &table;
}

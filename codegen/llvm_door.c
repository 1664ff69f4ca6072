/* codegen/llvm_door.c -- the one door of the shared object that holds the compiler.
 *
 * Not here: compiling (llvm.c), and everything that happens to what was compiled (image_link.c, loader.c,
 * cache.c), which needs no LLVM.
 *
 * Part of LLVM's failures are not error values: it prints and ends the process (running out of
 * memory, an instruction that cannot be selected).  LLVMInstallFatalErrorHandler can only report
 * before that, so it is not used; kir's verifier and LLVM's stand before every compile. */
#include <string.h>
#include <threads.h>

#include <llvm-c/Core.h>

#include "codegen/llvm_priv.h"

static const void *compiler(void)
{
    LLVMContextRef (*inside)(void) = LLVMContextCreate;
    const void *p;
    memcpy(&p, &inside, sizeof p); /* C has no conversion for that, POSIX has this one */
    return p;
}

static const st_codegen table = {
    sizeof(st_codegen), ST_CODEGEN_ABI, st_llvm_host, st_llvm_target, st_llvm_emit, compiler
};

/* LLVM's list of targets is process-wide, and filling it is not safe for threads; models may be loaded by
 * several at once.  This flag is the one variable of Setun that is neither constant nor anybody's
 * own.  Where LLVM lacks this machine's target, st_llvm_machine says so. */
static once_flag targets_filled = ONCE_FLAG_INIT;

/* [any] */
SETUN_EXPORT const st_codegen *st_codegen_entry(uint32_t abi)
{
    if (abi != ST_CODEGEN_ABI)
        return NULL;
    call_once(&targets_filled, st_llvm_fill_targets);
    return &table;
}

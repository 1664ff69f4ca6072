/* codegen/codegen.h -- the seam to the compiler: a table that one shared object fills.
 *
 * libLLVM is seen only behind it, so that a Setun without LLVM, or one that finds all kernels in the
 * cache, is the same program.  The object's entry is st_codegen_entry. */
#ifndef ST_CODEGEN_H
#define ST_CODEGEN_H

#include "codegen/kir.h"
#include "codegen/target.h"

#define ST_CODEGEN_ABI 3u

#define ST_EMIT_OBJECT 1u /* bytes to cache and load */
#define ST_EMIT_ASM    2u
#define ST_EMIT_IR     3u /* LLVM IR after the passes */

typedef struct st_jit st_jit; /* owns loaded code; free it after the last call into it */

typedef struct st_codegen {
    uint32_t size, abi;
    /* The host, with the user's "+a,-b" (may be NULL) applied last.  [any] */
    setun_status (*host)(const char *features, st_target *t, setun_error *err);
    /* A verified kernel as bytes, malloc'ed; the function is called symbol.  [any], reentrant. */
    setun_status (*emit)(const st_kir *k, const st_target *t, const char *symbol, uint32_t what, char **bytes,
                         int64_t *n, setun_error *err);
    setun_status (*jit_new)(st_jit **j, const st_target *t, setun_error *err);
    void         (*jit_free)(st_jit *j);
    /* Load an object made by emit; the bytes are copied.  One thread at a time. */
    setun_status (*jit_load)(st_jit *j, const void *object, int64_t n, const char *symbol, setun_kernel_fn **fn,
                             setun_error *err);
    /* An address in the compiler's own code, which may be another object's than this table. */
    const void  *(*compiler)(void);
} st_codegen;

const st_codegen *st_codegen_entry(uint32_t abi); /* NULL: other ABI */

#endif

/* codegen/codegen.h -- the seam to the compiler: a table that one shared object fills.
 *
 * libLLVM is seen only behind it, so that a Setun without LLVM, or one that finds all kernels in the
 * cache, is the same program.  The object's entry is st_codegen_entry. */
#ifndef ST_CODEGEN_H
#define ST_CODEGEN_H

#include "codegen/kir.h"
#include "codegen/target.h"

#define ST_CODEGEN_ABI 6u

#define ST_EMIT_OBJECT 1u /* an ELF relocatable object, for st_image_link */
#define ST_EMIT_ASM    2u
#define ST_EMIT_IR     3u /* LLVM IR after the passes */
#define ST_EMIT_LINES  8u /* or-ed to the two texts: name the script's lines that a kernel was made by */

typedef struct st_emit {
    uint32_t what;     /* one of ST_EMIT_..., and perhaps ST_EMIT_LINES */
    uint32_t simple;   /* 1: few passes, whose time grows with the kernel's length and not faster */
    int64_t  limit_ns; /* give up with SETUN_FULL when passes have taken longer; 0: never */
} st_emit;

typedef struct st_codegen {
    uint32_t size, abi;
    /* The host, with the user's "+a,-b" (may be NULL) applied last.  [any] */
    setun_status (*host)(const char *features, st_target *t, setun_error *err);
    /* A machine by the name of its architecture, or a triple that begins with it: the oldest CPU that is
     * served, with the user's "+a,-b" (may be NULL); vlen: bits of a RISC-V vector register, 0 for 128.
     * Caches' sizes are left 0.  [any] */
    setun_status (*target)(const char *arch, const char *features, int32_t vlen, st_target *t, setun_error *err);
    /* A verified kernel as bytes, malloc'ed; the function is called symbol.  SETUN_FULL: too long to
     * compile in this way.  [any], reentrant. */
    setun_status (*emit)(const st_kir *k, const st_target *t, const char *symbol, const st_emit *how, char **bytes,
                         int64_t *n, setun_error *err);
    /* An address in the compiler's own code, which may be another object's than this table. */
    const void  *(*compiler)(void);
} st_codegen;

const st_codegen *st_codegen_entry(uint32_t abi); /* NULL: other ABI */

#endif

/* codegen/target.h -- a machine to generate code for: one row of data per ISA class. */
#ifndef ST_TARGET_H
#define ST_TARGET_H

#include "setun/types.h"

/* Architectures that codegen/isa.c has rows for. */
#define ST_ARCH_OTHER 0
#define ST_ARCH_X86   1
#define ST_ARCH_ARM   2
#define ST_ARCH_RISCV 3
#define ST_ARCH_POWER 4
#define ST_ARCH_Z     5
#define ST_ARCH_LOONG 6

typedef struct st_target {
    char    triple[64];
    char    cpu[64];
    char    features[4096]; /* comma-separated +x,-y as LLVM takes them, the user's last */
    char    isa[32];        /* "avx512-vnni", "avx2", "avx", "sse2", "neon", ...: for people and bench */
    int32_t vector_bytes;   /* widest useful register: 16, 32, 64 */
    int32_t n_registers;
    int32_t dot2;           /* bytes per native dot2 instruction; 0 none */
    int32_t dot4;           /* bytes per native dot4 instruction; 0 none */
    int32_t lut16;          /* bytes per native 16-entry byte look-up; 0 none */
    int32_t lut32;          /* entries of a native look-up in 32-bit lanes: 16, 4; 0 none */
    int32_t sign;           /* bytes per native sign; 0 none */
    int32_t f16;            /* native binary16 conversion */
    int32_t tiles;          /* native tiles of 16 rows of 64 bytes */
    int32_t arch;           /* ST_ARCH_...: whose instructions the above are */
    int32_t big_endian;
    int32_t vlen;           /* bits of a RISC-V vector register that code may count on; 0 elsewhere */
    char    abi[16];        /* LLVM's name of the calling convention; empty: its own choice */
    int64_t l1_bytes, l2_bytes;
    uint32_t llvm_version;  /* major << 16 | minor << 8 | patch; 0 without LLVM */
} st_target;

/* A target without any native idiom: what the interpreter and an LLVM-free build use. */
void st_target_generic(st_target *t);

#endif

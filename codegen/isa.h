/* codegen/isa.h -- instruction sets as data: architectures, their features, their classes.
 *
 * Knows no LLVM, so that a Setun without it can tell whether it may run code made elsewhere.  To add
 * an architecture or a class of CPUs is to add rows in isa.c (docs/isa.md tells how); primitives that
 * plain vector code does not reach are in llvm_isa.c. */
#ifndef ST_ISA_H
#define ST_ISA_H

#include "codegen/target.h"

/* A feature as users name it.  Taking one away takes away what is built on it. */
typedef struct st_isa_feature {
    const char *name;
    const char *needs;  /* what it is directly built on, words */
    const char *llvm;   /* what LLVM calls it, words without signs; NULL: the same name */
    const char *cpu;    /* LLVM's CPU whose generation this is; NULL: not a generation */
    uint32_t    proof;  /* how a machine proves that it has it, see isa.c; 0: nothing proves it */
} st_isa_feature;

typedef struct st_isa_arch {
    int32_t     arch;        /* ST_ARCH_... */
    int32_t     big_endian;
    const char *name;        /* as in triples, and what --target takes */
    const char *alias;       /* another name of it, or NULL */
    const char *triple, *cpu, *abi; /* of the oldest CPU that is served; abi NULL: LLVM's own choice */
    const char *base;        /* features that every CPU served has: they cannot be taken away */
    const st_isa_feature *feature;
    size_t      n_feature;
} st_isa_arch;

/* By the first part of a triple; NULL: not one that is known. */
const st_isa_arch    *st_isa_find(const char *triple);
const st_isa_feature *st_isa_feature_find(const st_isa_arch *a, const char *name, size_t n);
/* "x86_64, aarch64, ...": for messages. */
void st_isa_names(char *text, size_t n);
/* All features of an architecture, for messages. */
void st_isa_feature_names(const st_isa_arch *a, char *text, size_t n);

/* The first class whose features t has: isa, widths and primitives of t from it.  t->features and t->arch
 * must be set. */
void st_isa_describe(st_target *t);
/* Is "+name" in t->features, and not taken back by a later "-name"? */
int  st_isa_has(const st_target *t, const char *name);
/* Has this machine all that t's code uses?  If not, the sentence says what it lacks; it goes on "made for". */
setun_status st_isa_fits(const st_target *t, setun_error *err);
/* Next word of a list of words separated by sep; 0 at the end. */
int  st_isa_word(const char **at, char sep, const char **w, size_t *n);

#endif

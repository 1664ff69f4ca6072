/* codegen/image_reloc.h -- relocations by machine: what image_link.c asks image_reloc.c. */
#ifndef ST_IMAGE_RELOC_H
#define ST_IMAGE_RELOC_H

#include <stdint.h>

/* How a value comes from S, the symbol's place, A, the addend, and P, the place that is changed.  All
 * are offsets in the blob; a formula that is not a difference of places says why it may be one. */
typedef enum st_formula {
    ST_REL_NONE,   /* a hint to linkers that may be ignored */
    ST_REL_PC,     /* S + A - P */
    ST_REL_PAGE,   /* page(S + A) - page(P); right where the blob starts at a page of 4096 bytes */
    ST_REL_NEAR,   /* the same with S + A rounded to a page, because the low part is signed */
    ST_REL_LOW,    /* S + A, of which low bits inside a page are used; the same condition */
    ST_REL_TOC,    /* S + A - .TOC., a fixed place in the blob (see image_link.c) */
    ST_REL_ADD,    /* what is there + S + A; a SUB at the same place must follow */
    ST_REL_SUB,    /* what is there - S - A; after an ADD, so that a difference of places remains */
    ST_REL_HI_OF   /* the PC value of the other relocation, at S */
} st_formula;

/* Where the bits go. */
typedef enum st_field {
    ST_DATA,       /* whole bytes, in the order of the file */
    ST_A64_ADR, ST_A64_19, ST_A64_14, ST_A64_26, ST_A64_12,
    ST_RV_HI, ST_RV_LO_I, ST_RV_LO_S, ST_RV_BRANCH, ST_RV_JAL, ST_RV_CALL, ST_RVC_BRANCH, ST_RVC_JUMP,
    ST_PPC_16, ST_PPC_16_HA, ST_PPC_16_HI, ST_PPC_16_LO, ST_PPC_DS, ST_PPC_DS_LO, ST_PPC_24, ST_PPC_14, ST_PPC_34,
    ST_S390_DBL,
    ST_LA_B16, ST_LA_B21, ST_LA_B26, ST_LA_HI20, ST_LA_LO12, ST_LA_CALL36
} st_field;

typedef struct st_reloc {
    uint16_t    machine, type;
    uint8_t     formula, field;
    uint8_t     bits;  /* signed range of the value; 0: no limit */
    uint8_t     drop;  /* low bits that are not stored: they must be 0 */
    uint8_t     bytes; /* of the place that is changed */
    const char *name;
} st_reloc;

/* NULL: not known for this machine. */
const st_reloc *st_reloc_find(uint32_t machine, uint32_t type);
/* Store a value; -1 if it does not fit.  big: the order of data, and of POWER's and s390's code. */
int             st_reloc_put(const st_reloc *r, uint8_t *at, int64_t value, int big);
/* What ADD and SUB start from. */
int64_t         st_reloc_get(const st_reloc *r, const uint8_t *at, int big);

#endif

/* codegen/image_reloc.c -- the relocations that kernels need, one row each, and their fields.
 *
 * Only what gives the same code wherever a blob lies is here; absolute addresses, global offset tables
 * and thread-local storage have no row and are refused by name or number.  Numbers and fields are those
 * of the processor supplements of the System V ABI:
 *
 *   x86-64     gitlab.com/x86-psABIs/x86-64-ABI, "Relocation Types"
 *   AArch64    github.com/ARM-software/abi-aa, aaelf64, "Static AArch64 relocations"
 *   RISC-V     github.com/riscv-non-isa/riscv-elf-psabi-doc, "Relocations"
 *   POWER      64-bit ELF V2 ABI specification, 3.5 "Relocation Types"
 *   s390x      github.com/IBM/s390x-abi, "Relocation"
 *   LoongArch  github.com/loongson/la-abi-specs, laelf, "Relocations" */
#include "codegen/image_reloc.h"

#include <stddef.h>

#include "codegen/image.h"

#define X86(type, name, bits) { ST_ELF_X86_64, type, ST_REL_PC, ST_DATA, bits, 0, bits / 8, "R_X86_64_" name }
#define A64(type, name, formula, field, bits, drop) \
    { ST_ELF_AARCH64, type, formula, field, bits, drop, 4, "R_AARCH64_" name }
#define A64_DATA(type, name, bits) \
    { ST_ELF_AARCH64, type, ST_REL_PC, ST_DATA, bits, 0, bits / 8, "R_AARCH64_" name }
#define RV(type, name, formula, field, bits, drop, bytes) \
    { ST_ELF_RISCV, type, formula, field, bits, drop, bytes, "R_RISCV_" name }
#define PPC(type, name, formula, field, bits, drop, bytes) \
    { ST_ELF_PPC64, type, formula, field, bits, drop, bytes, "R_PPC64_" name }
#define S390(type, name, field, bits, drop, bytes) \
    { ST_ELF_S390, type, ST_REL_PC, field, bits, drop, bytes, "R_390_" name }
#define LA(type, name, formula, field, bits, drop, bytes) \
    { ST_ELF_LOONGARCH, type, formula, field, bits, drop, bytes, "R_LARCH_" name }

static const st_reloc rows[] = {
    X86(2, "PC32", 32),   /* constants, jump tables */
    X86(4, "PLT32", 32),  /* a call; all symbols are here, so it is a PC32 */
    X86(13, "PC16", 16),
    X86(15, "PC8", 8),
    X86(24, "PC64", 64),

    A64_DATA(260, "PREL64", 64),
    A64_DATA(261, "PREL32", 32), /* jump tables */
    A64_DATA(262, "PREL16", 16),
    A64_DATA(314, "PLT32", 32),
    A64(273, "LD_PREL_LO19", ST_REL_PC, ST_A64_19, 21, 2),  /* constants within 1 MiB */
    A64(274, "ADR_PREL_LO21", ST_REL_PC, ST_A64_ADR, 21, 0),
    A64(275, "ADR_PREL_PG_HI21", ST_REL_PAGE, ST_A64_ADR, 33, 12),
    A64(277, "ADD_ABS_LO12_NC", ST_REL_LOW, ST_A64_12, 0, 0), /* the other half of PG_HI21, as those below */
    A64(278, "LDST8_ABS_LO12_NC", ST_REL_LOW, ST_A64_12, 0, 0),
    A64(284, "LDST16_ABS_LO12_NC", ST_REL_LOW, ST_A64_12, 0, 1), /* offsets count elements */
    A64(285, "LDST32_ABS_LO12_NC", ST_REL_LOW, ST_A64_12, 0, 2),
    A64(286, "LDST64_ABS_LO12_NC", ST_REL_LOW, ST_A64_12, 0, 3),
    A64(299, "LDST128_ABS_LO12_NC", ST_REL_LOW, ST_A64_12, 0, 4),
    A64(279, "TSTBR14", ST_REL_PC, ST_A64_14, 16, 2),
    A64(280, "CONDBR19", ST_REL_PC, ST_A64_19, 21, 2),
    A64(282, "JUMP26", ST_REL_PC, ST_A64_26, 28, 2),
    A64(283, "CALL26", ST_REL_PC, ST_A64_26, 28, 2),

    RV(16, "BRANCH", ST_REL_PC, ST_RV_BRANCH, 13, 1, 4),
    RV(17, "JAL", ST_REL_PC, ST_RV_JAL, 21, 1, 4),
    RV(18, "CALL", ST_REL_PC, ST_RV_CALL, 32, 0, 8), /* AUIPC and JALR, one behind the other */
    RV(19, "CALL_PLT", ST_REL_PC, ST_RV_CALL, 32, 0, 8),
    RV(23, "PCREL_HI20", ST_REL_PC, ST_RV_HI, 32, 0, 4),
    RV(24, "PCREL_LO12_I", ST_REL_HI_OF, ST_RV_LO_I, 0, 0, 4), /* the symbol is the AUIPC's label */
    RV(25, "PCREL_LO12_S", ST_REL_HI_OF, ST_RV_LO_S, 0, 0, 4),
    RV(33, "ADD8", ST_REL_ADD, ST_DATA, 0, 0, 1), /* differences of labels, as in jump tables */
    RV(34, "ADD16", ST_REL_ADD, ST_DATA, 0, 0, 2),
    RV(35, "ADD32", ST_REL_ADD, ST_DATA, 0, 0, 4),
    RV(36, "ADD64", ST_REL_ADD, ST_DATA, 0, 0, 8),
    RV(37, "SUB8", ST_REL_SUB, ST_DATA, 0, 0, 1),
    RV(38, "SUB16", ST_REL_SUB, ST_DATA, 0, 0, 2),
    RV(39, "SUB32", ST_REL_SUB, ST_DATA, 0, 0, 4),
    RV(40, "SUB64", ST_REL_SUB, ST_DATA, 0, 0, 8),
    RV(44, "RVC_BRANCH", ST_REL_PC, ST_RVC_BRANCH, 9, 1, 2),
    RV(45, "RVC_JUMP", ST_REL_PC, ST_RVC_JUMP, 12, 1, 2),
    RV(51, "RELAX", ST_REL_NONE, ST_DATA, 0, 0, 0), /* permission to shorten, which nobody needs to use */
    RV(57, "32_PCREL", ST_REL_PC, ST_DATA, 32, 0, 4),

    PPC(10, "REL24", ST_REL_PC, ST_PPC_24, 26, 2, 4),
    PPC(11, "REL14", ST_REL_PC, ST_PPC_14, 16, 2, 4),
    PPC(26, "REL32", ST_REL_PC, ST_DATA, 32, 0, 4),
    PPC(44, "REL64", ST_REL_PC, ST_DATA, 64, 0, 8),
    PPC(47, "TOC16", ST_REL_TOC, ST_PPC_16, 16, 0, 2),
    PPC(48, "TOC16_LO", ST_REL_TOC, ST_PPC_16_LO, 0, 0, 2),
    PPC(49, "TOC16_HI", ST_REL_TOC, ST_PPC_16_HI, 32, 0, 2),
    PPC(50, "TOC16_HA", ST_REL_TOC, ST_PPC_16_HA, 32, 0, 2), /* "adjusted": the low half is signed */
    PPC(63, "TOC16_DS", ST_REL_TOC, ST_PPC_DS, 16, 2, 2),
    PPC(64, "TOC16_LO_DS", ST_REL_TOC, ST_PPC_DS_LO, 0, 2, 2),
    PPC(116, "REL24_NOTOC", ST_REL_PC, ST_PPC_24, 26, 2, 4),
    PPC(123, "PCREL_OPT", ST_REL_NONE, ST_DATA, 0, 0, 0), /* permission to fuse two instructions */
    PPC(132, "PCREL34", ST_REL_PC, ST_PPC_34, 34, 0, 8),  /* POWER10: a prefix and its instruction */
    PPC(249, "REL16", ST_REL_PC, ST_PPC_16, 16, 0, 2),
    PPC(250, "REL16_LO", ST_REL_PC, ST_PPC_16_LO, 0, 0, 2), /* r2 from r12, at a kernel's start */
    PPC(251, "REL16_HI", ST_REL_PC, ST_PPC_16_HI, 32, 0, 2),
    PPC(252, "REL16_HA", ST_REL_PC, ST_PPC_16_HA, 32, 0, 2),

    S390(5, "PC32", ST_DATA, 32, 0, 4),
    S390(16, "PC16", ST_DATA, 16, 0, 2),
    S390(17, "PC16DBL", ST_S390_DBL, 17, 1, 2), /* instructions count in halfwords */
    S390(18, "PLT16DBL", ST_S390_DBL, 17, 1, 2),
    S390(19, "PC32DBL", ST_S390_DBL, 33, 1, 4), /* LARL and BRASL */
    S390(20, "PLT32DBL", ST_S390_DBL, 33, 1, 4),
    S390(23, "PC64", ST_DATA, 64, 0, 8),

    LA(47, "ADD8", ST_REL_ADD, ST_DATA, 0, 0, 1),
    LA(48, "ADD16", ST_REL_ADD, ST_DATA, 0, 0, 2),
    LA(50, "ADD32", ST_REL_ADD, ST_DATA, 0, 0, 4),
    LA(51, "ADD64", ST_REL_ADD, ST_DATA, 0, 0, 8),
    LA(52, "SUB8", ST_REL_SUB, ST_DATA, 0, 0, 1),
    LA(53, "SUB16", ST_REL_SUB, ST_DATA, 0, 0, 2),
    LA(55, "SUB32", ST_REL_SUB, ST_DATA, 0, 0, 4),
    LA(56, "SUB64", ST_REL_SUB, ST_DATA, 0, 0, 8),
    LA(64, "B16", ST_REL_PC, ST_LA_B16, 18, 2, 4),
    LA(65, "B21", ST_REL_PC, ST_LA_B21, 23, 2, 4),
    LA(66, "B26", ST_REL_PC, ST_LA_B26, 28, 2, 4),
    LA(71, "PCALA_HI20", ST_REL_NEAR, ST_LA_HI20, 32, 12, 4),
    LA(72, "PCALA_LO12", ST_REL_LOW, ST_LA_LO12, 0, 0, 4),
    LA(99, "32_PCREL", ST_REL_PC, ST_DATA, 32, 0, 4),
    LA(100, "RELAX", ST_REL_NONE, ST_DATA, 0, 0, 0),
    LA(109, "64_PCREL", ST_REL_PC, ST_DATA, 64, 0, 8),
    LA(110, "CALL36", ST_REL_PC, ST_LA_CALL36, 38, 2, 8), /* PCADDU18I and JIRL */
};

const st_reloc *st_reloc_find(uint32_t machine, uint32_t type)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].machine == machine && rows[i].type == type)
            return &rows[i];
    return NULL;
}

/* ---------------------------------------------------------------- fields */

/* n bytes as a number, and back; bytes of code are little-endian but on POWER and s390. */
static uint64_t get(const uint8_t *p, int n, int big)
{
    uint64_t x = 0;
    for (int i = 0; i < n; i++)
        x |= (uint64_t)p[big ? n - 1 - i : i] << 8 * i;
    return x;
}

static void put(uint8_t *p, int n, uint64_t x, int big)
{
    for (int i = 0; i < n; i++)
        p[big ? n - 1 - i : i] = (uint8_t)(x >> 8 * i);
}

/* Replace the bits of mask in the instruction of n bytes at p. */
static void blend(uint8_t *p, int n, uint64_t mask, uint64_t x, int big)
{
    put(p, n, (get(p, n, big) & ~mask) | (x & mask), big);
}

/* Bits [from, from + n) of x, moved to bit to. */
static uint64_t bits(uint64_t x, int from, int n, int to)
{
    return (x >> from & (((uint64_t)1 << n) - 1)) << to;
}

static void put_aarch64(const st_reloc *r, uint8_t *at, uint64_t v)
{
    switch (r->field) {
    case ST_A64_ADR: blend(at, 4, 0x60ffffe0u, bits(v, 0, 2, 29) | bits(v, 2, 19, 5), 0); break;
    case ST_A64_19: blend(at, 4, 0x00ffffe0u, bits(v, 0, 19, 5), 0); break;
    case ST_A64_14: blend(at, 4, 0x0007ffe0u, bits(v, 0, 14, 5), 0); break;
    case ST_A64_26: blend(at, 4, 0x03ffffffu, v, 0); break;
    default: blend(at, 4, 0x003ffc00u, bits(v, 0, 12 - r->drop, 10), 0); break; /* ST_A64_12 */
    }
}

/* The low half is signed, so the high one is rounded: v = (hi << 12) + lo with lo in [-2048, 2048). */
static void put_riscv(const st_reloc *r, uint8_t *at, uint64_t v)
{
    uint64_t hi = v + 0x800;
    switch (r->field) {
    case ST_RV_HI: blend(at, 4, 0xfffff000u, hi, 0); break;
    case ST_RV_LO_I: blend(at, 4, 0xfff00000u, bits(v, 0, 12, 20), 0); break;
    case ST_RV_LO_S: blend(at, 4, 0xfe000f80u, bits(v, 0, 5, 7) | bits(v, 5, 7, 25), 0); break;
    case ST_RV_CALL:
        blend(at, 4, 0xfffff000u, hi, 0);
        blend(at + 4, 4, 0xfff00000u, bits(v, 0, 12, 20), 0);
        break;
    case ST_RV_BRANCH: /* here and below v has lost its lowest bit */
        blend(at, 4, 0xfe000f80u, bits(v, 0, 4, 8) | bits(v, 4, 6, 25) | bits(v, 10, 1, 7) | bits(v, 11, 1, 31), 0);
        break;
    case ST_RV_JAL:
        blend(at, 4, 0xfffff000u, bits(v, 0, 10, 21) | bits(v, 10, 1, 20) | bits(v, 11, 8, 12) | bits(v, 19, 1, 31), 0);
        break;
    case ST_RVC_BRANCH: /* offset[8|4:3] in 12:10, [7:6|2:1|5] in 6:2 */
        blend(at, 2, 0x1c7cu, bits(v, 7, 1, 12) | bits(v, 2, 2, 10) | bits(v, 5, 2, 5) | bits(v, 0, 2, 3) | bits(v, 4, 1, 2), 0);
        break;
    default: /* ST_RVC_JUMP: offset[11|4|9:8|10|6|7|3:1|5] in 12:2 */
        blend(at, 2, 0x1ffcu, bits(v, 10, 1, 12) | bits(v, 3, 1, 11) | bits(v, 7, 2, 9) | bits(v, 9, 1, 8) |
              bits(v, 5, 1, 7) | bits(v, 6, 1, 6) | bits(v, 0, 3, 3) | bits(v, 4, 1, 2), 0);
        break;
    }
}

static void put_power(const st_reloc *r, uint8_t *at, uint64_t v, int big)
{
    switch (r->field) {
    case ST_PPC_16_HA: put(at, 2, (v + 0x8000) >> 16, big); break;
    case ST_PPC_16_HI: put(at, 2, v >> 16, big); break;
    case ST_PPC_16: case ST_PPC_16_LO: put(at, 2, v, big); break;
    case ST_PPC_24: blend(at, 4, 0x03fffffcu, v << 2, big); break;
    case ST_PPC_14: blend(at, 4, 0x0000fffcu, v << 2, big); break;
    case ST_PPC_34: /* the prefix has the upper 18 bits, the instruction the lower 16 */
        blend(at, 4, 0x0003ffffu, v >> 16, big);
        blend(at + 4, 4, 0x0000ffffu, v, big);
        break;
    default: blend(at, 2, 0xfffcu, v << 2, big); break; /* ST_PPC_DS, ST_PPC_DS_LO: two bits say what is loaded */
    }
}

static void put_loongarch(const st_reloc *r, uint8_t *at, uint64_t v)
{
    switch (r->field) {
    case ST_LA_B16: blend(at, 4, 0x03fffc00u, bits(v, 0, 16, 10), 0); break;
    case ST_LA_B21: blend(at, 4, 0x03fffc1fu, bits(v, 0, 16, 10) | bits(v, 16, 5, 0), 0); break;
    case ST_LA_B26: blend(at, 4, 0x03ffffffu, bits(v, 0, 16, 10) | bits(v, 16, 10, 0), 0); break;
    case ST_LA_HI20: blend(at, 4, 0x01ffffe0u, bits(v, 0, 20, 5), 0); break;
    case ST_LA_LO12: blend(at, 4, 0x003ffc00u, bits(v, 0, 12, 10), 0); break;
    default: /* ST_LA_CALL36: JIRL's 16 bits are signed, so the upper 20 are rounded */
        blend(at, 4, 0x01ffffe0u, bits(v + 0x8000, 16, 20, 5), 0);
        blend(at + 4, 4, 0x03fffc00u, bits(v, 0, 16, 10), 0);
        break;
    }
}

int64_t st_reloc_get(const st_reloc *r, const uint8_t *at, int big)
{
    return (int64_t)get(at, r->bytes, big);
}

int st_reloc_put(const st_reloc *r, uint8_t *at, int64_t value, int big)
{
    /* HI20 and its kin add half a unit of the low part, which must not overflow either. */
    int64_t slack = r->field == ST_RV_HI || r->field == ST_RV_CALL ? 0x800 : r->field == ST_PPC_16_HA ? 0x8000 : 0;
    if (r->bits && r->bits < 64) {
        int64_t limit = (int64_t)1 << (r->bits - 1);
        if (value < -limit || value >= limit - slack)
            return -1;
    }
    if ((uint64_t)value & (((uint64_t)1 << r->drop) - 1))
        return -1;
    uint64_t v = (uint64_t)(value >> r->drop);
    switch (r->field) {
    case ST_DATA: case ST_S390_DBL: put(at, r->bytes, v, big); return 0;
    default: break;
    }
    switch (r->machine) {
    case ST_ELF_AARCH64: put_aarch64(r, at, v); break;
    case ST_ELF_RISCV: put_riscv(r, at, v); break;
    case ST_ELF_PPC64: put_power(r, at, v, big); break;
    default: put_loongarch(r, at, v); break;
    }
    return 0;
}

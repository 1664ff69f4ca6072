/* tests/unit/image.c -- kernels as images: what the linker makes of objects, and what it refuses; headers;
 * the loader.
 *
 * Objects are written here, byte by byte, for every machine on every machine.  What a relocation makes of an
 * instruction is compared with what an assembler makes of the same instruction with its operand written out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "codegen/loader.h"

/* ---------------------------------------------------------------- writing objects */

#define TEXT_AT   0x40
#define MOST_RELA 8
enum { NONE, TEXT, RODATA, RELA_TEXT, RELA_RODATA, SYMTAB, STRTAB, N_SECTION };

typedef struct fix {
    int      section; /* TEXT or RODATA */
    uint64_t at;
    uint32_t type, symbol;
    int64_t  addend;
} fix;

/* Symbols: 1 "kernel" at 0 of .text, 2 "place" at place of .text, 3 "data" at 0 of .rodata, 4 as the test says. */
typedef struct object {
    uint32_t    machine;
    int         big;
    const void *text, *rodata;
    uint64_t    text_n, rodata_n, place;
    uint64_t    rodata_flags, rodata_align;
    uint32_t    rodata_type;
    const char *rodata_name, *fourth;
    uint32_t    fourth_section;
    fix         fix[MOST_RELA];
    int         n_fix;
    uint8_t    *out;
    uint64_t    n;
} object;

static object fresh(uint32_t machine, int big, const void *text, uint64_t text_n)
{
    return (object){ .machine = machine, .big = big, .text = text, .text_n = text_n, .rodata_flags = 2,
                     .rodata_align = 1, .rodata_type = 1, .rodata_name = ".rodata", .fourth = "" };
}

static void put(object *o, uint64_t at, int n, uint64_t x)
{
    for (int i = 0; i < n; i++)
        o->out[at + (uint64_t)(o->big ? n - 1 - i : i)] = (uint8_t)(x >> 8 * i);
}

static void put_section(object *o, int i, uint32_t name, uint32_t type, uint64_t flags, uint64_t at, uint64_t n,
                        uint32_t link, uint32_t info, uint64_t align, uint64_t entry)
{
    uint64_t h = o->n + (uint64_t)i * 64;
    put(o, h, 4, name);
    put(o, h + 4, 4, type);
    put(o, h + 8, 8, flags);
    put(o, h + 24, 8, at);
    put(o, h + 32, 8, n);
    put(o, h + 40, 4, link);
    put(o, h + 44, 4, info);
    put(o, h + 48, 8, align);
    put(o, h + 56, 8, entry);
}

static uint64_t put_relas(object *o, int section)
{
    uint64_t from = o->n;
    for (int i = 0; i < o->n_fix; i++) {
        const fix *f = &o->fix[i];
        if (f->section != section)
            continue;
        put(o, o->n, 8, f->at);
        put(o, o->n + 8, 8, (uint64_t)f->symbol << 32 | f->type);
        put(o, o->n + 16, 8, (uint64_t)f->addend);
        o->n += 24;
    }
    return o->n - from;
}

static void put_symbol(object *o, uint32_t name, uint32_t section, uint64_t value)
{
    put(o, o->n, 4, name);
    put(o, o->n + 4, 1, 0x10);
    put(o, o->n + 6, 2, section);
    put(o, o->n + 8, 8, value);
    o->n += 24;
}

/* The whole file into o->out, which the caller frees. */
static void finish(object *o)
{
    char names[256] = "";
    uint32_t name[12], len = 1;
    const char *text[] = { "", ".text", o->rodata_name, ".rela.text", ".rela.rodata", ".symtab", ".strtab",
                           "kernel", "place", "data", o->fourth };
    for (int i = 1; i < 11; i++) {
        name[i] = len;
        (void)snprintf(names + len, sizeof names - len, "%s", text[i]);
        len += (uint32_t)strlen(text[i]) + 1;
    }
    o->out = calloc(1, TEXT_AT + o->text_n + o->rodata_n + 4096);
    assert_non_null(o->out);
    memcpy(o->out, "\177ELF\2\1\1", 7);
    o->out[5] = o->big ? 2 : 1;
    o->n = TEXT_AT;
    memcpy(o->out + o->n, o->text, o->text_n);
    o->n += o->text_n;
    uint64_t rodata = o->n;
    if (o->rodata_n)
        memcpy(o->out + o->n, o->rodata, o->rodata_n);
    o->n += o->rodata_n;
    uint64_t rela = o->n, rela_n = put_relas(o, TEXT), more = o->n, more_n = put_relas(o, RODATA), symbols = o->n;
    put_symbol(o, 0, 0, 0);
    put_symbol(o, name[7], TEXT, 0);
    put_symbol(o, name[8], TEXT, o->place);
    put_symbol(o, name[9], RODATA, 0);
    put_symbol(o, name[10], o->fourth_section, 0);
    uint64_t strings = o->n;
    memcpy(o->out + o->n, names, len);
    o->n += len;
    put(o, 16, 2, 1);
    put(o, 18, 2, o->machine);
    put(o, 40, 8, o->n);
    put(o, 58, 2, 64);
    put(o, 60, 2, N_SECTION);
    put(o, 62, 2, STRTAB);
    put_section(o, TEXT, name[1], 1, 6, TEXT_AT, o->text_n, 0, 0, 16, 0);
    put_section(o, RODATA, name[2], o->rodata_type, o->rodata_flags, rodata, o->rodata_n, 0, 0, o->rodata_align, 0);
    put_section(o, RELA_TEXT, name[3], 4, 0x40, rela, rela_n, SYMTAB, TEXT, 8, 24);
    put_section(o, RELA_RODATA, name[4], 4, 0x40, more, more_n, SYMTAB, RODATA, 8, 24);
    put_section(o, SYMTAB, name[5], 2, 0, symbols, 5 * 24, STRTAB, 1, 8, 24);
    put_section(o, STRTAB, name[6], 3, 0, strings, len, 0, 0, 1, 0);
    o->n += N_SECTION * 64;
}

static void add_fix(object *o, int section, uint64_t at, uint32_t type, uint32_t symbol, int64_t addend)
{
    o->fix[o->n_fix++] = (fix){ section, at, type, symbol, addend };
}

/* Link it; *m points into *image. */
static void link_well(object *o, char **image, st_image *m)
{
    setun_error err = { 0, "" };
    int64_t n;
    finish(o);
    if (st_image_link(o->out, (int64_t)o->n, "kernel", image, &n, &err) != SETUN_OK ||
        st_image_open(m, *image, n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(m->machine, o->machine);
    assert_int_equal(m->big, o->big);
    assert_int_equal(m->launch_abi, SETUN_LAUNCH_ABI);
    free(o->out);
    o->out = NULL;
}

static void link_badly(object *o, const char *part)
{
    setun_error err = { 0, "" };
    char *image;
    int64_t n;
    finish(o);
    setun_status s = st_image_link(o->out, (int64_t)o->n, "kernel", &image, &n, &err);
    if (s == SETUN_OK || !strstr(err.text, part) || !strstr(err.text, "kernel kernel"))
        fail_msg("status %d: \"%s\" has no \"%s\"", s, err.text, part);
    assert_null(image);
    free(o->out);
    o->out = NULL;
}

/* ---------------------------------------------------------------- every relocation */

/* The instruction as an object has it, and as an assembler encodes it when the operand is known: an instruction
 * at place P that refers to place `to`. */
static const struct row {
    uint32_t    machine;
    int         big;
    uint32_t    type;
    uint64_t    at;
    int64_t     to;
    const char *before, *after; /* in hexadecimal, in the order of memory */
} rows[] = {
    /* Displacements of x86-64 are plain numbers from the end of the field; its objects say -4. */
    { ST_ELF_X86_64, 0, 2, 0x40, 0x2344, "00000000", "04230000" },
    { ST_ELF_X86_64, 0, 4, 0x2000, 0x44, "00000000", "44e0ffff" },
    { ST_ELF_X86_64, 0, 13, 0x40, 0x2344, "0000", "0423" },
    { ST_ELF_X86_64, 0, 15, 0x40, 0x2f, "00", "ef" },
    { ST_ELF_X86_64, 0, 24, 0x40, 0x2344, "0000000000000000", "0423000000000000" },
    { ST_ELF_AARCH64, 0, 273, 0x40, 0x2344, "0100009c", "2118019c" }, /* ldr q1, #8964 */
    { ST_ELF_AARCH64, 0, 274, 0x40, 0x2347, "03000010", "23180170" }, /* adr x3, #8967 */
    { ST_ELF_AARCH64, 0, 275, 0x40, 0x2344, "03000090", "030000d0" }, /* adrp x3, #8192 */
    { ST_ELF_AARCH64, 0, 279, 0x40, 0x2344, "030040b6", "231841b6" }, /* tbz x3, #40, #8964 */
    { ST_ELF_AARCH64, 0, 280, 0x40, 0x2344, "01000054", "21180154" }, /* b.ne #8964 */
    { ST_ELF_AARCH64, 0, 282, 0x40, 0x2344, "00000014", "c1080014" }, /* b #8964 */
    { ST_ELF_AARCH64, 0, 283, 0x40, 0x2344, "00000094", "c1080094" }, /* bl #8964 */
    { ST_ELF_AARCH64, 0, 273, 0x2000, 0x44, "0100009c", "2102ff9c" }, /* ldr q1, #-8124 */
    { ST_ELF_AARCH64, 0, 274, 0x2000, 0x47, "03000010", "2302ff70" }, /* adr x3, #-8121 */
    { ST_ELF_AARCH64, 0, 275, 0x2000, 0x44, "03000090", "e3ffffd0" }, /* adrp x3, #-8192 */
    { ST_ELF_AARCH64, 0, 279, 0x2000, 0x44, "030040b6", "230247b6" }, /* tbz x3, #40, #-8124 */
    { ST_ELF_AARCH64, 0, 280, 0x2000, 0x44, "01000054", "2102ff54" }, /* b.ne #-8124 */
    { ST_ELF_AARCH64, 0, 282, 0x2000, 0x44, "00000014", "11f8ff17" }, /* b #-8124 */
    { ST_ELF_AARCH64, 0, 283, 0x2000, 0x44, "00000094", "11f8ff97" }, /* bl #-8124 */
    { ST_ELF_AARCH64, 0, 277, 0x40, 0x2340, "63000091", "63000d91" }, /* add x3, x3, #832 */
    { ST_ELF_AARCH64, 0, 278, 0x40, 0x2341, "83004039", "83044d39" }, /* ldrb w3, [x4, #833] */
    { ST_ELF_AARCH64, 0, 284, 0x40, 0x2342, "83004079", "83844679" }, /* ldrh w3, [x4, #834] */
    { ST_ELF_AARCH64, 0, 285, 0x40, 0x2344, "830040b9", "834443b9" }, /* ldr w3, [x4, #836] */
    { ST_ELF_AARCH64, 0, 286, 0x40, 0x2348, "830040f9", "83a441f9" }, /* ldr x3, [x4, #840] */
    { ST_ELF_AARCH64, 0, 299, 0x40, 0x2340, "8300c03d", "83d0c03d" }, /* ldr q3, [x4, #832] */
    { ST_ELF_AARCH64, 0, 277, 0x40, 0x1ff0, "63000091", "63c03f91" }, /* add x3, x3, #4080 */
    { ST_ELF_AARCH64, 0, 278, 0x40, 0x1ff1, "83004039", "83c47f39" }, /* ldrb w3, [x4, #4081] */
    { ST_ELF_AARCH64, 0, 284, 0x40, 0x1ff2, "83004079", "83e45f79" }, /* ldrh w3, [x4, #4082] */
    { ST_ELF_AARCH64, 0, 285, 0x40, 0x1ff4, "830040b9", "83f44fb9" }, /* ldr w3, [x4, #4084] */
    { ST_ELF_AARCH64, 0, 286, 0x40, 0x1ff8, "830040f9", "83fc47f9" }, /* ldr x3, [x4, #4088] */
    { ST_ELF_AARCH64, 0, 299, 0x40, 0x1ff0, "8300c03d", "83fcc33d" }, /* ldr q3, [x4, #4080] */
    { ST_ELF_RISCV, 0, 16, 0x40, 0x7a2, "6310b500", "6311b576" }, /* bne a0, a1, 1890 */
    { ST_ELF_RISCV, 0, 17, 0x40, 0x7a2, "ef000000", "ef002076" }, /* jal ra, 1890 */
    { ST_ELF_RISCV, 0, 16, 0x900, 0x74, "6310b500", "631ab5f6" }, /* bne a0, a1, -2188 */
    { ST_ELF_RISCV, 0, 17, 0x900, 0x74, "ef000000", "eff04ff7" }, /* jal ra, -2188 */
    { ST_ELF_RISCV, 0, 17, 0x40, 0x25ae, "6f000000", "6f20e056" }, /* jal zero, 9582 */
    { ST_ELF_RISCV, 0, 23, 0x40, 0x25ae, "17050000", "17250000" }, /* auipc a0, 2 */
    { ST_ELF_RISCV, 0, 19, 0x40, 0x25ae, "97000000e7800000", "97200000e780e056" }, /* call */
    { ST_ELF_RISCV, 0, 17, 0x2600, 0x24, "6f000000", "6fd05fa2" }, /* jal zero, -9692 */
    { ST_ELF_RISCV, 0, 23, 0x2600, 0x24, "17050000", "17e5ffff" }, /* auipc a0, 1048574 */
    { ST_ELF_RISCV, 0, 19, 0x2600, 0x24, "97000000e7800000", "97e0ffffe78040a2" }, /* call */
    { ST_ELF_RISCV, 0, 44, 0x40, 0x13e, "01c1", "7dcd" }, /* c.beqz a0, 254 */
    { ST_ELF_RISCV, 0, 44, 0x140, 0x46, "01c1", "19d1" }, /* c.beqz a0, -250 */
    { ST_ELF_RISCV, 0, 45, 0x40, 0x83e, "01a0", "fdaf" }, /* c.j 2046 */
    { ST_ELF_RISCV, 0, 45, 0x840, 0x66, "01a0", "1db0" }, /* c.j -2010 */
    { ST_ELF_PPC64, 0, 10, 0x40, 0x2344, "00000048", "04230048" }, /* b .+8964 */
    { ST_ELF_PPC64, 0, 11, 0x40, 0x2344, "00008241", "04238241" }, /* beq 0, .+8964 */
    { ST_ELF_PPC64, 0, 10, 0x2000, 0x44, "00000048", "44e0ff4b" }, /* b .-8124 */
    { ST_ELF_PPC64, 0, 11, 0x2000, 0x44, "00008241", "44e08241" }, /* beq 0, .-8124 */
    { ST_ELF_PPC64, 0, 50, 0x40, 0x2348, "0000", "0000" }, /* addis 3, 2, 0 */
    { ST_ELF_PPC64, 0, 48, 0x40, 0x2348, "0000", "48a3" }, /* addi 3, 3, -23736 */
    { ST_ELF_PPC64, 0, 64, 0x40, 0x2348, "0000", "48a3" }, /* ld 3, -23736(3) */
    { ST_ELF_PPC64, 0, 50, 0x40, 0x17ff8, "0000", "0100" }, /* addis 3, 2, 1 */
    { ST_ELF_PPC64, 0, 48, 0x40, 0x17ff8, "0000", "f8ff" }, /* addi 3, 3, -8 */
    { ST_ELF_PPC64, 0, 64, 0x40, 0x17ff8, "0000", "f8ff" }, /* ld 3, -8(3) */
    { ST_ELF_PPC64, 0, 63, 0x40, 0x4560, "0000", "60c5" }, /* ld 3, -15008(2) */
    { ST_ELF_PPC64, 0, 47, 0x40, 0x4561, "0000", "61c5" }, /* addi 3, 2, -15007 */
    { ST_ELF_PPC64, 0, 252, 0x40, 0x2345, "0000", "0000" }, /* addis 2, 12, 0 */
    { ST_ELF_PPC64, 0, 250, 0x40, 0x2345, "0000", "0523" }, /* addi 2, 2, 8965 */
    { ST_ELF_PPC64, 0, 132, 0x40, 0x2345, "00001004000040cc", "00001004052340cc" }, /* plxv 34, 8965(0), 1 */
    { ST_ELF_PPC64, 0, 132, 0x2000, 0x41, "00001004000040cc", "ffff130441e040cc" }, /* plxv 34, -8127(0), 1 */
    { ST_ELF_PPC64, 1, 10, 0x40, 0x2344, "48000000", "48002304" }, /* b .+8964 */
    { ST_ELF_PPC64, 1, 11, 0x40, 0x2344, "41820000", "41822304" }, /* beq 0, .+8964 */
    { ST_ELF_PPC64, 1, 10, 0x2000, 0x44, "48000000", "4bffe044" }, /* b .-8124 */
    { ST_ELF_PPC64, 1, 11, 0x2000, 0x44, "41820000", "4182e044" }, /* beq 0, .-8124 */
    { ST_ELF_PPC64, 1, 50, 0x42, 0x2348, "0000", "0000" }, /* addis 3, 2, 0 */
    { ST_ELF_PPC64, 1, 48, 0x42, 0x2348, "0000", "a348" }, /* addi 3, 3, -23736 */
    { ST_ELF_PPC64, 1, 64, 0x42, 0x2348, "0000", "a348" }, /* ld 3, -23736(3) */
    { ST_ELF_PPC64, 1, 50, 0x42, 0x17ff8, "0000", "0001" }, /* addis 3, 2, 1 */
    { ST_ELF_PPC64, 1, 48, 0x42, 0x17ff8, "0000", "fff8" }, /* addi 3, 3, -8 */
    { ST_ELF_PPC64, 1, 64, 0x42, 0x17ff8, "0000", "fff8" }, /* ld 3, -8(3) */
    { ST_ELF_PPC64, 1, 63, 0x42, 0x4560, "0000", "c560" }, /* ld 3, -15008(2) */
    { ST_ELF_PPC64, 1, 47, 0x42, 0x4561, "0000", "c561" }, /* addi 3, 2, -15007 */
    { ST_ELF_PPC64, 1, 252, 0x42, 0x2345, "0000", "0000" }, /* addis 2, 12, 0 */
    { ST_ELF_PPC64, 1, 250, 0x42, 0x2345, "0000", "2303" }, /* addi 2, 2, 8963 */
    { ST_ELF_PPC64, 1, 132, 0x40, 0x2345, "04100000cc400000", "04100000cc402305" }, /* plxv 34, 8965(0), 1 */
    { ST_ELF_PPC64, 1, 132, 0x2000, 0x41, "04100000cc400000", "0413ffffcc40e041" }, /* plxv 34, -8127(0), 1 */
    { ST_ELF_S390, 1, 19, 0x42, 0x2344, "00000000", "00001181" }, /* larl %r1, .+8962 */
    { ST_ELF_S390, 1, 17, 0x42, 0x2344, "0000", "1181" }, /* brc 8, .+8962 */
    { ST_ELF_S390, 1, 19, 0x2002, 0x44, "00000000", "fffff021" }, /* larl %r1, .-8126 */
    { ST_ELF_S390, 1, 17, 0x2002, 0x44, "0000", "f021" }, /* brc 8, .-8126 */
    { ST_ELF_LOONGARCH, 0, 64, 0x40, 0x2344, "8500005c", "8504235c" }, /* bne $a0, $a1, 8964 */
    { ST_ELF_LOONGARCH, 0, 65, 0x40, 0x2344, "80000044", "80042344" }, /* bnez $a0, 8964 */
    { ST_ELF_LOONGARCH, 0, 66, 0x40, 0x2344, "00000054", "00042354" }, /* bl 8964 */
    { ST_ELF_LOONGARCH, 0, 64, 0x2000, 0x44, "8500005c", "8544e05f" }, /* bne $a0, $a1, -8124 */
    { ST_ELF_LOONGARCH, 0, 65, 0x2000, 0x44, "80000044", "9f44e047" }, /* bnez $a0, -8124 */
    { ST_ELF_LOONGARCH, 0, 66, 0x2000, 0x44, "00000054", "ff47e057" }, /* bl -8124 */
    { ST_ELF_LOONGARCH, 0, 71, 0x40, 0x2345, "0400001a", "4400001a" }, /* pcalau12i $a0, 2 */
    { ST_ELF_LOONGARCH, 0, 72, 0x40, 0x2345, "8400c002", "8414cd02" }, /* addi.d $a0, $a0, 837 */
    { ST_ELF_LOONGARCH, 0, 72, 0x40, 0x2345, "8300002c", "83140d2c" }, /* vld $vr3, $a0, 837 */
    { ST_ELF_LOONGARCH, 0, 71, 0x2040, 0x1840, "0400001a", "0400001a" }, /* pcalau12i $a0, 0 */
    { ST_ELF_LOONGARCH, 0, 72, 0x2040, 0x1840, "8400c002", "8400e102" }, /* addi.d $a0, $a0, -1984 */
    { ST_ELF_LOONGARCH, 0, 72, 0x2040, 0x1840, "8300002c", "8300212c" }, /* vld $vr3, $a0, -1984 */
    { ST_ELF_LOONGARCH, 0, 71, 0x2040, 0xf41, "0400001a", "e4ffff1b" }, /* pcalau12i $a0, -1 */
    { ST_ELF_LOONGARCH, 0, 72, 0x2040, 0xf41, "8400c002", "8404fd02" }, /* addi.d $a0, $a0, -191 */
    { ST_ELF_LOONGARCH, 0, 72, 0x2040, 0xf41, "8300002c", "83043d2c" }, /* vld $vr3, $a0, -191 */
    { ST_ELF_LOONGARCH, 0, 110, 0x40, 0x2344, "0c00001e8101004c", "0c00001e8105234c" }, /* call36 */
    { ST_ELF_AARCH64, 0, 261, 0x2000, 0x44, "00000000", "44e0ffff" }, /* .word */
    { ST_ELF_RISCV, 0, 57, 0x2000, 0x44, "00000000", "44e0ffff" },
    { ST_ELF_PPC64, 1, 26, 0x2000, 0x44, "00000000", "ffffe044" },
    { ST_ELF_S390, 1, 5, 0x2000, 0x44, "00000000", "ffffe044" },
    { ST_ELF_S390, 1, 23, 0x40, 0x2344, "0000000000000000", "0000000000002304" },
    { ST_ELF_LOONGARCH, 0, 99, 0x2000, 0x44, "00000000", "44e0ffff" },
};

static uint32_t unhex(const char *text, uint8_t *out)
{
    uint32_t n = 0;
    unsigned x;
    for (; text[2 * n]; n++) {
        assert_int_equal(sscanf(text + 2 * n, "%2x", &x), 1);
        out[n] = (uint8_t)x;
    }
    return n;
}

static void test_relocations(void **state)
{
    static uint8_t text[0x3000];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        uint8_t after[16];
        char *image;
        st_image m;
        memset(text, 0x5a, sizeof text);
        uint32_t n = unhex(r->before, text + r->at);
        assert_int_equal(unhex(r->after, after), n);
        object o = fresh(r->machine, r->big, text, sizeof text);
        add_fix(&o, TEXT, r->at, r->type, 1, r->to); /* "kernel" is place 0 */
        link_well(&o, &image, &m);
        if (memcmp(m.code + r->at, after, n))
            fail_msg("machine %u, relocation %u at %llx to %llx: the instruction is not %s", r->machine, r->type,
                     (unsigned long long)r->at, (unsigned long long)r->to, r->after);
        /* Around it nothing has changed. */
        for (uint64_t at = 0; at < sizeof text; at++)
            if (at < r->at || at >= r->at + n)
                assert_int_equal(m.code[at], 0x5a);
        assert_int_equal(m.entry, 0);
        free(image);
    }
}

/* RISC-V: the low part's symbol is the place of the high part, and its value the high part's. */
static void test_riscv_pairs(void **state)
{
    uint8_t text[0x100] = { 0 };
    char *image;
    st_image m;
    (void)state;
    unhex("17050000", text + 0x10); /* auipc a0, 0 */
    unhex("13050500", text + 0x20); /* addi a0, a0, 0 */
    unhex("2320b500", text + 0x30); /* sw a1, 0(a0) */
    object o = fresh(ST_ELF_RISCV, 0, text, sizeof text);
    o.place = 0x10;
    add_fix(&o, TEXT, 0x30, 25, 2, 0); /* in no order: LO12_S, LO12_I, HI20, RELAX */
    add_fix(&o, TEXT, 0x20, 24, 2, 0);
    add_fix(&o, TEXT, 0x10, 23, 1, 0x2bcd);
    add_fix(&o, TEXT, 0x10, 51, 0, 0);
    link_well(&o, &image, &m);
    uint8_t want[12];
    unhex("17350000", want);     /* auipc a0, 3: 0x2bcd - 0x10 = 0x3000 - 0x443 */
    unhex("1305d5bb", want + 4); /* addi a0, a0, -1091 */
    unhex("a32eb5ba", want + 8); /* sw a1, -1091(a0) */
    assert_memory_equal(m.code + 0x10, want, 4);
    assert_memory_equal(m.code + 0x20, want + 4, 4);
    assert_memory_equal(m.code + 0x30, want + 8, 4);
    free(image);

    object lost = fresh(ST_ELF_RISCV, 0, text, sizeof text);
    lost.place = 0x14;
    add_fix(&lost, TEXT, 0x10, 23, 1, 0x2bcd);
    add_fix(&lost, TEXT, 0x20, 24, 2, 0);
    link_badly(&lost, "R_RISCV_PCREL_LO12_I of machine 243: there is no high part at its symbol");
}

/* Differences of labels: what is there, plus one, minus the other. */
static void test_differences(void **state)
{
    uint8_t text[64] = { 0 }, table[16] = { 5 };
    char *image;
    st_image m;
    (void)state;
    object o = fresh(ST_ELF_RISCV, 0, text, sizeof text);
    o.rodata = table;
    o.rodata_n = sizeof table;
    o.place = 48;
    add_fix(&o, RODATA, 0, 35, 2, 0); /* 5 + place - data = 5 + 48 - 64 */
    add_fix(&o, RODATA, 0, 39, 3, 0);
    add_fix(&o, RODATA, 8, 36, 3, 4); /* 8 bytes: data + 4 - kernel */
    add_fix(&o, RODATA, 8, 40, 1, 0);
    link_well(&o, &image, &m);
    static const uint8_t want[16] = { 0xf5, 0xff, 0xff, 0xff, 0, 0, 0, 0, 68 };
    assert_memory_equal(m.code + 64, want, 16);
    free(image);

    object alone = fresh(ST_ELF_RISCV, 0, text, sizeof text); /* an address, however it is added up */
    add_fix(&alone, TEXT, 0, 35, 2, 0);
    link_badly(&alone, "section .text, byte 0: relocation R_RISCV_ADD32 of machine 243: it adds an address");
    alone.n_fix = 0;
    add_fix(&alone, TEXT, 0, 35, 2, 0);
    add_fix(&alone, TEXT, 8, 35, 2, 0);
    link_badly(&alone, "nothing is subtracted");
    alone.n_fix = 0;
    add_fix(&alone, TEXT, 0, 39, 2, 0);
    link_badly(&alone, "R_RISCV_SUB32 of machine 243: it subtracts");
    alone.n_fix = 0;
    add_fix(&alone, TEXT, 0, 36, 2, 0);
    add_fix(&alone, TEXT, 0, 39, 2, 0);
    link_badly(&alone, "it subtracts");
}

/* ---------------------------------------------------------------- layout, and what is refused */

static void test_layout(void **state)
{
    uint8_t text[21], data[40];
    char *image;
    st_image m;
    setun_error err;
    int64_t n;
    (void)state;
    memset(text, 0x90, sizeof text);
    memset(data, 7, sizeof data);
    object o = fresh(ST_ELF_X86_64, 0, text, sizeof text);
    o.rodata = data;
    o.rodata_n = sizeof data;
    o.rodata_align = 64;
    o.place = 20;
    add_fix(&o, TEXT, 4, 2, 3, -4);     /* to the constants */
    add_fix(&o, RODATA, 36, 2, 2, 0);   /* and back */
    link_well(&o, &image, &m);
    assert_int_equal(m.bytes, 64 + 40); /* code, room for the alignment, constants */
    assert_int_equal(m.align, 64);
    static const uint8_t there[4] = { 64 - 4 - 4, 0, 0, 0 }, back[4] = { 0xb0, 0xff, 0xff, 0xff }; /* 20 - 100 */
    assert_memory_equal(m.code + 4, there, 4);
    assert_memory_equal(m.code + 100, back, 4);
    for (int i = 21; i < 64; i++)
        assert_int_equal(m.code[i], 0);
    free(image);

    /* The kernel is what is asked for, not what comes first. */
    finish(&o);
    assert_int_equal(st_image_link(o.out, (int64_t)o.n, "place", &image, &n, &err), SETUN_OK);
    assert_int_equal(st_image_open(&m, image, n, &err), SETUN_OK);
    assert_int_equal(m.entry, 20);
    free(image);
    assert_int_equal(st_image_link(o.out, (int64_t)o.n, "data", &image, &n, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "does not lie in code"));
    assert_int_equal(st_image_link(o.out, (int64_t)o.n, "nobody", &image, &n, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "no symbol of this name"));
    free(o.out);

    /* What is for debuggers is left out, and so is a section without bytes. */
    o.out = NULL;
    o.n_fix = 0;
    o.rodata_name = ".eh_frame";
    link_well(&o, &image, &m);
    assert_int_equal(m.bytes, 21);
    free(image);
    o.rodata_name = ".data";
    o.rodata_flags = 3;
    o.rodata_n = 0;
    link_well(&o, &image, &m);
    assert_int_equal(m.bytes, 21);
    free(image);
}

/* POWER's table of contents is the one symbol that may be undefined; pages matter to some. */
static void test_alignment_and_toc(void **state)
{
    uint8_t text[64] = { 0 };
    char *image;
    st_image m;
    (void)state;
    object o = fresh(ST_ELF_PPC64, 0, text, sizeof text);
    o.fourth = ".TOC.";
    add_fix(&o, TEXT, 0, 252, 4, 0); /* addis 2, 12, .TOC. - kernel */
    add_fix(&o, TEXT, 4, 250, 4, 4);
    link_well(&o, &image, &m);
    static const uint8_t want[6] = { 1, 0, 0, 0, 0, 0x80 }; /* 0x8000 = (1 << 16) - 0x8000 */
    assert_memory_equal(m.code, want, 6);
    assert_int_equal(m.align, 16);
    free(image);
    object page = fresh(ST_ELF_AARCH64, 0, text, sizeof text);
    add_fix(&page, TEXT, 0, 277, 1, 0);
    link_well(&page, &image, &m);
    assert_int_equal(m.align, 4096);
    free(image);
}

static void test_refused(void **state)
{
    uint8_t text[64] = { 0 };
    (void)state;
    static const struct { uint32_t type, symbol; uint64_t at; int64_t addend; const char *why; } bad[] = {
        { 1, 3, 0, 0, "relocation type 1 of machine 62: it is not one that position-independent kernels have" },
        { 42, 3, 0, 0, "section .text, byte 0: relocation type 42" }, /* through a global offset table */
        { 2, 1, 61, 0, "R_X86_64_PC32 of machine 62: it lies outside of its section" },
        { 2, 1, UINT64_MAX, 0, "outside of its section" },
        { 2, 1, UINT64_MAX - 2, 0, "outside of its section" },
        { 2, 0, 0, 0, "its symbol is in no section" },
        { 2, 3, 0, 0, "its symbol is in a section that is left out" }, /* empty */
        { 2, 99, 0, 0, "a symbol's number is too large" },
        { 2, 1, 0, INT64_MAX, "out of all proportion" },
        { 2, 1, 0, INT64_MIN, "out of all proportion" },
        { 15, 1, 0, 200, "R_X86_64_PC8 of machine 62: its value does not fit" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        object o = fresh(ST_ELF_X86_64, 0, text, sizeof text);
        add_fix(&o, TEXT, bad[i].at, bad[i].type, bad[i].symbol, bad[i].addend);
        link_badly(&o, bad[i].why);
    }
    object o = fresh(ST_ELF_X86_64, 0, text, sizeof text);
    add_fix(&o, TEXT, 0, 2, 1, 0);
    add_fix(&o, TEXT, 3, 2, 1, 0);
    link_badly(&o, "byte 3: relocation R_X86_64_PC32 of machine 62: it overlaps the one before it");
    o.n_fix = 1;
    o.fourth = "memset";
    link_badly(&o, "would call or read memset");
    o = fresh(ST_ELF_X86_64, 0, text, sizeof text);
    o.place = 65;
    add_fix(&o, TEXT, 0, 2, 2, 0);
    link_badly(&o, "its symbol lies outside of its section");
    o = fresh(ST_ELF_AARCH64, 0, text, sizeof text); /* branches count in words */
    add_fix(&o, TEXT, 0, 282, 1, 2);
    link_badly(&o, "R_AARCH64_JUMP26 of machine 183: its value does not fit");
    o = fresh(ST_ELF_RISCV, 0, text, sizeof text); /* room that only a linker which shortens code can give back */
    add_fix(&o, TEXT, 0, 43, 0, 6);
    link_badly(&o, "relocation type 43 of machine 243");
    o = fresh(9999, 0, text, sizeof text);
    add_fix(&o, TEXT, 0, 2, 1, 0);
    link_badly(&o, "of machine 9999");

    /* Sections that are neither code nor constants. */
    static const struct { const char *name; uint64_t flags; uint32_t type; const char *why; } sections[] = {
        { ".data", 3, 1, "section .data: kernels have code and constants, and this is data that may change" },
        { ".bss", 3, 8, "section .bss" },          { ".tbss", 0x403, 8, "section .tbss" },
        { ".data.rel.ro", 3, 1, "data.rel.ro" },   { ".init_array", 2, 14, "section .init_array" },
        { ".got", 2, 1, "this is neither" },       { ".opd", 3, 1, "section .opd" },
    };
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        object s = fresh(ST_ELF_X86_64, 0, text, sizeof text);
        s.rodata = text;
        s.rodata_n = sizeof text;
        s.rodata_name = sections[i].name;
        s.rodata_flags = sections[i].flags;
        s.rodata_type = sections[i].type;
        link_badly(&s, sections[i].why);
    }
    static const uint64_t aligns[] = { 3, 8192, (uint64_t)1 << 63, UINT64_MAX };
    for (size_t i = 0; i < sizeof aligns / sizeof aligns[0]; i++) {
        object s = fresh(ST_ELF_X86_64, 0, text, sizeof text);
        s.rodata = text;
        s.rodata_n = sizeof text;
        s.rodata_align = aligns[i];
        link_badly(&s, "section .rodata wants an alignment of");
    }
}

/* Objects of a compiler, one for each machine, with constants, a jump table and calls of nothing. */
static void test_compiled(void **state)
{
    static const struct { const char *name; uint32_t machine, big, align; } files[] = {
        { "x86_64", ST_ELF_X86_64, 0, 16 },   { "aarch64", ST_ELF_AARCH64, 0, 4096 }, { "riscv64", ST_ELF_RISCV, 0, 4 },
        { "powerpc64", ST_ELF_PPC64, 1, 4 }, { "powerpc64le", ST_ELF_PPC64, 0, 16 }, { "s390x", ST_ELF_S390, 1, 16 },
        { "loongarch64", ST_ELF_LOONGARCH, 0, 4096 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[512], *bytes, *image;
        int64_t n, image_n;
        st_image m;
        setun_error err;
        (void)snprintf(path, sizeof path, SETUN_SOURCE_DIR "/tests/fuzz/corpus/image/%s", files[i].name);
        if (st_file_read(path, 1 << 20, &bytes, &n, &err) != SETUN_OK ||
            st_image_link(bytes, n, "kernel", &image, &image_n, &err) != SETUN_OK ||
            st_image_open(&m, image, image_n, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        assert_int_equal(m.machine, files[i].machine);
        assert_int_equal(m.big, files[i].big);
        assert_int_equal(m.align, files[i].align);
        free(bytes);
        free(image);
    }
}

/* Every byte of an object set to several values, and every length: a sentence or an image that is whole. */
static void test_hostile(void **state)
{
    uint8_t text[64] = { 0 }, data[32] = { 1 };
    (void)state;
    for (int big = 0; big < 2; big++) {
        object o = fresh(big ? ST_ELF_S390 : ST_ELF_RISCV, big, text, sizeof text);
        o.rodata = data;
        o.rodata_n = sizeof data;
        o.place = 16;
        add_fix(&o, TEXT, 16, big ? 19u : 23u, 3, 2);
        add_fix(&o, TEXT, 24, big ? 20u : 24u, 2, 0);
        add_fix(&o, RODATA, 8, big ? 5u : 35u, 2, 0);
        add_fix(&o, RODATA, big ? 12 : 8, big ? 5u : 39u, 1, 0);
        finish(&o);
        char *image;
        st_image m;
        setun_error err;
        int64_t n;
        assert_int_equal(st_image_link(o.out, (int64_t)o.n, "kernel", &image, &n, &err), SETUN_OK);
        free(image);
        int refused = 0;
        for (uint64_t i = 0; i < 6 * o.n; i++) {
            static const uint8_t with[] = { 0x01, 0x80, 0xff, 0x7f, 0x04 };
            uint64_t length = i < 5 * o.n ? o.n : i - 5 * o.n;
            uint8_t *work = malloc(length + 1); /* exactly as long, for the sanitizer */
            assert_non_null(work);
            memcpy(work, o.out, length);
            if (i < 5 * o.n)
                work[i / 5] ^= with[i % 5];
            memset(&err, 0, sizeof err);
            setun_status s = st_image_link(work, (int64_t)length, "kernel", &image, &n, &err);
            if (s == SETUN_OK)
                assert_int_equal(st_image_open(&m, image, n, &err), SETUN_OK);
            else
                assert_true(s < 0 && err.text[0] && !image);
            refused += s != SETUN_OK;
            free(image);
            free(work);
        }
        assert_true(refused > (int)o.n); /* at the least all that are cut short */
        free(o.out);
    }
}

/* ---------------------------------------------------------------- headers, and the loader */

static void test_header(void **state)
{
    uint8_t bytes[ST_IMAGE_HEADER + 100] = { 0 }, work[sizeof bytes + 1];
    setun_error err;
    st_image m = { ST_ELF_X86_64, 0, SETUN_LAUNCH_ABI, 5, 64, 100, bytes + ST_IMAGE_HEADER }, got;
    (void)state;
    st_image_seal(&m, bytes);
    assert_int_equal(st_image_open(&got, bytes, sizeof bytes, &err), SETUN_OK);
    assert_true(got.machine == ST_ELF_X86_64 && got.entry == 5 && got.align == 64 && got.bytes == 100);
    assert_ptr_equal(got.code, bytes + ST_IMAGE_HEADER);
    for (size_t i = 0; i < 8 * sizeof bytes; i++) {
        memcpy(work, bytes, sizeof bytes);
        work[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(st_image_open(&got, work, sizeof bytes, &err), SETUN_BAD_FILE);
        assert_null(got.code);
    }
    for (size_t n = 0; n <= sizeof work; n++)
        if (n != sizeof bytes)
            assert_int_equal(st_image_open(&got, work, (int64_t)n, &err), SETUN_BAD_FILE);
    /* With a checksum that fits. */
    static const st_image bad[] = {
        { 62, 0, 1, 100, 64, 100, NULL }, { 62, 0, 1, 0, 0, 100, NULL }, { 62, 0, 1, 0, 48, 100, NULL },
        { 62, 0, 1, 0, 8192, 100, NULL }, { 62, 0, 1, 0, 64, 99, NULL },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        m = bad[i];
        m.code = bytes + ST_IMAGE_HEADER;
        st_image_seal(&m, bytes);
        assert_int_equal(st_image_open(&got, bytes, sizeof bytes, &err), SETUN_BAD_FILE);
        assert_true(err.text[0]);
    }
}

/* Mappings of this process that hold `at`, if it is not NULL, and those that can be written and executed. */
static void look_at_maps(const void *at, char perms[5], int *n_both, int *n_executable)
{
    char line[1024], p[5];
    unsigned long from, to;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    *n_both = *n_executable = 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx %4s", &from, &to, p) == 3) {
            *n_both += p[1] == 'w' && p[2] == 'x';
            *n_executable += p[2] == 'x';
            if (at && (unsigned long)(uintptr_t)at - from < to - from)
                memcpy(perms, p, 5);
        }
    assert_int_equal(fclose(f), 0);
}

/* Functions that write their number into *(int32_t *)launch->arg[0], with the number among the constants:
 *
 *     mov rax, [rdi]; mov rax, [rax]; mov ecx, [rip + constant]; mov [rax], ecx; ret */
static void test_loader(void **state)
{
#if defined(__x86_64__)
    enum { MANY = 300 };
    static st_image m[MANY];
    static char *image[MANY];
    static setun_kernel_fn *fn[MANY];
    uint8_t text[15] = { 0x48, 0x8b, 0x07, 0x48, 0x8b, 0x00, 0x8b, 0x0d, 0, 0, 0, 0, 0x89, 0x08, 0xc3 };
    st_loader *l;
    setun_error err;
    (void)state;
    assert_int_equal(st_loader_new(&l, &err), SETUN_OK);
    for (int32_t i = 0; i < MANY; i++) {
        object o = fresh(ST_ELF_X86_64, 0, text, sizeof text);
        o.rodata = &i;
        o.rodata_n = 4;
        o.rodata_align = i % 3 ? 4 : 256;
        add_fix(&o, TEXT, 8, 2, 3, -4);
        link_well(&o, &image[i], &m[i]);
    }
    int both, before, after;
    char perms[5] = "";
    look_at_maps(NULL, perms, &both, &before);
    assert_int_equal(both, 0);
    assert_int_equal(st_loader_load(l, m, MANY, fn, &err), SETUN_OK);
    look_at_maps((void *)(uintptr_t)fn[7], perms, &both, &after);
    assert_string_equal(perms, "r-xp");
    assert_int_equal(both, 0);
    assert_true(after <= before + 1); /* one mapping for all of them */
    assert_true(st_loader_bytes(l) >= MANY * 19 && st_loader_bytes(l) < MANY * 512);
    for (int32_t i = 0; i < MANY; i++) {
        int32_t got = -1;
        void *arg[1] = { &got };
        setun_launch launch = { arg, NULL, NULL };
        fn[i](&launch, NULL);
        assert_int_equal(got, i);
        assert_int_equal((uintptr_t)fn[i] % m[i].align, 0);
        free(image[i]);
    }
    assert_int_equal(st_loader_load(l, m, 0, fn, &err), SETUN_OK);
    st_image other = { ST_ELF_S390, 1, SETUN_LAUNCH_ABI, 0, 64, 8, text };
    assert_int_equal(st_loader_load(l, &other, 1, fn, &err), SETUN_UNKNOWN);
    assert_string_equal(err.text, "a kernel for machine 22, big-endian; this is machine 62, little-endian");
    other = (st_image){ ST_ELF_X86_64, 0, SETUN_LAUNCH_ABI + 1, 0, 64, 8, text };
    assert_int_equal(st_loader_load(l, &other, 1, fn, &err), SETUN_UNKNOWN);
    assert_non_null(strstr(err.text, "launch ABI 2"));
    st_loader_free(l);
    st_loader_free(NULL);
#else
    (void)state;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relocations), cmocka_unit_test(test_riscv_pairs), cmocka_unit_test(test_differences),
        cmocka_unit_test(test_layout),      cmocka_unit_test(test_alignment_and_toc),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_compiled),    cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_header),      cmocka_unit_test(test_loader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

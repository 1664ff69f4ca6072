/* codegen/image_link.c -- from an ELF relocatable object to an image: the whole linker that kernels need.
 *
 * An object of the compiler has code in .text*, constants in .rodata*, and relocations that say where
 * the one must find the other.  Sections are laid one behind the other, code first; each relocation is a
 * difference of two places in this blob and is computed once, here (image_reloc.c has the rows).  What
 * describes the code to debuggers and unwinders (.eh_frame, .note*, .debug*) is left out.
 *
 * Objects are read as if they were hostile: every offset, size, index and string is checked before it is
 * used, and time grows with n log n of the relocations.  64-bit ELF of either byte order.
 *
 * POWER: code reaches constants relative to r2, which a kernel sets itself from r12, the address it was
 * called at: r2 = .TOC.  That is ELF V2, which little-endian systems use; ELF V1's descriptors (.opd) hold
 * absolute addresses and are refused as writable data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "codegen/image.h"
#include "codegen/image_reloc.h"

#define MOST_SECTIONS 65535
#define TOC_OFFSET    0x8000 /* r2 points so far behind the blob's start, as everywhere on POWER */

/* Of ELF's structures: sizes and values that are used. */
#define EHDR_BYTES 64
#define SHDR_BYTES 64
#define SYM_BYTES  24
#define RELA_BYTES 24
enum { SHT_PROGBITS_ = 1, SHT_SYMTAB_ = 2, SHT_STRTAB_ = 3, SHT_RELA_ = 4, SHT_NOBITS_ = 8, SHT_REL_ = 9 };
enum { SHF_WRITE_ = 1, SHF_ALLOC_ = 2, SHF_EXECINSTR_ = 4, SHF_TLS_ = 0x400 };
enum { SHN_UNDEF_ = 0, SHN_LORESERVE_ = 0xff00, STT_FILE_ = 4 };

typedef struct section {
    uint32_t    name, type, link, info;
    uint64_t    flags, offset, bytes, align, entry;
    const char *text; /* its name */
    int64_t     at;   /* place in the blob; -1: left out */
} section;

typedef struct sym {
    uint32_t    shndx;
    uint8_t     type;
    uint64_t    value;
    const char *name;
} sym;

typedef struct rela {
    uint64_t offset;
    uint32_t index, type, symbol; /* index: the order in the file, which ADD and SUB rely on */
    int64_t  addend;
} rela;

typedef struct object {
    const uint8_t *p;
    uint64_t       n;
    int            big;
    uint32_t       machine, n_section;
    section       *section;
    const section *symbols;
    uint64_t       n_symbol;
    const char    *kernel;
    setun_error   *err;
    uint8_t       *blob;
    int64_t        bytes, align;
    rela          *rela; /* of the section at hand, in order of place */
    uint64_t       n_rela;
    const section *home; /* that section */
} object;

static uint64_t get(const object *o, uint64_t at, int n)
{
    uint64_t x = 0;
    for (int i = 0; i < n; i++)
        x |= (uint64_t)o->p[at + (uint64_t)(o->big ? n - 1 - i : i)] << 8 * i;
    return x;
}

static int inside(uint64_t offset, uint64_t bytes, uint64_t n) { return offset <= n && bytes <= n - offset; }

static setun_status bad(const object *o, const char *why)
{
    return st_fail(o->err, SETUN_BAD_FILE, "kernel %s: not an object file that can be read: %s", o->kernel, why);
}

/* A NUL-terminated string of a string table, or NULL. */
static const char *string(const object *o, const section *table, uint64_t at)
{
    if (at >= table->bytes)
        return NULL;
    const char *s = (const char *)o->p + table->offset + at;
    return memchr(s, 0, table->bytes - at) ? s : NULL;
}

/* ---------------------------------------------------------------- headers */

static setun_status read_header(object *o)
{
    if (o->n < EHDR_BYTES || memcmp(o->p, "\177ELF", 4))
        return bad(o, "it does not start with ELF's mark and header");
    if (o->p[4] != 2 || o->p[5] < 1 || o->p[5] > 2)
        return bad(o, "it is not 64-bit ELF");
    o->big = o->p[5] == 2;
    if (get(o, 16, 2) != 1)
        return bad(o, "it is not relocatable");
    o->machine = (uint32_t)get(o, 18, 2);
    uint64_t at = get(o, 40, 8), n = get(o, 60, 2), names = get(o, 62, 2);
    if (get(o, 58, 2) != SHDR_BYTES || !n || n >= MOST_SECTIONS || !inside(at, n * SHDR_BYTES, o->n))
        return bad(o, "its table of sections lies outside of it");
    if (names >= n)
        return bad(o, "its sections have no names");
    o->section = calloc(n, sizeof *o->section);
    if (!o->section)
        return st_fail(o->err, SETUN_NO_MEMORY, "kernel %s: no memory to link it", o->kernel);
    o->n_section = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++, at += SHDR_BYTES) {
        section s = { (uint32_t)get(o, at, 4), (uint32_t)get(o, at + 4, 4), (uint32_t)get(o, at + 40, 4),
                      (uint32_t)get(o, at + 44, 4), get(o, at + 8, 8), get(o, at + 24, 8), get(o, at + 32, 8),
                      get(o, at + 48, 8), get(o, at + 56, 8), "", -1 };
        if (i && s.type != SHT_NOBITS_ && !inside(s.offset, s.bytes, o->n))
            return bad(o, "a section lies outside of it");
        o->section[i] = s;
    }
    const section *table = &o->section[names];
    if (table->type != SHT_STRTAB_)
        return bad(o, "its sections have no names");
    for (uint32_t i = 1; i < n; i++) {
        o->section[i].text = string(o, table, o->section[i].name);
        if (!o->section[i].text)
            return bad(o, "a section's name lies outside of the names");
    }
    return SETUN_OK;
}

static setun_status read_symbol(const object *o, uint64_t i, sym *s)
{
    if (i >= o->n_symbol)
        return bad(o, "a symbol's number is too large");
    uint64_t at = o->symbols->offset + i * SYM_BYTES;
    *s = (sym){ (uint32_t)get(o, at + 6, 2), o->p[at + 4] & 15, get(o, at + 8, 8),
                   string(o, &o->section[o->symbols->link], get(o, at, 4)) };
    return s->name ? SETUN_OK : bad(o, "a symbol's name lies outside of the names");
}

/* Kernels call nothing: also a symbol that no relocation names is a sign of something else. */
static setun_status read_symbols(object *o)
{
    for (uint32_t i = 1; i < o->n_section; i++)
        if (o->section[i].type == SHT_SYMTAB_) {
            if (o->symbols)
                return bad(o, "it has two tables of symbols");
            o->symbols = &o->section[i];
        }
    const section *t = o->symbols;
    if (!t || t->entry != SYM_BYTES || !t->link || t->link >= o->n_section || o->section[t->link].type != SHT_STRTAB_)
        return bad(o, "it has no table of symbols");
    o->n_symbol = t->bytes / SYM_BYTES;
    for (uint64_t i = 1; i < o->n_symbol; i++) {
        sym s;
        ST_TRY(read_symbol(o, i, &s));
        if (s.shndx == SHN_UNDEF_ && *s.name && !(o->machine == ST_ELF_PPC64 && !strcmp(s.name, ".TOC.")))
            return st_fail(o->err, SETUN_FAILED, "kernel %s: its code would call or read %.200s, and kernels need "
                           "nothing from elsewhere", o->kernel, s.name);
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- layout */

static int starts(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

/* 1: part of the image; 0: left out; -1: refused. */
static int wanted(const section *s)
{
    if (!(s->flags & SHF_ALLOC_) || !s->bytes || starts(s->text, ".eh_frame") || starts(s->text, ".note"))
        return 0;
    if (s->flags & (SHF_WRITE_ | SHF_TLS_) || s->type != SHT_PROGBITS_)
        return -1;
    /* RISC-V calls constants of a few bytes "small". */
    return starts(s->text, ".text") || starts(s->text, ".rodata") || starts(s->text, ".srodata") ? 1 : -1;
}

static setun_status place(object *o, section *s)
{
    uint64_t align = s->align ? s->align : 1;
    if (align > ST_IMAGE_ALIGN || (align & (align - 1)))
        return st_fail(o->err, SETUN_BAD_FILE, "kernel %s: section %.60s wants an alignment of %llu; at most %d is possible",
                       o->kernel, s->text, (unsigned long long)align, ST_IMAGE_ALIGN);
    int64_t at = (o->bytes + (int64_t)align - 1) & -(int64_t)align;
    if (s->bytes > (uint64_t)(ST_IMAGE_MOST - at))
        return st_fail(o->err, SETUN_FULL, "kernel %s: more than %lld bytes of code", o->kernel, (long long)ST_IMAGE_MOST);
    s->at = at;
    o->bytes = at + (int64_t)s->bytes;
    o->align = (int64_t)align > o->align ? (int64_t)align : o->align;
    return SETUN_OK;
}

static setun_status lay_out(object *o)
{
    for (int code = 1; code >= 0; code--) /* code first, so that constants do not stand in its way */
        for (uint32_t i = 1; i < o->n_section; i++) {
            section *s = &o->section[i];
            int want = wanted(s);
            if (want < 0)
                return st_fail(o->err, SETUN_FAILED, "kernel %s: section %.60s: kernels have code and constants, and this "
                               "is %s", o->kernel, s->text, s->flags & SHF_WRITE_ ? "data that may change" : "neither");
            if (want && !!(s->flags & SHF_EXECINSTR_) == code)
                ST_TRY(place(o, s));
        }
    o->blob = calloc(1, (size_t)(ST_IMAGE_HEADER + o->bytes));
    if (!o->blob)
        return st_fail(o->err, SETUN_NO_MEMORY, "kernel %s: no memory to link it", o->kernel);
    o->blob += ST_IMAGE_HEADER;
    for (uint32_t i = 1; i < o->n_section; i++)
        if (o->section[i].at >= 0)
            memcpy(o->blob + o->section[i].at, o->p + o->section[i].offset, o->section[i].bytes);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- relocations */

static setun_status refuse(const object *o, const rela *r, const st_reloc *row, const char *why)
{
    char number[24];
    (void)snprintf(number, sizeof number, "type %u", r->type);
    return st_fail(o->err, SETUN_FAILED, "kernel %s: section %.60s, byte %llu: relocation %s of machine %u: %s", o->kernel,
                   o->home->text, (unsigned long long)r->offset, row ? row->name : number, o->machine, why);
}

/* The place of a relocation's symbol in the blob, addend included. */
static setun_status target(const object *o, const rela *r, const st_reloc *row, int64_t *to)
{
    sym s;
    ST_TRY(read_symbol(o, r->symbol, &s));
    if (o->machine == ST_ELF_PPC64 && s.shndx == SHN_UNDEF_ && !strcmp(s.name, ".TOC.")) {
        *to = TOC_OFFSET;
    } else {
        if (s.shndx == SHN_UNDEF_ || s.shndx >= SHN_LORESERVE_ || s.shndx >= o->n_section)
            return refuse(o, r, row, "its symbol is in no section");
        const section *in = &o->section[s.shndx];
        if (in->at < 0)
            return refuse(o, r, row, "its symbol is in a section that is left out");
        if (s.value > in->bytes)
            return refuse(o, r, row, "its symbol lies outside of its section");
        *to = in->at + (int64_t)s.value;
    }
    if (r->addend < -ST_IMAGE_MOST || r->addend > ST_IMAGE_MOST)
        return refuse(o, r, row, "its addend is out of all proportion");
    *to += r->addend;
    return SETUN_OK;
}

/* The value of RISC-V's high part at place `at` of the blob: what its low part continues. */
static setun_status high_part(const object *o, const rela *low, const st_reloc *row, int64_t at, int64_t *value)
{
    uint64_t a = 0, b = o->n_rela, want = (uint64_t)(at - o->home->at);
    while (a < b) {
        uint64_t mid = a + (b - a) / 2;
        if (o->rela[mid].offset < want)
            a = mid + 1;
        else
            b = mid;
    }
    for (; a < o->n_rela && o->rela[a].offset == want; a++) {
        const st_reloc *high = st_reloc_find(o->machine, o->rela[a].type);
        if (high && high->field == ST_RV_HI) {
            ST_TRY(target(o, &o->rela[a], high, value));
            *value -= at;
            return SETUN_OK;
        }
    }
    return refuse(o, low, row, "there is no high part at its symbol");
}

static int64_t page(int64_t at) { return at & -(int64_t)4096; }

static setun_status apply(object *o, const rela *r, const st_reloc *row)
{
    uint8_t *p = o->blob + o->home->at + (int64_t)r->offset;
    int64_t at = o->home->at + (int64_t)r->offset, to, v = 0;
    ST_TRY(target(o, r, row, &to));
    switch ((st_formula)row->formula) {
    case ST_REL_PC: v = to - at; break;
    case ST_REL_PAGE: v = page(to) - page(at); break;
    case ST_REL_NEAR: v = page(to + 0x800) - page(at); break;
    case ST_REL_LOW: v = to; break;
    case ST_REL_TOC: v = to - TOC_OFFSET; break;
    case ST_REL_ADD: v = (int64_t)((uint64_t)st_reloc_get(row, p, o->big) + (uint64_t)to); break;
    case ST_REL_SUB: v = (int64_t)((uint64_t)st_reloc_get(row, p, o->big) - (uint64_t)to); break;
    case ST_REL_HI_OF: ST_TRY(high_part(o, r, row, to, &v)); break;
    case ST_REL_NONE: break;
    }
    if (row->formula == ST_REL_PAGE || row->formula == ST_REL_NEAR || row->formula == ST_REL_LOW)
        o->align = ST_IMAGE_ALIGN;
    if (st_reloc_put(row, p, v, o->big))
        return refuse(o, r, row, "its value does not fit");
    return SETUN_OK;
}

/* May r stand behind the one before it?  Each place is written once, but for ADD with its SUB. */
static const char *order(const rela *before, const st_reloc *old, const rela *r, const st_reloc *row)
{
    int pair = old && old->formula == ST_REL_ADD;
    if (row->formula == ST_REL_SUB && (!pair || before->offset != r->offset || old->bytes != row->bytes))
        return "it subtracts, and nothing was added";
    if (row->formula == ST_REL_SUB)
        return NULL;
    if (pair)
        return "the one before it adds an address, and nothing is subtracted";
    return old && r->offset - before->offset < old->bytes ? "it overlaps the one before it" : NULL;
}

static setun_status relocate(object *o)
{
    const st_reloc *old = NULL;
    const rela *before = NULL;
    for (uint64_t i = 0; i < o->n_rela; i++) {
        const rela *r = &o->rela[i];
        const st_reloc *row = st_reloc_find(o->machine, r->type);
        if (!row)
            return refuse(o, r, row, "it is not one that position-independent kernels have");
        if (row->formula == ST_REL_NONE)
            continue;
        if (!inside(r->offset, row->bytes, o->home->bytes))
            return refuse(o, r, row, "it lies outside of its section");
        const char *why = order(before, old, r, row);
        if (why)
            return refuse(o, r, row, why);
        ST_TRY(apply(o, r, row));
        old = row;
        before = r;
    }
    if (old && old->formula == ST_REL_ADD)
        return refuse(o, before, old, "it adds an address, and nothing is subtracted");
    return SETUN_OK;
}

static int by_place(const void *x, const void *y)
{
    const rela *a = x, *b = y;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* The relocations of one section, if that is part of the image. */
static setun_status relocate_section(object *o, const section *list)
{
    if (list->info >= o->n_section)
        return bad(o, "relocations of a section that is not there");
    o->home = &o->section[list->info];
    if (o->home->at < 0)
        return SETUN_OK;
    if (list->type == SHT_REL_ || list->entry != RELA_BYTES || list->bytes % RELA_BYTES ||
        list->link >= o->n_section || &o->section[list->link] != o->symbols)
        return bad(o, "relocations of another form");
    o->n_rela = list->bytes / RELA_BYTES;
    o->rela = malloc((o->n_rela + 1) * sizeof *o->rela);
    if (!o->rela)
        return st_fail(o->err, SETUN_NO_MEMORY, "kernel %s: no memory to link it", o->kernel);
    for (uint64_t i = 0, at = list->offset; i < o->n_rela; i++, at += RELA_BYTES)
        o->rela[i] = (rela){ get(o, at, 8), (uint32_t)i, (uint32_t)get(o, o->big ? at + 12 : at + 8, 4),
                             (uint32_t)get(o, o->big ? at + 8 : at + 12, 4), (int64_t)get(o, at + 16, 8) };
    qsort(o->rela, o->n_rela, sizeof *o->rela, by_place);
    setun_status s = relocate(o);
    free(o->rela);
    o->rela = NULL;
    return s;
}

/* ---------------------------------------------------------------- the image */

static setun_status find_entry(const object *o, uint32_t *entry)
{
    for (uint64_t i = 1; i < o->n_symbol; i++) {
        sym s;
        ST_TRY(read_symbol(o, i, &s));
        if (s.type == STT_FILE_ || strcmp(s.name, o->kernel) || s.shndx >= o->n_section)
            continue;
        const section *in = &o->section[s.shndx];
        if (in->at < 0 || !(in->flags & SHF_EXECINSTR_) || s.value >= in->bytes)
            return st_fail(o->err, SETUN_BAD_FILE, "kernel %s: its symbol does not lie in code", o->kernel);
        *entry = (uint32_t)(in->at + (int64_t)s.value);
        return SETUN_OK;
    }
    return st_fail(o->err, SETUN_BAD_FILE, "kernel %s: the object file has no symbol of this name", o->kernel);
}

static setun_status link_object(object *o, st_image *m)
{
    ST_TRY(read_header(o));
    ST_TRY(read_symbols(o));
    ST_TRY(lay_out(o));
    for (uint32_t i = 1; i < o->n_section; i++)
        if (o->section[i].type == SHT_RELA_ || o->section[i].type == SHT_REL_)
            ST_TRY(relocate_section(o, &o->section[i]));
    *m = (st_image){ o->machine, (uint32_t)o->big, SETUN_LAUNCH_ABI, 0, (uint32_t)o->align, (uint32_t)o->bytes, o->blob };
    return find_entry(o, &m->entry);
}

setun_status st_image_link(const void *object_, int64_t n, const char *symbol, char **image, int64_t *image_n,
                           setun_error *err)
{
    object o = { .p = object_, .n = n < 0 ? 0 : (uint64_t)n, .kernel = symbol, .err = err, .align = 1 };
    st_image m;
    *image = NULL;
    *image_n = 0;
    setun_status s = link_object(&o, &m);
    free(o.section);
    uint8_t *all = o.blob ? o.blob - ST_IMAGE_HEADER : NULL;
    if (s != SETUN_OK) {
        free(all);
        return s;
    }
    st_image_seal(&m, all);
    *image = (char *)all;
    *image_n = ST_IMAGE_HEADER + (int64_t)m.bytes;
    return SETUN_OK;
}

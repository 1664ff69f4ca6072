/* runtime/check_packing.c -- is a declared packing what it says, and do its kernels agree with it?
 *
 *     base3 (base3.lua:5): five trits in a byte, as a fraction in base 3
 *       160 weights in 32 bytes: 1.6000 bits per weight
 *       byte 0     | 0 32 64 96 128 |                       columns that a byte's bits say, highest bit first
 *       ...
 *       round trip     ok                                   rows of many lengths, packed and unpacked
 *
 * The tests do not trust where things lie: they mark every bit of a unit, and find a digit's column by
 * looking for it among all of them.  Then packed_matmul runs with the packing through all witnesses. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/check.h"
#include "setun/packing.h"

#define NOBODY UINT16_MAX

/* Who a unit's bits and columns belong to: number of part, field, and bit or digit. */
typedef struct owner {
    uint16_t part, field, of;
} owner;

typedef struct trial {
    const setun_packing *p;
    owner bit[8 * SETUN_PACKING_UNIT], column[SETUN_PACKING_UNIT];
} trial;

static setun_status mark(trial *t, setun_error *err)
{
    const setun_packing *p = t->p;
    memset(t->bit, 0xff, sizeof t->bit);
    memset(t->column, 0xff, sizeof t->column);
    for (uint32_t j = 0; j < p->n_part; j++)
        for (uint32_t f = 0; f < p->part[j].fields; f++) {
            for (uint32_t k = 0; k < p->part[j].width; k++) {
                uint32_t b = setun_packing_bit(&p->part[j], f, k);
                if (b >= 8 * p->bytes || t->bit[b].part != NOBODY)
                    return st_fail(err, SETUN_FAILED, "bit %u of field %u of part %u is bit %u of the unit, which %s", k, f, j + 1, b,
                                   b >= 8 * p->bytes ? "has none such" : "is another's");
                t->bit[b] = (owner){(uint16_t)j, (uint16_t)f, (uint16_t)k};
            }
            for (uint32_t i = 0; i < p->part[j].digits; i++) {
                uint32_t c = setun_packing_column(&p->part[j], f, i);
                if (c >= p->digits || t->column[c].part != NOBODY)
                    return st_fail(err, SETUN_FAILED, "digit %u of field %u of part %u is column %u, which %s", i, f, j + 1, c,
                                   c >= p->digits ? "the unit has not" : "is another's");
                t->column[c] = (owner){(uint16_t)j, (uint16_t)f, (uint16_t)i};
            }
        }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the picture */

/* One byte, highest bit first: its fields by their columns, and their bits if a field has more elsewhere. */
static void draw_byte(const trial *t, uint32_t byte, st_str *s)
{
    st_str_addf(s, "  byte %-5u", byte);
    for (int b = 7; b >= 0;) {
        const owner *o = &t->bit[8 * byte + (uint32_t)b];
        int n = 1;
        while (b - n >= 0 && o[-n].part == o->part && o[-n].field == o->field)
            n++;
        const setun_packing_part *part = o->part == NOBODY ? NULL : &t->p->part[o->part];
        st_str_add(s, "|");
        for (uint32_t i = 0; part && i < part->digits; i++)
            st_str_addf(s, " %u", setun_packing_column(part, o->field, i));
        if (part && (uint32_t)n < part->width)
            st_str_addf(s, n > 1 ? " (bits %d-%d)" : " (bit %d)", (int)o->of, (int)o->of - n + 1);
        st_str_add(s, part ? " " : " - ");
        b -= n;
    }
    st_str_add(s, "|\n");
}

/* The first two bytes and the last of every plane. */
static void draw(const trial *t, st_str *s)
{
    const setun_packing *p = t->p;
    if (p->row_scale)
        st_str_addf(s, "  in front of the row: its scale\n");
    for (uint32_t j = 0; j < p->n_part; j++) {
        uint32_t at = p->part[j].at;
        if (p->scale && p->scale_at + (uint32_t)setun_row_bytes(p->scale, 1) == at)
            st_str_addf(s, "  byte %-5u| scale of the unit, %u bytes |\n", p->scale_at, at - p->scale_at);
        for (uint32_t i = 0; i < p->part[j].n_plane; i++) {
            uint32_t bytes = p->part[j].fields * p->part[j].plane[i] / 8;
            for (uint32_t b = 0; b < bytes; b = b < 1 ? b + 1 : b < bytes - 1 ? bytes - 1 : bytes) {
                if (b == bytes - 1 && b > 2)
                    st_str_add(s, "  ...\n");
                draw_byte(t, at + b, s);
            }
            at += bytes;
        }
    }
    if (p->scale && p->scale_at + (uint32_t)setun_row_bytes(p->scale, 1) == p->bytes)
        st_str_addf(s, "  byte %-5u| scale of the unit, %u bytes |\n", p->scale_at, p->bytes - p->scale_at);
}

/* ---------------------------------------------------------------- pack and unpack */

/* The number in column c, by the marks and bit for bit: not how setun_packing_get finds it. */
static int32_t by_marks(const trial *t, const uint8_t *row, int64_t c)
{
    const uint8_t *unit = row + setun_packing_unit_at(t->p, c / t->p->digits);
    const owner *o = &t->column[c % t->p->digits];
    uint32_t code = 0;
    for (uint32_t b = 0; b < 8 * t->p->bytes; b++)
        if (t->bit[b].part == o->part && t->bit[b].field == o->field && unit[b / 8] >> b % 8 & 1)
            code |= 1u << t->bit[b].of;
    return t->p->level[setun_packing_digit(t->p, &t->p->part[o->part], code, o->of)];
}

/* One row: *changed columns came back as others, which only tables may do. */
static setun_status try_row(const trial *t, int64_t n, uint64_t seed, int64_t *changed, setun_error *err)
{
    int8_t w[4 * SETUN_PACKING_UNIT] = {0}, back[4 * SETUN_PACKING_UNIT] = {0};
    uint8_t row[4 * SETUN_PACKING_UNIT + 8], again[sizeof row];
    int64_t lost = 0;
    memset(row, 0, sizeof row);
    memset(again, 0xff, sizeof again); /* every bit of a code is written, whatever was there */
    for (int64_t i = 0; i < n; i++)
        w[i] = (int8_t)t->p->level[setun_mix(seed, (uint64_t)i) % (uint64_t)t->p->n_level];
    int64_t said = setun_packing_pack(t->p, w, n, row);
    for (int64_t i = n; i-- > 0;) { /* backwards: no element needs the ones before it */
        int32_t v = setun_packing_get(t->p, row, i);
        if (v != by_marks(t, row, i))
            return st_fail(err, SETUN_FAILED, "column %" PRId64 " of %" PRId64 " is %d, and %d by the bits that it owns", i, n, v,
                           by_marks(t, row, i));
        back[i] = (int8_t)v;
        lost += v != w[i];
    }
    if (lost != said)
        return st_fail(err, SETUN_FAILED,
                       "%" PRId64 " of %" PRId64 " columns came back as others, where pack says %" PRId64, lost, n, said);
    if (setun_packing_pack(t->p, back, n, again) != 0)
        return st_fail(err, SETUN_FAILED, "what was unpacked cannot be packed without a change");
    for (int64_t i = 0; i < n; i++)
        if (setun_packing_get(t->p, again, i) != back[i])
            return st_fail(err, SETUN_FAILED, "column %" PRId64 " of %" PRId64 " changes when it is packed over other bits", i, n);
    *changed += lost;
    return SETUN_OK;
}

static setun_status try_rows(const trial *t, int64_t *n_row, int64_t *weights, int64_t *changed, setun_error *err)
{
    int64_t unit = t->p->digits;
    const int64_t length[] = {1, 7, unit - 1, unit, unit + 1, 2 * unit + unit / 2, 3 * unit + 5};
    for (uint64_t seed = 1; seed <= 3; seed++)
        for (size_t i = 0; i < sizeof length / sizeof length[0]; i++) {
            if (length[i] < 1 || length[i] > 4 * SETUN_PACKING_UNIT)
                continue;
            ST_TRY(try_row(t, length[i], seed, changed, err));
            ++*n_row;
            *weights += length[i];
        }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- kernels */

#define N_CASES 12

/* Cases of packed_matmul with this packing: one token, some and many; whole rows and rows with a rest. */
static const char **make_cases(const st_script_packing *from, const setun_packing *p, st_arena *arena)
{
    static const int32_t tokens[] = {1, 3, 18};
    const char **list = st_arena_array(arena, N_CASES + 1, sizeof *list);
    int n = 0;
    for (int shape = 0; list && shape < 3; shape++) {
        int64_t unit = p->digits, units = unit > 128 ? 3 : 384 / unit + 1, columns = shape == 1 ? units * unit : units * unit - unit / 3;
        int64_t kp = (columns + 127) / 128 * 128, rows = shape == 1 ? 17 : 5, group = shape == 2 ? 2 * unit : 0;
        for (int i = 0; i < 3; i++) {
            char symbol = tokens[i] == 1 ? ' ' : 'n', scales[64];
            char dim[24];
            (void)snprintf(dim, sizeof dim, symbol == ' ' ? "%d" : "n%d", tokens[i]);
            if (group && !p->scale)
                (void)snprintf(scales, sizeof scales, "[%" PRId64 ",%" PRId64 "]", rows, (columns + group - 1) / group);
            else
                (void)snprintf(scales, sizeof scales, "[%" PRId64 "]", shape == 1 ? rows : 1);
            list[n] = st_arena_printf(arena,
                                      "q:i8[%s,%" PRId64 "] scale:f32[%s] sum:i32[%s] w:u8[%" PRId64 ",%" PRId64 "] ws:f32%s columns=%"
                                      PRId64 " group=%" PRId64 " inside=%d packing=\"%s\"", dim, kp, dim, dim, rows,
                                      setun_packing_row_bytes(p, columns), scales, columns, group, group && p->scale, from->text);
            if (!list[n++])
                return NULL;
        }
    }
    return list;
}

setun_status st_check_packing(st_checker *c, const st_script_packing *from, setun_error *err)
{
    const setun_op *op = st_registry_find(c->e->registry, "packed_matmul");
    setun_packing *p = st_arena_alloc(c->arena, sizeof *p);
    trial *t = st_arena_alloc(c->arena, sizeof *t);
    setun_op *own = st_arena_alloc(c->arena, sizeof *own);
    st_str s = {0};
    setun_error why;
    int64_t n_row = 0, weights = 0, changed = 0;
    if (!p || !t || !own)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to check a packing");
    ST_TRY(setun_packing_read(p, from->text, err));
    t->p = p;
    st_str_addf(&s, "%s (%s)%s%s\n  %u weights in %u bytes: %.4f bits per weight%s\n", from->name, from->where, *from->doc ? ": " : "",
                from->doc, p->digits, p->bytes, setun_packing_bits(p), p->row_scale ? ", and a scale for each row" : "");
    setun_status status = mark(t, &why);
    if (status == SETUN_OK)
        draw(t, &s);
    if (status == SETUN_OK)
        status = try_rows(t, &n_row, &weights, &changed, &why);
    if (status == SETUN_OK && changed)
        st_str_addf(&s, "  round trip   lossy: %.1f %% of %" PRId64 " random weights come back as their nearest\n",
                    100.0 * (double)changed / (double)weights, weights);
    else
        st_str_addf(&s, "  round trip   %s%s\n", status == SETUN_OK ? "ok" : "FAIL: ", status == SETUN_OK ? "" : why.text);
    c->failed += status != SETUN_OK;
    if (status == SETUN_OK)
        st_str_addf(&s, "  any order    ok: %" PRId64 " rows, element by element\n", n_row);
    status = s.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for a picture") : st_check_say(c, s.text, err);
    st_str_free(&s);
    if (status == SETUN_OK)
        status = st_check_head(c, err);
    *own = *op; /* the operator, with cases of this packing */
    own->name = from->name;
    own->cases = make_cases(from, p, c->arena);
    if (status == SETUN_OK && !own->cases)
        status = st_fail(err, SETUN_NO_MEMORY, "no memory to check a packing");
    return status == SETUN_OK ? st_check_op(c, own, err) : status;
}

/* ops/packed_decode.h -- from the declaration of a packing to the instructions that take it apart.
 *
 * Several units in a row are a span: enough that vectors are full.  The fields of a span whose lowest bits have the
 * same place in their bytes make a vector, up to `lanes` of them in the order of memory:
 *
 *     packed, 2 bits   byte  0        1        2               vector 0: fields 0 4 8 ...   shift 0
 *                           |3|2|1|0| |7|6|5|4| |11|10|9|8|    vector 1: fields 1 5 9 ...   shift 2, and so on
 *
 * so that a vector is a load, a shift and a mask, however fields are dealt to bytes: what moves are the activations,
 * once for all rows, into the order in which digits come out.  Bits of a field that lie elsewhere, in another
 * plane or in the next byte, are further pieces of the same kind.  Where the place in the byte differs from lane to
 * lane a piece is one bit: its bytes, shuffled, and a comparison with a mask.
 *
 * A code then becomes digits: by itself (bits), by comparisons and products in base n (integer, fraction), or by
 * tables of 16 and selects.  What comes out is never negative: digit times step, or level less the smallest
 * one; `offset` of the declaration is put right with the sum of the activations. */
#ifndef SETUN_OPS_PACKED_DECODE_H
#define SETUN_OPS_PACKED_DECODE_H

#include "setun/op.h"
#include "setun/packing.h"

#define MOST_LANES   64
#define MOST_VECTORS 96 /* of one unit: at most 8 parts have 8 places each, and 1024 digits fill 32 vectors */
#define MOST_LOADS   32

typedef struct packed_vector {
    const setun_packing_part *part; /* of those in it the one with the most digits */
    uint32_t n;                     /* fields; lanes behind them hold anything */
    uint16_t unit[MOST_LANES], field[MOST_LANES];
    const setun_packing_part *of[MOST_LANES];
} packed_vector;

typedef struct packed {
    setun_kernel *k;
    const setun_packing *p;
    uint32_t lanes, units;      /* of a vector; of a span */
    int64_t  span_digits, span_bytes, span_lanes; /* lanes of all digits' vectors */
    int32_t  step, offset, most; /* level = step * number + offset; the largest that comes out */
    int      affine;            /* levels are evenly spaced, and no table is needed for them */
    int      whole;             /* digits are wanted as level - offset, not as numbers, nor shifted */
    uint32_t n_vector;
    packed_vector vector[MOST_VECTORS];
    k_val    w;                 /* bytes */
    /* Loads of the span at hand: rows of bytes that several vectors share. */
    k_val    base, loaded[MOST_LOADS];
    int32_t  start[MOST_LOADS], bytes[MOST_LOADS];
    int      n_loaded;
} packed;

/* ---------------------------------------------------------------- vectors of a span */

/* May the fields of part j stand behind those of part j - 1 in a vector?  Bytes that are fractions are decoded alike
 * whether they hold five digits or four: the digits that are not there meet activations of 0. */
static int joins(const setun_packing *p, uint32_t j)
{
    const setun_packing_part *a = &p->part[j - 1], *b = &p->part[j];
    return !a->steps.n && !b->steps.n && a->coding == SETUN_FRACTION && b->coding == SETUN_FRACTION && a->n_plane == 1 && a->width == 8 && b->n_plane == 1 &&
           b->width == 8 && !a->low && !b->low && a->at + a->bytes == b->at;
}

static void packed_begin(packed *d, packed_vector *v)
{
    v->n = 0;
    v->part = NULL;
    d->n_vector++;
}

/* Fields of parts [j, end) whose lowest bits are at `place` of their bytes; 0 if they are too many. */
static int cut_parts(packed *d, uint32_t units, uint32_t j, uint32_t end, uint32_t place)
{
    packed_vector *v = NULL;
    for (uint32_t u = 0; u < units; u++)
        for (uint32_t i = j; i < end; i++)
            for (uint32_t f = 0; f < d->p->part[i].fields; f++) {
                const setun_packing_part *t = &d->p->part[i];
                if (setun_packing_bit(t, f, 0) % 8 != place)
                    continue;
                if (!v || v->n == d->lanes) {
                    if (d->n_vector == MOST_VECTORS)
                        return 0;
                    v = &d->vector[d->n_vector];
                    packed_begin(d, v);
                }
                v->part = !v->part || t->digits > v->part->digits ? t : v->part;
                v->unit[v->n] = (uint16_t)u;
                v->of[v->n] = t;
                v->field[v->n++] = (uint16_t)f;
            }
    return 1;
}

/* The vectors of `units` units, or 0 if they are too many. */
static int packed_cut(packed *d, uint32_t units)
{
    int ok = 1;
    d->n_vector = 0;
    d->span_lanes = 0;
    for (uint32_t j = 0, end; j < d->p->n_part && ok; j = end) {
        for (end = j + 1; end < d->p->n_part && joins(d->p, end); end++)
            ;
        for (uint32_t place = 0; place < 8 && ok; place++)
            ok = cut_parts(d, units, j, end, place);
    }
    for (uint32_t i = 0; i < d->n_vector; i++)
        d->span_lanes += d->lanes * d->vector[i].part->digits;
    return ok;
}

/* Spans of at most n units: as many, and vectors as wide (lanes 0: any width that the machine likes), as need the
 * fewest vectors for a digit, of equals the fewest and narrowest.  `whole` units, which share a scale or are a row, must be
 * whole spans (0: they need not). */
static void packed_open(packed *d, setun_kernel *k, const setun_packing *p, int64_t n, int64_t whole, uint32_t lanes)
{
    int64_t best = INT64_MAX;
    uint32_t units = 1, narrow = lanes ? lanes : 32, widest = narrow;
    memset(d, 0, sizeof *d);
    d->k = k;
    d->p = p;
    if (!lanes && k_info(k, K_HAS_DOT4) && k_info(k, K_VECTOR_BYTES) >= 64)
        widest = 64;
    for (uint32_t wide = narrow; wide <= widest; wide *= 2)
        for (uint32_t u = 1; u <= 16; u *= 2) {
            d->lanes = wide;
            if (u > 1 && (u > n || u * p->digits > 1024 || u * p->bytes > 512 || whole % u || !packed_cut(d, u)))
                break;
            int64_t cost = packed_cut(d, u) ? d->span_lanes / wide * 65536 / (u * p->digits) : INT64_MAX;
            if (cost < best) {
                best = cost;
                units = u;
                lanes = wide;
            }
        }
    d->lanes = lanes;
    (void)packed_cut(d, units); /* as it did above */
    d->units = units;
    d->span_digits = units * p->digits;
    d->span_bytes = units * p->bytes;
    d->affine = 1;
    d->step = p->level[1] - p->level[0];
    int32_t least = p->level[0], top = p->level[0];
    for (int32_t i = 0; i < p->n_level; i++) {
        d->affine &= p->level[i] == p->level[0] + i * d->step && d->step > 0;
        least = p->level[i] < least ? p->level[i] : least;
        top = p->level[i] > top ? p->level[i] : top;
    }
    d->offset = least;
    d->most = top - least;
    for (uint32_t j = 0; j < p->n_part; j++)
        d->affine &= !p->part[j].steps.n || d->step == 1; /* steps by hand give levels, not their numbers */
    if (!d->affine)
        d->step = 1;
    d->most /= d->step;
}

/* ---------------------------------------------------------------- bytes */

static k_val byte_const(const packed *d, int32_t v)
{
    return k_int(d->k, K_TYPE(K_I8, d->lanes), (int8_t)(uint8_t)v);
}

/* A constant of its own in every lane. */
static k_val lanes_const(setun_kernel *k, const uint8_t *v, uint32_t n)
{
    if (n == 1)
        return k_int(k, K_TYPE(K_I8, 1), (int8_t)v[0]);
    return k_concat(k, lanes_const(k, v, n / 2), lanes_const(k, v + n / 2, n - n / 2));
}

/* `wide` bytes (a power of two) of the span from start on, of which n are wanted; nothing is read behind the span but
 * what is wanted. */
static k_val span_load(packed *d, int32_t start, int32_t n, uint32_t wide)
{
    int32_t have = start + (int32_t)wide <= (int32_t)d->span_bytes ? (int32_t)wide : n;
    for (int i = 0; i < d->n_loaded; i++)
        if (d->start[i] == start && d->bytes[i] >= have && K_LANES(k_type_of(d->k, d->loaded[i])) == wide)
            return d->loaded[i];
    k_val v = k_load_pad(d->k, d->w, k_addi(d->k, d->base, start), have, wide, 0);
    if (d->n_loaded < MOST_LOADS) {
        d->start[d->n_loaded] = start;
        d->bytes[d->n_loaded] = have;
        d->loaded[d->n_loaded++] = v;
    }
    return v;
}

/* The same where each eight of n bytes, a power of two, lie together: units that follow each other. */
static k_val join_eights(packed *d, const int32_t *at, uint32_t n)
{
    int in_order = 1;
    for (uint32_t l = 0; l < n; l++)
        in_order &= at[l] == at[0] + (int32_t)l;
    if (in_order)
        return span_load(d, at[0], (int32_t)n, n);
    k_val low = join_eights(d, at, n / 2);
    return k_concat(d->k, low, join_eights(d, at + n / 2, n / 2));
}

/* Byte at[l] of the span in lane l < n. */
static k_val span_bytes(packed *d, const int32_t *at, uint32_t n)
{
    int32_t mask[MOST_LANES], low = at[0], high = at[0];
    int in_order = 1, eights = 1;
    uint32_t wide = 1;
    for (uint32_t l = 0; l < n; l++) {
        in_order &= at[l] == at[0] + (int32_t)l;
        eights &= at[l] == at[l / 8 * 8] + (int32_t)(l % 8);
        low = at[l] < low ? at[l] : low;
        high = at[l] > high ? at[l] : high;
    }
    if (in_order)
        return span_load(d, low, (int32_t)n, d->lanes);
    if (eights && n == d->lanes)
        return join_eights(d, at, n);
    while (wide < (uint32_t)(high - low + 1))
        wide *= 2;
    if (wide > K_MAX_LANES) { /* far apart: two halves, put together */
        k_val a = span_bytes(d, at, n / 2), b = span_bytes(d, at + n / 2, n - n / 2);
        for (uint32_t l = 0; l < d->lanes; l++)
            mask[l] = l < n / 2 ? (int32_t)l : l < n ? (int32_t)(d->lanes + l - n / 2) : 0;
        return k_shuffle(d->k, a, b, mask, d->lanes);
    }
    k_val v = span_load(d, low, high - low + 1, wide);
    for (uint32_t l = 0; l < d->lanes; l++)
        mask[l] = l < n ? at[l] - low : 0;
    return k_shuffle(d->k, v, v, mask, d->lanes);
}

/* Bytes shifted up (n > 0) or down, with what crosses a byte in them: the shift runs on 16-bit lanes, which every
 * machine has, and a mask follows. */
static k_val shift_bytes(const packed *d, k_val v, int32_t n)
{
    setun_kernel *k = d->k;
    if (n == 0)
        return v;
    k_val h = k_cast(k, v, K_TYPE(K_I16, d->lanes / 2));
    h = n > 0 ? k_shl(k, h, n) : k_shru(k, h, -n);
    return k_cast(k, h, K_TYPE(K_I8, d->lanes));
}

/* ---------------------------------------------------------------- codes */

/* Where bit k of the vector's fields lies, in bits of the span; 1 if it has the same place in every byte. */
static int find_bits(const packed *d, const packed_vector *v, uint32_t k, int32_t *at)
{
    int same = 1;
    for (uint32_t l = 0; l < v->n; l++) {
        at[l] = (int32_t)(8 * v->unit[l] * d->p->bytes + setun_packing_bit(v->of[l], v->field[l], k));
        same &= at[l] % 8 == at[0] % 8;
    }
    return same;
}

/* How many bits from k on follow bit k in the same byte, in all lanes. */
static uint32_t run_of(const packed *d, const packed_vector *v, uint32_t k, const int32_t *at)
{
    int32_t next[MOST_LANES];
    uint32_t run = 1, place = (uint32_t)at[0] % 8;
    for (; k + run < v->part->width && place + run < 8; run++) {
        (void)find_bits(d, v, k + run, next);
        for (uint32_t l = 0; l < v->n; l++)
            if (next[l] != at[l] + (int32_t)run)
                return run;
    }
    return run;
}

/* The codes of a vector, as unsigned bytes.  up: they may come 2^*up as large, where that saves a shift. */
static k_val vector_codes(packed *d, const packed_vector *v, int32_t *up)
{
    setun_kernel *k = d->k;
    int32_t at[MOST_LANES], byte[MOST_LANES];
    uint8_t bit[MOST_LANES] = {0};
    k_val sum = 0;
    for (uint32_t b = 0, run; b < v->part->width; b += run) {
        int same = find_bits(d, v, b, at);
        int32_t place = at[0] % 8;
        run = same ? run_of(d, v, b, at) : 1;
        for (uint32_t l = 0; l < v->n; l++) {
            byte[l] = at[l] / 8;
            bit[l] = (uint8_t)(1u << at[l] % 8);
        }
        k_val bytes = span_bytes(d, byte, v->n), piece;
        if (same && up && run == v->part->width) {
            /* Shifts by 4 are shared with the other nibble; what is left of the shift stays in the products. */
            *up = place % 4;
            return run == 8 ? bytes : k_and(k, shift_bytes(d, bytes, -(place - *up)), byte_const(d, ((1 << run) - 1) << *up));
        }
        if (same) {
            piece = shift_bytes(d, bytes, (int32_t)b - place);
            if (run < 8)
                piece = k_and(k, piece, byte_const(d, ((1 << run) - 1) << b));
        } else {
            k_val m = lanes_const(k, bit, d->lanes);
            piece = k_and(k, k_sext(k, k_eq(k, k_and(k, bytes, m), m), K_I8), byte_const(d, 1 << b));
        }
        sum = sum ? k_or(k, sum, piece) : piece;
    }
    return sum;
}

/* ---------------------------------------------------------------- digits */

/* table[code] by tables of 16 and selects; n entries, a power of two from 16 on. */
static k_val look_up(const packed *d, const uint8_t *table, uint32_t n, k_val code)
{
    setun_kernel *k = d->k;
    if (n == 16)
        return k_lut16(k, lanes_const(k, table, 16), code);
    k_val half = byte_const(d, (int32_t)(n / 2)), m = k_eq(k, k_and(k, code, half), half);
    k_val low = look_up(d, table, n / 2, code);
    int same = 1, mirror = 1;
    int32_t sum = table[0] + table[n / 2];
    for (uint32_t i = 0; i < n / 2; i++) {
        same &= table[i] == table[n / 2 + i];
        mirror &= table[i] + table[n / 2 + i] == sum;
    }
    if (same)
        return low;
    if (mirror) { /* sum - t = ~t + sum + 1 */
        k_val s = k_sext(k, m, K_I8);
        return k_add(k, k_xor(k, low, s), k_and(k, s, byte_const(d, sum + 1)));
    }
    return k_select(k, m, look_up(d, table + n / 2, n / 2, code), low);
}

/* Digit i of codes from a table: of the part, or of levels that are not evenly spaced. */
static k_val table_digit(const packed *d, const setun_packing_part *t, k_val code, uint32_t i)
{
    uint8_t table[256];
    uint32_t n = t->width < 4 ? 16 : 1u << t->width;
    for (uint32_t c = 0; c < n; c++) {
        uint32_t in = c & ((1u << t->width) - 1);
        int32_t level = d->p->level[setun_packing_digit(d->p, t, in, i)];
        table[c] = (uint8_t)((level - d->offset) / d->step);
    }
    return look_up(d, table, n, code);
}

/* How many of t * unit, for t from 1 to n - 1, are at most v; both are less 128, so that comparisons with a
 * sign are right.  rest: v less that many units. */
static k_val count_units(const packed *d, k_val v, const int32_t *unit, k_val *rest)
{
    setun_kernel *k = d->k;
    k_val sum = byte_const(d, 0);
    for (int32_t t = 1; t < d->p->n_level; t++) {
        if (unit[t] > 255)
            break;
        k_val m = k_sext(k, k_lt(k, byte_const(d, unit[t] - 129), v), K_I8);
        sum = k_sub(k, sum, m);
        if (rest)
            *rest = k_sub(k, *rest, k_and(k, m, byte_const(d, unit[1])));
    }
    return sum;
}

/* The digits of a fraction: what a product with n carries out of 8 bits.  v is less 128:
 * n (v + 128) - 128 = n v + 128 (n - 1), and 128 times an even number is 0 in a byte. */
static void fraction_digits(const packed *d, const setun_packing_part *t, k_val code, k_val *digit)
{
    setun_kernel *k = d->k;
    int32_t n = d->p->n_level, unit[SETUN_PACKING_LEVELS];
    for (int32_t i = 1; i < n; i++)
        unit[i] = (256 * i + n - 1) / n;
    /* A code has no more than its own bits, so that shifted it fills its byte and no other. */
    k_val v = k_xor(k, shift_bytes(d, code, 8 - (int32_t)t->width), byte_const(d, 128));
    for (uint32_t i = 0; i < t->digits; i++) {
        digit[t->low ? t->digits - 1 - i : i] = count_units(d, v, unit, NULL);
        if (i + 1 == t->digits)
            break;
        k_val sum = 0, power = v; /* n v, by doubling: bytes have no product */
        for (int32_t m = n; m; m >>= 1, power = m ? k_add(k, power, power) : power)
            if (m & 1)
                sum = sum ? k_add(k, sum, power) : power;
        v = n % 2 ? sum : k_xor(k, sum, byte_const(d, 128));
    }
}

static void integer_digits(const packed *d, const setun_packing_part *t, k_val code, k_val *digit)
{
    setun_kernel *k = d->k;
    int32_t unit[SETUN_PACKING_LEVELS];
    k_val v = k_xor(k, code, byte_const(d, 128));
    for (uint32_t i = 0; i < t->digits; i++) {
        uint32_t at = t->low ? t->digits - 1 - i : i;
        int32_t one = (int32_t)setun_packing_power(d->p, t->digits - 1 - i);
        for (int32_t u = 1; u < d->p->n_level; u++)
            unit[u] = u * one;
        if (one == 1)
            digit[at] = k_xor(k, v, byte_const(d, 128));
        else
            digit[at] = count_units(d, v, unit, &v);
    }
}

/* What somebody wrote by hand, for all bytes at once. */
static void steps_digits(const packed *d, const setun_packing_part *t, k_val code, k_val *digit)
{
    const setun_packing_steps *s = &t->steps;
    setun_kernel *k = d->k;
    k_val v[SETUN_PACKING_STEPS] = {code};
    for (uint32_t i = 1; i < s->n; i++) {
        const setun_packing_step *at = &s->step[i];
        k_val a = v[at->a], b = v[setun_packing_b_is_number(at) ? 0 : at->b];
        switch (at->op) {
        case 'k': v[i] = byte_const(d, at->b); break;
        case '+': v[i] = k_add(k, a, b); break;
        case '-': v[i] = k_sub(k, a, b); break;
        case '&': v[i] = k_and(k, a, b); break;
        case '|': v[i] = k_or(k, a, b); break;
        case '^': v[i] = k_xor(k, a, b); break;
        case '<': v[i] = k_and(k, shift_bytes(d, a, at->b), byte_const(d, 255 << at->b & 255)); break;
        case '>': v[i] = k_and(k, shift_bytes(d, a, -at->b), byte_const(d, 255 >> at->b)); break;
        case 'g': v[i] = k_sext(k, k_lt(k, b, a), K_I8); break;
        case '=': v[i] = k_sext(k, k_eq(k, a, b), K_I8); break;
        case '?': v[i] = k_or(k, k_and(k, a, b), k_and(k, k_xor(k, a, byte_const(d, 255)), v[at->c])); break;
        default: /* t: its index is cut where it can be larger */
            a = s->most[at->a] > 15 ? k_and(k, a, byte_const(d, 15)) : a;
            v[i] = k_lut16(k, lanes_const(k, at->table, 16), a);
        }
    }
    for (uint32_t i = 0; i < t->digits; i++)
        digit[i] = v[s->digit[i]];
}

/* The digits of vector v: *digit[i], unsigned bytes, times 2^*up. */
static void vector_digits(packed *d, const packed_vector *v, k_val *digit, int32_t *up)
{
    const setun_packing_part *t = v->part;
    int plain = t->coding == SETUN_BITS && d->affine && !t->steps.n;
    *up = 0;
    k_val code = vector_codes(d, v, plain && !d->whole ? up : NULL);
    if (t->steps.n) { /* with even levels those are one apart */
        steps_digits(d, t, code, digit);
        return;
    }
    /* Two tables of 16 beat comparisons; and levels out of line need tables for every digit. */
    int small = t->coding != SETUN_BITS && t->width <= 5 && k_info(d->k, K_HAS_LUT16);
    if (t->coding == SETUN_TABLE || !d->affine || small)
        for (uint32_t i = 0; i < t->digits; i++)
            digit[i] = table_digit(d, t, code, i);
    else if (t->coding == SETUN_BITS)
        digit[0] = code;
    else if (t->coding == SETUN_FRACTION)
        fraction_digits(d, t, code, digit);
    else
        integer_digits(d, t, code, digit);
    for (uint32_t i = 0; i < t->digits && d->whole && d->step > 1; i++)
        digit[i] = k_mul(d->k, digit[i], byte_const(d, d->step));
}

/* The span that begins at byte `base` of w is next. */
static void span_begin(packed *d, k_val base)
{
    d->base = base;
    d->n_loaded = 0;
}

#endif

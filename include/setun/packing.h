/* setun/packing.h -- how small integers lie in bytes, as a declaration: what scripts say with setun.packing.
 *
 * Included by whoever needs it; setun/op.h does not bring it in.  A row of a packed matrix is an optional scale of
 * the row, and then units of a fixed number of digits and bytes.  A unit is parts, one behind the other, and each part is fields:
 *
 *     row     | scale of the row | unit 0 | unit 1 | ... | last unit, filled up with zeros |
 *     unit    | fields of part 0 | fields of part 1 | ... | scale of the unit |
 *     field   `width` bits that say one or several digits:
 *                bits      one digit: the number of its level
 *                integer   `digits` of them in base n, n levels: the first counts most, or least (`low`)
 *                fraction  the same number v as the fraction v / n^digits, rounded up to width bits: the next
 *                          digit is what a multiplication by n carries out.  As n^digits <= 2^width, what is
 *                          added by rounding is less than 1 / n^digits, and no digit shows it
 *                table     the row of a table that lists what the digits can be together
 *     plane   bits of a field that lie together.  A part with the planes 4 + 1 has the low 4 bits of all its
 *             fields first, and then the fifth bits.
 *
 * Fields of a plane follow each other from the lowest bit of its first byte on (`down`: from the highest bits of
 * each byte), or, `strided`, neighbouring fields are in neighbouring bytes:
 *
 *     8 fields of 2 bits, packed     |3|2|1|0|  |7|6|5|4|        strided     |6|4|2|0|  |7|5|3|1|
 *
 * The digits of a field are neighbouring columns of the matrix, or, `apart`, as many columns apart as
 * the part has fields.
 *
 * As text, which is an attribute of the operator packed_matmul, so that graphs and dumps show it whole:
 *
 *     levels -1 0 1; fraction 24x5 8 apart; fraction 2x4 8 apart; scale f16
 *
 * A part is its coding, fields x digits, its planes' bits with + in between, and the words above.  Behind those may be how
 * kernels decode it, where somebody knows better than what is derived: setun/packing_steps.h. */
#ifndef SETUN_PACKING_H
#define SETUN_PACKING_H

#include <string.h>

#include "setun/op.h"
#include "setun/packing_steps.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SETUN_PACKING_LEVELS  128 /* a level less the smallest one is at most 127: it meets int8 in 16 bits */
#define SETUN_PACKING_PARTS   8
#define SETUN_PACKING_DIGITS  8   /* of one field */
#define SETUN_PACKING_PLANES  8
#define SETUN_PACKING_UNIT    1024 /* digits and bytes of a unit */
#define SETUN_PACKING_GROUPS  4096 /* what the digits of a field of a table could be together */
#define SETUN_PACKING_TEXT    4096

enum { SETUN_BITS, SETUN_INTEGER, SETUN_FRACTION, SETUN_TABLE, SETUN_N_CODING };

typedef struct setun_packing_part {
    uint32_t coding, fields, digits, width;
    uint32_t n_plane, plane[SETUN_PACKING_PLANES];
    uint32_t strided, down, apart, low;
    uint32_t bytes, at, column; /* size in bytes; where it begins in the unit, and in its columns */
    uint32_t all;               /* ways to choose the digits of a field */
    uint32_t n_row;             /* of the table: level numbers, `digits` in a row */
    uint8_t  table[128 * SETUN_PACKING_DIGITS];
    setun_packing_steps steps;
    uint8_t  nearest[SETUN_PACKING_GROUPS]; /* the row next to the digits as a number in base n_level */
} setun_packing_part;

typedef struct setun_packing {
    int32_t  n_level, level[SETUN_PACKING_LEVELS];
    uint32_t n_part, digits, bytes; /* of a unit, scale included */
    uint32_t scale;      /* dtype of the unit's scale, 0: none; */
    uint32_t scale_at;   /* its byte in the unit */
    uint32_t row_scale;  /* dtype of the row's scale, 0: none; it is in front */
    setun_packing_part part[SETUN_PACKING_PARTS];
} setun_packing;

/* ---------------------------------------------------------------- where things lie */

/* Bit k of field f: its place in the unit, in bits. */
static inline uint32_t setun_packing_bit(const setun_packing_part *t, uint32_t f, uint32_t k)
{
    uint32_t base = 8 * t->at, j = 0;
    for (; k >= t->plane[j]; j++) {
        base += t->fields * t->plane[j];
        k -= t->plane[j];
    }
    uint32_t w = t->plane[j], n = t->fields * w / 8, in_byte = 8 / w;
    if (!t->strided && !t->down)
        return base + f * w + k;
    uint32_t byte = t->strided ? f % n : f / in_byte, slot = t->strided ? f / n : f % in_byte;
    return base + 8 * byte + (t->down ? in_byte - 1 - slot : slot) * w + k;
}

/* The column of digit i of field f in the unit. */
static inline uint32_t setun_packing_column(const setun_packing_part *t, uint32_t f, uint32_t i)
{
    return t->column + (t->apart ? i * t->fields + f : f * t->digits + i);
}

static inline uint32_t setun_packing_field(const setun_packing_part *t, const uint8_t *unit, uint32_t f)
{
    uint32_t code = 0;
    for (uint32_t k = 0; k < t->width; k++) {
        uint32_t b = setun_packing_bit(t, f, k);
        code |= (uint32_t)(unit[b / 8] >> b % 8 & 1) << k;
    }
    return code;
}

static inline void setun_packing_put_field(const setun_packing_part *t, uint8_t *unit, uint32_t f, uint32_t code)
{
    for (uint32_t k = 0; k < t->width; k++) {
        uint32_t b = setun_packing_bit(t, f, k);
        unit[b / 8] = (uint8_t)((unit[b / 8] & ~(1u << b % 8)) | (code >> k & 1) << b % 8);
    }
}

/* Bytes of a row of n columns. */
static inline int64_t setun_packing_row_bytes(const setun_packing *p, int64_t n)
{
    int64_t units = (n + p->digits - 1) / p->digits;
    return (p->row_scale ? setun_row_bytes(p->row_scale, 1) : 0) + units * p->bytes;
}

static inline double setun_packing_bits(const setun_packing *p)
{
    return 8.0 * (double)p->bytes / (double)p->digits;
}

/* ---------------------------------------------------------------- one field */

static inline uint32_t setun_packing_power(const setun_packing *p, uint32_t digits)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < digits && n <= UINT32_MAX / SETUN_PACKING_LEVELS; i++)
        n *= (uint32_t)p->n_level;
    return n;
}

/* Digit i (a level's number) of a code.  Codes that are never written have digits, too. */
static inline uint32_t setun_packing_digit(const setun_packing *p, const setun_packing_part *t, uint32_t code, uint32_t i)
{
    uint32_t n = (uint32_t)p->n_level, at = t->low ? t->digits - 1 - i : i; /* how many count more than it */
    if (t->coding == SETUN_BITS)
        return code < n ? code : 0;
    if (t->coding == SETUN_TABLE)
        return t->table[(code < t->n_row ? code : 0) * t->digits + i];
    if (t->coding == SETUN_INTEGER)
        return code / setun_packing_power(p, t->digits - 1 - at) % n;
    uint32_t mask = (1u << t->width) - 1;
    for (uint32_t j = 0; j < at; j++)
        code = code * n & mask;
    return code * n >> t->width;
}

/* The code of digits; of a table, that of the nearest row: the least sum of squares, of equals the first. */
static inline uint32_t setun_packing_code(const setun_packing *p, const setun_packing_part *t, const uint8_t *digit)
{
    uint32_t v = 0, n = (uint32_t)p->n_level;
    for (uint32_t i = 0; i < t->digits; i++)
        v = v * n + digit[t->low ? t->digits - 1 - i : i];
    if (t->coding == SETUN_TABLE)
        return t->nearest[v];
    return t->coding == SETUN_FRACTION ? ((v << t->width) + t->all - 1) / t->all : v;
}

/* The number of the level next to v, of equals the first. */
static inline uint32_t setun_packing_nearest(const setun_packing *p, int32_t v)
{
    uint32_t best = 0;
    int32_t least = INT32_MAX;
    for (int32_t i = 0; i < p->n_level; i++) {
        int32_t d = p->level[i] > v ? p->level[i] - v : v - p->level[i];
        if (d < least) {
            least = d;
            best = (uint32_t)i;
        }
    }
    return best;
}

/* ---------------------------------------------------------------- rows */

static inline void setun_packing_put_scale(uint8_t *at, uint32_t dtype, float scale)
{
    uint32_t u = dtype == SETUN_F32 ? setun_f32_bits(scale) : dtype == SETUN_F16 ? setun_f32_f16(scale) : setun_f32_bf16(scale);
    for (int64_t i = 0; i < setun_row_bytes(dtype, 1); i++)
        at[i] = (uint8_t)(u >> 8 * i);
}

static inline float setun_packing_get_scale(const uint8_t *at, uint32_t dtype)
{
    uint32_t u = 0;
    for (int64_t i = 0; i < setun_row_bytes(dtype, 1); i++)
        u |= (uint32_t)at[i] << 8 * i;
    return dtype == SETUN_F32 ? setun_bits_f32(u) : dtype == SETUN_F16 ? setun_f16_f32((uint16_t)u) : setun_bf16_f32((uint16_t)u);
}

/* A scale as the type keeps it; 0: where scales are kept apart, as f32. */
static inline float setun_packing_keep_scale(uint32_t dtype, float scale)
{
    uint8_t at[4];
    if (!dtype)
        return scale;
    setun_packing_put_scale(at, dtype, scale);
    return setun_packing_get_scale(at, dtype);
}

/* Where unit u of a row begins. */
static inline int64_t setun_packing_unit_at(const setun_packing *p, int64_t u)
{
    return (p->row_scale ? setun_row_bytes(p->row_scale, 1) : 0) + u * p->bytes;
}

/* Where a unit's fields and digits go, worked out once for many units: parts, then fields, then digits. */
typedef struct setun_packing_plan {
    struct { uint16_t byte; uint8_t shift, together; } field[SETUN_PACKING_UNIT]; /* together: its bits are neighbours in a byte */
    uint16_t column[SETUN_PACKING_UNIT];
    uint8_t  level[256];  /* the number of the level next to a byte as int8 */
} setun_packing_plan;

static inline void setun_packing_make_plan(const setun_packing *p, setun_packing_plan *plan)
{
    uint32_t n_field = 0, n_column = 0;
    for (int32_t v = -128; v < 128; v++)
        plan->level[(uint8_t)(int8_t)v] = (uint8_t)setun_packing_nearest(p, v);
    for (uint32_t j = 0; j < p->n_part; j++)
        for (uint32_t f = 0; f < p->part[j].fields; f++, n_field++) {
            const setun_packing_part *t = &p->part[j];
            uint32_t b = setun_packing_bit(t, f, 0), k = 1;
            while (k < t->width && b % 8 + k < 8 && setun_packing_bit(t, f, k) == b + k)
                k++;
            plan->field[n_field].byte = (uint16_t)(b / 8);
            plan->field[n_field].shift = (uint8_t)(b % 8);
            plan->field[n_field].together = k == t->width;
            for (uint32_t i = 0; i < t->digits; i++)
                plan->column[n_column++] = (uint16_t)setun_packing_column(t, f, i);
        }
}

/* n <= p->digits small integers to a unit; columns behind them are 0, or what is next to it.  The scale is left alone.
 * Returns how many columns do not come back as they were. */
static inline int64_t setun_packing_pack_unit(const setun_packing *p, const setun_packing_plan *plan, const int8_t *w,
                                              int64_t n, uint8_t *unit)
{
    const uint16_t *column = plan->column;
    uint8_t digit[SETUN_PACKING_DIGITS];
    int64_t changed = 0;
    uint32_t at = 0;
    for (uint32_t j = 0; j < p->n_part; j++) {
        const setun_packing_part *t = &p->part[j];
        uint32_t mask = (1u << t->width) - 1;
        for (uint32_t f = 0; f < t->fields; f++, at++, column += t->digits) {
            for (uint32_t i = 0; i < t->digits; i++)
                digit[i] = plan->level[(uint8_t)(column[i] < n ? w[column[i]] : 0)];
            uint32_t code = setun_packing_code(p, t, digit);
            uint8_t *byte = &unit[plan->field[at].byte];
            if (plan->field[at].together)
                *byte = (uint8_t)((*byte & ~(mask << plan->field[at].shift)) | code << plan->field[at].shift);
            else
                setun_packing_put_field(t, unit, f, code);
            /* Only tables give back other digits than they got. */
            for (uint32_t i = 0; i < t->digits; i++) {
                uint32_t back = t->coding == SETUN_TABLE ? t->table[code * t->digits + i] : digit[i];
                changed += column[i] < n && p->level[back] != w[column[i]];
            }
        }
    }
    return changed;
}

/* The same for a row of n. */
static inline int64_t setun_packing_pack(const setun_packing *p, const int8_t *w, int64_t n, uint8_t *row)
{
    setun_packing_plan plan;
    int64_t changed = 0;
    setun_packing_make_plan(p, &plan);
    for (int64_t u = 0; u * p->digits < n; u++)
        changed += setun_packing_pack_unit(p, &plan, w + u * p->digits, n - u * p->digits, row + setun_packing_unit_at(p, u));
    return changed;
}

/* The number in column c of a row, found without its neighbours. */
static inline int32_t setun_packing_get(const setun_packing *p, const uint8_t *row, int64_t c)
{
    const uint8_t *unit = row + setun_packing_unit_at(p, c / p->digits);
    uint32_t in_unit = (uint32_t)(c % p->digits), j = 0;
    while (j + 1 < p->n_part && in_unit >= p->part[j + 1].column)
        j++;
    const setun_packing_part *t = &p->part[j];
    uint32_t d = in_unit - t->column, f = t->apart ? d % t->fields : d / t->digits, i = t->apart ? d / t->fields : d % t->digits;
    return p->level[setun_packing_digit(p, t, setun_packing_field(t, unit, f), i)];
}

/* ---------------------------------------------------------------- text */

/* What is left of a text, and the word at its front. */
typedef struct setun_packing_words {
    const char *p;
    char        word[160];
} setun_packing_words;

/* The next word up to a blank or the statement's end; 0: there is none.  Words of tables are read in place. */
static inline int setun_packing_word(setun_packing_words *w)
{
    size_t n;
    w->p += strspn(w->p, " ");
    n = strcspn(w->p, " ;");
    size_t keep = n < sizeof w->word ? n : sizeof w->word - 1;
    memcpy(w->word, w->p, keep);
    w->word[keep] = 0;
    w->p += n;
    return n > 0;
}

static inline int setun_packing_number(const char **p, int32_t *v)
{
    int32_t sign = **p == '-' ? -1 : 1, n = 0;
    const char *s = *p + (sign < 0);
    if (*s < '0' || *s > '9')
        return 0;
    for (; *s >= '0' && *s <= '9' && n < 100000; s++)
        n = 10 * n + (*s - '0');
    *v = sign * n;
    *p = s;
    return 1;
}

static inline setun_status setun_packing_read_levels(setun_packing *p, setun_packing_words *w, setun_error *err)
{
    while (setun_packing_word(w)) {
        const char *s = w->word;
        int32_t first, last;
        int ok = setun_packing_number(&s, &first);
        last = first;
        if (ok && *s == ':') { /* -8:7, all of them */
            s++;
            ok = setun_packing_number(&s, &last);
        }
        if (!ok || *s || last < first || first < -127 || last > 127 || last - first >= SETUN_PACKING_LEVELS - p->n_level)
            return setun_fail(err, SETUN_BAD_ARG, "'%s' is no level: up to 128 whole numbers from -127 to 127, or -8:7", w->word);
        for (; first <= last; first++)
            p->level[p->n_level++] = first;
    }
    return SETUN_OK;
}

static inline uint32_t setun_packing_float(const char *name)
{
    return strcmp(name, "f16") == 0 ? SETUN_F16 : strcmp(name, "bf16") == 0 ? SETUN_BF16 : strcmp(name, "f32") == 0 ? SETUN_F32 : 0;
}

static inline setun_status setun_packing_read_scale(setun_packing *p, setun_packing_words *w, setun_error *err)
{
    uint32_t dtype = setun_packing_word(w) ? setun_packing_float(w->word) : 0;
    int row = setun_packing_word(w);
    if (!dtype || (row && strcmp(w->word, "row")))
        return setun_fail(err, SETUN_BAD_ARG, "a scale is f16, bf16 or f32, of the unit or with the word row");
    if (p->row_scale || p->scale)
        return setun_fail(err, SETUN_BAD_ARG, "a weight has two scales; one of a unit or of a row is possible");
    if (row && p->n_part)
        return setun_fail(err, SETUN_BAD_ARG, "the scale of a row stands in front of its units: say it first");
    if (row) {
        p->row_scale = dtype;
    } else {
        p->scale = dtype;
        p->scale_at = p->bytes;
        p->bytes += (uint32_t)setun_row_bytes(dtype, 1);
    }
    return SETUN_OK;
}

/* The table's rows, a hexadecimal digit for each level number, and for all digits what is next to them. */
static inline setun_status setun_packing_read_table(const setun_packing *p, setun_packing_part *t, const char *s, size_t n,
                                                    setun_error *err)
{
    uint32_t all = t->all;
    if (p->n_level > 16 || all > SETUN_PACKING_GROUPS || t->width > 7)
        return setun_fail(err, SETUN_BAD_ARG, "a table is for up to 16 levels, 7 bits, and %d ways to choose the digits of a field; "
                          "here are %d levels, %u bits and %u digits", SETUN_PACKING_GROUPS, (int)p->n_level, t->width, t->digits);
    if (n == 0 || n % t->digits || n / t->digits > (size_t)1 << t->width)
        return setun_fail(err, SETUN_BAD_ARG, "the table has %zu entries; %u digits in each of at most %u rows are wanted", n,
                          t->digits, 1u << t->width);
    t->n_row = (uint32_t)(n / t->digits);
    for (size_t i = 0; i < n; i++) {
        int v = s[i] >= '0' && s[i] <= '9' ? s[i] - '0' : s[i] >= 'a' && s[i] <= 'f' ? s[i] - 'a' + 10 : 16;
        if (v >= p->n_level)
            return setun_fail(err, SETUN_BAD_ARG, "entry %zu of the table, '%c', is no level's number", i, s[i]);
        t->table[i] = (uint8_t)v;
    }
    for (uint32_t v = 0; v < all; v++) {
        int64_t least = INT64_MAX;
        for (uint32_t r = 0; r < t->n_row; r++) {
            int64_t sum = 0;
            uint32_t rest = v;
            for (uint32_t j = t->digits; j-- > 0; rest /= (uint32_t)p->n_level) { /* as setun_packing_code counts */
                int32_t d = p->level[t->table[r * t->digits + (t->low ? t->digits - 1 - j : j)]] -
                            p->level[rest % (uint32_t)p->n_level];
                sum += (int64_t)d * d;
            }
            if (sum < least) {
                least = sum;
                t->nearest[v] = (uint8_t)r;
            }
        }
    }
    return SETUN_OK;
}

static inline setun_status setun_packing_check_part(const setun_packing *p, setun_packing_part *t, setun_error *err)
{
    uint32_t bytes = 0;
    if (t->coding == SETUN_BITS && t->digits != 1)
        return setun_fail(err, SETUN_BAD_ARG,
                          "a field of bits is one digit, not %u; several digits are an integer, a fraction or a table",
                          t->digits);
    if (t->coding != SETUN_TABLE && t->all > 1u << t->width)
        return setun_fail(err, SETUN_BAD_ARG, "%u digits of %d levels are %u numbers, which %u bits do not hold (%u do)", t->digits,
                          (int)p->n_level, t->all, t->width, 1u << t->width);
    for (uint32_t j = 0; j < t->n_plane; j++) {
        uint32_t w = t->plane[j];
        if (t->fields * w % 8)
            return setun_fail(err, SETUN_BAD_ARG, "%u fields of %u bits are not whole bytes; a multiple of %u fields is", t->fields, w,
                              w % 4 == 0 ? 2 : w % 2 == 0 ? 4 : 8);
        if ((t->strided || t->down) && (8 % w || t->fields % (8 / w)))
            return setun_fail(err, SETUN_BAD_ARG, "%u fields cannot lie %s in planes of %u bits: a byte has to hold as many as it can, "
                              "in 1, 2, 4 or 8 bits each", t->fields, t->strided ? "strided" : "down", w);
        bytes += t->fields * w / 8;
    }
    t->bytes = bytes;
    return SETUN_OK;
}

/* Steps by hand must give what the declaration does, for every code that is ever written. */
static inline setun_status setun_packing_check_steps(const setun_packing *p, const setun_packing_part *t, setun_error *err)
{
    uint8_t v[SETUN_PACKING_STEPS], digit[SETUN_PACKING_DIGITS];
    int32_t least = p->level[0];
    for (int32_t i = 1; i < p->n_level; i++)
        least = p->level[i] < least ? p->level[i] : least;
    for (uint32_t way = 0; t->steps.n && way < t->all; way++) {
        uint32_t rest = way;
        for (uint32_t i = t->digits; i-- > 0; rest /= (uint32_t)p->n_level)
            digit[i] = (uint8_t)(rest % (uint32_t)p->n_level);
        uint32_t code = setun_packing_code(p, t, digit);
        setun_packing_run(&t->steps, code, v);
        for (uint32_t i = 0; i < t->digits; i++) {
            int32_t level = p->level[setun_packing_digit(p, t, code, i)];
            if (v[t->steps.digit[i]] != level - least)
                return setun_fail(err, SETUN_BAD_ARG, "of code %u the steps for kernels make %d as digit %u, but the declaration says level %d, "
                                  "which is %d from the smallest on", code, v[t->steps.digit[i]], i + 1, (int)level, (int)(level - least));
        }
    }
    return SETUN_OK;
}

/* "4+1": the widths of planes. */
static inline int setun_packing_read_planes(setun_packing_part *t, const char *s)
{
    for (;; s++) {
        int32_t w;
        if (!setun_packing_number(&s, &w) || w < 1 || t->width + (uint32_t)w > 8)
            return 0;
        t->plane[t->n_plane++] = (uint32_t)w;
        t->width += (uint32_t)w;
        if (*s != '+')
            return !*s;
    }
}

static inline setun_status setun_packing_read_part(setun_packing *p, uint32_t coding, setun_packing_words *w, setun_error *err)
{
    setun_packing_part *t = &p->part[p->n_part];
    int32_t fields = 0, digits = 0;
    const char *s = setun_packing_word(w) ? w->word : "", *table = "";
    size_t n_table = 0;
    if (p->n_level < 2)
        return setun_fail(err, SETUN_BAD_ARG, "at least two levels are said before the first part");
    if (!setun_packing_number(&s, &fields) || *s++ != 'x' || !setun_packing_number(&s, &digits) || *s || fields < 1 ||
        fields > SETUN_PACKING_UNIT || digits < 1 || digits > SETUN_PACKING_DIGITS)
        return setun_fail(err, SETUN_BAD_ARG, "'%s' are no fields: up to %d of them with up to %d digits each are, such as 32x5", w->word,
                          SETUN_PACKING_UNIT, SETUN_PACKING_DIGITS);
    t->coding = coding;
    t->fields = (uint32_t)fields;
    t->digits = (uint32_t)digits;
    t->all = setun_packing_power(p, t->digits);
    if (!setun_packing_word(w) || !setun_packing_read_planes(t, w->word))
        return setun_fail(err, SETUN_BAD_ARG, "'%s' is no width: up to 8 bits, such as 2, or 4+1 in planes", w->word);
    for (const char *before = w->p + strspn(w->p, " "); setun_packing_word(w); before = w->p + strspn(w->p, " ")) {
        size_t n = strlen(w->word);
        const struct { const char *name; uint32_t *to; } flags[] = {
            {"strided", &t->strided}, {"down", &t->down}, {"apart", &t->apart}, {"low", &t->low}};
        size_t i = 0;
        while (i < SETUN_LEN(flags) && strcmp(w->word, flags[i].name))
            i++;
        if (w->word[0] == '!') { /* longer than a word may be */
            const char *at = before + 1;
            if (!setun_packing_read_steps(&t->steps, &at, t->digits, t->width) || at != w->p)
                return setun_fail(err, SETUN_BAD_ARG, "'%.20s' is no step for kernels that can be here (setun/packing_steps.h)", at);
        } else if (i < SETUN_LEN(flags)) {
            *flags[i].to = 1;
        } else if (w->word[0] == '=' && coding == SETUN_TABLE) {
            while (n_table < sizeof t->table && w->p[-1 - (int64_t)n_table] != '=')
                n_table++;
            table = w->p - n_table;
        } else {
            return setun_fail(err, SETUN_BAD_ARG, "'%.40s' says nothing about a part; strided, down, apart and low do%s", w->word,
                              n > 40 ? " (tables have at most 1024 entries)" : "");
        }
    }
    if (coding == SETUN_TABLE) {
        setun_status s2 = setun_packing_read_table(p, t, table, n_table, err);
        if (s2 != SETUN_OK)
            return s2;
    }
    setun_status s3 = setun_packing_check_part(p, t, err);
    if (s3 == SETUN_OK)
        s3 = setun_packing_check_steps(p, t, err);
    t->at = p->bytes;
    t->column = p->digits;
    p->bytes += t->bytes;
    p->digits += t->fields * t->digits;
    p->n_part++;
    return s3;
}

/* The declaration that a text says, checked; or a sentence that says what is wrong with it. */
static inline setun_status setun_packing_read(setun_packing *p, const char *text, setun_error *err)
{
    static const char *const codings[SETUN_N_CODING] = {"bits", "integer", "fraction", "table"};
    setun_packing_words w;
    memset(p, 0, sizeof *p);
    w.p = text;
    while (setun_packing_word(&w)) {
        setun_status s;
        uint32_t c = 0;
        while (c < SETUN_N_CODING && strcmp(w.word, codings[c]))
            c++;
        if (c < SETUN_N_CODING && p->n_part == SETUN_PACKING_PARTS)
            return setun_fail(err, SETUN_BAD_ARG, "a unit has at most %d parts", SETUN_PACKING_PARTS);
        if (c < SETUN_N_CODING)
            s = setun_packing_read_part(p, c, &w, err);
        else if (strcmp(w.word, "levels") == 0 && !p->n_level)
            s = setun_packing_read_levels(p, &w, err);
        else if (strcmp(w.word, "scale") == 0)
            s = setun_packing_read_scale(p, &w, err);
        else
            return setun_fail(err, SETUN_BAD_ARG,
                              "'%.40s' begins no statement; levels, once, bits, integer, fraction, table and scale do",
                              w.word);
        if (s != SETUN_OK)
            return s;
        w.p += strspn(w.p, " ");
        if (*w.p && *w.p++ != ';')
            return setun_fail(err, SETUN_BAD_ARG, "'%.40s' is too much for its statement", w.p - 1);
    }
    if (!p->n_part)
        return setun_fail(err, SETUN_BAD_ARG, "a packing has at least one part: bits, integer, fraction or table");
    if (p->digits > SETUN_PACKING_UNIT || p->bytes > SETUN_PACKING_UNIT)
        return setun_fail(err, SETUN_BAD_ARG, "a unit of %u digits in %u bytes is too large; %d of both can be", p->digits, p->bytes,
                          SETUN_PACKING_UNIT);
    for (int32_t i = 0; i < p->n_level; i++)
        for (int32_t j = 0; j < p->n_level; j++) {
            if (i != j && p->level[i] == p->level[j])
                return setun_fail(err, SETUN_BAD_ARG, "the level %d is there twice", (int)p->level[i]);
            if (p->level[i] - p->level[j] > 127)
                return setun_fail(err, SETUN_BAD_ARG, "the levels %d and %d are more than 127 apart", (int)p->level[i], (int)p->level[j]);
        }
    return SETUN_OK;
}

#ifdef __cplusplus
}
#endif

#endif

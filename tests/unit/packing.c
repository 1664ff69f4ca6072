/* tests/unit/packing.c -- declared packings: bytes of published formats, every mistake, and setun.packing in Lua.
 *
 * The blocks were written down from the formats' own descriptions: 256 weights of a generator, as TQ1_0, TQ2_0, I2_S and
 * IQ2_BN.  A declaration must pack to those bytes.  Other packings are unpacked here a second time, from what a
 * field is and without the functions under test. */
#include "tests/unit/script_world.h"

#include <math.h>

#include "runtime/engine.h"
#include "runtime/requantise.h"
#include "setun/packing.h"

static setun_packing packing; /* large, and each test reads its own */

static void read_ok(const char *text)
{
    setun_error err = {0};
    if (setun_packing_read(&packing, text, &err) != SETUN_OK)
        fail_msg("%s: %s", text, err.text);
}

/* ---------------------------------------------------------------- published bytes */

static void generate(int8_t *w, int n)
{
    uint32_t s = 1;
    for (int i = 0; i < n; i++) {
        s = (s * 1103515245u + 12345u) & 0x7fffffffu;
        w[i] = (int8_t)((s >> 16) % 3 - 1);
    }
}

static const char i2_s[] = "a65022695894040428224682162585a02a01042195658514021a2a9852909586"
                           "264444905a912a95a2510482556090106a5620a468a904882560966a66018655";
static const char tq2_0[] = "9a05886925161010288891829458520aa84010485659521480a4a8268506569298111106a546a8568a45108255090604"
                            "a995081a296a1022580996a999409255003a";
static const char tq1_0[] = "f47341a786d30a0c4e4166b42e47bae454050a3fd59db829073755dc7ac8d6bcf62a4392aa96c367e9902a429cab5975"
                            "bbcb1a17003a";
static const char iq2_bn[] = "0000403fa21120a1599608402060814a54684a2a";

static void published(void **state)
{
    static const struct { const char *text, *hex; int n; } is[] = {
        {"levels -1 0 1; bits 128x1 2 strided down", i2_s, 256},
        {"levels -1 0 1; bits 128x1 2 strided; bits 128x1 2 strided; scale f16", tq2_0, 256},
        {"levels -1 0 1; fraction 32x5 8 apart; fraction 16x5 8 apart; fraction 4x4 8 apart; scale f16", tq1_0, 256},
        {"scale f32 row; levels -1 0 1; bits 64x1 2 strided", iq2_bn, 64},
    };
    int8_t w[256];
    (void)state;
    generate(w, 256);
    for (size_t f = 0; f < sizeof is / sizeof is[0]; f++) {
        uint8_t row[80] = {0};
        char hex[161] = "";
        read_ok(is[f].text);
        assert_int_equal(setun_packing_pack(&packing, w, is[f].n, row), 0);
        if (packing.scale)
            setun_packing_put_scale(row + packing.scale_at, packing.scale, 0.75f);
        if (packing.row_scale)
            setun_packing_put_scale(row, packing.row_scale, 0.75f);
        int64_t bytes = setun_packing_row_bytes(&packing, is[f].n);
        assert_int_equal(2 * bytes, strlen(is[f].hex));
        for (int64_t i = 0; i < bytes; i++)
            (void)snprintf(hex + 2 * i, 3, "%02x", row[i]);
        assert_string_equal(hex, is[f].hex);
        for (int i = is[f].n; i-- > 0;)
            assert_int_equal(setun_packing_get(&packing, row, i), w[i]);
    }
}

/* ---------------------------------------------------------------- unpacked a second time */

/* Three trits in five bits, in planes of 4 and 1 of 32 fields, strided. */
static int triple(const uint8_t *row, int c)
{
    const uint8_t *unit = row + c / 96 * 20;
    int in = c % 96, f = in % 32, i = in / 32;
    int code = (unit[f % 16] >> f / 16 * 4 & 15) | (unit[16 + f % 4] >> f / 4 & 1) << 4;
    return (i == 0 ? code / 9 : i == 1 ? code / 3 % 3 : code % 3) - 1;
}

/* Three bits that run on from byte to byte, -4 to 3. */
static int stream(const uint8_t *row, int c)
{
    int at = 3 * c, v = row[at / 8] >> at % 8;
    if (at % 8 > 5)
        v |= row[at / 8 + 1] << (8 - at % 8);
    return (v & 7) - 4;
}

/* Nibbles, neighbours in a byte, the first on top. */
static int nibble(const uint8_t *row, int c) { return (row[c / 2] >> (c % 2 ? 0 : 4) & 15) - 8; }

/* One bit each: -1 or 1. */
static int sign(const uint8_t *row, int c) { return (row[c / 8] >> c % 8 & 1) ? 1 : -1; }

/* Five trits of a byte by division, where the byte is the fraction. */
static int fifth(const uint8_t *row, int c)
{
    int in = c % 160, f = in % 32, v = row[c / 160 * 32 + f] * 243 / 256, power = 81;
    for (int i = in / 32; i > 0; i--)
        power /= 3;
    return v / power % 3 - 1;
}

static void second_way(void **state)
{
    static const struct { const char *text; int (*get)(const uint8_t *row, int c); int least, levels, step; } is[] = {
        {"levels -1 0 1; integer 32x3 4+1 strided apart", triple, -1, 3, 1},
        {"levels -4:3; bits 8x1 3", stream, -4, 8, 1},
        {"levels -4:3; bits 128x1 3", stream, -4, 8, 1},
        {"levels -8:7; bits 64x1 4 down", nibble, -8, 16, 1},
        {"levels -1 1; bits 32x1 1", sign, -1, 2, 2},
        {"levels -1 0 1; fraction 32x5 8 apart", fifth, -1, 3, 1},
    };
    (void)state;
    for (size_t f = 0; f < sizeof is / sizeof is[0]; f++)
        for (int n = 1; n < 700; n += 97) {
            int8_t w[700];
            uint8_t row[800] = {0};
            read_ok(is[f].text);
            for (int i = 0; i < n; i++)
                w[i] = (int8_t)(is[f].least + is[f].step * (int)(setun_mix(f, (uint64_t)i) % (uint64_t)is[f].levels));
            assert_int_equal(setun_packing_pack(&packing, w, n, row), 0);
            for (int i = 0; i < n; i++) {
                if (is[f].get(row, i) != w[i])
                    fail_msg("%s: column %d of %d is %d, packed was %d", is[f].text, i, n, is[f].get(row, i), w[i]);
                assert_int_equal(setun_packing_get(&packing, row, i), w[i]);
            }
        }
}

/* A table keeps its rows, and takes the nearest of others: least sum of squares, of equals the first. */
static void tables(void **state)
{
    static const int8_t was[8] = {-1, 1, 0, 0, 1, 0, 1, 1}, is[8] = {-1, 1, -1, -1, 1, -1, 1, 1};
    uint8_t row[1] = {0};
    (void)state;
    read_ok("levels -1 0 1; table 4x2 2 =00022022"); /* signs alone */
    assert_int_equal(packing.bytes, 1);
    assert_int_equal(setun_packing_pack(&packing, was, 8, row), 3);
    assert_int_equal(row[0], 1 | 0 << 2 | 2 << 4 | 3 << 6);
    for (int i = 0; i < 8; i++)
        assert_int_equal(setun_packing_get(&packing, row, i), is[i]);
}

static void mistakes_in_text(void **state)
{
    static const char *const is[][2] = {
        {"", "at least one part"},
        {"levels -1 0 1", "at least one part"},
        {"bits 8x1 1", "at least two levels"},
        {"levels 0; bits 8x1 1", "at least two levels"},
        {"levels -1 0 0; bits 4x1 2", "the level 0 is there twice"},
        {"levels -100 100; bits 8x1 1", "more than 127 apart"},
        {"levels -128 1; bits 8x1 1", "'-128' is no level"},
        {"levels 1:0; bits 8x1 1", "'1:0' is no level"},
        {"levels -1 0 1; bits 8x1 2 !", "'' is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !:", "is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !:1", "is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !+0.1:1", "':1' is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !k1", "'' is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !+0", "'' is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !t00112233445566778899aabbccddeeff", "'' is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !k256:1", "is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !k9,x:1", "'x:1' is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !>0.8:1", "is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !t00.0:1", "is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !:0.0", "is no step for kernels"},
        {"levels -1 0 1; bits 8x1 2 !k0:1", "of code 1 the steps for kernels make 0 as digit 1"},
        {"levels -1 0 1; bits 7x1 2", "7 fields of 2 bits are not whole bytes"},
        {"levels -1 0 1; bits 8x1 1", "1 digits of 3 levels are 3 numbers, which 1 bits do not hold (2 do)"},
        {"levels -1 0 1; fraction 32x6 8", "729 numbers, which 8 bits do not hold"},
        {"levels -1 0 1; fraction 8x3 5 strided", "cannot lie strided in planes of 5 bits"},
        {"levels -1 0 1; integer 4x3 4+1", "4 fields of 1 bits are not whole bytes; a multiple of 8 fields is"},
        {"levels -1 0 1; bits 8x2 4", "a field of bits is one digit, not 2"},
        {"levels -1 0 1; bits 8 2", "'8' are no fields"},
        {"levels -1 0 1; bits 8x9 2", "'8x9' are no fields"},
        {"levels -1 0 1; bits 8x1 9", "'9' is no width"},
        {"levels -1 0 1; bits 8x1 2+", "'2+' is no width"},
        {"levels -1 0 1; bits 8x1 2 sideways", "'sideways' says nothing about a part"},
        {"levels -1 0 1; bits 8x1 2; scale f64", "a scale is f16, bf16 or f32"},
        {"levels -1 0 1; scale f16; bits 8x1 2; scale f16", "a weight has two scales"},
        {"levels -1 0 1; bits 8x1 2; scale f16 row", "in front of its units"},
        {"levels -1 0 1; table 8x2 4 =0011223", "the table has 7 entries"},
        {"levels -1 0 1; table 8x2 4 =0013", "entry 3 of the table, '3', is no level's number"},
        {"levels -1 0 1; words 8x2 4", "'words' begins no statement"},
        {"levels -1 0 1; bits 1024x1 2; bits 8x1 2", "a unit of 1032 digits in 258 bytes is too large"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof is / sizeof is[0]; i++) {
        setun_error err = {0};
        if (setun_packing_read(&packing, is[i][0], &err) == SETUN_OK)
            fail_msg("was read: %s", is[i][0]);
        assert_int_equal(err.code, SETUN_BAD_ARG);
        if (!strstr(err.text, is[i][1]))
            fail_msg("%s: \"%s\" lacks \"%s\"", is[i][0], err.text, is[i][1]);
    }
}

/* ---------------------------------------------------------------- in Lua */

#define HEAD "return setun.packing 'p' {\n  alphabet = { -1, 0, 1 },\n  "

/* The text that a script's declaration became. */
static const char *text_of(world *w, const char *script)
{
    accept(w, script);
    assert_non_null(st_script_packings(w->s));
    return st_script_packings(w->s)->text;
}

static void declared(void **state)
{
    world *w = world_new(&small);
    (void)state;
    assert_string_equal(text_of(w, HEAD "{ fields = 32, bits = 8, digits = 5, base = 'fraction', order = 'strided' } }"),
                        "levels -1 0 1; fraction 32x5 8 apart");
    assert_string_equal(text_of(w, HEAD "unit = 128, bytes = 34, group = 128,\n { scale = 'f16' }, { bytes = 32, bits = 2 } }"),
                        "levels -1 0 1; scale f16; bits 128x1 2");
    assert_string_equal(text_of(w, "return setun.packing 'q' { levels = 16, zero = 8, { fields = 32, bits = 4, from = 'high' } }"),
                        "levels -8:7; bits 32x1 4 down");
    assert_string_equal(text_of(w, HEAD "{ scale = 'f32', per = 'row' }, { fields = 32, planes = { 4, 1 }, digits = 3,\n"
                                        "base = 'integer', first = 'low', order = 'strided', columns = 'packed' } }"),
                        "levels -1 0 1; scale f32 row; integer 32x3 4+1 strided low");
    assert_string_equal(text_of(w, HEAD "{ fields = 8, bits = 2, digits = 2, table = { {0,0}, {1,1}, {-1,-1} } } }"),
                        "levels -1 0 1; table 8x2 2 =112200");
    assert_string_equal(text_of(w, HEAD "{ fields = 8, bits = 2, digits = 2,\n decode = function(c) if c > 0 then return { c - 2, 0 } end end,\n"
                                        "encode = function(a, b) return a + 2 end } }"), "levels -1 0 1; table 8x2 2 =01011121");
    assert_string_equal(text_of(w, HEAD "{ fields = 8, bits = 2, kernel = function(k, c) local m = k.more(c, 1)\n"
                                        "return k.choose(m, 2, c & 1) end } }"), "levels -1 0 1; bits 8x1 2 !k1,g0.1,&0.1,k2,?2.4.3:5");
    assert_string_equal(text_of(w, HEAD "{ fields = 8, bits = 2, kernel = function(k, c) return k.look_up({ 0, 1, 2, 255, 4, 5, 6, 7, 8, 9,\n"
                                        "10, 11, 12, 13, 14, 15 }, (c << 1 >> 1) ~ 0) end } }"),
                        "levels -1 0 1; bits 8x1 2 !<0.1,>1.1,k0,^2.3,t000102ff0405060708090a0b0c0d0e0f.4:5");
    accept(w, "local p = " "setun.packing 'r' { alphabet = {-1, 1}, { fields = 8, bits = 1 } }\n"
              "assert(p.name == 'r' and p.unit == 8 and p.bytes == 1 and p.bits_per_weight == 1 and p.text == 'levels -1 1; bits 8x1 1')");
    world_free(w);
}

/* 3:4: each of the 32 codes has one 0, all are different, and the upper half is the lower with its signs turned. */
static void sparse(void **state)
{
    world *w = world_new(&small);
    (void)state;
    const char *text = text_of(w, HEAD "{ fields = 8, bits = 5, digits = 4, sparse = '3:4' } }"), *row = strchr(text, '=');
    assert_non_null(row++);
    assert_int_equal(strlen(row), 128);
    for (int i = 0; i < 32; i++) {
        int zeros = 0;
        for (int j = 0; j < 4; j++) {
            zeros += row[4 * i + j] == '1';
            assert_int_equal(row[4 * i + j] - '0', 2 - (row[4 * ((i + 16) % 32) + j] - '0'));
        }
        assert_int_equal(zeros, 1);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(memcmp(row + 4 * i, row + 4 * k, 4), 0);
    }
    world_free(w);
}

/* ---------------------------------------------------------------- from floats */

#define ROWS 5
#define COLUMNS 150 /* the last unit is never whole */

typedef struct from {
    st_engine     engine;
    setun_model   m;
    setun_view    view;
    st_requantise q;
    int8_t        digit[ROWS][COLUMNS];
    setun_status  status;
    setun_error   err;
} from;

/* A matrix of floats by the rule of the last packing of the world.  Its digits are those of a row of the packing: no table. */
static from *quantised(world *w, const char *script, float (*x)[COLUMNS])
{
    from *f = calloc(1, sizeof *f);
    float row[COLUMNS];
    uint8_t packed[4 * COLUMNS];
    assert_non_null(f);
    read_ok(text_of(w, script));
    f->m.arena = w->arena;
    f->m.engine = &f->engine;
    f->m.path = "here";
    f->view = (setun_view){x, SETUN_F32, 2, {ROWS, COLUMNS, 1, 1}};
    f->q = (st_requantise){.m = &f->m, .script = w->s, .rule = st_script_packings(w->s), .p = &packing, .name = "matrix", .w = &f->view};
    st_requantise_shape(&f->q);
    f->status = st_requantise_open(&f->q, &f->err);
    for (int r = 0; r < ROWS && f->status == SETUN_OK; r++) {
        st_requantise_row(&f->q, r, row, f->digit[r]);
        (void)setun_packing_pack(&packing, f->digit[r], COLUMNS, packed);
        st_requantise_measure(&f->q, r, row, f->digit[r], packed, 1);
    }
    setun_status closed = st_requantise_close(&f->q, &f->err);
    f->status = f->status == SETUN_OK ? closed : f->status;
    if (f->status == SETUN_OK)
        st_requantise_count(&f->q);
    return f;
}

/* s in so many bits of precision and not below 2^least, by what rounding means. */
static double rounded(double s, int bits, int least)
{
    int e;
    if (s == 0 || bits == 0)
        return s;
    (void)frexp(s, &e);
    double quantum = ldexp(1, e - bits > least ? e - bits : least);
    return rint(s / quantum) * quantum;
}

typedef struct rule_case {
    const char *script;  /* behind the name */
    int         n_level, level[16], absmax, each, bits, least; /* each: columns of a scale; 0: the matrix */
} rule_case;

/* The scale of the values [c, end) of rows [r, last). */
static double scale_by_definition(const rule_case *t, float (*x)[COLUMNS], int r, int last, int c, int end)
{
    double sum = 0, most = 0, n = (double)(last - r) * (end - c);
    int low = 0, high = 0;
    for (int i = 0; i < t->n_level; i++) {
        low = t->level[i] < low ? t->level[i] : low;
        high = t->level[i] > high ? t->level[i] : high;
    }
    for (; r < last; r++)
        for (int i = c; i < end; i++) {
            sum += fabs((double)x[r][i]);
            most = fmax(most, (double)x[r][i] / (x[r][i] > 0 ? high : low));
        }
    return rounded((double)(float)(t->absmax ? most : sum / n), t->bits, t->least);
}

/* The digit next to v; of two the even one, or the larger. */
static int digit_by_definition(const rule_case *t, double v)
{
    int best = t->level[0];
    for (int i = 1; i < t->n_level; i++) {
        double was = fabs(v - best), is = fabs(v - t->level[i]);
        int even = t->level[i] % 2 == 0, better = even != (best % 2 == 0) ? even : t->level[i] > best;
        if (is < was || (is == was && better))
            best = t->level[i];
    }
    return best;
}

#define UNITS "{ fields = 32, bits = 4 } }"
static const rule_case rules[] = {
    {"{ alphabet = { -1, 0, 1 }, quantise = 'absmean', " UNITS, 3, {-1, 0, 1}, 0, 0, 0, 0},
    {"{ alphabet = { -1, 0, 1 }, quantise = { 'absmax', per = 'row' }, " UNITS, 3, {-1, 0, 1}, 1, COLUMNS, 0, 0},
    {"{ alphabet = { -1, 1 }, quantise = { 'absmean', per = 'unit' }, " UNITS, 2, {-1, 1}, 0, 32, 0, 0},
    {"{ alphabet = { 1, -1 }, quantise = 'absmean', { scale = 'bf16', per = 'row' }, " UNITS, 2, {1, -1}, 0, COLUMNS, 8, -133},
    {"{ alphabet = { -1, 0, 1, 2 }, quantise = { 'absmax' }, " UNITS, 4, {-1, 0, 1, 2}, 1, 0, 0, 0},
    {"{ alphabet = { -2, -1, 0, 1 }, quantise = 'absmax', { scale = 'f16' }, " UNITS, 4, {-2, -1, 0, 1}, 1, 32, 11, -24},
    {"{ levels = 16, zero = 8, quantise = 'absmax', { scale = 'bf16' }, " UNITS, 16,
     {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}, 1, 32, 8, -133},
    {"{ alphabet = { 4, -4, 0, 1, -1 }, quantise = 'absmean', { scale = 'f32' }, " UNITS, 5, {4, -4, 0, 1, -1}, 0, 32, 0, 0},
};

static void by_definition(const rule_case *t, float (*x)[COLUMNS])
{
    char script[300];
    world *w = world_new(&small);
    (void)snprintf(script, sizeof script, "return setun.packing 'p' %s", t->script);
    from *f = quantised(w, script, x);
    double lost = 0, square = 0;
    if (f->status != SETUN_OK)
        fail_msg("%s: %s", script, f->err.text);
    int each = t->each ? t->each : COLUMNS, n = (COLUMNS + each - 1) / each;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            int first = c / each * each, end = first + each < COLUMNS ? first + each : COLUMNS;
            double s = t->each ? scale_by_definition(t, x, r, r + 1, first, end) : scale_by_definition(t, x, 0, ROWS, 0, COLUMNS);
            float got = ((const float *)f->q.scale.data)[t->each ? r * n + c / each : 0], v = x[r][c] * (1.0f / (float)s);
            int d = digit_by_definition(t, (double)v);
            if ((double)got != s || f->digit[r][c] != d)
                fail_msg("%s: row %d, column %d: %g with the scale %a is %d; it should be %d with %a", script, r, c, (double)x[r][c],
                         (double)got, f->digit[r][c], d, s);
            lost += pow((double)x[r][c] - s * d, 2);
            square += pow((double)x[r][c], 2);
        }
    double e = st_requantise_error(&f->m.packed);
    if (fabs(e - sqrt(lost / square)) > 1e-12)
        fail_msg("%s: the error is %.17g, not %.17g", script, e, sqrt(lost / square));
    free(f);
    world_free(w);
}

static void fill(float (*x)[COLUMNS])
{
    for (int i = 0; i < ROWS * COLUMNS; i++) /* multiples of 1/64, whose sums are exact: many ties, and both signs */
        x[i / COLUMNS][i % COLUMNS] = (float)((int)(setun_mix(7, (uint64_t)i) % 257) - 128) / 64.0f;
}

static void rules_for_floats(void **state)
{
    float x[ROWS][COLUMNS];
    (void)state;
    fill(x);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        by_definition(&rules[i], x);
}

#define TERNARY "return setun.packing 'p' { alphabet = { -1, 0, 1 }, "

/* quantise as a function: what it gets, what it gives, and what it must not. */
static void scripted_rule(void **state)
{
    static const char *const wrong[][2] = {
        {"return 1, 2", "packing p, matrix, row 0, columns from 0: quantise gives a number of 0; a list of 32 digits is wanted"},
        {"return { 0 }, 2", "quantise gives a table of 1; a list of 32 digits"},
        {"return x, 2", "which is not in the alphabet"},
        {"for i = 1, #x do x[i] = 0 end x[3] = 2 return x, 2", "quantise gives 2 as digit 3, which is not in the alphabet"},
        {"for i = 1, #x do x[i] = 0 end return x, 1e6", "quantise gives the scale 1000000.0; as it is stored it must be a finite number"},
        {"for i = 1, #x do x[i] = 0 end return x", "quantise gives the scale nil"},
        {"return round('a')", "a scale must be a number, not string"},
        {"while true do end", "steps"},
        {"setun.graph()", "cannot be used inside eval, lower or quantise"},
    };
    float x[ROWS][COLUMNS];
    char script[400];
    world *w = world_new(&small);
    (void)state;
    fill(x);
    from *f = quantised(w, TERNARY "{ scale = 'f16' }, { fields = 32, bits = 2 }, quantise = function(x, round)\n"
                           "local d, s = {}, round(0.3)\nfor i = 1, #x do d[i] = x[i] > 1 and 1 or x[i] < -1 and -1 or 0 end\n"
                           "return d, s * #x\nend }", x);
    if (f->status != SETUN_OK)
        fail_msg("%s", f->err.text);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            assert_int_equal(f->digit[r][c], (x[r][c] > 1) - (x[r][c] < -1));
            double s = rounded(0.3, 11, -24) * (c < 128 ? 32 : COLUMNS - 128);
            assert_true((double)((const float *)f->q.scale.data)[r * 5 + c / 32] == rounded(s, 11, -24));
        }
    free(f);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(script, sizeof script, TERNARY "{ scale = 'f16' }, { fields = 32, bits = 2 }, quantise = function(x, round) %s end }", wrong[i][0]);
        f = quantised(w, script, x);
        assert_int_equal(f->status, SETUN_BAD_SCRIPT);
        if (!strstr(f->err.text, wrong[i][1]) || strncmp(f->err.text, "t.lua:1: ", 9))
            fail_msg("%s: '%s' has no '%s'", wrong[i][0], f->err.text, wrong[i][1]);
        free(f);
    }
    world_free(w);
}

/* Values and scales that cannot be; rows of zeros can. */
static void floats_that_cannot_be(void **state)
{
    float x[ROWS][COLUMNS];
    world *w = world_new(&small);
    (void)state;
    fill(x);
    x[3][149] = NAN;
    for (int per = 0; per < 2; per++) {
        from *f = quantised(w, per ? TERNARY "quantise = { 'absmax', per = 'row' }, { fields = 32, bits = 2 } }" :
                               TERNARY "quantise = 'absmean', { fields = 32, bits = 2 } }", x);
        assert_int_equal(f->status, SETUN_BAD_FILE);
        assert_string_equal(f->err.text, "here: matrix has the value nan at row 3, column 149, and cannot be quantised");
        free(f);
    }
    x[3][149] = 1e6f;
    from *f = quantised(w, TERNARY "quantise = 'absmax', { scale = 'f16' }, { fields = 32, bits = 2 } }", x);
    assert_int_equal(f->status, SETUN_UNKNOWN);
    assert_string_equal(f->err.text, "t.lua:1: packing p cannot hold the scale 1e+06 of matrix, row 3, part 4: bf16 and f32 reach further than f16");
    free(f);
    memset(x, 0, sizeof x);
    f = quantised(w, TERNARY "quantise = 'absmax', { scale = 'f16' }, { fields = 32, bits = 2 } }", x);
    assert_int_equal(f->status, SETUN_OK);
    assert_true(st_requantise_error(&f->m.packed) == 0);
    assert_int_equal(f->digit[2][7], 0);
    free(f);
    x[0][0] = 1e-41f; /* its reciprocal is infinite */
    f = quantised(w, TERNARY "quantise = { 'absmax', per = 'unit' }, { fields = 32, bits = 2 } }", x);
    assert_int_equal(f->status, SETUN_OK);
    assert_int_equal(f->digit[0][0], 1);
    assert_int_equal(f->digit[0][1], 0);
    free(f);
    world_free(w);
}

/* Bytes do not outlive the kernel that they are noted for. */
static void kernels_are_apart(void **state)
{
    world *w = world_new(&small);
    (void)state;
    refuse(w, "local b\nreturn setun.packing 'p' { alphabet = { -1, 0, 1 }, { fields = 8, bits = 2, kernel = function(k, c) b = c return c end },\n"
              "{ fields = 8, bits = 2, kernel = function(k, c) return b end } }", "t.lua:", "a byte of another kernel cannot be used here");
    refuse(w, "local b\nreturn setun.packing 'p' { alphabet = { -1, 0, 1 }, { fields = 8, bits = 2, kernel = function(k, c) b = c return c end },\n"
              "{ fields = 8, bits = 2, kernel = function(k, c) return b + 1 end } }", "t.lua:", "kernel has ended");
    world_free(w);
}

static void mistakes_in_lua(void **state)
{
    static const char *const is[][3] = {
        {"return setun.packing('p')(7)", "t.lua:1: ", "wants a table"},
        {"return setun.packing(7)", "t.lua:1: ", "must be a string"},
        {HEAD "}", "t.lua:1: packing p: ", "it has no part that holds weights: add { fields = 64, bits = 2 }"},
        {HEAD "alphabte = 1, { fields = 4, bits = 2 } }", "t.lua:1: packing p: ", "there is no field 'alphabte'"},
        {"return setun.packing 'p' { { fields = 4, bits = 2 } }", "t.lua:1: packing p: ", "alphabet = { -1, 0, 1 }, or by levels"},
        {"return setun.packing 'p' { alphabet = { -1, 0.5 }, { fields = 4, bits = 2 } }", "t.lua:1: packing p: ", "entry 2 of alphabet is 0.5"},
        {"return setun.packing 'p' { alphabet = { -1, 0, 0 }, { fields = 4, bits = 2 } }", "t.lua:1: packing p: ", "the level 0 is there twice"},
        {HEAD "levels = 4, { fields = 4, bits = 2 } }", "t.lua:1: packing p: ", "one of the two"},
        /* A wrong digit count. */
        {HEAD "{ fields = 32, bits = 8, digits = 6, base = 'fraction' } }", "t.lua:1: packing p, part 1: ", "6 digits of 3 levels are 729 numbers, which 8 bits do not hold"},
        {HEAD "unit = 128, { fields = 32, bits = 8, digits = 5, base = 'fraction' } }", "t.lua:1: packing p: ", "unit says 128 weights, but its parts hold 160"},
        {HEAD "bytes = 32, { scale = 'f16' }, { fields = 128, bits = 2 } }", "t.lua:1: packing p: ", "bytes says 32, but its parts take 34"},
        {HEAD "{ fields = 32, bits = 8, digits = 5 } }", "t.lua:1: packing p, part 1: ", "needs base = \"fraction\" or \"integer\""},
        {HEAD "{ fields = 32, bits = 8, digits = 9, base = 'fraction' } }", "t.lua:1: packing p, part 1: ", "digits is 9; a whole number from 1 to 8"},
        /* An impossible order. */
        {HEAD "{ fields = 8, bits = 3, order = 'strided' } }", "t.lua:1: packing p, part 1: ", "8 fields cannot lie strided in planes of 3 bits"},
        {HEAD "{ fields = 8, bits = 2, order = 'zigzag' } }", "t.lua:1: packing p, part 1: ", "order is 'zigzag'; it is \"packed\" or \"strided\""},
        {HEAD "{ fields = 7, bits = 2 } }", "t.lua:1: packing p, part 1: ", "7 fields of 2 bits are not whole bytes"},
        {HEAD "{ fields = 8, bits = 2 }, { fields = 8, planes = { 4, 4, 1 } } }", "t.lua:1: packing p, part 2: ", "its planes have 9 bits together"},
        {HEAD "{ fields = 8, planes = 5 } }", "t.lua:1: packing p, part 1: ", "planes is not a list"},
        {HEAD "{ fields = 8, bits = 4, planes = { 4, 1 } } }", "t.lua:1: packing p, part 1: ", "bits is 4, but planes are 5 together"},
        {HEAD "{ fields = 8 } }", "t.lua:1: packing p, part 1: ", "bits = 2 says how many bits"},
        {HEAD "{ bits = 2 } }", "t.lua:1: packing p, part 1: ", "fields = 32 says how many fields"},
        {HEAD "{ fields = 8, bytes = 3, bits = 2 } }", "t.lua:1: packing p, part 1: ", "8 fields of 2 bits are 2 bytes, not 3"},
        {HEAD "7 }", "t.lua:1: packing p, part 1: ", "it is a number"},
        /* A missing scale, or one in the wrong place. */
        {HEAD "group = 128, { fields = 128, bits = 2 } }", "t.lua:1: packing p: ", "no part holds it: add { scale = \"f16\" }"},
        {HEAD "group = 64, { fields = 128, bits = 2 }, { scale = 'f16' } }", "t.lua:1: packing p: ", "that of the unit's 128 weights: make units of 64"},
        {HEAD "{ fields = 128, bits = 2 }, { scale = 'f8' } }", "t.lua:1: packing p, part 2: ", "scale is 'f8'"},
        {HEAD "{ fields = 128, bits = 2 }, { scale = 'f16', per = 'row' } }", "t.lua:1: packing p, part 2: ", "say it first"},
        {HEAD "{ fields = 128, bits = 2, scale = 'f16' } }", "t.lua:1: packing p, part 1: ", "in the part of a scale"},
        /* Decode that disagrees. */
        {HEAD "{ fields = 8, bits = 2, digits = 1,\n decode = function(c) return { c - 1 } end,\n encode = function(d) return d end } }",
         "t.lua:", "which is not in the alphabet"},
        {HEAD "{ fields = 8, bits = 2,\n decode = function(c) if c < 3 then return { c - 1 } end end,\n encode = function(d) return 1 - d end } }",
         "t.lua:1: packing p, part 1: ", "decode disagrees with encode: encode of -1 gives 2, and decode of that gives 1"},
        {HEAD "{ fields = 8, bits = 2, decode = function(c) return c - 1 end } }", "t.lua:", "decode of code 3 is no list of 1 digit such as { -1 }, but 2"},
        {HEAD "{ fields = 8, bits = 4, digits = 2, decode = function(c) return { 0 } end } }", "t.lua:", "is no list of 2 digits such as { -1, ... }, but one of 1"},
        {HEAD "{ fields = 8, bits = 2, table = { {-1}, {0} } } }", "t.lua:1: packing p, part 1: ", "no code stands for the level 1"},
        {HEAD "{ fields = '8', bits = 2 } }", "t.lua:1: packing p, part 1: ", "fields is the text '8'; a whole number from 1"},
        {HEAD "{ fields = 8, bits = 8, digits = 5, base = 3 } }", "t.lua:1: packing p, part 1: ", "base is 3; it is \"fraction\" or \"integer\""},
        {HEAD "{ scale = 16 }, { fields = 8, bits = 2 } }", "t.lua:1: packing p, part 1: ", "scale is 16; it is \"f16\""},
        {HEAD "{ { fields = 8, bits = 2 } } }", "t.lua:1: packing p, part 1: ", "it has a table without a name: a part is {"},
        {HEAD "fields = 8, bits = 2 }", "t.lua:1: packing p: ", "is of a part, which has braces of its own: { fields = 64"},
        {HEAD "scale = 'f16', { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "'scale' is of a part, which has braces of its own: { scale = "},
        {"return setun.packing 'p' { levels = 4, zero = 4, { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "zero = 4, but the 4 levels are the numbers 0 to 3"},
        {"return setun.packing 'two words' {}", "t.lua:1: ", "letters, digits, '_', '.' and '-', and \"two words\" is not"},
        {"return setun.packing '' {}", "t.lua:1: ", "a packing's name is 1 to 96"},
        {HEAD "{ fields = 8, bits = 2, decode = function(c) end } }", "t.lua:1: ", "decode knows no code"},
        {HEAD "{ fields = 8, bits = 2, decode = 3 } }", "t.lua:1: ", "decode is not a function"},
        {HEAD "{ fields = 8, bits = 2,\n decode = function(c) error('own words') end } }", "t.lua:4: ", "own words"},
        {HEAD "{ fields = 8, bits = 2, encode = function() end } }", "t.lua:1: ", "decode, which is missing"},
        /* Kernels by hand. */
        {HEAD "{ fields = 8, bits = 2, kernel = 7 } }", "t.lua:1: packing p, part 1: ", "kernel is not a function"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) return 2 - c end } }", "t.lua:1: packing p, part 1: ",
         "of code 0 the steps for kernels make 2 as digit 1, but the declaration says level -1, which is 0 from the smallest on"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) end } }", "t.lua:", "kernel gives 0 values; 1 bytes are wanted"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) return c + 256 end } }", "t.lua:3: ", "an operand is 256; bytes and whole numbers from 0 to 255"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) return c << 8 end } }", "t.lua:3: ", "shifted by 0 to 7, not by 8"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) return k.more(1, 2) end } }", "t.lua:3: ", "one of the operands must be a byte"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) return k.look_up({ 1 }, c) end } }", "t.lua:3: ", "look_up wants a list of 16 numbers"},
        {HEAD "{ fields = 8, bits = 2, kernel = function(k, c) while true do c = c + 1 end end } }", "t.lua:3: ", "kernel takes more than 63 steps"},
        /* Rules for floats. */
        {HEAD "quantise = 'absmeen', { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "quantise is 'absmeen'; it is \"absmean\", \"absmax\" or a function"},
        {HEAD "quantise = {}, { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "quantise is 'nil'; it is"},
        {HEAD "quantise = { 'absmax', par = 'row' }, { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "no field 'par'; there are per, behind the rule"},
        {HEAD "quantise = { 'absmax', per = 'column' }, { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "per in quantise is 'column'; a scale is for a"},
        {HEAD "quantise = { 'absmax', per = 'unit' }, { scale = 'f32', per = 'row' }, { fields = 8, bits = 2 } }", "t.lua:1: packing p: ",
         "the packing keeps one for each row: say per = \"row\""},
        {HEAD "quantise = function() end, { fields = 8, bits = 2 } }", "t.lua:1: packing p: ", "not of a matrix: say quantise = { f, per = \"unit\" }"},
        {"return setun.packing 'p' { alphabet = { 0, 1 }, quantise = 'absmax', { fields = 8, bits = 1 } }", "t.lua:1: packing p: ",
         "absmax needs digits on both sides of 0"},
        {HEAD "{ fields = 8, bits = 2, digits = 2, table = { {0} } } }", "t.lua:1: packing p, part 1: ", "row 0 is no list of 2 digits"},
        {HEAD "{ fields = 8, bits = 1, digits = 1, table = { {0}, {1}, {-1} } } }", "t.lua:1: packing p, part 1: ", "1 to 2 rows"},
        {HEAD "{ fields = 8, bits = 8, digits = 2, table = { {0, 0} } } }", "t.lua:1: packing p, part 1: ", "at most 7 bits"},
        {HEAD "{ fields = 8, bits = 4, digits = 4, sparse = '3:4' } }", "t.lua:1: packing p, part 1: ", "are more than 4 bits can tell"},
        {HEAD "{ fields = 8, bits = 5, digits = 4, sparse = '2:3' } }", "t.lua:1: packing p, part 1: ", "sparse is '2:3'"},
        {HEAD "{ fields = 8, bits = 5, digits = 4, sparse = '3:4', base = 'integer' } }", "t.lua:1: packing p, part 1: ", "choose one"},
    };
    world *w = world_new(&small);
    (void)state;
    for (size_t i = 0; i < sizeof is / sizeof is[0]; i++)
        refuse(w, is[i][0], is[i][1], is[i][2]);
    assert_null(st_script_packings(w->s));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published), cmocka_unit_test(second_way), cmocka_unit_test(tables), cmocka_unit_test(mistakes_in_text),
        cmocka_unit_test(declared),  cmocka_unit_test(sparse), cmocka_unit_test(kernels_are_apart), cmocka_unit_test(rules_for_floats), cmocka_unit_test(scripted_rule),
        cmocka_unit_test(floats_that_cannot_be),     cmocka_unit_test(mistakes_in_lua),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

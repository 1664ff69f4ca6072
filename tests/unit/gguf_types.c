/* tests/unit/gguf_types.c -- GGUF's element types: published vectors, independent packers of random
 * data, and the choice between types that share a number. */
#include "tests/unit/gguf_blocks.h"
#include "tests/unit/gguf_read.h"

#include <math.h>

#include "model/gguf_encode.h"

/* ---------------------------------------------------------------- written again */

/* The first tensor's values, read and written again, are its bytes: the packers of this file check
 * what is read and, by that, what is written. */
static void expect_written_again(const opened *o)
{
    static const char *const names[] = { "tq1_0", "tq2_0", "i2_s", "i2_s-arm", "i2_s-rows4", "iq1_bn", "iq2_bn", "q2_0",
                                         "q2_0-128", "pq2_0", "ptq1_0", "f32", "f16", "bf16" };
    const st_gguf_tensor *t = &o->g.tensor[0];
    const st_gguf_packing *p = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !p; i++) {
        p = st_gguf_packing_find(names[i]);
        assert_non_null(p);
        p = strcmp(p->type, t->type->name) == 0 && p->i2s == (p->codes || p->floats ? 0 : o->g.i2s) ? p : NULL;
    }
    if (!p)
        return;
    int64_t n = t->dim[0], rows = st_gguf_rows(t), stride = p->i2s ? 0 : t->bytes / rows;
    float *value = malloc((size_t)n * sizeof *value), *scale = malloc((size_t)(st_gguf_scales(t) + 1) * sizeof *scale);
    uint8_t *code = malloc((size_t)(n * rows)), *bytes = malloc((size_t)t->bytes);
    assert_true(value && scale && code && bytes);
    for (int64_t r = 0; r < rows; r++) {
        uint8_t *c = code + (p->i2s ? r * n : 0);
        assert_int_equal(read_row(o, 0, r, value, c, scale, NULL), SETUN_OK);
        if (p->floats)
            p->floats(value, n, bytes + r * stride);
        else if (p->codes)
            p->codes(c, scale, n, bytes + r * stride);
    }
    /* In two pieces, as far as the rows go. */
    int64_t piece = rows > ST_GGUF_I2S_ROWS ? ST_GGUF_I2S_ROWS : rows;
    if (p->i2s) {
        st_gguf_pack_i2s(code, p->i2s, piece, n, bytes);
        st_gguf_pack_i2s(code + piece * n, p->i2s, rows - piece, n, bytes + piece * n / 4);
    }
    assert_memory_equal(bytes, t->data, (size_t)(t->bytes - (p->i2s ? 32 : 0)));
    free(value);
    free(scale);
    free(code);
    free(bytes);
}

/* Q8_0, by its definition: the step is the largest magnitude / 127, values are rounded halves away
 * from 0, and only then is the step made a binary16. */
static void test_q8_0_written(void **state)
{
    (void)state;
    uint64_t random = 3;
    for (int round = 0; round < 200; round++) {
        float x[64], most[2] = { 0, 0 }, back[64];
        uint8_t row[68];
        for (int i = 0; i < 64; i++) {
            x[i] = ldexpf((float)(int32_t)next_random(&random), -31 - round % 20);
            x[i] = round % 7 == 0 && i >= 32 ? 0.0f : x[i];
            most[i / 32] = fmaxf(most[i / 32], fabsf(x[i]));
        }
        st_gguf_packing_find("q8_0")->floats(x, 64, row);
        st_gguf_q8_0(row, 64, back);
        for (int i = 0; i < 64; i++) {
            /* Half a step, and what the step's rounding moves: its relative error is 2^-11, or 2^-25 of 1
             * below binary16's normal numbers. */
            float step = most[i / 32] / 127.0f, room = 0.5001f * step + 127.0f * fmaxf(step * 0x1p-11f, 0x1p-25f);
            int q = (int8_t)row[i / 32 * 34 + 2 + i % 32];
            assert_true(fabsf(back[i] - x[i]) <= room && q >= -127);
            if (fabsf(x[i]) == most[i / 32] && most[i / 32] > 0)
                assert_int_equal(q, x[i] > 0 ? 127 : -127);
            /* A value that is surely not between two steps has a code that no rounding changes. */
            double exact = step > 0 ? (double)x[i] / (double)step : 0;
            if (fabs(exact - rint(exact)) < 0.499)
                assert_int_equal(q, (int)rint(exact));
        }
    }
    float half[32] = { 127.0f, 0.5f, -0.5f, 1.5f, -2.5f }; /* step 1: halves go away from 0 */
    uint8_t row[34];
    st_gguf_packing_find("q8_0")->floats(half, 32, row);
    assert_memory_equal(row, "\x00\x3c\x7f\x01\xff\x02\xfd\0", 8);
}

/* ---------------------------------------------------------------- golden vectors */

/* The weights of the published test vectors. */
static void vector_weights(int *w, int n)
{
    uint32_t s = 1;
    for (int i = 0; i < n; i++) {
        s = (s * 1103515245u + 12345u) & 0x7fffffffu;
        w[i] = (int)(s >> 16) % 3 - 1;
    }
}

static void test_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t    id;
        int64_t     cols, rows;
        int         i2s;
        const char *hex;
    } cases[] = {
        { 36, 256, 1, ST_I2S_X86, "a65022695894040428224682162585a02a01042195658514021a2a9852909586264444905a912a95a2510482556090106a56"
                                  "20a468a904882560966a66018655" },
        { 36, 256, 1, ST_I2S_ARM, "8a44084a65962001080942a11529a1a86a01188591515150822a6a284a4455121a5142a656a608a48a5621925648a4156a52"
                                  "4010a82598641904522a56011211" },
        { 36, 64, 4, ST_I2S_ROWS4, "9145056866981219280451881514988026051009965a911a012429a645809995aa40a09446450a058aa5202265981484aa"
                                   "160898589910402968a64a6a415225" },
        { 35, 256, 1, 0, "9a05886925161010288891829458520aa84010485659521480a4a8268506569298111106a546a8568a45108255090604a995081a"
                         "296a1022580996a999409255003a" },
        { 34, 256, 1, 0, "f47341a786d30a0c4e4166b42e47bae454050a3fd59db829073755dc7ac8d6bcf62a4392aa96c367e9902a429cab5975bbcb1a17"
                         "003a" },
        { 135, 64, 1, 0, "0000403fa21120a1599608402060814a54684a2a" },
        { 134, 64, 1, 0, "003a7803b3ab08f4a7e5439161811c" },
    };
    int w[256];
    vector_weights(w, 256);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        size_t n;
        uint8_t *hex = from_hex(cases[k].hex, &n), bytes[256];
        gguf_maker m;
        st_str file;
        memcpy(bytes, hex, n);
        free(hex);
        if (cases[k].id == 36) { /* 0.75, and 28 bytes that mean nothing */
            memcpy(bytes + n, "\0\0\x40\x3f", 4);
            memset(bytes + n + 4, 0xee, 28);
            n += 32;
        }
        make(&m, &file, "bitnet-b1.58", 40);
        gguf_tensor(&m, "t", cases[k].id, 2, (const int64_t[]){ cases[k].cols, cases[k].rows }, bytes, n);
        gguf_bytes(&m, &file);
        opened o;
        start(&o, file.text, file.len, cases[k].i2s);
        if (o.status != SETUN_OK)
            fail_msg("case %zu: %s", k, o.err.text);
        for (int64_t r = 0; r < cases[k].rows; r++) {
            float value[256], scale[4];
            uint8_t code[256];
            assert_int_equal(st_gguf_scales(&o.g.tensor[0]), 1);
            assert_int_equal(read_row(&o, 0, r, value, code, scale, &o.err), SETUN_OK);
            assert_true(scale[0] == 0.75f);
            for (int64_t i = 0; i < cases[k].cols; i++) {
                int want = w[r * cases[k].cols + i];
                if (code[i] != want + 1 || value[i] != 0.75f * (float)want)
                    fail_msg("case %zu, row %d, column %d: code %d, value %g, weight %d", k, (int)r, (int)i, code[i], (double)value[i], want);
            }
        }
        expect_written_again(&o);
        finish(&o);
        st_str_free(&file);
    }
}

/* ---------------------------------------------------------------- every type, random, odd sizes */

/* Digits, first the most significant, to the byte that stands for them. */
static uint8_t five(const int *t, int stride)
{
    int v = 0;
    for (int i = 0; i < 5; i++)
        v = 3 * v + t[i * stride];
    return (uint8_t)((v * 256 + 242) / 243);
}

static uint8_t four(const int *t, int stride)
{
    const int five_of_them[5] = { t[0], t[stride], t[2 * stride], t[3 * stride], 0 };
    return five(five_of_them, 1);
}

static void put_ternary(int n, int most, float d, float *v, int *c)
{
    for (int i = 0; i < n; i++) {
        c[i] = dice(most);
        v[i] = (float)(c[i] - 1) * d;
    }
}

static void write_tq1_0(st_str *s, float *v, int *c)
{
    float d;
    uint32_t h = random_half(&d);
    put_ternary(256, 3, d, v, c);
    for (int m = 0; m < 32; m++)
        put_le(s, five(c + m, 32), 1);
    for (int m = 0; m < 16; m++)
        put_le(s, five(c + 160 + m, 16), 1);
    for (int j = 0; j < 4; j++)
        put_le(s, four(c + 240 + j, 4), 1);
    put_le(s, h, 2);
}

static void write_ptq1_0(st_str *s, float *v, int *c)
{
    float d;
    uint32_t h = random_half(&d);
    put_ternary(128, 3, d, v, c);
    for (int m = 0; m < 16; m++)
        put_le(s, five(c + m, 16), 1);
    for (int m = 0; m < 8; m++)
        put_le(s, five(c + 80 + m, 8), 1);
    for (int j = 0; j < 2; j++)
        put_le(s, four(c + 120 + j, 2), 1);
    put_le(s, h, 2);
}

static void write_tq2_0(st_str *s, float *v, int *c)
{
    float d;
    uint32_t h = random_half(&d);
    put_ternary(256, 3, d, v, c);
    for (int g = 0; g < 2; g++)
        for (int m = 0; m < 32; m++)
            put_le(s, (uint64_t)(c[128 * g + m] | c[128 * g + 32 + m] << 2 | c[128 * g + 64 + m] << 4 | c[128 * g + 96 + m] << 6), 1);
    put_le(s, h, 2);
}

static void write_two_bits(st_str *s, int n, float *v, int *c)
{
    float d;
    uint32_t h = random_half(&d);
    put_ternary(n, 4, d, v, c);
    put_le(s, h, 2);
    for (int i = 0; i < n; i += 4)
        put_le(s, (uint64_t)(c[i] | c[i + 1] << 2 | c[i + 2] << 4 | c[i + 3] << 6), 1);
}

static void write_q2_0_64(st_str *s, float *v, int *c) { write_two_bits(s, 64, v, c); }

static void write_q2_0_128(st_str *s, float *v, int *c) { write_two_bits(s, 128, v, c); }

static void write_f32(st_str *s, float *v, int *c)
{
    (void)c;
    uint32_t bits = next_random(&dice_seed) & 0xbfffffffu; /* no NaN, which would not equal itself */
    memcpy(v, &bits, 4);
    put_le(s, bits, 4);
}

static void write_f16(st_str *s, float *v, int *c)
{
    (void)c;
    put_le(s, random_half(v), 2);
}

static void write_bf16(st_str *s, float *v, int *c)
{
    (void)c;
    int e = dice(200) - 100, f = dice(128), sign = dice(2);
    *v = (float)ldexp(sign ? -(1 + f / 128.0) : 1 + f / 128.0, e);
    put_le(s, (uint64_t)(sign << 15 | (e + 127) << 7 | f), 2);
}

static const struct {
    uint32_t      id;
    const char   *name;
    int           block, ternary;
    block_writer *write;
} written[] = {
    { 0, "F32", 1, 0, write_f32 },           { 1, "F16", 1, 0, write_f16 },           { 30, "BF16", 1, 0, write_bf16 },
    { 2, "Q4_0", 32, 0, write_q4_0 },        { 8, "Q8_0", 32, 0, write_q8_0 },        { 12, "Q4_K", 256, 0, write_q4_k },
    { 14, "Q6_K", 256, 0, write_q6_k },      { 34, "TQ1_0", 256, 1, write_tq1_0 },    { 35, "TQ2_0", 256, 1, write_tq2_0 },
    { 42, "Q2_0", 64, 1, write_q2_0_64 },    { 42, "Q2_0 (groups of 128)", 128, 1, write_q2_0_128 },
    { 142, "PQ2_0", 128, 1, write_q2_0_128 },{ 143, "PTQ1_0", 128, 1, write_ptq1_0 },
};

/* One tensor in a file of architecture `a`; compares every row with v and, if not NULL, codes with c. */
static void expect(const char *a, uint32_t id, const char *name, int i2s, int64_t cols, int64_t rows, const st_str *data,
                   const float *v, const int *c)
{
    gguf_maker m;
    st_str file;
    opened o;
    make(&m, &file, a, -1);
    gguf_tensor(&m, "t", id, 2, (const int64_t[]){ cols, rows }, data->text, data->len);
    gguf_bytes(&m, &file);
    start(&o, file.text, file.len, i2s);
    if (o.status != SETUN_OK)
        fail_msg("%s, %d x %d: %s", name, (int)cols, (int)rows, o.err.text);
    assert_string_equal(o.g.tensor[0].type->name, name);
    float *value = malloc((size_t)cols * sizeof *value), *scale = malloc((size_t)(st_gguf_scales(o.g.tensor) + 1) * sizeof *scale);
    uint8_t *code = malloc((size_t)cols);
    assert_true(value && scale && code);
    for (int64_t r = rows - 1; r >= 0; r--) {
        if (read_row(&o, 0, r, value, code, scale, &o.err) != SETUN_OK)
            fail_msg("%s, %d x %d: %s", name, (int)cols, (int)rows, o.err.text);
        for (int64_t i = 0; i < cols; i++)
            if (value[i] != v[r * cols + i] || (c && code[i] != c[r * cols + i]))
                fail_msg("%s, %d x %d: row %d, column %d is %g, not %g", name, (int)cols, (int)rows, (int)r, (int)i, (double)value[i],
                         (double)v[r * cols + i]);
    }
    free(value);
    free(scale);
    free(code);
    expect_written_again(&o);
    finish(&o);
    st_str_free(&file);
}

static void test_types(void **state)
{
    (void)state;
    static const int shapes[][2] = { { 3, 1 }, { 1, 7 }, { 5, 3 }, { 9, 5 } };
    for (size_t k = 0; k < sizeof written / sizeof *written; k++)
        for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++) {
            int blocks = shapes[shape][0], rows = shapes[shape][1], block = written[k].block;
            if (blocks < 5 && (written[k].id == 42 || written[k].id == 142))
                continue; /* so small that two types may have one size: test_collisions */
            int64_t cols = blocks * block;
            float *v = malloc((size_t)(cols * rows) * sizeof *v);
            int *c = malloc((size_t)(cols * rows) * sizeof *c);
            st_str data = { 0 };
            assert_true(v && c);
            for (int i = 0; i < blocks * rows; i++)
                written[k].write(&data, v + (int64_t)i * block, c + (int64_t)i * block);
            expect("llama", written[k].id, written[k].name, ST_I2S_ASK, cols, rows, &data, v, written[k].ternary ? c : NULL);
            st_str_free(&data);
            free(v);
            free(c);
        }
}

/* Types with a scale in front of each row or behind the tensor: all weights at once. */
static void test_row_types(void **state)
{
    (void)state;
    static const int shapes[][2] = { { 64, 4 }, { 128, 4 }, { 64, 20 }, { 192, 12 }, { 640, 8 }, { 256, 1 }, { 896, 3 }, { 64, 5 } };
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++) {
        int cols = shapes[shape][0], rows = shapes[shape][1], n = cols * rows;
        int *c = malloc((size_t)n * sizeof *c);
        float *v = malloc((size_t)n * sizeof *v), scale;
        st_str data[5] = { { 0 } };
        assert_true(c && v);
        uint32_t h = random_half(&scale), bits;
        scale = fabsf(scale) + 0.25f; /* above 0 */
        memcpy(&bits, &scale, 4);
        for (int i = 0; i < n; i++) {
            c[i] = dice(3);
            v[i] = (float)(c[i] - 1) * scale;
        }
        /* I2_S: every weight has its place; set it there. */
        uint8_t *packed = calloc(3, (size_t)n / 4);
        assert_non_null(packed);
        for (int i = 0; i < n; i++) {
            int r = i / cols, col = i % cols;
            packed[i / 128 * 32 + i % 32] |= (uint8_t)(n % 128 ? 0 : c[i] << (6 - 2 * (i % 128 / 32)));
            packed[n / 4 + i / 64 * 16 + i % 16] |= (uint8_t)(c[i] << (6 - 2 * (i % 64 / 16)));
            if (rows % 4 == 0)
                packed[n / 2 + r / 4 * cols + col] |= (uint8_t)(c[i] << (6 - 2 * (r % 4)));
        }
        for (int k = 0; k < 3; k++) {
            st_str_addn(&data[k], packed + (size_t)k * (size_t)n / 4, (size_t)n / 4);
            put_le(&data[k], bits, 4);
            for (int i = 0; i < 28; i++)
                put_le(&data[k], (uint64_t)dice(256), 1);
        }
        if (n % 128 == 0)
            expect("bitnet", 36, "I2_S", ST_I2S_X86, cols, rows, &data[0], v, c);
        expect("bitnet", 36, "I2_S", ST_I2S_ARM, cols, rows, &data[1], v, c);
        if (rows % 4 == 0)
            expect("bitnet", 36, "I2_S", ST_I2S_ROWS4, cols, rows, &data[2], v, c);
        /* IQ2_BN and IQ1_BN: the scale in front of each row. */
        for (int r = 0; r < rows; r++) {
            put_le(&data[3], bits, 4);
            for (int b = 0; b < cols; b += 64)
                for (int j = 0; j < 16; j++) {
                    const int *q = c + r * cols + b + j;
                    put_le(&data[3], (uint64_t)(q[0] | q[16] << 2 | q[32] << 4 | q[48] << 6), 1);
                }
        }
        expect("llama", 135, "IQ2_BN", ST_I2S_ASK, cols, rows, &data[3], v, c);
        float d = (float)ldexp((h & 0x8000 ? -1 : 1) * ((h >> 10 & 31 ? 1024 : 0) + (double)(h & 1023)),
                               (h >> 10 & 31 ? (int)(h >> 10 & 31) : 1) - 25);
        for (int r = 0; r < rows; r++) {
            put_le(&data[4], h, 2);
            for (int b = 0; b < cols; b += 64) {
                const int *q = c + r * cols + b;
                for (int s = 0; s < 4; s++)
                    for (int k = 0; k < 3; k++) { /* the last of five comes first in the number */
                        const int t[5] = { q[16 * s + 5 * k + 4], q[16 * s + 5 * k + 3], q[16 * s + 5 * k + 2], q[16 * s + 5 * k + 1],
                                           q[16 * s + 5 * k] };
                        put_le(&data[4], five(t, 1), 1);
                    }
                const int last[5] = { 0, q[63], q[47], q[31], q[15] };
                put_le(&data[4], five(last, 1), 1);
            }
        }
        for (int i = 0; i < n; i++)
            v[i] = (float)(c[i] - 1) * d;
        expect("llama", 134, "IQ1_BN", ST_I2S_ASK, cols, rows, &data[4], v, c);
        for (int k = 0; k < 5; k++)
            st_str_free(&data[k]);
        free(packed);
        free(c);
        free(v);
    }
}

/* ---------------------------------------------------------------- numbers that several types share */

static void test_collisions(void **state)
{
    (void)state;
    static const struct {
        const char *architecture;
        int         file_type;
        uint32_t    id;
        int64_t     cols, rows;
        int         bytes;
        const char *type, *says; /* the type, and part of the decision; or NULL, and part of the refusal */
    } cases[] = {
        { "qwen3", -1, 42, 1024, 8, 1024 / 64 * 18 * 8, "Q2_0", "type 42 is Q2_0, not Q2_0 (groups of 128) or STQ1_0" },
        { "qwen3", -1, 42, 1024, 8, 1024 / 128 * 34 * 8, "Q2_0 (groups of 128)", "not Q2_0 or STQ1_0: 1 tensor has just its bytes, such as t with 2176" },
        { "qwen3", -1, 42, 1024, 8, 1024 / 256 * 42 * 8, NULL, "tensor t is STQ1_0 (type 42), a type that Setun does not read" },
        { "qwen3", -1, 42, 1024, 8, 2200, NULL, "Q2_0 needs 2304, Q2_0 (groups of 128) needs 2176, STQ1_0 needs 1344" },
        { "qwen3", -1, 42, 64, 8, 18 * 8, "Q2_0", "type 42 is Q2_0" },
        { "qwen3", -1, 42, 96, 8, 18 * 12, NULL, "Q2_0 cannot have this shape" },
        { "qwen3", -1, 42, 128, 1, 64, NULL, "is Q2_0 or Q2_0 (groups of 128), and the sizes fit both" },
        { "bitnet-b1.58", 40, 36, 256, 8, 256 * 8 / 4 + 32, "I2_S", "general.architecture is bitnet-b1.58, general.file_type is 40; 1 tensor" },
        { "bitnet-25", -1, 36, 256, 8, 256 * 8 / 4 + 32, "I2_S", "general.architecture is bitnet-25; 1 tensor" },
        { "llama", 40, 36, 256, 8, 256 * 8 / 4 + 32, "I2_S", "general.architecture is llama, general.file_type is 40" },
        { "llama", 2, 36, 256, 8, 256 * 8 / 4 + 32, NULL, "tensor t is IQ4_NL_4_4 (type 36 in a file of architecture llama), a type that was removed" },
        { "gpt2", 40, 36, 256, 8, 256 * 8 / 4 + 32, NULL, "was removed" },
        { "bitnet", 40, 36, 256, 8, 256 * 8 / 4, NULL, "I2_S needs 544" },
        { "bitnet", 38, 38, 256, 8, 256 * 8 / 4 + 32, NULL, "tensor t is TL1 (type 38 in a file of architecture bitnet), a layout that depends on tile sizes" },
        { "bitnet", 39, 39, 256, 8, 256 * 8 / 4 + 32, NULL, "tensor t is TL2" },
        { "llama", -1, 38, 256, 8, 256 * 8 / 4 + 32, NULL, "was removed" },
        { "llama", -1, 39, 256, 8, 256 / 32 * 17 * 8, "MXFP4", "type 39 is MXFP4, not TL2: general.architecture is llama" },
        { "bitnet", -1, 37, 256, 8, 256 * 8, NULL, "activations" },
        { "llama", -1, 142, 512, 9, 512 / 128 * 34 * 9, "PQ2_0", "type 142 is PQ2_0, not IQ2_TN" },
        { "llama", -1, 142, 512, 9, (512 / 4 + 4) * 9, NULL, "IQ2_TN (type 142), a type that its makers have given up" },
        { "llama", -1, 143, 512, 3, 512 / 128 * 28 * 3, "PTQ1_0", "type 143 is PTQ1_0, not IQ1_TN" },
        { "llama", -1, 143, 512, 9, (512 / 256 * 52 + 2) * 9, NULL, "IQ1_TN (type 143)" },
        { "llama", -1, 335, 256, 4, (256 / 4 + 4) * 4, NULL, "woven" },
        { "llama", -1, 4, 256, 4, 256, NULL, "type 4, which Setun does not know" },
        { "llama", -1, 0xffffffff, 256, 4, 256, NULL, "type 4294967295" },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        gguf_maker m;
        st_str file;
        opened o;
        uint8_t *bytes = calloc(1, (size_t)cases[k].bytes);
        assert_non_null(bytes);
        if (cases[k].id == 36)
            memcpy(bytes + cases[k].bytes - 32, "\0\0\x80\x3f", 4);
        make(&m, &file, cases[k].architecture, cases[k].file_type);
        gguf_tensor(&m, "t", cases[k].id, 2, (const int64_t[]){ cases[k].cols, cases[k].rows }, bytes, (size_t)cases[k].bytes);
        gguf_tensor(&m, "u", 0, 1, (const int64_t[]){ 1 }, "\0\0\0", 4);
        gguf_bytes(&m, &file);
        start(&o, file.text, file.len, ST_I2S_ASK);
        const char *text = o.status != SETUN_OK ? o.err.text : o.g.n_decisions ? o.g.decision[0] : "";
        if ((o.status == SETUN_OK) != (cases[k].type != NULL) || !strstr(text, cases[k].says))
            fail_msg("case %zu: status %d, '%s' lacks '%s'", k, o.status, text, cases[k].says);
        if (cases[k].type)
            assert_string_equal(o.g.tensor[0].type->name, cases[k].type);
        finish(&o);
        st_str_free(&file);
        free(bytes);
    }
}

/* One tensor decides for another that could be either. */
static void test_collision_together(void **state)
{
    (void)state;
    static const uint8_t bytes[4096];
    for (int legacy = 0; legacy < 2; legacy++) {
        gguf_maker m;
        st_str file;
        opened o;
        make(&m, &file, "qwen3", -1);
        gguf_tensor(&m, "small", 42, 1, (const int64_t[]){ 128 }, bytes, 64);
        gguf_tensor(&m, "large", 42, 2, (const int64_t[]){ 1024, 8 }, bytes, legacy ? 34 * 64 : 36 * 64);
        gguf_bytes(&m, &file);
        start(&o, file.text, file.len, ST_I2S_ASK);
        assert_int_equal(o.status, SETUN_OK);
        for (int i = 0; i < 2; i++)
            assert_int_equal(o.g.tensor[i].type->group, legacy ? 128 : 64);
        finish(&o);
        st_str_free(&file);
    }
}

/* said: what the file's own key says, NULL: it has none. */
static void i2s_file(int64_t cols, int64_t rows, int i2s, uint32_t scale, int first_byte, const char *said, setun_status open_status,
                     setun_status row_status, const char *says)
{
    gguf_maker m;
    st_str file, data = { 0 };
    opened o;
    for (int64_t i = 0; i < cols * rows / 4; i++)
        put_le(&data, i ? 0x55 : (uint64_t)first_byte, 1);
    put_le(&data, scale, 4);
    put_le(&data, 0, 28 - 20);
    for (int i = 0; i < 20; i++)
        put_le(&data, 0xff, 1);
    make(&m, &file, "bitnet-b1.58", 40);
    if (said)
        kv_text(&m, "setun.i2_s.layout", said);
    gguf_tensor(&m, "t", 36, 2, (const int64_t[]){ cols, rows }, data.text, data.len);
    gguf_bytes(&m, &file);
    start(&o, file.text, file.len, i2s);
    float value[512], scales[1];
    uint8_t code[512];
    setun_error err = { 0, "" };
    if (o.status != open_status)
        fail_msg("%d x %d: %s", (int)cols, (int)rows, o.err.text);
    const char *text = o.err.text;
    if (o.status == SETUN_OK) {
        text = o.g.decision[1];
        assert_int_equal(read_row(&o, 0, 0, value, code, scales, &err), row_status);
        if (row_status != SETUN_OK)
            text = err.text;
    }
    if (!strstr(text, says))
        fail_msg("'%s' lacks '%s'", text, says);
    finish(&o);
    st_str_free(&file);
    st_str_free(&data);
}

static void i2s_case(int64_t cols, int64_t rows, int i2s, uint32_t scale, int first_byte, setun_status open_status, setun_status row_status,
                     const char *says)
{
    i2s_file(cols, rows, i2s, scale, first_byte, NULL, open_status, row_status, says);
}

static void test_i2s(void **state)
{
    (void)state;
    const uint32_t one = 0x3f800000;
    i2s_file(128, 4, ST_I2S_ASK, one, 0x55, "arm", SETUN_OK, SETUN_OK, "I2_S has the layout arm: the key setun.i2_s.layout says so");
    i2s_file(128, 4, ST_I2S_X86, one, 0x55, "arm", SETUN_OK, SETUN_OK, "I2_S has the layout x86: it was asked for");
    i2s_file(128, 4, ST_I2S_ASK, one, 0x55, "x8", SETUN_UNKNOWN, 0, "key setun.i2_s.layout does not name a layout of I2_S");
    i2s_file(64, 3, ST_I2S_ASK, one, 0x55, "rows4", SETUN_BAD_FILE, 0, "says rows4, which the sizes do not allow");
    i2s_case(128, 4, ST_I2S_ASK, one, 0x55, SETUN_OK, SETUN_UNKNOWN, "--i2s-layout x86, arm or rows4");
    i2s_case(128, 1, ST_I2S_ASK, one, 0x55, SETUN_OK, SETUN_UNKNOWN, "three layouts");
    i2s_case(64, 3, ST_I2S_ASK, one, 0x55, SETUN_OK, SETUN_OK, "I2_S has the layout arm: the sizes allow no other");
    i2s_case(36, 4, ST_I2S_ASK, one, 0x55, SETUN_OK, SETUN_OK, "I2_S has the layout rows4: the sizes allow no other");
    i2s_case(33, 1, ST_I2S_ASK, one, 0x55, SETUN_BAD_FILE, 0, "I2_S cannot have this shape");
    i2s_case(36, 3, ST_I2S_ASK, one, 0x55, SETUN_BAD_SHAPE, 0, "none of its layouts");
    i2s_case(128, 4, ST_I2S_X86, one, 0x55, SETUN_OK, SETUN_OK, "it was asked for");
    i2s_case(64, 3, ST_I2S_X86, one, 0x55, SETUN_BAD_ARG, 0, "do not allow the layout x86");
    i2s_case(128, 3, ST_I2S_ROWS4, one, 0x55, SETUN_BAD_ARG, 0, "do not allow the layout rows4");
    i2s_case(128, 4, ST_I2S_X86, one, 0x5d, SETUN_OK, SETUN_BAD_FILE, "code 3 at row 0, column 64");
    i2s_case(128, 4, ST_I2S_ARM, one, 0x5d, SETUN_OK, SETUN_BAD_FILE, "code 3 at row 0, column 32");
    i2s_case(128, 4, ST_I2S_ROWS4, one, 0xd5, SETUN_OK, SETUN_BAD_FILE, "code 3 at row 0, column 0");
    i2s_case(128, 4, ST_I2S_X86, 0, 0x55, SETUN_BAD_FILE, 0, "the scale behind the codes of I2_S is 0");
    i2s_case(128, 4, ST_I2S_X86, one | 1u << 31, 0x55, SETUN_BAD_FILE, 0, "is -1");
    i2s_case(128, 4, ST_I2S_X86, 0x7f800000, 0x55, SETUN_BAD_FILE, 0, "is inf");
    i2s_case(128, 4, ST_I2S_X86, 0x7fc00000, 0x55, SETUN_BAD_FILE, 0, "nan");
    setun_error err;
    opened o;
    gguf_maker m;
    st_str file;
    make(&m, &file, "bitnet", 40);
    gguf_bytes(&m, &file);
    start(&o, file.text, file.len, ST_I2S_X86);
    assert_int_equal(o.status, SETUN_BAD_ARG); /* an answer to a question that the file does not ask */
    finish(&o);
    st_str_free(&file);
    /* Damage that types other than I2_S can have. */
    make(&m, &file, "llama", -1);
    uint8_t bytes[66];
    memset(bytes, 0x55, sizeof bytes);
    bytes[5] = 0xd5;
    gguf_tensor(&m, "t", 35, 1, (const int64_t[]){ 256 }, bytes, sizeof bytes);
    bytes[5] = 0x55;
    bytes[65] = 0x7c;
    gguf_tensor(&m, "u", 35, 1, (const int64_t[]){ 256 }, bytes, sizeof bytes);
    gguf_tensor(&m, "v", 3, 1, (const int64_t[]){ 32 }, bytes, 20);
    gguf_bytes(&m, &file);
    start(&o, file.text, file.len, ST_I2S_ASK);
    assert_int_equal(o.status, SETUN_OK);
    float value[256], scale[1];
    uint8_t code[256];
    assert_int_equal(read_row(&o, 0, 0, value, code, scale, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "tensor t: code 3 at row 0, column 101"));
    assert_int_equal(read_row(&o, 1, 0, value, code, scale, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "tensor u: a scale of row 0 is not finite"));
    assert_int_equal(read_row(&o, 2, 0, value, code, scale, &err), SETUN_UNKNOWN);
    assert_non_null(strstr(err.text, "Q4_1, which Setun cannot compute with"));
    finish(&o);
    st_str_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_q8_0_written),    cmocka_unit_test(test_types),              cmocka_unit_test(test_row_types),
        cmocka_unit_test(test_collisions), cmocka_unit_test(test_collision_together), cmocka_unit_test(test_i2s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

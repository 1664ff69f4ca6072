/* graph/case.c -- a test case in words becomes arguments with data.
 *
 *     "x:f32[n3,256] w:t2[7,300] eps=0.001 mode=\"neox\""
 *
 * Every input and every attribute without a default is named, in any order.  n3 is compiled for any
 * number of tokens and run with 3.  Not here: judging results (cli, tests).
 *
 * Contents come from a counter: element i of input p under seed s is a function of (s, p, i) alone, so
 * a failure is reproduced by its case and seed, on any machine. */
#include <string.h>

#include "base/error.h"
#include "graph/graph.h"
#include "graph/registry.h"

#define MAX_ARRAY_BYTES ((int64_t)4 << 30) /* a case is a test, not a model */

/* ---------------------------------------------------------------- contents */

/* The finaliser of splitmix64: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

#define KIND_NORMAL 0
#define KIND_TINY   1

/* A float made of one random word: usually the sum of four uniform numbers, which is roughly normal
 * in [-4, 4]; one in 16 a zero of either sign, one in 64 up to 4096 in size, one in 64 tiny (the
 * caller makes it a denormal of its format). */
static float make_float(uint64_t r, int *kind)
{
    uint32_t pick = (uint32_t)(mix(r) & 63);
    uint32_t sum = (uint32_t)(r & 0xffff) + (uint32_t)(r >> 16 & 0xffff) + (uint32_t)(r >> 32 & 0xffff) +
                   (uint32_t)(r >> 48);
    float f = ((float)sum - 131070.0f) * (4.0f / 131070.0f);
    *kind = KIND_NORMAL;
    if (pick < 4)
        return pick < 2 ? 0.0f : -0.0f;
    if (pick == 4)
        return f * 1024.0f;
    if (pick == 5)
        *kind = KIND_TINY;
    return f;
}

static void fill_floats(const setun_view *v, uint64_t seed, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = mix(seed + (uint64_t)i);
        int kind;
        float f = make_float(r, &kind);
        if (v->dtype == SETUN_F32)
            ((float *)v->data)[i] = kind == KIND_TINY ? setun_bits_f32(setun_f32_bits(f) & 0x807fffffu) : f;
        else if (v->dtype == SETUN_F16)
            ((uint16_t *)v->data)[i] = kind == KIND_TINY ? (uint16_t)(r & 0x83ffu) : setun_f32_f16(f);
        else
            ((uint16_t *)v->data)[i] = kind == KIND_TINY ? (uint16_t)(r & 0x807fu) : setun_f32_bf16(f);
    }
}

/* Floats, a row at a time, as kv_append would store them. */
static void fill_q8(const setun_view *v, uint64_t seed, int64_t n)
{
    float block[SETUN_Q8_BLOCK];
    uint8_t *out = v->data;
    int64_t cols = v->dim[v->rank - 1];
    for (int64_t i = 0, size; i < n; i += size, out += SETUN_Q8_BLOCK_BYTES) {
        size = cols - i % cols < SETUN_Q8_BLOCK ? cols - i % cols : SETUN_Q8_BLOCK;
        setun_view x = { block, SETUN_F32, 1, { size, 1, 1, 1 } };
        fill_floats(&x, seed + (uint64_t)i, size);
        setun_put_q8(out, block, size);
    }
}

static void fill_ints(const setun_view *v, uint64_t seed, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = mix(seed + (uint64_t)i);
        switch (v->dtype) {
        case SETUN_I8: ((int8_t *)v->data)[i] = (int8_t)((int32_t)(r % 255) - 127); break;
        case SETUN_I16: ((int16_t *)v->data)[i] = (int16_t)((int32_t)(r % 31) - 15); break;
        case SETUN_I32: ((int32_t *)v->data)[i] = (int32_t)(r & 7); break;
        case SETUN_I64: ((int64_t *)v->data)[i] = (int64_t)(r & 7); break;
        default: ((uint8_t *)v->data)[i] = (uint8_t)(r & 15); break;
        }
    }
}

/* Byte j of block b holds columns 128 b + j + 32 s at bits 2 s (setun/types.h). */
static void fill_t2(const setun_view *v, uint64_t seed, int64_t rows, int64_t cols)
{
    int64_t row_bytes = setun_row_bytes(SETUN_T2, cols);
    uint8_t *out = v->data;
    for (int64_t i = 0; i < rows * row_bytes; i++) {
        uint64_t r = mix(seed + (uint64_t)i);
        int64_t in_row = i % row_bytes;
        int64_t col = in_row / SETUN_T2_BLOCK_BYTES * SETUN_T2_BLOCK + in_row % SETUN_T2_BLOCK_BYTES;
        uint32_t byte = 0;
        for (uint32_t s = 0; s < 4; s++) {
            uint32_t code = (uint32_t)(r >> 16 * s & 0xffff) * 3 >> 16;
            byte |= (col + 32 * s < cols ? code : 1u) << 2 * s;
        }
        out[i] = (uint8_t)byte;
    }
}

void st_case_fill(const setun_view *v, uint64_t seed)
{
    int64_t n = setun_count(v);
    seed = mix(seed);
    if (v->dtype == SETUN_T2)
        fill_t2(v, seed, v->dim[v->rank - 1] ? n / v->dim[v->rank - 1] : 0, v->dim[v->rank - 1]);
    else if (v->dtype == SETUN_F32 || v->dtype == SETUN_F16 || v->dtype == SETUN_BF16)
        fill_floats(v, seed, n);
    else if (v->dtype == SETUN_Q8)
        fill_q8(v, seed, n);
    else if (setun_block(v->dtype) > 1)
        setun_fill_blocks(v, seed);
    else
        fill_ints(v, seed, n);
}

/* ---------------------------------------------------------------- text */

static setun_status no_memory(setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "out of memory for a case");
}

static setun_status new_args(const setun_op *op, st_arena *arena, setun_args *a, setun_value **attr, setun_error *err)
{
    setun_view *views = st_arena_array(arena, (int64_t)op->n_in + op->n_out, (int64_t)sizeof *views);
    *attr = st_arena_array(arena, op->n_attr ? op->n_attr : 1, (int64_t)sizeof **attr);
    if (!views || !*attr)
        return no_memory(err);
    a->size = sizeof *a;
    a->n_in = op->n_in;
    a->n_out = op->n_out;
    a->n_attr = op->n_attr;
    a->op = op;
    a->in = views;
    a->out = views + op->n_in;
    a->attr = *attr;
    a->knob = NULL;
    return SETUN_OK;
}

static setun_status parse_input(const setun_op *op, const char **p, size_t n, setun_args *a,
                                int64_t size[SETUN_N_SYMBOLS], setun_error *err)
{
    const char *end;
    uint32_t i = 0;
    while (i < op->n_in && (strlen(op->in[i].name) != n || memcmp(op->in[i].name, *p, n) != 0))
        i++;
    if (i == op->n_in)
        return st_fail(err, SETUN_BAD_ARG, "there is no input %.*s", (int)(n < 40 ? n : 40), *p);
    if (a->in[i].dtype)
        return st_fail(err, SETUN_BAD_ARG, "input %s is given twice", op->in[i].name);
    end = st_view_parse_sized(*p + n + 1, &a->in[i], size);
    if (!end)
        return st_fail(err, SETUN_BAD_ARG, "input %s wants a type such as f32[n3,256], with one size for each symbol",
                       op->in[i].name);
    *p = end;
    return SETUN_OK;
}

static setun_status parse_attr(const setun_op *op, const char **p, size_t n, st_arena *arena, setun_value *attr,
                               uint32_t *given, setun_error *err)
{
    setun_error inner = {0};
    const char *end;
    uint32_t i = 0;
    while (i < op->n_attr && (strlen(op->attr[i].name) != n || memcmp(op->attr[i].name, *p, n) != 0))
        i++;
    if (i == op->n_attr)
        return st_fail(err, SETUN_BAD_ARG, "there is no attribute %.*s", (int)(n < 40 ? n : 40), *p);
    if (*given >> i & 1)
        return st_fail(err, SETUN_BAD_ARG, "attribute %s is given twice", op->attr[i].name);
    *given |= UINT32_C(1) << i;
    end = st_attr_parse(&op->attr[i], *p + n + 1, arena, &attr[i], &inner);
    if (!end)
        return st_fail(err, inner.code, "%s", inner.text);
    *p = end;
    return SETUN_OK;
}

static setun_status parse(const setun_op *op, const char *p, st_arena *arena, setun_args *a,
                          int64_t size[SETUN_N_SYMBOLS], setun_error *err)
{
    setun_value *attr;
    uint32_t given = 0;
    memset(a, 0, sizeof *a);
    ST_TRY(new_args(op, arena, a, &attr, err));
    for (int i = 0; i < SETUN_N_SYMBOLS; i++)
        size[i] = -1;
    for (uint32_t i = 0; i < op->n_attr; i++)
        attr[i] = op->attr[i].fallback;
    for (p += strspn(p, " "); *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, ":= ");
        if (p[n] == ':')
            ST_TRY(parse_input(op, &p, n, a, size, err));
        else if (p[n] == '=')
            ST_TRY(parse_attr(op, &p, n, arena, attr, &given, err));
        else
            return st_fail(err, SETUN_BAD_ARG, "wants name:type or name=value, found %.40s", p);
        if (*p && *p != ' ')
            return st_fail(err, SETUN_BAD_ARG, "wants a space before %.40s", p);
    }
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!a->in[i].dtype)
            return st_fail(err, SETUN_BAD_ARG, "input %s is not given", op->in[i].name);
    for (uint32_t i = 0; i < op->n_attr; i++)
        if (op->attr[i].required && !(given >> i & 1))
            return st_fail(err, SETUN_BAD_ARG, "attribute %s is not given", op->attr[i].name);
    return SETUN_OK;
}

setun_status st_case_parse(const setun_op *op, const char *text, st_arena *arena, setun_args *shape,
                           int64_t size[SETUN_N_SYMBOLS], setun_error *err)
{
    setun_status s = parse(op, text, arena, shape, size, err);
    if (s != SETUN_OK)
        st_wrap(err, "case \"%.200s\"", text);
    return s;
}

/* ---------------------------------------------------------------- data */

static setun_status new_data(setun_view *v, const char *name, st_arena *arena, setun_error *err)
{
    int64_t bytes;
    ST_TRY(st_view_check(v, 0, err));
    bytes = setun_view_bytes(v);
    if (bytes > MAX_ARRAY_BYTES)
        return st_fail(err, SETUN_FULL, "%s would take %lld bytes, at most %lld are allowed in a case", name,
                       (long long)bytes, (long long)MAX_ARRAY_BYTES);
    v->data = st_arena_alloc(arena, bytes + ST_CASE_SLACK);
    if (!v->data)
        return no_memory(err);
    /* Kernels may read a little past the end but must not depend on it; zeros would hide that. */
    memset((char *)v->data + bytes, 0xa5, ST_CASE_SLACK);
    return SETUN_OK;
}

/* Everything but the seed's contents: run-time shapes, outputs of both, memory. */
static setun_status make(setun_args *shape, const int64_t size[SETUN_N_SYMBOLS], uint64_t seed, st_arena *arena,
                         st_case *c, setun_error *err)
{
    const setun_op *op = shape->op;
    setun_value *attr;
    for (int i = 0; i < SETUN_N_SYMBOLS; i++)
        c->size[i] = size[i] > 0 ? size[i] : 0;
    ST_TRY(st_infer(shape, err));
    c->shape = *shape;
    ST_TRY(new_args(op, arena, &c->run, &attr, err));
    c->run.attr = shape->attr;
    for (uint32_t i = 0; i < op->n_in; i++) {
        c->run.in[i] = shape->in[i];
        st_view_bind(&c->run.in[i], size);
    }
    ST_TRY(st_infer(&c->run, err));
    for (uint32_t i = 0; i < op->n_in; i++) {
        ST_TRY(new_data(&c->run.in[i], op->in[i].name, arena, err));
        st_case_fill(&c->run.in[i], mix(seed) + i);
    }
    for (uint32_t i = 0; i < op->n_out; i++) {
        if (op->out[i].shares)
            c->run.out[i].data = c->run.in[op->out[i].shares - 1].data;
        else
            ST_TRY(new_data(&c->run.out[i], op->out[i].name, arena, err));
    }
    if (SETUN_HAS(setun_op, op, fill))
        op->fill(&c->run, seed);
    return SETUN_OK;
}

setun_status st_case_make(const setun_op *op, const char *text, uint64_t seed, st_arena *arena, st_case *c,
                          setun_error *err)
{
    int64_t size[SETUN_N_SYMBOLS];
    setun_args shape;
    setun_status s;
    memset(c, 0, sizeof *c);
    s = parse(op, text, arena, &shape, size, err);
    if (s == SETUN_OK)
        s = make(&shape, size, seed, arena, c, err);
    if (s != SETUN_OK)
        st_wrap(err, "%s, case \"%.200s\"", op->name, text);
    return s;
}

setun_status st_case_from_shape(const setun_args *shape, const int64_t size[SETUN_N_SYMBOLS], uint64_t seed,
                                st_arena *arena, st_case *c, setun_error *err)
{
    setun_args copy;
    setun_value *attr;
    setun_status s;
    memset(c, 0, sizeof *c);
    memset(&copy, 0, sizeof copy);
    s = new_args(shape->op, arena, &copy, &attr, err);
    if (s == SETUN_OK) {
        for (uint32_t i = 0; i < copy.n_in; i++) {
            copy.in[i] = shape->in[i];
            copy.in[i].data = NULL;
        }
        for (uint32_t i = 0; i < copy.n_attr; i++)
            attr[i] = shape->attr[i];
        s = make(&copy, size, seed, arena, c, err);
    }
    if (s != SETUN_OK)
        st_wrap(err, "%s", shape->op->name);
    return s;
}

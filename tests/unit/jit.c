/* tests/unit/jit.c -- compiled kernels against the interpreter, bit for bit, on every x86 class
 * this machine can act as.
 *
 * The compiler is loaded as the program loads it.  A result that is NaN may have any sign and
 * payload where kir.def leaves them open (arithmetic); everything else is compared as bits. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/code.h"
#include "tests/unit/kir_samples.h"

#define N 4096 /* elements of every argument */
#define I64T K_TYPE(K_I64, 1)

static const char *const module_path = SETUN_BINARY_DIR "/lib/setun/codegen_llvm.so";

/* Instruction-set classes, from everything down to what every x86-64 has. */
static const struct isa_set {
    const char *features, *needs; /* the class is another one only if the host has this */
} sets[] = {
    { NULL, "" },           { "-avx512vnni", "avx512vnni" }, { "-avx512f", "avx512f" },
    { "-avx512f,-avxvnni", "avxvnni" },                      { "-avx2", "avx2" },
    { "-avx", "avx" },      { "-sse4.1", "sse4.1" },         { "-ssse3", "ssse3" },
    { "-sse3", "sse3" },
};
#define N_SETS SETUN_LEN(sets)

typedef struct state {
    const st_codegen *cg;
    st_target target[N_SETS];
    int       have[N_SETS];
    st_loader *loader;
    uint32_t  serial;
} state;

/* ---------------------------------------------------------------- arguments */

/* Inputs and outputs by element: K_I8, K_I16, K_I32, K_I64, K_F32. */
static const uint32_t elem_of[5] = { K_I8, K_I16, K_I32, K_I64, K_F32 };
static const uint32_t dtype_of[5] = { SETUN_I8, SETUN_I16, SETUN_I32, SETUN_I64, SETUN_F32 };
static const int64_t size_of[5] = { 1, 2, 4, 8, 4 };

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static uint32_t below(uint64_t *s, uint32_t n) { return (uint32_t)(next(s) >> 33) % n; }

static uint32_t float_bits(uint64_t *s)
{
    static const uint32_t special[] = {
        0,           0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc00001u,
        0x7f800001u, 1,           0x807fffffu, 0x00800000u, 0x3f000000u, 0xbf000000u,
        0x3fc00000u, 0x40200000u, 0x4b000000u, 0x4affffffu, 0xcb000001u, 0x4f000000u,
        0xcf000000u, 0x4effffffu, 0x477ff000u, 0x477fefffu, 0x38800000u, 0x387fffffu,
        0x33000000u, 0x33000001u, 0x7f7fffffu, 0x3effffffu, 0xc2f6e979u, 0x3f800000u,
    };
    switch (below(s, 4)) {
    case 0: return special[below(s, SETUN_LEN(special))];
    case 1: return (uint32_t)next(s);
    default: return ((uint32_t)next(s) & 0x807fffffu) | (110 + below(s, 40)) << 23; /* around 1 */
    }
}

typedef struct args {
    uint8_t     *in[5], *want[5], *got[5];
    setun_view   view[10];
    setun_args   shape;
    int64_t      bytes[10];
    void        *ptr_want[10], *ptr_got[10];
    uint8_t     *scratch;
} args;

static void *aligned(int64_t bytes)
{
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, (size_t)bytes), 0);
    memset(p, 0, (size_t)bytes);
    return p;
}

static void args_init(args *a, uint64_t seed)
{
    memset(a, 0, sizeof *a);
    for (int i = 0; i < 5; i++) {
        int64_t bytes = N * size_of[i];
        a->in[i] = aligned(bytes);
        a->want[i] = aligned(bytes);
        a->got[i] = aligned(bytes);
        for (int64_t j = 0; j < bytes; j++)
            a->in[i][j] = (uint8_t)(next(&seed) >> 21);
        for (int o = 0; o < 2; o++) {
            a->view[5 * o + i] = (setun_view){ NULL, dtype_of[i], 1, { N, 1, 1, 1 } };
            a->bytes[5 * o + i] = bytes;
        }
        a->ptr_want[i] = a->ptr_got[i] = a->in[i];
        a->ptr_want[5 + i] = a->want[i];
        a->ptr_got[5 + i] = a->got[i];
    }
    for (int j = 0; j < N; j++) {
        uint32_t u = float_bits(&seed);
        memcpy(a->in[4] + 4 * j, &u, 4);
    }
    a->shape.size = sizeof a->shape;
    a->shape.n_in = a->shape.n_out = 5;
    a->shape.in = a->view;
    a->shape.out = a->view + 5;
    a->scratch = aligned(1 << 16);
}

static void args_free(args *a)
{
    for (int i = 0; i < 5; i++) {
        free(a->in[i]);
        free(a->want[i]);
        free(a->got[i]);
    }
    free(a->scratch);
}

/* ---------------------------------------------------------------- running both */

static void show(const st_kir *k, const char *what)
{
    st_str s = { 0 };
    st_kir_print(k, &s);
    print_message("%s\n%s\n", what, s.text ? s.text : "");
    st_str_free(&s);
}

/* open_nan: a NaN equals every NaN. */
static void compare(const st_kir *k, const args *a, const char *isa, int open_nan)
{
    for (int i = 0; i < 5; i++)
        for (int64_t j = 0; j < N; j++) {
            const uint8_t *w = a->want[i] + j * size_of[i], *g = a->got[i] + j * size_of[i];
            if (!memcmp(w, g, (size_t)size_of[i]))
                continue;
            uint64_t x = 0, y = 0;
            memcpy(&x, w, (size_t)size_of[i]);
            memcpy(&y, g, (size_t)size_of[i]);
            if (i == 4 && open_nan && (x & 0x7fffffffu) > 0x7f800000u &&
                (y & 0x7fffffffu) > 0x7f800000u)
                continue;
            show(k, isa);
            fail_msg("%s: output %d[%lld] is %llx compiled, %llx interpreted", isa, i, (long long)j,
                     (unsigned long long)y, (unsigned long long)x);
        }
}

static void interpret(const st_kir *k, args *a, const int64_t *dim, int64_t end)
{
    setun_error err = { 0 };
    setun_launch l = { a->ptr_want, dim, k };
    setun_tile t = { 0, end, a->scratch };
    for (int i = 0; i < 5; i++)
        memset(a->want[i], 0, (size_t)a->bytes[i]);
    if (st_kir_eval(k, &l, a->bytes, &t, &err) != SETUN_OK) {
        show(k, "interpreter");
        fail_msg("%s", err.text);
    }
}

static setun_kernel_fn *build(state *s, const st_kir *k, const st_target *t)
{
    setun_error err = { 0 };
    char symbol[64], *bytes = NULL;
    int64_t n = 0;
    setun_kernel_fn *fn = NULL;
    (void)snprintf(symbol, sizeof symbol, "kernel_%u", s->serial++);
    uint32_t what = ST_EMIT_OBJECT | (s->serial % 5 == 4 ? CODE_SIMPLE : 0); /* both ways give the same bits */
    if (code_emit(s->cg, k, t, symbol, what, &bytes, &n, &err) != SETUN_OK ||
        code_load(s->loader, bytes, n, symbol, &fn, &err) != SETUN_OK) {
        show(k, t->isa);
        fail_msg("%s: %s", t->isa, err.text);
    }
    free(bytes);
    return fn;
}

static void run_compiled(state *s, const st_kir *k, const st_target *t, args *a, const int64_t *dim,
                         int64_t end)
{
    setun_kernel_fn *fn = build(s, k, t);
    setun_launch l = { a->ptr_got, dim, NULL };
    setun_tile tile = { 0, end, a->scratch };
    for (int i = 0; i < 5; i++)
        memset(a->got[i], 0, (size_t)a->bytes[i]);
    fn(&l, &tile);
}

static void check_set(state *s, const st_kir *k, uint32_t set, args *a, int open_nan)
{
    if (!s->have[set])
        return;
    run_compiled(s, k, &s->target[set], a, NULL, 1);
    compare(k, a, s->target[set].isa, open_nan);
}

static void check_all(state *s, st_kir *k, args *a, int open_nan)
{
    setun_error err = { 0 };
    if (st_kir_verify(k, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    interpret(k, a, NULL, 1);
    for (uint32_t i = 0; i < N_SETS; i++)
        check_set(s, k, i, a, open_nan);
}

static st_kir *fresh(state *s, st_arena *arena, args *a, const char *name)
{
    st_kir *k = NULL;
    setun_error err = { 0 };
    if (st_kir_new(&k, name, &a->shape, &s->target[0], arena, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    k_grid(&k->head, 0, 0, N);
    return k;
}

/* ---------------------------------------------------------------- random straight-line kernels */

typedef struct maker {
    setun_kernel *k;
    uint64_t      seed;
    k_val         v[256];
    uint32_t      n;
    int64_t       out[5]; /* next free element of each output */
} maker;

static uint32_t random_lanes(maker *m)
{
    static const uint32_t lanes[] = { 1,  1,  2,  3,  4,  5,  7,  8,  8,  9,   12, 15,
                                      16, 16, 17, 24, 32, 32, 33, 64, 65, 128, 256 };
    return lanes[below(&m->seed, SETUN_LEN(lanes) - (below(&m->seed, 4) ? 5 : 0))];
}

static int elem_index(uint32_t elem)
{
    for (int i = 0; i < 5; i++)
        if (elem_of[i] == elem)
            return i;
    return -1;
}

static k_val load(maker *m, uint32_t elem, uint32_t lanes)
{
    k_val p = k_arg(m->k, elem_index(elem), elem);
    return k_load(m->k, p, k_i64(m->k, (int64_t)below(&m->seed, N - lanes + 1)), lanes);
}

/* Some value of that type, made now if there is none. */
static k_val some(maker *m, k_type t)
{
    for (uint32_t tries = 0; m->n && tries < 6; tries++) {
        k_val v = m->v[below(&m->seed, m->n)];
        if (k_type_of(m->k, v) == t)
            return v;
    }
    uint32_t elem = K_ELEM(t), lanes = K_LANES(t);
    if (elem == K_I1)
        return k_lt(m->k, load(m, K_I8, lanes), load(m, K_I8, lanes));
    if (below(&m->seed, 6) == 0)
        return k_int(m->k, t,
                     elem == K_F32 ? (int64_t)float_bits(&m->seed)
                                   : (int64_t)(int8_t)next(&m->seed));
    return load(m, elem, lanes);
}

static k_val without_nan(setun_kernel *k, k_val v)
{
    return k_select(k, k_emit(k, K_eq, 0, v, v, 0, 0), v,
                    k_f32v(k, 1.5f, K_LANES(k_type_of(k, v))));
}

static k_val random_float(maker *m, uint32_t n)
{
    static const uint32_t ops[] = { K_add, K_sub,  K_mul,  K_min, K_max,
                                    K_div, K_sqrt, K_rint, K_abs, K_neg };
    k_type t = K_TYPE(K_F32, n);
    uint32_t op = ops[below(&m->seed, SETUN_LEN(ops))];
    k_val a = some(m, t);
    if (st_kir_op_operands(op) == 2)
        return k_emit(m->k, op, t, a, some(m, t), 0, 0);
    return k_emit(m->k, op, t, a, 0, 0, 0);
}

static k_val random_int(maker *m, uint32_t n)
{
    static const uint32_t ops[] = { K_add, K_sub, K_mul, K_min,  K_max, K_and,
                                    K_or,  K_xor, K_shl, K_shru, K_shrs };
    k_type t = K_TYPE(K_I8 + below(&m->seed, 4), n);
    uint32_t op = ops[below(&m->seed, SETUN_LEN(ops))];
    if (op >= K_shl)
        return k_emit(m->k, op, t, some(m, t), 0, 0, below(&m->seed, st_ktype_bits(t)));
    return k_emit(m->k, op, t, some(m, t), some(m, t), 0, 0);
}

static k_val random_convert(maker *m, uint32_t n)
{
    setun_kernel *k = m->k;
    uint32_t e;
    switch (below(&m->seed, 8)) {
    case 0:
        e = K_I1 + below(&m->seed, 4);
        return k_sext(k, some(m, K_TYPE(e, n)), e + 1 + below(&m->seed, K_I64 - e));
    case 1:
        e = K_I1 + below(&m->seed, 4);
        return k_zext(k, some(m, K_TYPE(e, n)), e + 1 + below(&m->seed, K_I64 - e));
    case 2:
        e = K_I8 + below(&m->seed, 4);
        return k_trunc(k, some(m, K_TYPE(e, n)), K_I1 + below(&m->seed, e - K_I1));
    case 3: return k_i2f(k, some(m, K_TYPE(K_I32, n)));
    case 4: return k_f2i(k, some(m, K_TYPE(K_F32, n)));
    case 5: return k_h2f(k, some(m, K_TYPE(K_I16, n)));
    case 6: return k_f2h(k, without_nan(k, some(m, K_TYPE(K_F32, n))));
    default: { /* cast to another element of another width */
        static const uint32_t bits[7] = { 0, 1, 8, 16, 32, 64, 32 };
        uint32_t from = K_I8 + below(&m->seed, 5), to = K_I8 + below(&m->seed, 5);
        if (n * bits[from] % bits[to] || n * bits[from] / bits[to] > K_MAX_LANES)
            to = from == K_F32 ? K_I32 : from;
        k_val a = some(m, K_TYPE(from, n));
        if (from == K_F32)
            a = without_nan(k, a);
        return k_cast(k, a, K_TYPE(to, n * bits[from] / bits[to]));
    }
    }
}

static k_val random_lane_op(maker *m, uint32_t n)
{
    setun_kernel *k = m->k;
    uint32_t e = K_I8 + below(&m->seed, 5), from;
    int32_t mask[K_MAX_LANES];
    switch (below(&m->seed, 7)) {
    case 0: return k_splat(k, some(m, K_TYPE(e, 1)), n);
    case 1: return k_extract(k, some(m, K_TYPE(e, n)), below(&m->seed, n));
    case 2:
        from = below(&m->seed, n);
        return k_slice(k, some(m, K_TYPE(e, n)), from, 1 + below(&m->seed, n - from));
    case 3: from = 1 + below(&m->seed, K_MAX_LANES / 2);
        n = n > K_MAX_LANES / 2 ? K_MAX_LANES / 2 : n;
        return k_concat(k, some(m, K_TYPE(e, n)),
                        some(m, K_TYPE(e, below(&m->seed, 2) ? n : from)));
    case 4: {
        uint32_t lanes = random_lanes(m);
        for (uint32_t i = 0; i < lanes; i++)
            mask[i] = (int32_t)below(&m->seed, 2 * n);
        return k_shuffle(k, some(m, K_TYPE(e, n)), some(m, K_TYPE(e, n)), mask, lanes);
    }
    case 5: while (n & (n - 1)) n &= n - 1; return k_rsum(k, some(m, K_TYPE(e, n)));
    default: while (n & (n - 1)) n &= n - 1; return k_rmax(k, some(m, K_TYPE(e, n)));
    }
}

static k_val random_idiom(maker *m, uint32_t n)
{
    setun_kernel *k = m->k;
    switch (below(&m->seed, 6)) {
    case 0:
        n = n > 128 ? 128 : n;
        return k_dot2(k, some(m, K_TYPE(K_I8, 2 * n)), some(m, K_TYPE(K_I8, 2 * n)));
    case 1: n = n > 64 ? 64 : n;
        return k_dot4(k, some(m, K_TYPE(K_I32, n)), some(m, K_TYPE(K_I8, 4 * n)),
                      some(m, K_TYPE(K_I8, 4 * n)));
    case 2: { /* known to be at most 127 */
        n = n > 64 ? 64 : n;
        k_val u = k_and(k, some(m, K_TYPE(K_I8, 4 * n)),
                        k_int(k, K_TYPE(K_I8, 4 * n), 1 + below(&m->seed, 127)));
        return k_dot4(k, some(m, K_TYPE(K_I32, n)), u, some(m, K_TYPE(K_I8, 4 * n)));
    }
    case 3: {
        uint32_t e = below(&m->seed, 3); /* of bytes, or of 4 or 16 of i32 or f32 */
        k_type table = !e ? K_TYPE(K_I8, 16) : K_TYPE(e == 1 ? K_I32 : K_F32, below(&m->seed, 2) ? 4 : 16);
        return k_lut16(k, some(m, table), some(m, K_TYPE(e ? K_I32 : K_I8, n)));
    }
    case 4: return k_sign(k, some(m, K_TYPE(K_I8, n)), some(m, K_TYPE(K_I8, n)));
    default: return k_opaque(k, some(m, K_TYPE(K_I8 + below(&m->seed, 5), n)));
    }
}

static k_val random_value(maker *m)
{
    setun_kernel *k = m->k;
    uint32_t n = random_lanes(m), e = K_I8 + below(&m->seed, 5);
    switch (below(&m->seed, 9)) {
    case 0: case 1: return random_float(m, n);
    case 2: return random_int(m, n);
    case 3: return random_convert(m, n);
    case 4: return random_lane_op(m, n);
    case 5: return random_idiom(m, n);
    case 6:
        return k_emit(k, K_eq + below(&m->seed, 3), 0, some(m, K_TYPE(e, n)), some(m, K_TYPE(e, n)),
                      0, 0);
    case 7:
        return k_select(k, some(m, K_TYPE(K_I1, n)), some(m, K_TYPE(e, n)), some(m, K_TYPE(e, n)));
    default:
        switch (below(&m->seed, 4)) {
        case 0: return k_iota(k, K_TYPE(K_I8 + below(&m->seed, 4), n), (int8_t)next(&m->seed));
        case 1: { /* indices 0 ... N-1 */
            k_val i = k_and(k, some(m, K_TYPE(K_I32, n)), k_int(k, K_TYPE(K_I32, n), N - 1));
            return k_gather(k, k_arg(k, elem_index(e), e), i);
        }
        case 2: { /* a divisor that is not 0 */
            e = K_I8 + below(&m->seed, 4);
            k_val d = k_or(k, some(m, K_TYPE(e, 1)), k_int(k, K_TYPE(e, 1), 1));
            return k_emit(k, below(&m->seed, 2) ? K_udiv : K_urem, 0, some(m, K_TYPE(e, 1)), d, 0,
                          0);
        }
        default: { /* logic on masks */
            k_type t = K_TYPE(K_I1, n);
            return k_emit(k, K_and + below(&m->seed, 3), t, some(m, t), some(m, t), 0, 0);
        }
        }
    }
}

static void store_out(maker *m, k_val v)
{
    if (K_ELEM(k_type_of(m->k, v)) == K_I1)
        v = k_zext(m->k, v, K_I8);
    k_type t = k_type_of(m->k, v);
    int o = elem_index(K_ELEM(t));
    if (o < 0 || m->out[o] + K_LANES(t) > N)
        return;
    k_store(m->k, k_arg(m->k, 5 + o, K_ELEM(t)), k_i64(m->k, m->out[o]), v);
    m->out[o] += K_LANES(t);
}

static void make_random(maker *m, setun_kernel *k, uint64_t seed, uint32_t n)
{
    memset(m, 0, sizeof *m);
    m->k = k;
    m->seed = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++)
        (void)next(&m->seed);
    while (m->n < n) {
        k_val v = random_value(m);
        m->v[m->n++] = v;
        store_out(m, v);
    }
}

static void test_random(void **p)
{
    state *s = *p;
    args a;
    args_init(&a, 77);
    for (uint32_t i = 0; i < 216; i++) {
        st_arena *arena = st_arena_new();
        setun_error err = { 0 };
        st_kir *k = fresh(s, arena, &a, "random");
        maker m;
        make_random(&m, &k->head, i + 1, 12);
        if (st_kir_verify(k, &err) != SETUN_OK)
            fail_msg("kernel %u: %s", i, err.text);
        interpret(k, &a, NULL, 1);
        check_set(s, k, i % N_SETS, &a, 1);
        st_arena_free(arena);
    }
    args_free(&a);
}

/* ---------------------------------------------------------------- one instruction at a time */

#define ROWS 23

static void run_sample(state *s, const sample *one, uint32_t set)
{
    st_arena *arena = st_arena_new();
    st_kir *k = NULL;
    setun_error err = { 0 };
    void *want[4] = { NULL, NULL, NULL, NULL }, *got[4];
    int64_t bytes[4] = { 0, 0, 0, 0 }, dim[1] = { sample_elements(one, 0, ROWS) };
    if (sample_build(one, ROWS, &s->target[set], arena, &k, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (uint32_t o = 0; o <= one->n_in; o++) {
        bytes[o] = sample_bytes(one, o, ROWS);
        want[o] = got[o] = calloc(1, (size_t)bytes[o]);
        if (o < one->n_in)
            sample_data(one, o, ROWS, set + 1, want[o]);
    }
    void *result = got[one->n_in] = calloc(1, (size_t)bytes[one->n_in]);
    void *scratch = aligned(k->scratch_bytes + 64);
    setun_launch l = { want, dim, k }, compiled = { got, dim, NULL };
    setun_tile t = { 0, ROWS, scratch };
    if (st_kir_eval(k, &l, bytes, &t, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    build(s, k, &s->target[set])(&compiled, &t);
    if (!sample_same(one, ROWS, want[one->n_in], result)) {
        show(k, s->target[set].isa);
        fail_msg("%s: %s differs from the interpreter", s->target[set].isa,
                 st_kir_op_name(one->op));
    }
    free(result);
    free(scratch);
    for (uint32_t o = 0; o <= one->n_in; o++)
        free(want[o]);
    st_arena_free(arena);
}

/* Samples for all classes where the code differs from class to class; of the others every third (an
 * instruction comes with five numbers of lanes), for one class each. */
static void test_samples(void **p)
{
    state *s = *p;
    sample *list = calloc(SAMPLE_MAX, sizeof *list);
    int n = sample_list(list);
    assert_true(n > 900);
    for (int i = 0; i < n; i++) {
        uint32_t op = list[i].op;
        int all = op == K_rint || op == K_h2f || op == K_f2h || op == K_f2i ||
                  (op >= K_dot2 && op <= K_sign);
        for (uint32_t set = 0; set < N_SETS; set++)
            if (s->have[set] && (all || (i % 3 == 0 && set == (uint32_t)(i / 3) % N_SETS)))
                run_sample(s, &list[i], set);
    }
    free(list);
}

/* ---------------------------------------------------------------- directed kernels */

/* Every element type through memory, locals and scratch, at odd places and with odd lanes. */
static void test_memory(void **p)
{
    state *s = *p;
    static const uint32_t lanes[] = { 1, 3, 8, 31, 64, 129 };
    args a;
    args_init(&a, 5);
    st_arena *arena = st_arena_new();
    st_kir *kir = fresh(s, arena, &a, "memory");
    setun_kernel *k = &kir->head;
    for (int e = 0; e < 5; e++) {
        k_val in = k_arg(k, e, elem_of[e]), out = k_arg(k, 5 + e, elem_of[e]);
        k_val local = k_local(k, elem_of[e], 1024),
              first = k_scratch(k, elem_of[e], 1032 * size_of[e]);
        /* One element past the 64-byte aligned start: vectors there are aligned to that element. */
        k_val scratch = k_emit(k, K_scratch, k_type_of(k, first), 0, 0, 0,
                               kir->inst[first].imm + size_of[e]);
        int64_t at = 0;
        for (uint32_t i = 0; i < SETUN_LEN(lanes); i++) {
            k_val index = k_i64(k, at + 1), to = k_i64(k, at);
            k_store(k, local, to, k_load(k, in, index, lanes[i]));
            k_store(k, scratch, to, k_load(k, local, to, lanes[i]));
            k_store(k, out, to, k_load(k, scratch, to, lanes[i]));
            at += lanes[i];
        }
        k_prefetch(k, in, k_i64(k, (int64_t)1 << 40), e % 4);
        /* A loop whose index says how accesses are aligned; 16 lanes at multiples of 16. */
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, 512), 32);
        k_val twice = k_add(k, i, k_i64(k, 16));
        k_store(k, scratch, i, k_load(k, first, i, 16));
        k_store(k, local, i, k_load(k, in, i, 16));
        k_store(k, local, twice, k_load(k, in, k_addi(k, i, 1), 16));
        k_store(k, out, k_addi(k, i, 1024), k_load(k, local, i, 32));
        k_stop(k);
    }
    check_all(s, kir, &a, 0);
    st_arena_free(arena);
    args_free(&a);
}

/* Loops, variables, branches, run-time bounds. */
static void test_structure(void **p)
{
    state *s = *p;
    args a;
    args_init(&a, 9);
    setun_view *rows = a.shape.in;
    rows[0].dim[0] = SETUN_DIM_TOKENS;
    st_arena *arena = st_arena_new();
    setun_error err = { 0 };
    st_kir *kir = fresh(s, arena, &a, "structure");
    setun_kernel *k = &kir->head;
    k_val x = k_arg(k, 4, K_F32), y = k_arg(k, 9, K_F32), z = k_arg(k, 8, K_I64);
    k_val n = k_dim(k, 0, 0), acc = k_var(k, k_f32v(k, 0.0f, 32)), count = k_var(k, k_i64(k, 0));
    k_val u = k_for(k, k_begin(k), k_end(k), 1);
    k_val i = k_for(k, k_i64(k, 0), n, 32);
    k_set(k, acc, k_add(k, k_get(k, acc), k_load(k, x, i, 32)));
    k_if(k, k_lt(k, k_emit(k, K_urem, 0, i, k_i64(k, 96), 0, 0), k_i64(k, 32)));
    k_set(k, count, k_addi(k, k_get(k, count), 1));
    k_val j = k_for(k, i, k_addi(k, i, 3), 2); /* runs twice */
    k_set(k, count, k_add(k, k_get(k, count), j));
    k_stop(k);
    k_else(k);
    k_if(k, k_emit(k, K_eq, 0, i, k_i64(k, 64), 0, 0));
    k_set(k, acc, k_neg(k, k_get(k, acc)));
    k_stop(k);
    k_stop(k);
    k_val never = k_for(k, n, k_i64(k, 0), 5); /* runs not at all unless n < 0 */
    k_set(k, count, k_add(k, never, k_i64(k, 1000000)));
    k_stop(k);
    k_stop(k);
    k_store(k, y, k_muli(k, u, 32), k_get(k, acc));
    k_store(k, z, u, k_get(k, count));
    k_stop(k);
    k_val zero = k_for(k, k_i64(k, 5), k_i64(k, 5), 1); /* known to be empty */
    k_store(k, z, zero, k_i64(k, -1));
    k_stop(k);
    if (st_kir_verify(kir, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    static const int64_t sizes[] = { 0, 1, 32, 100, 129, 2048 };
    for (uint32_t t = 0; t < SETUN_LEN(sizes); t++) {
        int64_t dim[1] = { sizes[t] };
        interpret(kir, &a, dim, 7);
        for (uint32_t set = 0; set < N_SETS; set += 2)
            if (s->have[set]) {
                run_compiled(s, kir, &s->target[set], &a, dim, 7);
                compare(kir, &a, s->target[set].isa, 1);
            }
    }
    st_arena_free(arena);
    args_free(&a);
}

/* Where kir.def fixes every bit, NaN included: against numerics.h itself, not the interpreter. */
static void test_exact_floats(void **p)
{
    state *s = *p;
    for (uint32_t lanes = 1; lanes <= 32; lanes = lanes == 1 ? 5 : lanes == 5 ? 8 : lanes * 2) {
        args a;
        args_init(&a, 13 + lanes);
        for (uint32_t j = 0; j < 36; j++) { /* every pair of these through min and max */
            static const uint32_t edge[6] = { 0,           0x80000000u, 0x7fc00001u,
                                              0x3f800000u, 0xff800000u, 0xffffffffu };
            memcpy(a.in[4] + 4 * j, &edge[j / 6], 4);
            memcpy(a.in[4] + 4000 + 4 * j, &edge[j % 6], 4);
        }
        st_arena *arena = st_arena_new();
        st_kir *kir = fresh(s, arena, &a, "floats");
        setun_kernel *k = &kir->head;
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, 1000 / lanes * lanes), lanes);
        k_val f = k_load(k, k_arg(k, 4, K_F32), i, lanes),
              h = k_load(k, k_arg(k, 1, K_I16), i, lanes);
        k_val g = k_load(k, k_arg(k, 4, K_F32), k_addi(k, i, 1000), lanes);
        k_val out = k_arg(k, 9, K_F32);
        k_store(k, out, i, k_h2f(k, h));
        k_store(k, out, k_addi(k, i, 1000), k_min(k, f, g));
        k_store(k, out, k_addi(k, i, 2000), k_max(k, f, g));
        k_store(k, out, k_addi(k, i, 3000), k_abs(k, k_neg(k, f)));
        k_store(k, k_arg(k, 6, K_I16), i, k_f2h(k, f));
        k_store(k, k_arg(k, 7, K_I32), i, k_f2i(k, f));
        k_stop(k);
        setun_error err = { 0 };
        if (st_kir_verify(kir, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        for (uint32_t set = 0; set < N_SETS; set++) {
            if (!s->have[set])
                continue;
            setun_kernel_fn *fn = build(s, kir, &s->target[set]);
            setun_launch l = { a.ptr_got, NULL, NULL };
            setun_tile t = { 0, 1, NULL };
            for (uint32_t round = 0; round < (lanes == 8 ? 66u : 1u); round++) {
                const float *x = (const float *)(void *)a.in[4],
                            *o = (const float *)(void *)a.got[4];
                uint16_t *halves = (uint16_t *)(void *)a.in[1];
                for (uint32_t j = 0; j < 1000; j++)
                    halves[j] = (uint16_t)(round * 1000 + j); /* all of them in 66 rounds */
                fn(&l, &t);
                for (uint32_t j = 0; j < 1000 / lanes * lanes; j++) {
                    uint16_t want_h = setun_f32_f16(x[j]), got_h;
                    memcpy(&got_h, a.got[1] + 2 * j, 2);
                    int32_t want_i = !(x[j] == x[j]) ? 0 : x[j] >= 2147483648.0f ? INT32_MAX :
                        x[j] < -2147483648.0f ? INT32_MIN : (int32_t)x[j], got_i;
                    memcpy(&got_i, a.got[2] + 4 * j, 4);
                    float half = setun_f16_f32(halves[j]);
                    int is_half = half == half ? setun_f32_bits(half) == setun_f32_bits(o[j]) : o[j] != o[j];
                    if (!is_half ||
                        setun_f32_bits(setun_minf(x[j], x[1000 + j])) !=
                            setun_f32_bits(o[1000 + j]) ||
                        setun_f32_bits(setun_maxf(x[j], x[1000 + j])) !=
                            setun_f32_bits(o[2000 + j]) ||
                        setun_f32_bits(setun_absf(x[j])) != setun_f32_bits(o[3000 + j]) ||
                        want_h != got_h || want_i != got_i)
                        fail_msg("%s, %u lanes: wrong for x = %08x, half %04x: f2h %04x not %04x, "
                                 "f2i %d not %d, "
                                 "h2f %08x not %08x",
                                 s->target[set].isa, lanes, setun_f32_bits(x[j]), halves[j], got_h,
                                 want_h, got_i, want_i, setun_f32_bits(o[j]), setun_f32_bits(half));
                }
            }
        }
        st_arena_free(arena);
        args_free(&a);
    }
}

/* dot4 with operands at the edge of what a saturating instruction could bear. */
static void test_dot_edges(void **p)
{
    state *s = *p;
    args a;
    args_init(&a, 3);
    for (int i = 0; i < N; i++) {
        a.in[0][i] = (uint8_t)(i < N / 2 ? (i / 4 % 2 ? 255 : 127) : (i / 4 % 3 ? 128 : 127));
    }
    st_arena *arena = st_arena_new();
    st_kir *kir = fresh(s, arena, &a, "dots");
    setun_kernel *k = &kir->head;
    k_val x = k_arg(k, 0, K_I8), o = k_arg(k, 7, K_I32), o16 = k_arg(k, 6, K_I16),
          bytes = k_arg(k, 5, K_I8), wide = k_arg(k, 9, K_F32);
    int64_t at = 0, at16 = 0;
    static const uint32_t lanes[] = { 1, 3, 4, 8, 16, 20, 32, 64 };
    for (uint32_t i = 0; i < SETUN_LEN(lanes); i++) {
        uint32_t n = lanes[i];
        k_val u = k_load(k, x, k_i64(k, (int64_t)(5 * i)), 4 * n),
              v = k_load(k, x, k_i64(k, N / 2 + 7 * i), 4 * n);
        k_val zero = k_int(k, K_TYPE(K_I32, n), INT32_MAX);
        k_store(k, o, k_i64(k, at), k_dot4(k, zero, u, v));
        k_store(k, o, k_i64(k, at + n),
                k_dot4(k, zero, k_and(k, u, k_int(k, K_TYPE(K_I8, 4 * n), 127)), v));
        k_store(k, o, k_i64(k, at + 2 * n), k_dot4(k, zero, k_shru(k, u, 1), v));
        at += 3 * n;
        k_store(k, o16, k_i64(k, at16), k_dot2(k, u, v));
        at16 += 2 * n;
        k_val iota = k_iota(k, K_TYPE(K_I8, 4 * n), -100);
        k_store(k, bytes, k_i64(k, 2 * at16), k_lut16(k, k_load(k, x, k_i64(k, 3), 16), iota));
        k_store(k, bytes, k_i64(k, 2000 + 2 * at16), k_sign(k, v, k_shrs(k, iota, 5)));
        k_val index = k_cast(k, v, K_TYPE(K_I32, n)), table = k_load(k, k_arg(k, 4, K_F32), k_i64(k, i), 16);
        k_store(k, wide, k_i64(k, at), k_lut16(k, table, index));
        k_store(k, wide, k_i64(k, at + n), k_lut16(k, k_slice(k, table, 3, 4), index));
        k_val four = k_load(k, k_arg(k, 2, K_I32), k_i64(k, i), 4);
        k_store(k, o, k_i64(k, N / 2 + at), k_lut16(k, four, index));
    }
    check_all(s, kir, &a, 0);
    st_arena_free(arena);
    args_free(&a);
}

/* ---------------------------------------------------------------- what comes out */

/* Objects call nothing; a class that lacks AVX has no VEX instruction; AVX2 has no 512-bit
 * register. */
static void test_assembly(void **p)
{
    state *s = *p;
    args a;
    args_init(&a, 1);
    for (uint32_t set = 0; set < N_SETS; set++) {
        if (!s->have[set])
            continue;
        int avx = strstr(s->target[set].isa, "avx") != NULL,
            wide = !strncmp(s->target[set].isa, "avx512", 6);
        for (uint32_t i = 0; i < 3; i++) {
            st_arena *arena = st_arena_new();
            setun_error err = { 0 };
            st_kir *k = fresh(s, arena, &a, "assembly");
            maker m;
            make_random(&m, &k->head, 1000 + i, 24);
            assert_int_equal(st_kir_verify(k, &err), SETUN_OK);
            char *text = NULL;
            int64_t n = 0;
            if (code_emit(s->cg, k, &s->target[set], "kernel", ST_EMIT_ASM, &text, &n, &err) != SETUN_OK)
                fail_msg("%s", err.text);
            assert_int_equal((int64_t)strlen(text), n);
            assert_non_null(strstr(text, "kernel:"));
            assert_null(strstr(text, "\tcall"));
            assert_true(wide || !strstr(text, "%zmm"));
            assert_true(avx || !strstr(text, "%ymm"));
            assert_true(avx || !strstr(text, "\tv"));
            assert_null(strstr(text, "fmadd"));
            free(text);
            st_arena_free(arena);
        }
    }
    args_free(&a);
}

static void test_forms(void **p)
{
    state *s = *p;
    args a;
    args_init(&a, 1);
    st_arena *arena = st_arena_new();
    setun_error err = { 0 };
    st_kir *k = fresh(s, arena, &a, "forms");
    maker m;
    make_random(&m, &k->head, 5, 10);
    assert_int_equal(st_kir_verify(k, &err), SETUN_OK);
    char *x = NULL, *y = NULL;
    int64_t nx = 0, ny = 0;
    assert_int_equal(code_emit(s->cg, k, &s->target[0], "same", ST_EMIT_IR, &x, &nx, &err), SETUN_OK);
    assert_non_null(strstr(x, "define void @same("));
    free(x);
    /* The same kernel gives the same bytes: what a cache relies on. */
    assert_int_equal(code_emit(s->cg, k, &s->target[0], "same", ST_EMIT_OBJECT, &x, &nx, &err), SETUN_OK);
    assert_int_equal(code_emit(s->cg, k, &s->target[0], "same", ST_EMIT_OBJECT, &y, &ny, &err), SETUN_OK);
    assert_int_equal(nx, ny);
    assert_memory_equal(x, y, (size_t)nx);

    /* Damaged objects and other symbols are sentences, and do not spoil the loader. */
    setun_kernel_fn *fn = NULL;
    assert_true(code_load(s->loader, "not an object", 13, "same", &fn, &err) < 0 && err.text[0]);
    assert_true(code_load(s->loader, x, nx / 3, "same", &fn, &err) < 0 && !fn);
    assert_true(code_load(s->loader, x, 0, "same", &fn, &err) < 0 && !fn);
    assert_true(code_load(s->loader, x, nx, "other", &fn, &err) < 0 && !fn);
    assert_int_equal(code_load(s->loader, x, nx, "same", &fn, &err), SETUN_OK);
    assert_non_null(fn);
    free(x);
    assert_int_equal(code_emit(s->cg, k, &s->target[0], "same", 9, &x, &nx, &err), SETUN_UNKNOWN);
    assert_null(x);
    free(y);
    st_arena_free(arena);
    args_free(&a);
}

/* Compiling is reentrant: two threads get what one gets. */
#define JOBS 6
typedef struct jobs {
    state  *s;
    st_kir *k[JOBS];
    char   *bytes[JOBS];
    int64_t n[JOBS];
} jobs;

static void *do_jobs(void *p)
{
    jobs *j = p;
    for (int i = 0; i < JOBS; i++)
        if (code_emit(j->s->cg, j->k[i], &j->s->target[0], "job", ST_EMIT_OBJECT, &j->bytes[i], &j->n[i],
                           NULL))
            return p;
    return NULL;
}

static void test_threads(void **p)
{
    args a;
    args_init(&a, 1);
    st_arena *arena = st_arena_new();
    setun_error err = { 0 };
    jobs j[3] = { { .s = *p } };
    for (uint32_t i = 0; i < JOBS; i++) {
        maker m;
        j[0].k[i] = fresh(*p, arena, &a, "job");
        make_random(&m, &j[0].k[i]->head, 50 + i, 8);
        assert_int_equal(st_kir_verify(j[0].k[i], &err), SETUN_OK);
    }
    j[1] = j[2] = j[0];
    pthread_t thread[2];
    for (int t = 0; t < 2; t++)
        assert_int_equal(pthread_create(&thread[t], NULL, do_jobs, &j[t + 1]), 0);
    assert_null(do_jobs(&j[0]));
    for (int t = 0; t < 2; t++) {
        void *failed = j;
        assert_int_equal(pthread_join(thread[t], &failed), 0);
        assert_null(failed);
    }
    for (int i = 0; i < JOBS; i++)
        for (int t = 2; t >= 0; t--) {
            assert_int_equal(j[t].n[i], j[0].n[i]);
            assert_memory_equal(j[t].bytes[i], j[0].bytes[i], (size_t)j[0].n[i]);
            free(j[t].bytes[i]);
        }
    st_arena_free(arena);
    args_free(&a);
}

/* A kernel too large to compile in reasonable time is refused, and quickly. */
static void test_limit(void **p)
{
    state *s = *p;
    args a;
    args_init(&a, 1);
    st_arena *arena = st_arena_new();
    setun_error err = { 0 };
    st_kir *kir = fresh(s, arena, &a, "long");
    setun_kernel *k = &kir->head;
    k_val v = k_load(k, k_arg(k, 4, K_F32), k_i64(k, 0), 256);
    for (int i = 0; i < 20000; i++)
        v = k_add(k, v, v);
    k_store(k, k_arg(k, 9, K_F32), k_i64(k, 0), v);
    assert_int_equal(st_kir_verify(kir, &err), SETUN_OK);
    char *bytes = NULL;
    int64_t n = 0;
    assert_int_equal(code_emit(s->cg, kir, &s->target[0], "long", ST_EMIT_OBJECT, &bytes, &n, &err),
                     SETUN_FULL);
    assert_null(bytes);
    assert_non_null(strstr(err.text, "long"));
    const st_emit quick = { ST_EMIT_OBJECT, 0, 1 }; /* of any kernel the passes take longer than a nanosecond */
    kir = fresh(s, arena, &a, "short");
    assert_int_equal(st_kir_verify(kir, &err), SETUN_OK);
    assert_int_equal(s->cg->emit(kir, &s->target[0], "short", &quick, &bytes, &n, &err), SETUN_FULL);
    assert_non_null(strstr(err.text, "LLVM's passes took"));
    st_arena_free(arena);
    args_free(&a);
}

static void test_features(void **p)
{
    state *s = *p;
    const st_target *host = &s->target[0];
    st_target t;
    setun_error err = { 0 };
    assert_true(host->llvm_version >= 19u << 16);
    assert_true(host->triple[0] && host->cpu[0] && host->isa[0] && host->vector_bytes >= 16);
    assert_int_equal(s->cg->host("-no-such-thing", &t, &err), SETUN_UNKNOWN);
    assert_non_null(strstr(err.text, "no-such-thing"));
    assert_int_equal(s->cg->host("avx2", &t, &err), SETUN_BAD_ARG);
    assert_int_equal(s->cg->host("-", &t, &err), SETUN_BAD_ARG);
    assert_int_equal(s->cg->host("", &t, &err), SETUN_OK);
    assert_string_equal(t.features, host->features);
    if (host->arch != ST_ARCH_X86)
        return;
    assert_int_equal(s->cg->host("-sse2", &t, &err), SETUN_BAD_ARG);
    assert_int_equal(s->cg->host("-avx", &t, &err), SETUN_OK);
    assert_null(strstr(t.features, "+avx"));
    assert_null(strstr(t.features, "+fma"));
    assert_null(strstr(t.features, "+f16c"));
    assert_null(strstr(t.features, "+vaes"));
    assert_non_null(strstr(t.features, "+sse2"));
    assert_int_equal(t.vector_bytes, 16);
    assert_int_equal(t.f16, 0);
    assert_int_equal(s->cg->host("-sse3", &t, &err), SETUN_OK);
    assert_string_equal(t.isa, "sse2");
    assert_int_equal(t.dot2 | t.dot4 | t.lut16 | t.lut32 | t.sign, 0);
    assert_int_equal(s->cg->host("+fma4", &t, &err),
                     strstr(host->features, "+fma4") ? SETUN_OK : SETUN_BAD_ARG);
    if (strstr(host->features, "+avx512bw")) {
        assert_int_equal(s->cg->host("-avx2,+avx512bw", &t, &err), SETUN_OK); /* brings AVX2 back */
        assert_non_null(strstr(t.features, "+avx2"));
        assert_non_null(strstr(t.features, "-avx512vl"));
        assert_int_equal(t.vector_bytes, 32);
    }
}

static int setup(void **p)
{
    static state s;
    setun_error err = { 0 };
    void *lib = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        print_message("%s\n", dlerror());
        return -1;
    }
    const st_codegen *(*entry)(uint32_t);
    void *sym = dlsym(lib, "st_codegen_entry");
    if (!sym)
        return -1;
    memcpy(&entry, &sym, sizeof entry);
    if (entry(ST_CODEGEN_ABI + 1))
        return -1;
    s.cg = entry(ST_CODEGEN_ABI);
    if (!s.cg || s.cg->size != sizeof *s.cg)
        return -1;
    for (uint32_t i = 0; i < N_SETS; i++) {
        char plus[32];
        (void)snprintf(plus, sizeof plus, "+%s", sets[i].needs);
        s.have[i] = i == 0 || (s.target[0].arch == ST_ARCH_X86 && strstr(s.target[0].features, plus));
        if (!s.have[i]) {
            print_message("not tested: %s, this machine has no %s\n", sets[i].features,
                          sets[i].needs);
            continue;
        }
        if (s.cg->host(sets[i].features, &s.target[i], &err) != SETUN_OK) {
            print_message("%s\n", err.text);
            return -1;
        }
    }
    if (st_loader_new(&s.loader, &err) != SETUN_OK) {
        print_message("%s\n", err.text);
        return -1;
    }
    *p = &s;
    return 0;
}

static int teardown(void **p)
{
    state *s = *p;
    st_loader_free(s->loader);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),     cmocka_unit_test(test_forms),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_structure),
        cmocka_unit_test(test_exact_floats), cmocka_unit_test(test_dot_edges),
        cmocka_unit_test(test_random),       cmocka_unit_test(test_assembly),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_limit),
        cmocka_unit_test(test_samples),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* scripts/bind_kernel.c -- the kernel builder that the lower of a scripted operator sees.
 *
 *     lower = function(k, a)
 *       k:grid(k.input.x, 0, 1)
 *       local first, last = k:tile()
 *       k:loop(first, last, 1, function(i)
 *         k:store(k.output.y, i, k:max(k:load(k.input.x, i), 0))
 *       end)
 *     end
 *
 * Every instruction of codegen/kir.def is a method, described by one row of `words`; loops and
 * branches take functions, so a kernel is always well nested.  A number becomes a constant of the
 * type that is wanted in its place.  The builder checks each instruction when it is made, and its
 * sentence is raised at once, so that it names the script's line. */
#include <string.h>

#include "base/error.h"
#include "scripts/bind.h"

#define KERNEL "setun.kernel"
#define KVAL "setun.kval"
#define KMATRIX "setun.kmatrix"

#define MAX_OPEN 128 /* blocks inside each other; the verifier allows fewer */

struct st_script_kernel {
    setun_kernel     *k;
    const setun_args *a;
    int64_t           generation;
    uint32_t          depth, made;    /* open blocks; all blocks so far */
    uint32_t          open[MAX_OPEN]; /* [i]: number of the block that is open at depth i; [0] the kernel itself */
};
typedef st_script_kernel kernel;

/* A value; or an argument, whose pointer is made in the block that first uses it and made again when that block
 * has ended: a kernel has no pointers that it does not use, and they may come after its grid. */
typedef struct kval {
    int64_t  generation;
    k_val    v;
    int32_t  arg;         /* argument this points to, or -1 */
    uint32_t elem;        /* of k.input and k.output: what it points to; 0: v is there */
    uint32_t depth, block;
} kval;

static st_script_op *of(const setun_args *a)
{
    return (st_script_op *)(uintptr_t)a->op;
}

/* ---------------------------------------------------------------- values and types */

/* What the builder makes next comes from the line that is running. */
static void mark_line(lua_State *L, const kernel *k)
{
    const setun_builder *b = k->k->b;
    lua_Debug ar;
    if (SETUN_HAS(setun_builder, b, line) && st_bind_line(L, &ar))
        b->line(k->k, ar.short_src, ar.currentline);
}

static kernel *check_kernel(lua_State *L)
{
    kernel *k = luaL_testudata(L, 1, KERNEL);
    if (!k)
        st_bind_fail(L, "call methods of a kernel with a colon: k:name(...)");
    else if (k->generation != st_bind_script(L)->generation)
        st_bind_fail(L, "a kernel lives only while lower runs");
    else
        mark_line(L, k);
    return k;
}

static void enter_block(lua_State *L, kernel *k)
{
    if (k->depth + 1 >= MAX_OPEN)
        st_bind_fail(L, "more than %d blocks inside each other", MAX_OPEN - 1);
    k->open[++k->depth] = ++k->made;
}

static void leave_block(kernel *k)
{
    k->depth--;
}

static void check_fault(lua_State *L, const kernel *k)
{
    const setun_builder *b = k->k->b;
    const char *why = SETUN_HAS(setun_builder, b, fault) ? b->fault(k->k) : NULL;
    if (why)
        st_bind_fail(L, "%s", why);
}

static int push_kval(lua_State *L, const kernel *k, k_val v, int32_t arg)
{
    check_fault(L, k);
    if (!v)
        st_bind_fail(L, "the kernel builder refused this");
    kval *x = lua_newuserdatauv(L, sizeof *x, 0);
    x->generation = k->generation;
    x->v = v;
    x->arg = arg;
    x->elem = 0;
    luaL_setmetatable(L, KVAL);
    return 1;
}

static kval *test_kval(lua_State *L, int i)
{
    kval *x = luaL_testudata(L, i, KVAL);
    if (x && x->generation != st_bind_script(L)->generation)
        st_bind_fail(L, "argument %d belongs to a kernel that is finished", i - 1);
    return x;
}

static kval *check_kval(lua_State *L, int i)
{
    kval *x = test_kval(L, i);
    if (!x)
        st_bind_fail(L, "argument %d must be a value of the kernel, not %s", i - 1,
                     lua_isnone(L, i) ? "missing" : luaL_typename(L, i));
    return x;
}

/* The value at index i; of an argument its pointer. */
static k_val value(lua_State *L, kernel *k, int i)
{
    kval *x = check_kval(L, i);
    if (x->elem && (!x->v || x->depth > k->depth || x->block != k->open[x->depth])) {
        x->v = k_arg(k->k, x->arg, x->elem);
        x->depth = k->depth;
        x->block = k->open[k->depth];
        check_fault(L, k);
    }
    return x->v;
}

static lua_Integer check_int(lua_State *L, int i)
{
    int whole;
    lua_Integer n = lua_tointegerx(L, i, &whole);
    if (!whole || lua_type(L, i) != LUA_TNUMBER)
        st_bind_fail(L, "argument %d must be an integer, not %s", i - 1,
                     lua_isnone(L, i) ? "missing" : luaL_typename(L, i));
    return n;
}

static uint32_t check_lanes(lua_State *L, int i, uint32_t fallback)
{
    if (lua_isnoneornil(L, i) && fallback)
        return fallback;
    lua_Integer n = check_int(L, i);
    if (n < 1 || n > (lua_Integer)K_MAX_LANES)
        st_bind_fail(L, "argument %d: %I lanes are not from 1 to %d", i - 1, n, (int)K_MAX_LANES);
    return (uint32_t)n;
}

/* "f32", "i8x32" */
static k_type check_type(lua_State *L, int i)
{
    static const struct { const char *name; uint32_t elem; } elems[] = {
        { "i1", K_I1 }, { "i8", K_I8 }, { "i16", K_I16 }, { "i32", K_I32 }, { "i64", K_I64 }, { "f32", K_F32 }
    };
    const char *text = st_bind_text(L, i, "a kernel type");
    size_t n = strcspn(text, "x");
    int64_t lanes = 1;
    for (size_t e = 0; e < 6; e++)
        if (strlen(elems[e].name) == n && strncmp(text, elems[e].name, n) == 0 &&
            (!text[n] || st_parse_i64(text + n + 1, 1, K_MAX_LANES, &lanes) == 0))
            return K_TYPE(elems[e].elem, (uint32_t)lanes);
    st_bind_fail(L, "'%s' is not a kernel type such as f32 or i8x32", text);
    return 0;
}

/* The number at index i as a constant of type t. */
static k_val constant(lua_State *L, kernel *k, int i, k_type t)
{
    static const int bits[8] = { 0, 1, 8, 16, 32, 64, 32, 0 };
    int whole, width = bits[K_ELEM(t)];
    if (K_IS_PTR(t))
        st_bind_fail(L, "argument %d: a number cannot stand where a pointer is wanted", i - 1);
    if (K_ELEM(t) == K_F32)
        return k_f32v(k->k, (float)lua_tonumber(L, i), K_LANES(t));
    int64_t n = lua_tointegerx(L, i, &whole);
    if (!whole || (width < 64 && (n < -((int64_t)1 << (width - 1)) || n >= (int64_t)1 << width)))
        st_bind_fail(L, "argument %d: %s does not fit an integer of %d bits", i - 1, lua_tostring(L, i), width);
    return k_int(k->k, t, n);
}

/* A value, or a number as a constant of type t. */
static k_val operand(lua_State *L, kernel *k, int i, k_type t)
{
    if (lua_type(L, i) == LUA_TNUMBER)
        return constant(L, k, i, t);
    return value(L, k, i);
}

/* Arguments i and j of one type; a number takes the type of the other. */
static void pair(lua_State *L, kernel *k, int i, int j, k_val *a, k_val *b)
{
    if (lua_type(L, i) == LUA_TNUMBER && lua_type(L, j) == LUA_TNUMBER)
        st_bind_fail(L, "one of the two must be a value of the kernel; numbers are added up in Lua");
    *a = lua_type(L, i) == LUA_TNUMBER ? 0 : value(L, k, i);
    *b = operand(L, k, j, *a ? k_type_of(k->k, *a) : 0);
    if (!*a)
        *a = operand(L, k, i, k_type_of(k->k, *b));
}

static k_val index_of(lua_State *L, kernel *k, int i)
{
    return operand(L, k, i, K_TYPE(K_I64, 1));
}

/* ---------------------------------------------------------------- instructions */

/* What the result is: the type of an operand, a mask, one lane of a, a given element with a's lanes,
 * given lanes of a's element, a given type, a pointer to a given element, ... */
enum { SAME, SAME_B, MASK, LANE, ELEM, LANES, LANES_B, TYPE, POINTER, BOTH, HALF, NONE };

/* args, one letter for each argument of the method:
 *     v  a value                      i  an integer, the immediate
 *     p  two values of one type, of which one may be a number
 *     x  an index: i64 or a number    s  a value or number to go where operand a points
 *     t  a type such as "i8x32"       l  a number of lanes; L may be left out: 1 */
typedef struct word {
    const char *name;
    uint32_t    op;
    const char *args;
    uint32_t    result, elem;
} word;

/* and, or, end, local are words of Lua, hence band, bor, bxor, tile, stack. */
static const word words[] = {
    { "add", K_add, "p", SAME, 0 },         { "sub", K_sub, "p", SAME, 0 },
    { "mul", K_mul, "p", SAME, 0 },         { "min", K_min, "p", SAME, 0 },
    { "max", K_max, "p", SAME, 0 },         { "div", K_div, "p", SAME, 0 },
    { "band", K_and, "p", SAME, 0 },        { "bor", K_or, "p", SAME, 0 },
    { "bxor", K_xor, "p", SAME, 0 },        { "udiv", K_udiv, "p", SAME, 0 },
    { "urem", K_urem, "p", SAME, 0 },       { "sign", K_sign, "p", SAME, 0 },
    { "eq", K_eq, "p", MASK, 0 },           { "lt", K_lt, "p", MASK, 0 },
    { "le", K_le, "p", MASK, 0 },           { "sqrt", K_sqrt, "v", SAME, 0 },
    { "rint", K_rint, "v", SAME, 0 },       { "abs", K_abs, "v", SAME, 0 },
    { "neg", K_neg, "v", SAME, 0 },         { "opaque", K_opaque, "v", SAME, 0 },
    { "shl", K_shl, "vi", SAME, 0 },        { "shru", K_shru, "vi", SAME, 0 },
    { "shrs", K_shrs, "vi", SAME, 0 },      { "i2f", K_i2f, "v", ELEM, K_F32 },
    { "f2i", K_f2i, "v", ELEM, K_I32 },     { "h2f", K_h2f, "v", ELEM, K_F32 },
    { "f2h", K_f2h, "v", ELEM, K_I16 },     { "sext", K_sext, "vt", ELEM, 0 },
    { "zext", K_zext, "vt", ELEM, 0 },      { "trunc", K_trunc, "vt", ELEM, 0 },
    { "cast", K_cast, "vt", TYPE, 0 },      { "select", K_select, "vp", SAME_B, 0 },
    { "splat", K_splat, "vl", LANES, 0 },   { "extract", K_extract, "vi", LANE, 0 },
    { "slice", K_slice, "vil", LANES, 0 },  { "concat", K_concat, "vv", BOTH, 0 },
    { "rsum", K_rsum, "v", LANE, 0 },       { "rmax", K_rmax, "v", LANE, 0 },
    { "dot2", K_dot2, "vv", HALF, K_I16 },  { "dot4", K_dot4, "vvv", SAME, 0 },
    { "lut16", K_lut16, "vv", LANES_B, 0 },  { "iota", K_iota, "ti", TYPE, 0 },
    { "stack", K_local, "ti", POINTER, 0 }, { "load", K_load, "vxL", LANES, 0 },
    { "store", K_store, "vxs", NONE, 0 },   { "gather", K_gather, "vv", LANES_B, 0 },
    { "prefetch", K_prefetch, "vxi", NONE, 0 }, { "var", K_var, "v", SAME, 0 },
    { "get", K_get, "v", SAME, 0 },         { "set", K_set, "vs", NONE, 0 },
};

/* i + 0, i - 0 and i * 1 of an index are i: no instruction, and no constant that nobody uses. */
static int adds_nothing(lua_State *L, const kernel *k, uint32_t op, k_val a)
{
    if ((op != K_add && op != K_sub && op != K_mul) || !lua_isinteger(L, 3) || lua_isinteger(L, 2))
        return 0;
    return lua_tointeger(L, 3) == (op == K_mul) && k_type_of(k->k, a) == K_TYPE(K_I64, 1);
}

/* upvalue 1: index into words */
static int call_word(lua_State *L)
{
    const word *w = &words[lua_tointeger(L, lua_upvalueindex(1))];
    kernel *k = check_kernel(L);
    k_val v[4] = { 0, 0, 0, 0 };
    k_type given = K_TYPE(w->elem, 1);
    uint32_t lanes = 1;
    int64_t imm = 0;
    int n = 0, i = 2;
    if (test_kval(L, 2) && adds_nothing(L, k, w->op, value(L, k, 2))) {
        lua_settop(L, 2);
        return 1;
    }
    for (const char *p = w->args; *p; p++, i++) {
        switch (*p) {
        case 'v': v[n++] = value(L, k, i); break;
        case 'p': pair(L, k, i, i + 1, &v[n], &v[n + 1]); n += 2; i++; break;
        case 'x': v[n++] = index_of(L, k, i); break;
        case 's': v[n++] = operand(L, k, i, k_type_of(k->k, v[0]) & ~K_PTR); break;
        case 'i': imm = check_int(L, i); break;
        case 't': given = check_type(L, i); break;
        default: lanes = check_lanes(L, i, *p == 'L'); break;
        }
    }
    k_type a = k_type_of(k->k, v[0]), b = k_type_of(k->k, v[1]), t = 0;
    switch (w->result) {
    case SAME: t = a; break;
    case SAME_B: t = b; break;
    case MASK: t = K_TYPE(K_I1, K_LANES(a)); break;
    case LANE: t = K_TYPE(K_ELEM(a), 1); break;
    case ELEM: t = K_TYPE(K_ELEM(given), K_LANES(a)); break;
    case LANES: t = K_TYPE(K_ELEM(a), lanes); break;
    case LANES_B: t = K_TYPE(K_ELEM(a), K_LANES(b)); break;
    case TYPE: t = given; break;
    case POINTER: t = K_TYPE(K_ELEM(given) | K_PTR, 1); break;
    case BOTH: t = K_TYPE(K_ELEM(a), K_LANES(a) + K_LANES(b)); break;
    case HALF: t = K_TYPE(w->elem, K_LANES(a) / 2); break;
    default: break;
    }
    k_val r = k_emit(k->k, w->op, t, v[0], v[1], v[2], imm);
    if (w->result != NONE)
        return push_kval(L, k, r, -1);
    check_fault(L, k);
    return 0;
}

static int kn_const(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_type t = check_type(L, 2);
    if (lua_type(L, 3) != LUA_TNUMBER)
        return st_bind_fail(L, "const: the value must be a number");
    return push_kval(L, k, constant(L, k, 3, t), -1);
}

static int kn_scratch(lua_State *L)
{
    kernel *k = check_kernel(L);
    return push_kval(L, k, k_scratch(k->k, K_ELEM(check_type(L, 2)), check_int(L, 3)), -1);
}

static int32_t check_arg(lua_State *L, int i)
{
    kval *x = check_kval(L, i);
    if (x->arg < 0)
        st_bind_fail(L, "argument %d must be one of k.input or k.output", i - 1);
    return x->arg;
}

static int32_t check_dim(lua_State *L, int i)
{
    lua_Integer d = check_int(L, i);
    if (d < 0 || d >= SETUN_MAX_RANK)
        st_bind_fail(L, "argument %d: there is no dimension %I (the first is 0)", i - 1, d);
    return (int32_t)d;
}

static int kn_dim(lua_State *L)
{
    kernel *k = check_kernel(L);
    return push_kval(L, k, k_dim(k->k, check_arg(L, 2), check_dim(L, 3)), -1);
}

static int kn_dim_run(lua_State *L)
{
    kernel *k = check_kernel(L);
    return push_kval(L, k, k_dim_run(k->k, check_arg(L, 2), check_dim(L, 3)), -1);
}

static int kn_tile(lua_State *L)
{
    kernel *k = check_kernel(L);
    push_kval(L, k, k_begin(k->k), -1);
    return 1 + push_kval(L, k, k_end(k->k), -1);
}

/* k:grid(array, dimension, granule [, array, dimension, granule]) */
static int kn_grid(lua_State *L)
{
    kernel *k = check_kernel(L);
    int32_t arg = check_arg(L, 2), d = check_dim(L, 3);
    int64_t granule = check_int(L, 4);
    if (lua_isnoneornil(L, 5))
        k_grid(k->k, arg, d, granule);
    else {
        int32_t arg1 = check_arg(L, 5), d1 = check_dim(L, 6);
        k_grid2(k->k, arg, d, granule, arg1, d1, check_int(L, 7));
    }
    check_fault(L, k);
    return 0;
}

static int kn_load_pad(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val p = value(L, k, 2), i = index_of(L, k, 3);
    lua_Integer n = check_int(L, 4);
    uint32_t lanes = check_lanes(L, 5, 0), elem = K_ELEM(k_type_of(k->k, p));
    int64_t pad = 0;
    if (lanes & (lanes - 1))
        return st_bind_fail(L, "load_pad: %d lanes are not a power of two", (int)lanes);
    if (elem == K_F32)
        pad = setun_f32_bits((float)luaL_optnumber(L, 6, 0));
    else if (!lua_isnoneornil(L, 6))
        pad = check_int(L, 6);
    return push_kval(L, k, k_load_pad(k->k, p, i, n, lanes, pad), -1);
}

static int kn_store_part(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val p = value(L, k, 2), i = index_of(L, k, 3), v = value(L, k, 4);
    uint32_t lanes = K_LANES(k_type_of(k->k, v));
    if (lanes & (lanes - 1))
        return st_bind_fail(L, "store_part: %d lanes are not a power of two", (int)lanes);
    k_store_part(k->k, p, i, v, check_int(L, 5));
    check_fault(L, k);
    return 0;
}

/* k:shuffle(a, b, {0, 2, 1, 3}): lanes of a, then of b, counted from 0 */
static int kn_shuffle(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val a = value(L, k, 2), b = value(L, k, 3);
    int32_t mask[K_MAX_LANES];
    lua_Unsigned n = lua_istable(L, 4) ? lua_rawlen(L, 4) : 0;
    if (n < 1 || n > K_MAX_LANES)
        return st_bind_fail(L, "shuffle: the mask must be a list of 1 to %d lanes", (int)K_MAX_LANES);
    for (lua_Unsigned i = 0; i < n; i++) {
        int whole;
        lua_rawgeti(L, 4, (lua_Integer)i + 1);
        lua_Integer lane = lua_tointegerx(L, -1, &whole);
        if (!whole || lane < 0 || lane >= 2 * (lua_Integer)K_MAX_LANES)
            return st_bind_fail(L, "shuffle: entry %I of the mask is not a lane", (lua_Integer)i + 1);
        mask[i] = (int32_t)lane;
        lua_pop(L, 1);
    }
    return push_kval(L, k, k_shuffle(k->k, a, b, mask, (uint32_t)n), -1);
}

static uint32_t check_float(lua_State *L, int i)
{
    const char *name = st_bind_text(L, i, "the element type");
    uint32_t dtype = st_dtype_find(name, strlen(name));
    if (dtype != SETUN_F32 && dtype != SETUN_F16 && dtype != SETUN_BF16)
        st_bind_fail(L, "'%s' is not f32, f16 or bf16", name);
    return dtype;
}

static int kn_widen(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val v = value(L, k, 2);
    return push_kval(L, k, k_widen(k->k, v, check_float(L, 3)), -1);
}

static int kn_narrow(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val v = value(L, k, 2);
    return push_kval(L, k, k_narrow(k->k, v, check_float(L, 3)), -1);
}

/* k:loop(first, last, step, function(i) ... end) */
static int kn_loop(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val first = index_of(L, k, 2), last = index_of(L, k, 3);
    lua_Integer step = check_int(L, 4);
    if (!lua_isfunction(L, 5))
        return st_bind_fail(L, "loop: the body must be a function of the index");
    lua_settop(L, 5);
    push_kval(L, k, k_for(k->k, first, last, step), -1);
    enter_block(L, k);
    lua_call(L, 1, 0);
    leave_block(k);
    mark_line(L, k);
    k_stop(k->k);
    check_fault(L, k);
    return 0;
}

/* k:when(condition, function() ... end [, function() ... end]) */
static int kn_when(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val cond = value(L, k, 2);
    if (!lua_isfunction(L, 3) || !(lua_isnoneornil(L, 4) || lua_isfunction(L, 4)))
        return st_bind_fail(L, "when: the branches must be functions");
    lua_settop(L, 4);
    k_if(k->k, cond);
    for (int branch = 3; branch <= 4 && lua_isfunction(L, branch); branch++) {
        if (branch == 4)
            k_else(k->k);
        enter_block(L, k);
        lua_pushvalue(L, branch);
        lua_call(L, 0, 0);
        leave_block(k);
        mark_line(L, k);
    }
    k_stop(k->k);
    check_fault(L, k);
    return 0;
}

static int kn_info(lua_State *L)
{
    static const struct { const char *name; uint32_t what; } questions[] = {
        { "dot2", K_HAS_DOT2 }, { "dot4", K_HAS_DOT4 }, { "lut16", K_HAS_LUT16 },
        { "lut32", K_HAS_LUT32 },       { "tiles", K_HAS_TILES },
        { "vector_bytes", K_VECTOR_BYTES }, { "registers", K_N_REGISTERS },
        { "l1_bytes", K_L1_BYTES }, { "l2_bytes", K_L2_BYTES }
    };
    kernel *k = check_kernel(L);
    const char *name = st_bind_text(L, 2, "the question");
    for (size_t i = 0; i < SETUN_LEN(questions); i++)
        if (strcmp(name, questions[i].name) == 0) {
            lua_pushinteger(L, k_info(k->k, questions[i].what));
            return 1;
        }
    return st_bind_fail(L, "info: '%s' is not known", name);
}

/* ---------------------------------------------------------------- what op_help.h has */

/* k:arg(array, "i32"): the array as elements of another type */
static int kn_arg(lua_State *L)
{
    kernel *k = check_kernel(L);
    int32_t arg = check_arg(L, 2);
    return push_kval(L, k, k_arg(k->k, arg, K_ELEM(check_type(L, 3))), arg);
}

static const setun_view *port_view(const kernel *k, int32_t arg)
{
    return arg < (int32_t)k->a->n_in ? &k->a->in[arg] : &k->a->out[arg - (int32_t)k->a->n_in];
}

/* k:size(array, dimension): a number for the script, or nil when it is known only at run time */
static int kn_size(lua_State *L)
{
    kernel *k = check_kernel(L);
    int64_t size = port_view(k, check_arg(L, 2))->dim[check_dim(L, 3)];
    if (size < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, size);
    return 1;
}

/* k:rank(array), k:dtype(array) */
static int kn_rank(lua_State *L)
{
    kernel *k = check_kernel(L);
    lua_pushinteger(L, port_view(k, check_arg(L, 2))->rank);
    return 1;
}

static int kn_dtype(lua_State *L)
{
    kernel *k = check_kernel(L);
    lua_pushstring(L, st_dtype_name(port_view(k, check_arg(L, 2))->dtype));
    return 1;
}

/* upvalue 1: which function of one value */
static int call_function(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val v = value(L, k, 2);
    switch (lua_tointeger(L, lua_upvalueindex(1))) {
    case 0: v = k_expf(k->k, v); break;
    case 1: v = k_logf(k->k, v); break;
    default: v = k_rint_i32(k->k, v); break;
    }
    return push_kval(L, k, v, -1);
}

static int kn_gumbel(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val key0 = value(L, k, 2), key1 = value(L, k, 3);
    return push_kval(L, k, k_gumbel(k->k, key0, key1, value(L, k, 4)), -1);
}

/* k:dot32(p, i, q, j, n): the sum in 32 stripes of n products, n a number */
static int kn_dot32(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val p = value(L, k, 2), i = index_of(L, k, 3), q = value(L, k, 4), j = index_of(L, k, 5);
    lua_Integer n = check_int(L, 6);
    if (n < 1)
        return st_bind_fail(L, "dot32: a sum of %I products", n);
    return push_kval(L, k, k_dot32(k->k, p, i, q, j, n), -1);
}

/* k:q8(numbers, scale) */
static int kn_q8(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val q = value(L, k, 2);
    return push_kval(L, k, k_q8(k->k, q, value(L, k, 3)), -1);
}

/* k:to_q8(x): 32 numbers, and their scale */
static int kn_to_q8(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val scale = 0, q = k_to_q8(k->k, value(L, k, 2), &scale);
    push_kval(L, k, q, -1);
    return 1 + push_kval(L, k, scale, -1);
}

/* Bytes to read ahead: any up to a page, then 2 to 64 whole pages, a power of two. */
static int64_t check_ahead(lua_State *L, int i)
{
    lua_Integer n = check_int(L, i), pages = n / K_PAGE;
    if (n < 0 || n > 64 * K_PAGE || (n > K_PAGE && (n % K_PAGE || (pages & (pages - 1)))))
        st_bind_fail(L, "argument %d: %I bytes ahead are not from 0 to %d, or 2, 4, ... 64 times that", i - 1, n, K_PAGE);
    return n;
}

/* k:fetch_ahead(p, byte, ahead) */
static int kn_fetch_ahead(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val p = value(L, k, 2), at = index_of(L, k, 3);
    k_fetch_ahead(k->k, p, at, check_ahead(L, 4));
    check_fault(L, k);
    return 0;
}

/* k:unit(u, n1): u / n1 and u % n1 */
static int kn_unit(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_val u = value(L, k, 2), i, j;
    k_unit(k->k, u, index_of(L, k, 3), &i, &j);
    push_kval(L, k, i, -1);
    return 1 + push_kval(L, k, j, -1);
}

/* ---------------------------------------------------------------- matrices of any float type */

typedef struct kmatrix {
    int64_t  generation;
    k_matrix m;
} kmatrix;

static const k_matrix *check_matrix(lua_State *L)
{
    const kmatrix *x = luaL_testudata(L, 2, KMATRIX);
    if (!x || x->generation != st_bind_script(L)->generation)
        st_bind_fail(L, "argument 1 must be what k:matrix gave");
    return &x->m;
}

/* k:matrix(array): the matrix, and how many columns to go along a row at a time */
static int kn_matrix(lua_State *L)
{
    kernel *k = check_kernel(L);
    int32_t arg = check_arg(L, 2);
    const setun_view *v = port_view(k, arg);
    if (v->rank != 2 || !(SETUN_WEIGHTS & SETUN_OF(v->dtype)))
        return st_bind_fail(L, "matrix: a matrix of %s has rank %d; it must be of floats, plain or in blocks, and of rank 2",
                            st_dtype_name(v->dtype), (int)v->rank);
    kmatrix *x = lua_newuserdatauv(L, sizeof *x, 0);
    x->generation = k->generation;
    x->m = k_matrix_arg(k->k, arg, v);
    luaL_setmetatable(L, KMATRIX);
    check_fault(L, k);
    lua_pushinteger(L, x->m.span);
    return 2;
}

/* k:matrix_row(m, r) */
static int kn_matrix_row(lua_State *L)
{
    kernel *k = check_kernel(L);
    const k_matrix *m = check_matrix(L);
    return push_kval(L, k, k_matrix_row(m, index_of(L, k, 3)), -1);
}

static int64_t check_columns(lua_State *L, int i)
{
    lua_Integer s = check_int(L, i);
    if (s < 0 || s % 32 || s > INT32_MAX)
        st_bind_fail(L, "argument %d: column %I is not a multiple of 32 below 2^31", i - 1, s);
    return s;
}

/* k:matrix_load(m, row, i, s, left): columns i + s to i + s + 31 as f32, of which left exist */
static int kn_matrix_load(lua_State *L)
{
    kernel *k = check_kernel(L);
    const k_matrix *m = check_matrix(L);
    k_val row = index_of(L, k, 3), i = index_of(L, k, 4);
    int64_t s = check_columns(L, 5);
    return push_kval(L, k, k_matrix_load(m, row, i, s, check_int(L, 6)), -1);
}

/* k:matrix_prefetch(m, row, i, s, ahead) */
static int kn_matrix_prefetch(lua_State *L)
{
    kernel *k = check_kernel(L);
    const k_matrix *m = check_matrix(L);
    k_val row = index_of(L, k, 3), i = index_of(L, k, 4);
    int64_t s = check_columns(L, 5);
    k_matrix_prefetch(m, row, i, s, check_ahead(L, 6));
    check_fault(L, k);
    return 0;
}

/* ---------------------------------------------------------------- tiles, by number */

static int64_t check_tile(lua_State *L, int i)
{
    lua_Integer n = check_int(L, i);
    if (n < 0 || n > 7)
        st_bind_fail(L, "argument %d: tile %I is not from 0 to 7", i - 1, n);
    return n;
}

static int kn_tile_zero(lua_State *L)
{
    kernel *k = check_kernel(L);
    k_tile_zero(k->k, check_tile(L, 2));
    check_fault(L, k);
    return 0;
}

/* upvalue 1: is it a store?  k:tile_load(tile, p, index, stride) */
static int tile_move(lua_State *L)
{
    kernel *k = check_kernel(L);
    int64_t tile = check_tile(L, 2);
    k_val p = value(L, k, 3), i = index_of(L, k, 4);
    lua_Integer stride = check_int(L, 5);
    if (stride < 0 || stride > INT32_MAX)
        return st_bind_fail(L, "argument 4: rows cannot lie %I elements apart", stride);
    if (lua_toboolean(L, lua_upvalueindex(1)))
        k_tile_store(k->k, tile, p, i, stride);
    else
        k_tile_load(k->k, tile, p, i, stride);
    check_fault(L, k);
    return 0;
}

/* k:tile_dot(c, a, b [, "i8"]): c += a . b, where the bytes of b have no sign, or with "i8" have one */
static int kn_tile_dot(lua_State *L)
{
    kernel *k = check_kernel(L);
    int64_t c = check_tile(L, 2), x = check_tile(L, 3), y = check_tile(L, 4);
    if (lua_isnoneornil(L, 5))
        k_tile_dot(k->k, c, x, y);
    else if (strcmp(st_bind_text(L, 5, "the type of b"), "i8") == 0)
        k_tile_dot_s8(k->k, c, x, y);
    else
        return st_bind_fail(L, "tile_dot: the type of b can be \"i8\", not \"%s\"", lua_tostring(L, 5));
    check_fault(L, k);
    return 0;
}

/* ---------------------------------------------------------------- map */

/* Called by k_lower_map inside kn_map, in its stack frame.  A raise leaves k_lower_map by longjmp,
 * which is fine: it holds nothing, and the kernel is given up. */
static k_val map_body(setun_kernel *head, const setun_args *a, const k_val *x)
{
    st_script_op *so = of(a);
    lua_State *L = so->s->L;
    (void)head;
    luaL_checkstack(L, (int)a->n_in + 8, "map");
    lua_pushvalue(L, so->map_fn);
    for (uint32_t i = 0; i < a->n_in; i++)
        push_kval(L, so->k, x[i], -1);
    enter_block(L, so->k);
    lua_call(L, (int)a->n_in, 1);
    leave_block(so->k);
    mark_line(L, so->k);
    k_val v = operand(L, so->k, lua_gettop(L), k_type_of(so->k->k, x[0]));
    check_fault(L, so->k);
    lua_pop(L, 1);
    return v;
}

/* k:map(in, ..., out, function(x, ...) return y end): all inputs, then the output, all f32 and of one
 * shape; the body sees 32 elements of each, and then the rest one by one. */
static int kn_map(lua_State *L)
{
    kernel *k = check_kernel(L);
    const setun_args *a = k->a;
    int n = (int)a->n_in;
    if (lua_gettop(L) != n + 3 || !lua_isfunction(L, n + 3) || a->n_out != 1 || n < 1 || n > 4)
        return st_bind_fail(L, "map takes all inputs (1 to 4), the only output, and a function");
    for (int i = 0; i <= n; i++) {
        const setun_view *v = i < n ? &a->in[i] : &a->out[0];
        if (check_arg(L, i + 2) != i)
            return st_bind_fail(L, "map: argument %d is not %s; the order is that of the schema", i + 1,
                                i < n ? a->op->in[i].name : a->op->out[0].name);
        if (v->dtype != SETUN_F32 || v->rank < 1 || !st_view_same(v, &a->in[0]))
            return st_bind_fail(L, "map works on f32 arrays of one shape");
    }
    of(a)->map_fn = n + 3;
    (void)k_lower_map(k->k, a, map_body);
    check_fault(L, k);
    return 0;
}

/* ---------------------------------------------------------------- lower */

/* upvalue 1: methods */
static int kernel_index(lua_State *L)
{
    check_kernel(L);
    const char *key = st_bind_text(L, 2, "a method's name");
    static const char *const tables[] = { "input", "output", "knob" };
    for (int i = 0; i < 3; i++)
        if (strcmp(key, tables[i]) == 0) {
            lua_getiuservalue(L, 1, i + 1);
            return 1;
        }
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL)
        return st_bind_fail(L, "a kernel has no method '%s'", key);
    return 1;
}

static void push_ports(lua_State *L, const kernel *k, const setun_port *port, const setun_view *v, uint32_t n,
                       uint32_t first)
{
    lua_createtable(L, 0, (int)n);
    for (uint32_t i = 0; i < n; i++) {
        kval *x = lua_newuserdatauv(L, sizeof *x, 0);
        memset(x, 0, sizeof *x);
        x->generation = k->generation;
        x->arg = (int32_t)(first + i);
        x->elem = k_elem_of(v[i].dtype);
        luaL_setmetatable(L, KVAL);
        lua_setfield(L, -2, port[i].name);
    }
}

/* What the host chose for each knob, by name. */
static void push_knobs(lua_State *L, const setun_args *a)
{
    lua_createtable(L, 0, (int)a->op->n_knob);
    for (uint32_t i = 0; i < a->op->n_knob; i++) {
        lua_pushinteger(L, setun_knob_value(a, i));
        lua_setfield(L, -2, a->op->knob[i].name);
    }
}

typedef struct job {
    st_script_op     *so;
    const setun_args *a;
    setun_kernel     *k;
    int               declined;
} job;

static int run_lower(lua_State *L)
{
    job *j = lua_touserdata(L, 1);
    const setun_args *a = j->a;
    lua_rawgeti(L, LUA_REGISTRYINDEX, j->so->ref);
    lua_getfield(L, -1, "lower");
    st_bind_place(L);
    kernel *k = lua_newuserdatauv(L, sizeof *k, 3);
    memset(k, 0, sizeof *k);
    k->k = j->k;
    k->a = a;
    k->generation = st_bind_script(L)->generation;
    luaL_setmetatable(L, KERNEL);
    j->so->k = k;
    push_ports(L, k, a->op->in, a->in, a->n_in, 0);
    lua_setiuservalue(L, -2, 1);
    push_ports(L, k, a->op->out, a->out, a->n_out, a->n_in);
    lua_setiuservalue(L, -2, 2);
    push_knobs(L, a);
    lua_setiuservalue(L, -2, 3);
    st_bind_push_attrs(L, a);
    lua_call(L, 2, 1);
    j->declined = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
    return 0;
}

setun_status st_bind_lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    st_script_op *so = of(a);
    job j = { so, a, k, 0 };
    if (!so->s)
        return st_fail(err, SETUN_BAD_SCRIPT, "operator %s: the script that makes its kernels is closed",
                       a->op->name);
    so->s->callback++;
    setun_status s = st_bind_call(so->s, run_lower, &j, so->file, err);
    so->s->callback--;
    so->s->generation++;
    so->k = NULL;
    return s == SETUN_OK && j.declined ? SETUN_DECLINED : s;
}

/* ---------------------------------------------------------------- opening */

void st_bind_kernel_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "arg", kn_arg },         { "const", kn_const },     { "dim", kn_dim },
        { "dim_run", kn_dim_run }, { "dot32", kn_dot32 },     { "dtype", kn_dtype },
        { "fetch_ahead", kn_fetch_ahead }, { "grid", kn_grid }, { "gumbel", kn_gumbel },
        { "info", kn_info },       { "load_pad", kn_load_pad }, { "loop", kn_loop },
        { "map", kn_map },         { "matrix", kn_matrix },   { "matrix_load", kn_matrix_load },
        { "matrix_prefetch", kn_matrix_prefetch }, { "matrix_row", kn_matrix_row },
        { "narrow", kn_narrow },   { "q8", kn_q8 },           { "rank", kn_rank },
        { "scratch", kn_scratch }, { "shuffle", kn_shuffle }, { "size", kn_size },
        { "store_part", kn_store_part }, { "tile", kn_tile }, { "tile_dot", kn_tile_dot },
        { "tile_zero", kn_tile_zero }, { "to_q8", kn_to_q8 }, { "unit", kn_unit },
        { "when", kn_when },       { "widen", kn_widen },     { NULL, NULL }
    };
    static const char *const functions[] = { "exp", "log", "rint_i32" };
    static const luaL_Reg none[] = { { NULL, NULL } };
    /* The instruction table joins the methods before the class is closed over them. */
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    for (size_t i = 0; i < SETUN_LEN(words); i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, call_word, 1);
        lua_setfield(L, -2, words[i].name);
    }
    for (size_t i = 0; i < SETUN_LEN(functions); i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, call_function, 1);
        lua_setfield(L, -2, functions[i]);
    }
    for (int store = 0; store < 2; store++) {
        lua_pushboolean(L, store);
        lua_pushcclosure(L, tile_move, 1);
        lua_setfield(L, -2, store ? "tile_store" : "tile_load");
    }
    lua_pushcclosure(L, kernel_index, 1);
    st_bind_class(L, KERNEL, none, NULL);
    luaL_getmetatable(L, KERNEL);
    lua_insert(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    st_bind_class(L, KVAL, none, NULL);
    st_bind_class(L, KMATRIX, none, NULL);
}

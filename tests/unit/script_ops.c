/* tests/unit/script_ops.c -- operators in Lua beside the same in C, all that a descriptor can say, and mistakes.
 *
 * Four operators are written twice, in ops/ and in scripts/ops/.  Their kernels must be the same up to the
 * order of instructions without effects, which in C is the compiler's choice where two of them are arguments
 * of one call: so what a script makes is as fast as what C makes, whatever the machine. */
#include "script_world.h"

#include "base/hash.h"

/* ---------------------------------------------------------------- the same kernel */

static uint64_t join(uint64_t h, uint64_t x)
{
    return st_hash(h, &x, sizeof x);
}

static int has_effect(uint32_t op)
{
    return op == K_store || op == K_set || op == K_var || op == K_for || op == K_if || op == K_else || op == K_stop ||
           op == K_prefetch || op == K_local || op >= K_tile_zero;
}

/* What a kernel does: its effects in their order, each with what its operands are computed from.  Instructions
 * without effects count where they are used.  What is read depends on what was written before, of memory or of
 * the same variable, and on the block: between two reads of one block with as many writes before lies none. */
static uint64_t meaning(const st_kir *k)
{
    uint64_t *is = calloc(k->n_inst, sizeof *is), *sets = calloc(k->n_inst, sizeof *sets), all = ST_HASH_INIT;
    uint64_t effects = 0, stores = 0, block[ST_MAX_NESTING + 1] = { 0 };
    uint32_t depth = 0;
    assert_true(is && sets);
    for (uint32_t i = 1; i < k->n_inst; i++) {
        const st_inst *in = &k->inst[i];
        uint64_t h = join(join(ST_HASH_INIT, in->op), in->type);
        const k_val operand[3] = { in->a, in->b, in->c };
        for (uint32_t o = 0; o < st_kir_op_operands(in->op); o++)
            h = join(h, is[operand[o]]);
        if (in->op == K_shuffle)
            h = st_hash(h, k->mask + in->imm, K_LANES(in->type) * sizeof k->mask[0]);
        else if (in->op == K_dim)
            h = st_hash(h, &k->slot[in->imm], sizeof k->slot[0]);
        else
            h = join(h, (uint64_t)in->imm);
        if (in->op == K_load || in->op == K_gather)
            h = join(join(h, stores), block[depth]);
        if (in->op == K_get)
            h = join(join(h, sets[in->a]), block[depth]);
        if (has_effect(in->op)) {
            h = join(h, ++effects);
            all = join(all, h);
        }
        stores += in->op == K_store || in->op == K_tile_store;
        if (in->op == K_set)
            sets[in->a]++;
        if (in->op == K_stop && depth)
            depth--;
        else if (in->op == K_for || in->op == K_if)
            block[++depth] = effects;
        else if (in->op == K_else)
            block[depth] = effects;
        is[i] = h;
    }
    free(sets);
    for (int f = 0; f < 2; f++)
        all = join(join(join(all, (uint64_t)k->grid.at[f].arg), (uint64_t)k->grid.at[f].dim), (uint64_t)k->grid.granule[f]);
    free(is);
    return join(all, (uint64_t)k->scratch_bytes);
}

#define N_TARGET 5
/* Like SSE, AVX2, AVX2 with dot4, AVX-512 with dot4 and without. */
static void target_of(int i, st_target *t)
{
    st_target_generic(t);
    t->vector_bytes = i == 0 ? 16 : i < 3 ? 32 : 64;
    t->n_registers = i < 3 ? 16 : 32;
    t->dot2 = i > 0;
    t->dot4 = i == 2 || i == 3;
}

static st_kir *kernel_of(const setun_op *op, const char *text, int target, const int64_t *knob, st_arena *arena)
{
    setun_error err = { 0 };
    st_case c;
    st_kir *k = NULL;
    st_target t;
    target_of(target, &t);
    if (st_case_make(op, text, 1, arena, &c, &err) == SETUN_OK) {
        c.shape.knob = knob;
        (void)st_kir_lower(&k, &c.shape, &t, arena, &err);
    }
    if (!k)
        fail_msg("%s, %s: %s", op->name, text, err.text);
    return k;
}

/* What a step on these data really did, where C's file says it. */
static void same_account(const setun_op *c, const setun_op *lua, const setun_args *run, const char *text)
{
    setun_counted want = { .size = sizeof want }, is = { .size = sizeof is };
    assert_int_equal(!c->counted, !lua->counted);
    if (!c->counted)
        return;
    setun_args own = *run;
    own.op = lua;
    c->counted(run, &want);
    lua->counted(&own, &is);
    if (memcmp(&want, &is, sizeof is))
        fail_msg("%s, %s: %g operations, %g bytes, %g rows of %g bytes, and in C %g, %g, %g, %g", lua->name, text, is.float_ops,
                 is.bytes, is.rows, is.row_bytes, want.float_ops, want.bytes, want.rows, want.row_bytes);
}

/* Both on the same inputs, by eval and (what the script made) by the interpreter. */
static void same_results(const setun_op *c, const setun_op *lua, const char *text, uint64_t seed, st_arena *arena)
{
    setun_error err = { 0 };
    st_case a, b;
    const setun_view *view[ST_MAX_ARGS];
    void *arg[ST_MAX_ARGS];
    int64_t bytes[ST_MAX_ARGS], dim[ST_MAX_SLOTS];
    if (st_case_make(c, text, seed, arena, &a, &err) != SETUN_OK || st_case_make(lua, text, seed, arena, &b, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < a.run.n_in; i++)
        memcpy(b.run.in[i].data, a.run.in[i].data, (size_t)setun_view_bytes(&a.run.in[i]));
    if (c->eval(&a.run, &err) != SETUN_OK || lua->eval(&b.run, &err) != SETUN_OK)
        fail_msg("%s, %s: %s", lua->name, text, err.text);
    size_t n = (size_t)setun_view_bytes(&a.run.out[0]);
    if (memcmp(a.run.out[0].data, b.run.out[0].data, n))
        fail_msg("%s, %s: eval has other bits than that of C", lua->name, text);
    same_account(c, lua, &a.run, text);
    st_kir *k = kernel_of(lua, text, 2, NULL, arena);
    for (uint32_t i = 0; i < b.run.n_in + b.run.n_out; i++) {
        view[i] = i < b.run.n_in ? &b.run.in[i] : &b.run.out[i - b.run.n_in];
        arg[i] = view[i]->data;
        bytes[i] = setun_view_bytes(view[i]);
    }
    for (uint32_t d = 0; d < k->n_slot; d++)
        dim[d] = view[k->slot[d].arg]->dim[k->slot[d].dim];
    memset(b.run.out[0].data, 0x5a, n);
    setun_launch l = { arg, dim, k };
    setun_tile all = { 0, st_grid_units(&k->grid, view), NULL };
    if (st_kir_eval(k, &l, bytes, &all, &err) != SETUN_OK)
        fail_msg("%s, %s: %s", lua->name, text, err.text);
    if (memcmp(a.run.out[0].data, b.run.out[0].data, n))
        fail_msg("%s, %s: the kernel has other bits than C's eval", lua->name, text);
}

static void beside_c(void **state)
{
    static const char *const names[] = { "rmsnorm", "rope", "ternary_matmul", "relu2_cap", "head_rescore" };
    static const int64_t knobs[][3] = { { 16384, 2, 0 }, { 4096, 1, 0 }, { 32768, 2, 0 } };
    world *w = world_new(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[1000], own[64];
        setun_error err = { 0 };
        (void)snprintf(own, sizeof own, "%s_lua", names[i]);
        (void)snprintf(path, sizeof path, "%s/ops/%s.lua", LIB, strcmp(names[i], "relu2_cap") ? own : names[i]);
        if (st_script_ops(w->s, path, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        const setun_op *c = st_registry_find(w->r, names[i]), *lua = st_registry_find(w->r, own);
        assert_true(c && lua);
        for (int j = 0; lua->cases[j]; j++) {
            st_arena *arena = st_arena_new();
            for (uint64_t seed = 1; seed < 4; seed++)
                same_results(c, lua, lua->cases[j], seed, arena);
            for (int n = 0; n < (lua->n_knob ? N_TARGET * 3 : N_TARGET); n++) {
                const int64_t *knob = lua->n_knob ? knobs[n / N_TARGET] : NULL;
                uint64_t want = meaning(kernel_of(c, lua->cases[j], n % N_TARGET, knob, arena));
                if (meaning(kernel_of(lua, lua->cases[j], n % N_TARGET, knob, arena)) != want)
                    fail_msg("%s, %s: on target %d the kernels differ", own, lua->cases[j], n % N_TARGET);
            }
            st_arena_free(arena);
        }
    }
    world_free(w);
}

/* Other kernels must not count as the same: the comparison above can fail. */
static void comparison_bites(void **state)
{
    st_arena *arena = st_arena_new();
    const setun_op *rope = NULL;
    uint64_t seen[4];
    (void)state;
    for (int i = 0; st_builtin_ops[i]; i++)
        if (strcmp(st_builtin_ops[i]->name, "rope") == 0)
            rope = st_builtin_ops[i];
    assert_non_null(rope);
    seen[0] = meaning(kernel_of(rope, rope->cases[0], 0, NULL, arena));
    seen[1] = meaning(kernel_of(rope, rope->cases[1], 0, NULL, arena));
    st_kir *k = kernel_of(rope, rope->cases[0], 0, NULL, arena);
    uint32_t sub = 1;
    while (k->inst[sub].op != K_sub)
        sub++;
    k_val a = k->inst[sub].a;
    k->inst[sub].a = k->inst[sub].b;
    k->inst[sub].b = a;
    seen[2] = meaning(k);
    k->inst[sub].b = k->inst[sub].a;
    k->inst[sub].a = a;
    assert_true(meaning(k) == seen[0]);
    k->inst[k->n_inst - 1].op = K_else;
    seen[3] = meaning(k);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    st_arena_free(arena);
}

/* ---------------------------------------------------------------- all that a descriptor says */

/* Adds picked rows of a table to a cache that is updated in place: an index list, a fill that makes it one,
 * shared memory, a knob, a cost, an output whose sizes the script says, attributes of three kinds. */
static const char picks[] =
    "setun.op 'picks' { doc = 'd', version = 3,\n"
    "  input = { {'table', 'f32[r,d] or f16[r,d]', doc = 'rows'}, {'list', 'i32[n]'}, {'sums', 'f32[n,d]'} },\n"
    "  output = { {'out', 'like sums', shares = 'sums'}, {'size', 'i32[...]'} },\n"
    "  attr = { by = {'float', default = 1.0, doc = 'factor'}, how = {'string'}, times = 1 },\n"
    "  knobs = { {'ahead', {0, 64, 8192}, doc = 'bytes'} },\n"
    "  infer = function(input, a)\n"
    "    if a.how ~= 'add' then error('how is ' .. a.how) end\n"
    "    assert(input.table.type == 'f16' or input.table.type == 'f32')\n"
    "    return { size = { 2, input.table.dims[2] } }\n"
    "  end,\n"
    "  fill = function(input, seed)\n"
    "    for i = 0, #input.list - 1 do input.list[i] = (seed + i) % input.table.dims[1] end\n"
    "  end,\n"
    "  eval_all = function(input, output, a)\n"
    "    local t, d = input.table, input.table.dims[2]\n"
    "    for i = 0, #input.list - 1 do\n"
    "      for j = 0, d - 1 do\n"
    "        output.out[i * d + j] = input.sums[i * d + j] + setun.f32(t[input.list[i] * d + j] * a.by)\n"
    "      end\n"
    "    end\n"
    "    for j = 0, 2 * d - 1 do output.size[j] = j end\n"
    "  end,\n"
    "  lower = function(k, a)\n"
    "    local t, out, d = k.input.table, k.output.out, k:size(k.input.table, 1)\n"
    "    assert(k:size(k.input.list, 0) == nil and k:rank(t) == 2)\n"
    "    k:grid(k.input.list, 0, 4)\n"
    "    local first, last = k:tile()\n"
    "    k:loop(0, 2 * d, 1, function(j) k:store(k.output.size, j, k:trunc(j, 'i32')) end)\n"
    "    k:loop(k:mul(first, 4), k:min(k:mul(last, 4), k:dim_run(k.input.list, 0)), 1, function(i)\n"
    "      local row = k:mul(k:sext(k:load(k.input.list, i), 'i64'), d)\n"
    "      k:fetch_ahead(t, row, k.knob.ahead)\n"
    "      k:loop(0, d, 1, function(j)\n"
    "        local at, v = k:add(k:mul(i, d), j), k:widen(k:load(t, k:add(row, j)), k:dtype(t))\n"
    "        k:store(out, at, k:add(k:load(out, at), k:mul(v, a.by)))\n"
    "      end)\n"
    "    end)\n"
    "  end,\n"
    "  cost = { float_ops = '2*#sums + 3 * n*d', bytes = 7 },\n"
    "  counted = { rows = 'positive(list)', row_bytes = 'row_bytes(table)', float_ops = 'sum(list)*d + 100*largest(list)' },\n"
    "  cases = { 'table:f32[9,7] list:i32[n5] sums:f32[n5,7] how=add by=0.5',\n"
    "            'table:f16[3,33] list:i32[n9] sums:f32[n9,33] how=add' } }\n";

static void whole_descriptor(void **state)
{
    world *w = world_new(NULL);
    static const int32_t list[] = { 8, -1, 0, 2, 3 };
    setun_error err = { 0 };
    st_case c, ran;
    setun_cost cost = { 0, 0, 0 };
    setun_counted counted = { .size = sizeof counted };
    (void)state;
    accept(w, picks);
    const setun_op *op = st_registry_find(w->r, "picks");
    assert_non_null(op);
    assert_int_equal(op->version, 3);
    assert_int_equal(op->out[0].shares, 3);
    assert_int_equal(op->out[1].shares, 0);
    assert_string_equal(op->in[0].doc, "f32[r,d] or f16[r,d]: rows");
    assert_string_equal(op->attr[0].doc, "factor, default 1.0");
    assert_int_equal(op->attr[1].required, 1);
    assert_int_equal(op->n_knob, 1);
    assert_int_equal(op->knob[0].n_value, 3);
    assert_int_equal(op->knob[0].value[2], 8192);
    assert_int_equal(st_case_make(op, op->cases[0], 1, w->arena, &c, &err), SETUN_OK);
    assert_int_equal(c.run.out[1].rank, 2);
    assert_int_equal(c.run.out[1].dim[1], 7);
    for (int64_t i = 0; i < 5; i++)
        assert_int_equal(((const int32_t *)c.run.in[1].data)[i], (1 + i) % 9);
    op->cost(&c.run, &cost);
    assert_true(cost.int_ops == 0 && cost.float_ops == 2 * 35 + 3 * 35 && cost.bytes == 7);
    op->cost(&c.shape, &cost); /* n is not known: one row */
    assert_true(cost.float_ops == 2 * 7 + 3 * 7);
    for (int i = 0; op->cases[i]; i++)
        for (int v = 0; v < 3; v++) {
            st_case want, got;
            assert_int_equal(st_case_make(op, op->cases[i], 7, w->arena, &want, &err), SETUN_OK);
            assert_int_equal(st_case_make(op, op->cases[i], 7, w->arena, &got, &err), SETUN_OK);
            assert_int_equal(op->eval(&want.run, &err), SETUN_OK);
            st_kir *k = kernel_of(op, op->cases[i], 0, &op->knob[0].value[v], w->arena);
            void *arg[] = { got.run.in[0].data, got.run.in[1].data, got.run.in[2].data, got.run.out[0].data,
                            got.run.out[1].data };
            int64_t bytes[5], dim = got.run.in[1].dim[0];
            for (int j = 0; j < 5; j++)
                bytes[j] = setun_view_bytes(j < 3 ? &got.run.in[j] : &got.run.out[j - 3]);
            setun_launch l = { arg, &dim, k };
            setun_tile all = { 0, (dim + 3) / 4, NULL };
            if (st_kir_eval(k, &l, bytes, &all, &err) != SETUN_OK)
                fail_msg("%s", err.text);
            for (int o = 0; o < 2; o++)
                assert_memory_equal(want.run.out[o].data, got.run.out[o].data, (size_t)bytes[3 + o]);
        }
    assert_int_not_equal(st_case_make(op, "table:f32[9,7] list:i32[5] sums:f32[5,7] how=sub", 1, w->arena, &c, &err), SETUN_OK);
    assert_non_null(strstr(err.text, "t.lua:7: how is sub"));
    assert_int_equal(st_case_make(op, op->cases[0], 1, w->arena, &ran, &err), SETUN_OK);
    memcpy(ran.run.in[1].data, list, sizeof list);
    st_script_close(w->s);
    w->s = NULL;
    op->counted(&ran.run, &counted); /* sessions count when the script is long closed */
    assert_true(counted.rows == 3 && counted.row_bytes == 28 && counted.float_ops == 13 * 7 + 800);
    assert_true(counted.int_ops == 0 && counted.bytes == 7); /* left out: those of cost */
    assert_int_not_equal(st_case_make(op, op->cases[0], 1, w->arena, &c, &err), SETUN_OK);
    assert_non_null(strstr(err.text, "the script that knows its shapes is closed"));
    world_free(w);
}

/* ---------------------------------------------------------------- the rest of the builder */

#define ONE(name, in, out, eval, lower, cases) "setun.op '" name "' { doc = 'd', input = " in ", output = " out ",\n" \
    "eval_all = function(i, o) " eval " end,\nlower = function(k) " lower " end, cases = " cases " }\n"

/* Functions of op_help.h: each against its twin for the host. */
static void helpers(void **state)
{
    static const char text[] =
        ONE("functions", "{x='f32[n]'}", "{{'y','f32[n]'},{'z','f32[n]'},{'r','i32[n]'}}",
            "for j = 0, #i.x - 1 do o.y[j] = setun.exp(i.x[j]) o.z[j] = setun.log(2.5) o.r[j] = setun.gumbel(j, 3, 4) < 0 and 1 or 0 end",
            "k:grid(k.input.x, 0, 1) local a, b = k:tile() k:loop(a, b, 1, function(j)"
            " k:store(k.output.y, j, k:exp(k:load(k.input.x, j))) k:store(k.output.z, j, k:log(k:const('f32', 2.5)))"
            " local g = k:gumbel(k:trunc(j, 'i32'), k:const('i32', 3), k:const('i32', 4))"
            " k:store(k.output.r, j, k:select(k:lt(g, 0), k:const('i32', 1), 0 and k:const('i32', 0))) end)",
            "{'x:f32[n37]'}")
        ONE("rounded", "{x='f32[n]'}", "{y='i32[n]'}",
            "for j = 0, #i.x - 1 do local c = 2.0^52 + 2.0^51 o.y[j] = (i.x[j] + c - c) // 1 | 0 end",
            "k:grid(k.input.x, 0, 1) local a, b = k:tile() k:loop(a, b, 1, function(j)"
            " k:store(k.output.y, j, k:rint_i32(k:load(k.input.x, j))) end)", "{'x:f32[n41]'}")
        ONE("eighths", "{x='f32[n,32]'}", "{y='f32[n,32]'}",
            "for r = 0, i.x.dims[1] - 1 do for j = 0, 31 do o.y[32 * r + j] = i.x[32 * r + j] end end",
            "k:grid(k.input.x, 0, 1) local a, b = k:tile() k:loop(a, b, 1, function(r) local at = k:mul(r, 32)"
            " local q, s = k:to_q8(k:load(k.input.x, at, 32)) local u, v = k:unit(at, 32)"
            " k:store(k.output.y, k:add(k:mul(u, 32), v), k:q8(q, s)) end)", "{'x:f32[n3,32]'}")
        ONE("product", "{{'w','f32[r,c] or bf16[r,c] or q8_0[r,c] or q4_k[r,c]'},{'x','f32[c]'}}", "{y='f32[r]'}",
            "local c = #i.x for r = 0, #o.y - 1 do local p = {} for j = 1, 32 do p[j] = 0.0 end"
            " for j = 0, c - 1 do local s = j % 32 + 1"
            " p[s] = setun.f32(p[s] + setun.f32(i.w[r * c + j] * i.x[j])) end o.y[r] = setun.tree32(p) end",
            "k:grid(k.input.w, 0, 1) local m, span = k:matrix(k.input.w) local c, a, b = k:size(k.input.x, 0), k:tile()"
            " k:loop(a, b, 1, function(r) local row, acc = k:matrix_row(m, r), k:var(k:const('f32x32', 0))"
            " local function add(i, s, left) k:matrix_prefetch(m, row, i, s, 4096)"
            " k:set(acc, k:add(k:get(acc), k:mul(k:matrix_load(m, row, i, s, left), k:load_pad(k.input.x, k:add(i, s), left, 32)))) end"
            " local whole = c // span * span if whole > 0 then k:loop(0, whole, span, function(i)"
            " for s = 0, span - 1, 32 do add(i, s, 32) end end) end"
            " if c > whole then add(k:const('i64', whole), 0, c - whole) end k:store(k.output.y, r, k:rsum(k:get(acc))) end)",
            "{'w:f32[3,41] x:f32[41]', 'w:bf16[3,64] x:f32[64]', 'w:q8_0[4,96] x:f32[96]', 'w:q4_k[3,512] x:f32[512]'}")
        ONE("words", "{x='i8[n,64]'}", "{y='i32[n]'}",
            "for r = 0, #o.y - 1 do local s = 0 for j = 0, 63 do s = s + (i.x[64 * r + j] & 255 ~ 255) % 256 // 256 end o.y[r] = 5 + s end",
            "k:grid(k.input.x, 0, 1) local a, b = k:tile() k:loop(a, b, 1, function(r)"
            " local w = k:arg(k.input.x, 'i32') local v = k:load(w, k:mul(r, 16), 4)"
            " local pad = k:load_pad(k.input.x, 0, 0, 4, 5) k:store(k.output.y, r, k:extract(k:zext(pad, 'i32'), 2))"
            " k:set(k:var(v), v) end)", "{'x:i8[n3,64]'}");
    static const char *const names[] = { "functions", "rounded", "product", "words" };
    world *w = world_new(NULL);
    (void)state;
    accept(w, text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const setun_op *op = st_registry_find(w->r, names[i]);
        assert_non_null(op);
        for (int j = 0; op->cases[j]; j++)
            same_results(op, op, op->cases[j], 11 + (uint64_t)j, w->arena);
    }
    /* What q8 loses is no mistake: against the host's q8 itself. */
    const setun_op *op = st_registry_find(w->r, "eighths");
    setun_error err = { 0 };
    st_case c;
    assert_int_equal(st_case_make(op, op->cases[0], 5, w->arena, &c, &err), SETUN_OK);
    st_kir *k = kernel_of(op, op->cases[0], 0, NULL, w->arena);
    void *arg[] = { c.run.in[0].data, c.run.out[0].data };
    int64_t bytes[] = { 3 * 128, 3 * 128 };
    setun_launch l = { arg, NULL, k };
    setun_tile all = { 0, 3, NULL };
    assert_int_equal(st_kir_eval(k, &l, bytes, &all, &err), SETUN_OK);
    for (int r = 0; r < 3; r++) {
        uint8_t block[SETUN_Q8_BLOCK_BYTES];
        setun_put_q8(block, (const float *)c.run.in[0].data + 32 * r, 32);
        for (int j = 0; j < 32; j++)
            assert_true(((const float *)c.run.out[0].data)[32 * r + j] == setun_get_q8(block, j));
    }
    world_free(w);
}

/* Tiles of 16 x 64 bytes: c += a . b against the scalar sums, b with and without a sign. */
static void tiles(void **state)
{
    static const char text[] =
        ONE("tiled", "{{'a','i8[16,64]'},{'b','i8[16,64]'}}", "{{'c','i32[16,16]'},{'d','i32[16,16]'}}", "",
            "k:grid(k.input.a, 0, 16) k:tile_zero(0) k:tile_zero(1) k:tile_load(2, k.input.a, 0, 64)"
            " k:tile_load(3, k.input.b, 0, 64) k:tile_dot(0, 2, 3) k:tile_dot(1, 2, 3, 'i8')"
            " k:tile_store(0, k.output.c, 0, 16) k:tile_store(1, k.output.d, 0, 16)"
            " if k:info('tiles') ~= 0 then k:const('i64', 1) end", "{'a:i8[16,64] b:i8[16,64]'}");
    world *w = world_new(NULL);
    setun_error err = { 0 };
    st_case c;
    (void)state;
    accept(w, text);
    const setun_op *op = st_registry_find(w->r, "tiled");
    st_kir *k = kernel_of(op, op->cases[0], 0, NULL, w->arena);
    assert_int_equal(st_case_make(op, op->cases[0], 9, w->arena, &c, &err), SETUN_OK);
    void *arg[] = { c.run.in[0].data, c.run.in[1].data, c.run.out[0].data, c.run.out[1].data };
    int64_t bytes[] = { 1024, 1024, 1024, 1024 };
    setun_launch l = { arg, NULL, k };
    setun_tile all = { 0, 1, NULL };
    if (st_kir_eval(k, &l, bytes, &all, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    const int8_t *a = arg[0], *b = arg[1];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) {
            int32_t plain = 0, with = 0;
            for (int p = 0; p < 64; p++) { /* four bytes of a column of b lie side by side */
                int8_t x = a[64 * i + p], y = b[p / 4 * 64 + 4 * j + p % 4];
                plain += x * (uint8_t)y;
                with += x * y;
            }
            assert_int_equal(((const int32_t *)arg[2])[16 * i + j], plain);
            assert_int_equal(((const int32_t *)arg[3])[16 * i + j], with);
        }
    world_free(w);
}

/* ---------------------------------------------------------------- lines */

static void lines_in_text(void **state)
{
    static const char text[] =
        "setun.op 'lined' { doc = 'd', input = {x='f32[n]'}, output = {y='like x'},\n"
        "  eval = function(x) return x end,\n"
        "  lower = function(k)\n"
        "    k:grid(k.input.x, 0, 1)\n"
        "    local a, b = k:tile()\n"
        "    k:loop(a, b, 1, function(i)\n"
        "      local v = k:load(k.input.x, i)\n"
        "      k:store(k.output.y, i, v)\n"
        "    end)\n"
        "  end, cases = {'x:f32[n3]'} }\n";
    static const char want[] =
        "  %1 = begin  # t.lua:5\n"
        "  %2 = end\n"
        "  %3 = for %1 %2 step 1 {  # t.lua:6\n"
        "    %4 = arg.f32 0  # t.lua:7\n"
        "    %5 = load.f32 %4 %3\n"
        "    %6 = arg.f32 1  # t.lua:8\n"
        "    store %6 %3 %5\n"
        "  }  # t.lua:6\n"
        "}\n";
    world *w = world_new(NULL);
    st_str plain = { 0 }, with = { 0 }, again = { 0 };
    setun_error err = { 0 };
    st_kir *parsed;
    (void)state;
    accept(w, text);
    const setun_op *op = st_registry_find(w->r, "lined");
    st_kir *k = kernel_of(op, op->cases[0], 0, NULL, w->arena);
    st_kir_print(k, &plain);
    st_kir_print_lines(k, &with);
    assert_null(strstr(plain.text, "t.lua"));
    if (!strstr(with.text, want))
        fail_msg("%s", with.text);
    /* Lines are comments: what is read back is the same kernel. */
    if (st_kir_parse(with.text, "with.kir", NULL, w->arena, &parsed, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_kir_print(parsed, &again);
    assert_string_equal(again.text, plain.text);
    st_str_free(&plain);
    st_str_free(&with);
    st_str_free(&again);
    world_free(w);
}

/* ---------------------------------------------------------------- mistakes */

/* In the declaration; line 2 of the file. */
static void bad_declarations(void **state)
{
#define DECLARE(more) "\nsetun.op 'o' { doc = 'd', input = {{'x', 'f32[n,d]'}, {'i', 'i32[n]'}}, " more ", cases = {'x:f32[1,1] i:i32[1]'} }"
#define EVAL "eval_all = function() end"
#define OUT "output = {{'y', 'f32[n,d]'}}, " EVAL
    static const char *const bad[][2] = {
        { DECLARE(EVAL ", output = {{'y', 'f32[...]'}}"), "no input says what the letters of 'f32[...]' are, and there is no infer" },
        { DECLARE(EVAL ", output = {{'y', 'f32[n,e]'}}"), "no input says what the letters of 'f32[n,e]' are" },
        { DECLARE(EVAL ", output = {{'y', 'f32[n] or f32[d]'}}"), "'f32[n] or f32[d]' is not a type" },
        { DECLARE(EVAL ", output = {{'y', 't2[n,d]'}}"), "output y cannot be t2" },
        { DECLARE(EVAL ", output = {{'y', 'like x', shares = 'z'}}"), "shares the memory of 'z', which is no input" },
        { DECLARE(EVAL ", output = {{'y', 'like x', shares = 'x'}, {'z', 'like x', shares = 'x'}}"), "two outputs share one input" },
        { DECLARE(OUT ", attr = {a = {'number'}}"), "attribute a: 'number' is not int, float or string" },
        { DECLARE(OUT ", attr = {a = {'int', default = 'x'}}"), "default of attribute a is a string, not int" },
        { DECLARE(OUT ", attr = {a = {'int', default = 1.5}}"), "default of attribute a is a number, not int" },
        { DECLARE(OUT ", attr = {a = {'int', doc = 3}}"), "doc must be a string" },
        { DECLARE(OUT ", knobs = {}"), "knobs must be a list of 1 to 8" },
        { DECLARE(OUT ", knobs = {'a'}"), "entry 1 of knobs is not {name, values}" },
        { DECLARE(OUT ", knobs = {{'a', {}}}"), "knob a needs a list of 1 to 16 values" },
        { DECLARE(OUT ", knobs = {{'a', {1, 'x'}}}"), "value 2 of knob a is not an integer" },
        { DECLARE(OUT ", knobs = {{'a', {1}}, {'a', {2}}}"), "two knobs are called a" },
        { DECLARE(OUT ", cost = {ops = 1}"), "cost has no field 'ops'" },
        { DECLARE(OUT ", cost = {bytes = '2*q'}"), "bytes '2*q' is not a sum of products" },
        { DECLARE(OUT ", cost = {bytes = '2 n'}"), "is not a sum of products" },
        { DECLARE(OUT ", cost = {bytes = '#z'}"), "is not a sum of products" },
        { DECLARE(OUT ", cost = {bytes = ''}"), "is not a sum of products" },
        { DECLARE(OUT ", cost = {bytes = 'n*n*n*n*n*n*n'}"), "is not a sum of products" },
        { DECLARE(OUT ", cost = {bytes = {}}"), "is not a sum of products" },
        { DECLARE(OUT ", cost = {rows = 'n'}"), "cost has no field 'rows'; int_ops, float_ops and bytes are" },
        { DECLARE(OUT ", cost = {bytes = 'sum(x)'}"), "bytes 'sum(x)' is not a sum of products" },
        { DECLARE(OUT ", counted = {row = 'n'}"), "counted has no field 'row'; int_ops, float_ops, bytes, rows and row_bytes are" },
        { DECLARE(OUT ", counted = {rows = 'sum(z)'}"), "rows 'sum(z)' is not a sum of products" },
        { DECLARE(OUT ", counted = {rows = 'sum(x'}"), "rows 'sum(x' is not a sum of products" },
        { DECLARE(OUT ", counted = {rows = 'most(x)'}"), "and of f32 or i32 inputs sum(x), largest(x) and positive(x)" },
        { DECLARE(OUT ", counted = 7"), "counted must be a table" },
        { DECLARE(OUT ", fill = 3"), "fill must be a function" },
        { DECLARE(OUT ", infer = {}"), "infer must be a function" },
    };
    world *w = world_new(&small);
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(w, bad[i][0], "t.lua:2: ", bad[i][1]);
    world_free(w);
}

/* In a callback: the first line that says so, for each of infer, fill and eval, lower, and the kernel's run. */
static void bad_callbacks(void **state)
{
#define LINES(infer, fill, eval, lower) "setun.op 'NAME' { doc = 'd', input = {x='f32[n]'}, output = {y='f32[n]'}, knobs = {{'u', {2}}},\n" \
    "infer = function(i) " infer " end,\nfill = function(i) " fill " end,\neval_all = function(i, o) " eval " end,\n" \
    "lower = function(k)\n  local x, y = k.input.x, k.output.y\n  " lower "\nend, cases = {'x:f32[7]'} }\n"
#define LOWER(text) LINES("", "", "", text)
#define GRID "k:grid(x, 0, 1)\n  "
    static const struct { const char *text, *says; } bad[] = {
        { LINES("error('no')", "", "", ""), "t.lua:2: no" },
        { LINES("return i.x.dim[1]", "", "", ""), "t.lua:2: attempt to index" },
        { LINES("return { y = {3} }", "", "", ""), "t.lua:2: the sizes of output y are those of its type, f32[n]" },
        { LINES("", "i.x[7] = 1", "", ""), "t.lua:3: an array of 7 elements has no element 7" },
        { LINES("", "i.x[0] = 'a'", "", ""), "t.lua:3: an element is set to a string, not to a number" },
        { LINES("", "", "i.x[0] = 1", ""), "t.lua:4: an input cannot be written" },
        { LOWER("local v = 3\n  k:load(v, 0)"), "t.lua:8: argument 1 must be a value of the kernel, not number" },
        { LOWER(GRID "local v\n  k:loop(0, 1, 1, function(i) v = k:load(x, i) end)\n  k:store(y, 0, v)"),
          "t.lua:10: kernel NAME: instruction 9, store(*f32, i64, f32): operand c is %5, which was made in a block that has ended" },
        { LOWER("k:grid(x, 0, 0)"), "t.lua:7: kernel NAME: grid factor 0 has granule 0" },
        { LOWER("k:grid(x, 3, 1)"), "t.lua:7: kernel NAME: grid factor 0 is dimension 3 of argument 0" },
        { LOWER("local a = k:tile()"), "t.lua:7: kernel NAME: it has no grid" },
        { LOWER("k:dim_run(x, 2)"), "t.lua:7: kernel NAME: dim: dimension 2 of argument 0, which has rank 1" },
        { LOWER("k:dot32(x, 0, x, 0, 0)"), "t.lua:7: dot32: a sum of 0 products" },
        { LOWER("k:fetch_ahead(x, 0, 5000)"), "t.lua:7: argument 3: 5000 bytes ahead" },
        { LOWER("k:matrix(x)"), "t.lua:7: matrix: a matrix of f32 has rank 1" },
        { LOWER("k:matrix_row(x, 0)"), "t.lua:7: argument 1 must be what k:matrix gave" },
        { LOWER("k:tile_zero(8)"), "t.lua:7: argument 1: tile 8 is not from 0 to 7" },
        { LOWER("k:tile_dot(0, 1, 2, 'u8')"), "t.lua:7: tile_dot: the type of b can be \"i8\", not \"u8\"" },
        { LOWER("k:shl(k:const('i32', 1), k.knob.v)"), "t.lua:7: argument 2 must be an integer, not nil" },
        { LOWER("k:exp(k:const('i32', 1))"), "t.lua:7: kernel NAME" },
        { LOWER("k:size(k:const('i32', 1), 0)"), "t.lua:7: argument 1 must be one of k.input or k.output" },
        { LOWER("k:rsum(k:const('f32x3', 1))"), "t.lua:7: kernel NAME" },
        /* Found when the kernel runs, in what the interpreter checks. */
        { LOWER(GRID "local a = k:tile()\n  k:store(y, a,\n    k:load(x, k:add(a, 9)))"),
          "t.lua:10: kernel NAME: instruction 6, load: 1 elements from 9 on are outside argument 0, which has 7" },
        { LOWER(GRID "local a = k:tile()\n  k:store(y, k:udiv(a, 0), k:load(x, a))"),
          "t.lua:9: kernel NAME: instruction 4, udiv: division by zero" },
    };
    world *w = world_new(&small);
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setun_error err = { 0 };
        st_case c;
        st_kir *k;
        st_target t;
        char text[1000], says[300], name[16];
        (void)snprintf(name, sizeof name, "bad%d", (int)i);
        for (int side = 0; side < 2; side++) { /* NAME becomes its name in both */
            const char *from = side ? bad[i].says : bad[i].text, *at = strstr(from, "NAME");
            int head = at ? (int)(at - from) : (int)strlen(from);
            (void)snprintf(side ? says : text, side ? sizeof says : sizeof text, "%.*s%s%s", head, from, at ? name : "",
                           at ? at + 4 : "");
        }
        accept(w, text);
        const setun_op *op = st_registry_find(w->r, name);
        st_target_generic(&t);
        setun_status s = st_case_make(op, op->cases[0], 1, w->arena, &c, &err);
        if (s == SETUN_OK)
            s = op->eval(&c.run, &err);
        if (s == SETUN_OK)
            s = st_kir_lower(&k, &c.shape, &t, w->arena, &err);
        if (s == SETUN_OK) {
            void *arg[] = { c.run.in[0].data, c.run.out[0].data };
            int64_t bytes[] = { 28, 28 };
            setun_launch l = { arg, NULL, k };
            setun_tile one = { 0, 1, NULL };
            s = st_kir_eval(k, &l, bytes, &one, &err);
        }
        if (s == SETUN_OK || !strstr(err.text, says))
            fail_msg("%s\n  gives: %s\n  wants: %s", text, err.text, says);
        /* The sentence has the place once. */
        assert_null(strstr(strstr(err.text, "t.lua:") + 1, "t.lua:"));
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_c), cmocka_unit_test(comparison_bites), cmocka_unit_test(whole_descriptor),
        cmocka_unit_test(helpers), cmocka_unit_test(tiles), cmocka_unit_test(lines_in_text),
        cmocka_unit_test(bad_declarations), cmocka_unit_test(bad_callbacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

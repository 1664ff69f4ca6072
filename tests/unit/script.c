/* tests/unit/script.c -- the Lua world: attacks, messages, operators in Lua.  Models: script_models.c.
 *
 * Scripts that are tests in themselves lie in tests/lua; what they print and how they fail stands in
 * their comments. */
#include "tests/unit/script_world.h"

/* ---------------------------------------------------------------- attacks */

static void endless(void **state)
{
    world *w = world_new(&small);
    (void)state;
    refuse(w, "\nwhile true do end", "t.lua:2: ", "more than 3000000 steps");
    refuse(w, "while true do pcall(function() while true do end end) end", "t.lua:1: ", "steps");
    refuse(w, "for i = 1, math.huge do pcall(error) end", "t.lua:1: ", "steps");
    refuse(w, "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) local x = t[1]", "t.lua:1: ",
           "");
    refuse(w, "local t = setmetatable({}, {}) getmetatable(t).__index = t local x = t.y", "t.lua:1: ", "loop");
    refuse(w, "goto a ::a:: goto a", "t.lua:1: ", "steps");
    refuse(w, "goto b ::a:: goto b ::b:: goto a", "t.lua:1: ", "steps");
    accept(w, "local x = 0 for i = 1, 100000 do x = x + i end"); /* the next script starts anew */
    world_free(w);
    const st_script_limits few = { 0, 100000 };
    w = world_new(&few);
    refuse(w, "local function f() pcall(f) return f() end\nf()", "t.lua:1: ", "steps");
    world_free(w);
}

static void memory(void **state)
{
    world *w = world_new(&small);
    (void)state;
    refuse(w, "local t = {}\nfor i = 1, 1e9 do t[i] = i end", "t.lua:2: ", "memory");
    refuse(w, "local t = {} while true do pcall(function() t[#t + 1] = {} end) end", "t.lua:1: ", "memory");
    refuse(w, "local s = 'x'\nwhile true do s = s .. s end", "t.lua:2: ", "a script's strings have at most 65536");
    refuse(w, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(60000) .. i end", "t.lua:1: ", "memory");
    refuse(w, "local s = ('x'):rep(60000) local t = {} for i = 1, 100 do t[i] = s end\nlocal u = table.concat(t)",
           "t.lua:2: ", "a script's strings");
    refuse(w, "local s = ('x'):rep(60000)\nlocal u = s:gsub('x', s)", "t.lua", "");
    refuse(w, "string.rep('x', 1e9)", "t.lua:1: string.rep", "65536");
    refuse(w, "string.rep('x', 1 << 62, 'yy')", "t.lua:1: string.rep", "65536");
    accept(w, "assert(string.rep('', 1 << 62) == '') assert(('ab'):rep(3, ',') == 'ab,ab,ab')");
    /* Garbage is not counted against a script. */
    accept(w, "for i = 1, 20000 do local s = ('x'):rep(10000) .. i end");
    accept(w, "local t = {} for i = 1, 1000 do t[i] = {i} end");
    world_free(w);
}

static void recursion(void **state)
{
    world *w = world_new(&small);
    (void)state;
    refuse(w, "local function f() return 1 + f() end\nf()", "t.lua:1: ", "");
    refuse(w, "local t = setmetatable({}, {}) getmetatable(t).__tostring = function() return tostring(t) end\n"
              "tostring(t)", "t.lua:1: ", "stack overflow");
    refuse(w, "local function f() return (('x'):gsub('x', f)) end f()", "t.lua:1: ", "stack overflow");
    refuse(w, "local t = setmetatable({}, {}) getmetatable(t).__concat = function(a, b) return a .. b end\n"
              "local x = t .. t", "t.lua:1: ", "overflow");
    refuse(w, "local function f() pcall(f) end f() error('through')", "t.lua:1: ", "");
    char deep[20100] = "return ";
    size_t n = strlen(deep);
    memset(deep + n, '(', 10000);
    deep[n + 10000] = 0;
    refuse(w, deep, "t.lua", "overflow"); /* the parser has no line to name */
    memset(deep + n, '{', 10000);
    refuse(w, deep, "t.lua", "overflow"); /* the parser has no line to name */
    world_free(w);
}

/* What runs in C without hooks must be short, or refused. */
static void slow_functions(void **state)
{
    static const char *const bombs[][2] = {
        { "('a'):rep(60000):find('.-.-.-.-b')", "could take too long" },
        { "('a'):rep(60000):match('(.*)*(.*)b')", "could take too long" },
        { "('a'):rep(60000):gsub('a*a*a*b', '')", "could take too long" },
        { "for x in ('a'):rep(60000):gmatch('.-.-b') do end", "could take too long" },
        { "('a'):rep(3000):find(('a?'):rep(30) .. ('a'):rep(30))", "could take too long" },
        { "('a'):rep(60000):find('%f[b]a-%b()%1')", "" },
        { "table.insert(setmetatable({}, {__len = function() return 1 << 60 end}), 1, 1)", "metatable" },
        { "table.remove(setmetatable({}, {__len = function() return 1 << 60 end}), 1)", "metatable" },
        { "table.concat(setmetatable({}, {__index = string.upper, __len = function() return 1 << 60 end}))", "metatable" },
        { "table.concat({}, '', 1, 1 << 60)", "" },
        { "table.unpack({}, 1, 1e8)", "too many results" },
        { "string.format('%p', {})", "addresses" },
        { "string.format('%-10p', 'x')", "addresses" },
    };
    world *w = world_new(NULL);
    (void)state;
    int64_t since = st_now_ns();
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++)
        refuse(w, bombs[i][0], "t.lua:1: ", bombs[i][1]);
    accept(w, "assert(('model.layers.12.mlp'):match('^model%.layers%.(%d+)%.(.+)$') == '12')\n"
              "assert(('a-b'):find('-', 1, true) == 2) assert(('x = 1'):gsub('%s+', '') == 'x=1')\n"
              "assert(('[a]'):match('%[(.-)%]') == 'a') assert(('a]b'):find('[]]') == 2)\n"
              "for k, v in ('a=1,b=2'):gmatch('(%w+)=(%w+)') do assert(k and v) end\n"
              "local t = {1, 2} table.insert(t, 3) assert(table.remove(t) == 3 and table.concat(t, '-') == '1-2')\n"
              "assert(tostring({}) == 'table' and tostring(print) == 'function' and tostring(1.5) == '1.5')\n"
              "assert(('%s %s %d'):format({}, nil, 3) == 'table nil 3')");
    /* A plain search is quadratic at worst, which short strings bound. */
    accept(w, "local s = ('a'):rep(60000) s:find(('a'):rep(30000) .. 'b', 1, true)");
    assert_true(st_now_ns() - since < (int64_t)10 * 1000000000);
    world_free(w);
}

static void closed_doors(void **state)
{
    static const char *const absent[] = { "io", "os", "package", "debug", "coroutine", "load", "loadstring", "loadfile",
        "dofile", "collectgarbage", "xpcall", "next", "string.dump", "string.pack", "string.unpack", "math.random",
        "math.randomseed", "math.exp", "math.sin", "math.log", "table.sort", "table.move", "_G", "warn" };
    world *w = world_new(&small);
    setun_error err;
    (void)state;
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        char text[100];
        (void)snprintf(text, sizeof text, "assert(%s == nil, '%s is there')", absent[i], absent[i]);
        accept(w, text);
    }
    refuse(w, "require '../models/llama'", "t.lua:1: require: '../models/llama'", "not the name of a library");
    refuse(w, "require '/etc/passwd'", "t.lua:1: require", "not the name");
    refuse(w, "require 'nn.x'", "t.lua:1: require", "not the name");
    refuse(w, "require 'nn\\0x'", "t.lua:1: ", "zero byte");
    refuse(w, "require 'no_such'", "t.lua:1: ", "no_such.lua");
    refuse(w, "require {}", "t.lua:1: ", "must be a string");
    accept(w, "assert(require 'nn' == require 'nn')");
    /* Compiled chunks can crash the interpreter. */
    const char *binary = file_of(w, "\x1bLuaT\0\x19\x93\r\n\x1a\n", 12);
    assert_int_equal(st_script_ops(w->s, binary, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "t.lua:1: compiled Lua is not accepted"));
    /* Metatables: strings', finalizers, the builder's own. */
    accept(w, "assert(getmetatable('') == false) assert(not pcall(setmetatable, '', {}))");
    refuse(w, "setmetatable({}, {__gc = function() error 'boom' end})", "t.lua:1: setmetatable", "__gc");
    refuse(w, "setmetatable({}, {__mode = 'k'})", "t.lua:1: setmetatable", "__mode");
    accept(w, "local t = setmetatable({}, {}) getmetatable(t).__gc = function() while true do end end t = nil");
    accept(w, "local g = setun.graph() assert(getmetatable(g) == false) assert(not pcall(setmetatable, g, {}))");
    refuse(w, "setmetatable(setmetatable({}, {__metatable = 1}), {})", "t.lua:1: ", "protected");
    /* A file's globals stay in the file. */
    accept(w, "leaked = 1 assert(leaked == 1)");
    accept(w, "assert(leaked == nil) getmetatable('x') string.x = nil");
    world_free(w);
}

static void error_values(void **state)
{
    world *w = world_new(&small);
    (void)state;
    refuse(w, "error('plain')", "t.lua:1: plain", "");
    refuse(w, "\n\nerror('bare', 0)", "t.lua:3: bare", "");
    refuse(w, "error({code = 1})", "t.lua:1: an error was raised with a table instead of a message", "");
    refuse(w, "error(nil)", "t.lua:1: an error was raised with a nil", "");
    refuse(w, "error(setmetatable({}, {__tostring = function() while true do end end}))", "t.lua:1: ", "with a table");
    refuse(w, "error('two\\nlines\\27[31m\\255')", "t.lua:1: two lines [31m?", "");
    refuse(w, "local x = nil\nlocal y = x.z", "t.lua:2: attempt to index a nil value", "");
    refuse(w, "x = = 1", "t.lua:1: unexpected symbol", "");
    refuse(w, "local s = ('long '):rep(1000) error(s)", "t.lua:1: long", "");
    refuse(w, "pcall(error) local a <close> = setmetatable({}, {__close = function() error('late') end})", "t.lua:1: late",
           "");
    accept(w, "assert(select(2, pcall(error, 'x')) == 'x') assert(pcall(function() end))");
    /* print goes where the host says and nowhere else. */
    w->printed.len = 0;
    accept(w, "print('a', 1, nil, true, {}) print()");
    assert_string_equal(w->printed.text, "a\t1\tnil\ttrue\ttable\n\n");
    world_free(w);
}

/* pairs goes in the order of keys, in every run. */
static void order(void **state)
{
    world *w = world_new(&small);
    (void)state;
    accept(w, "local t = {} for i = 200, 1, -1 do t['k' .. i] = i t[i] = i end t[-5] = 0\n"
              "local out = {} for k in pairs(t) do out[#out + 1] = k end\n"
              "assert(#out == 401 and out[1] == -5 and out[2] == 1 and out[201] == 200 and out[202] == 'k1')\n"
              "for i = 203, 401 do assert(out[i - 1] < out[i]) end\n"
              "for k in pairs(t) do t[k] = nil end for k in pairs(t) do error('not empty') end");
    refuse(w, "for k in pairs({[1.5] = 1}) do end", "t.lua:1: pairs", "number");
    refuse(w, "for k in pairs({[true] = 1}) do end", "t.lua:1: pairs", "boolean");
    world_free(w);
}

/* Many small graphs and operators live in the host's arena, which has the same limit. */
static void arena_limit(void **state)
{
    world *w = world_new(&small);
    (void)state;
    refuse(w, "while true do setun.graph():input('x', 'f32[2]') end", "t.lua:1: ", "");
    refuse(w, "local g = setun.graph() local x = g:input('x', 'f32[n,4]') while true do x = g:relu2(x) end", "t.lua:1: ",
           "");
    world_free(w);
    w = world_new(&small);
    refuse(w, "local i = 0 local t = {} for j = 1, 60000 do t[j] = 0 end local g = setun.graph()\n"
              "while true do i = i + 1 g:const('c' .. i, 'f32', {60000}, t) end", "t.lua:2: ", "");
    world_free(w);
}

/* ---------------------------------------------------------------- tests/lua */

static void check_file(world *w, const char *path)
{
    setun_error err = { 0 };
    st_str want = { 0 };
    char *text, *error = NULL;
    int64_t n;
    assert_int_equal(st_file_read(path, 1 << 20, &text, &n, &err), SETUN_OK);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *at = strstr(line, "-- expect: "), *fails = strstr(line, "-- expect error: ");
        if (at)
            st_str_addf(&want, "%s\n", at + 11);
        if (fails)
            error = fails + 17;
    }
    w->printed.len = 0;
    st_str_add(&w->printed, "");
    if (w->printed.text)
        w->printed.text[0] = 0;
    setun_status s = st_script_ops(w->s, path, &err);
    if ((s == SETUN_OK) != (error == NULL) || (error && strcmp(error, err.text) != 0))
        fail_msg("%s\n  gives: %s\n  wants: %s", path, s == SETUN_OK ? "no error" : err.text, error ? error : "no error");
    const char *printed = w->printed.text ? w->printed.text : "", *wanted = want.text ? want.text : "";
    if (strcmp(printed, wanted) != 0)
        fail_msg("%s\n--- printed\n%s--- expected\n%s", path, printed, wanted);
    st_str_free(&want);
    free(text);
}

static void lua_files(void **state)
{
    setun_error err;
    char **names;
    int64_t n, seen = 0;
    (void)state;
    assert_int_equal(st_dir_list(SETUN_SOURCE_DIR "/tests/lua", &names, &n, &err), SETUN_OK);
    for (int64_t i = 0; i < n; i++) {
        char path[1000];
        size_t len = strlen(names[i]);
        if (len < 4 || strcmp(names[i] + len - 4, ".lua") != 0)
            continue;
        (void)snprintf(path, sizeof path, "%s/tests/lua/%s", SETUN_SOURCE_DIR, names[i]);
        world *w = world_new(&small);
        check_file(w, path);
        world_free(w);
        seen++;
    }
    st_dir_free(names, n);
    assert_true(seen >= 5);
}

/* ---------------------------------------------------------------- operators */

/* eval against the interpreter on every case, over the whole grid and unit by unit. */
static void compare(const setun_op *op)
{
    for (int i = 0; op->cases[i]; i++) {
        st_arena *arena = st_arena_new();
        setun_error err = { 0 };
        st_case c;
        st_kir *k;
        st_target t;
        const setun_view *view[ST_MAX_ARGS];
        void *arg[ST_MAX_ARGS], *want[4];
        int64_t bytes[ST_MAX_ARGS], dim[ST_MAX_SLOTS];
        st_target_generic(&t);
        if (st_case_make(op, op->cases[i], (uint64_t)i + 1, arena, &c, &err) != SETUN_OK ||
            op->eval(&c.run, &err) != SETUN_OK || st_kir_lower(&k, &c.shape, &t, arena, &err) != SETUN_OK)
            fail_msg("%s, %s: %s", op->name, op->cases[i], err.text);
        for (uint32_t v = 0; v < c.run.n_in + c.run.n_out; v++) {
            view[v] = v < c.run.n_in ? &c.run.in[v] : &c.run.out[v - c.run.n_in];
            arg[v] = view[v]->data;
            bytes[v] = setun_view_bytes(view[v]);
        }
        for (uint32_t o = 0; o < c.run.n_out; o++) {
            want[o] = c.run.out[o].data;
            arg[c.run.n_in + o] = st_arena_alloc(arena, bytes[c.run.n_in + o] + 64);
            memset(arg[c.run.n_in + o], 0x5a, (size_t)bytes[c.run.n_in + o]);
        }
        for (uint32_t d = 0; d < k->n_slot; d++)
            dim[d] = view[k->slot[d].arg]->dim[k->slot[d].dim];
        setun_launch l = { arg, dim, k };
        int64_t units = st_grid_units(&k->grid, view);
        assert_true(units > 0);
        for (int64_t u = units; u-- > 0;) {
            setun_tile tile = { u, u + 1, NULL };
            if (st_kir_eval(k, &l, bytes, &tile, &err) != SETUN_OK)
                fail_msg("%s, %s: %s", op->name, op->cases[i], err.text);
        }
        for (uint32_t o = 0; o < c.run.n_out; o++)
            if (memcmp(want[o], arg[c.run.n_in + o], (size_t)bytes[c.run.n_in + o]) != 0)
                fail_msg("%s, %s: eval and kernel differ", op->name, op->cases[i]);
        st_arena_free(arena);
    }
}

static void example_ops(void **state)
{
    static const char *const files[] = { "relu2_cap", "row_range" };
    world *w = world_new(NULL);
    int64_t first = st_registry_count(w->r);
    (void)state;
    for (int i = 0; i < 2; i++) {
        setun_error err = { 0 };
        char path[1000];
        (void)snprintf(path, sizeof path, "%s/ops/%s.lua", LIB, files[i]);
        if (st_script_ops(w->s, path, &err) != SETUN_OK)
            fail_msg("%s", err.text);
    }
    assert_int_equal(st_registry_count(w->r), first + 2);
    for (int64_t i = first; i < first + 2; i++) {
        assert_string_equal(st_registry_origin(w->r, i), i == first ? "relu2_cap.lua" : "row_range.lua");
        compare(st_registry_at(w->r, i));
    }
    world_free(w);
}

/* The builder in full: an operator that uses most instructions. */
static void rich_op(void **state)
{
    static const char text[] =
        "setun.op 'mixed' { doc = 'd', input = {{'x', 'f32[n,d]'}, {'h', 'f16[n,d]'}, {'i', 'i32[n]'}},\n"
        "  output = {{'y', 'like x'}, {'s', 'i32[n]'}}, attr = { bias = 0.5, shift = 1, mode = 'plus' },\n"
        "  eval_all = function(inp, out, a)\n"
        "    local f, n, d = setun.f32, inp.x.dims[1], inp.x.dims[2]\n"
        "    assert(#inp.x == n * d and a.mode == 'plus')\n"
        "    for r = 0, n - 1 do\n"
        "      for c = 0, d - 1 do\n"
        "        local at = r * d + c\n"
        "        out.y[at] = f(f(inp.x[at] + inp.h[at]) + a.bias)\n"
        "      end\n"
        "      out.s[r] = (inp.i[r] >> 1) + a.shift\n"
        "    end\n"
        "  end,\n"
        "  lower = function(k, a)\n"
        "    local x, h, i, y, s = k.input.x, k.input.h, k.input.i, k.output.y, k.output.s\n"
        "    k:grid(x, 0, 1)\n"
        "    local first, last = k:tile()\n"
        "    local d = k:dim(x, 1)\n"
        "    k:loop(first, last, 1, function(r)\n"
        "      local row = k:mul(r, d)\n"
        "      k:loop(0, d, 1, function(c)\n"
        "        local at = k:add(row, c)\n"
        "        local sum = k:var(k:add(k:load(x, at), k:widen(k:load(h, at), 'f16')))\n"
        "        k:when(k:lt(0, 1 and k:const('i64', 1)), function() k:set(sum, k:add(k:get(sum), a.bias)) end,\n"
        "               function() k:set(sum, 0) end)\n"
        "        k:store(y, at, k:get(sum))\n"
        "      end)\n"
        "      k:store(s, r, k:add(k:shrs(k:load(i, r), 1), a.shift))\n"
        "    end)\n"
        "  end,\n"
        "  cases = { 'x:f32[n3,7] h:f16[n3,7] i:i32[n3]', 'x:f32[1,1] h:f16[1,1] i:i32[1] bias=2 shift=3' } }\n";
    world *w = world_new(NULL);
    setun_error err;
    (void)state;
    if (run_text(w, text, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    const setun_op *op = st_registry_find(w->r, "mixed");
    assert_non_null(op);
    assert_int_equal(op->n_attr, 3);
    assert_string_equal(op->attr[0].name, "bias");
    compare(op);
    world_free(w);
}

/* One mistake in each field. */
static void bad_ops(void **state)
{
#define FIELDS(doc, in, out, more) "setun.op 'o' { doc = " doc ", input = " in ", output = " out ", " more " }"
#define GOOD_EVAL "eval = function(x) return x end, "
#define GOOD_CASES "cases = {'x:f32[3]'}"
    static const char *const bad[][2] = {
        { "setun.op 'o' 'x'", "wants a table" },
        { "setun.op(1)", "an operator's name must be a string" },
        { "setun.op 'o' { dok = 1 }", "no field 'dok'" },
        { FIELDS("1", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL GOOD_CASES), "doc must be a string" },
        { FIELDS("'d'", "'x'", "{y='like x'}", GOOD_EVAL GOOD_CASES), "input must be a table" },
        { FIELDS("'d'", "{x='f33[...]'}", "{y='like x'}", GOOD_EVAL GOOD_CASES), "'f33[...]' is not a type" },
        { FIELDS("'d'", "{x='f32[a,,b]'}", "{y='like x'}", GOOD_EVAL GOOD_CASES), "is not a type" },
        { FIELDS("'d'", "{x='f32[a,b,c,d,e]'}", "{y='like x'}", GOOD_EVAL GOOD_CASES), "is not a type" },
        { FIELDS("'d'", "{x='f32[...]', z='f32[...]'}", "{y='like x'}", GOOD_EVAL GOOD_CASES), "without an order" },
        { FIELDS("'d'", "{{'x'}}", "{y='like x'}", GOOD_EVAL GOOD_CASES), "a type must be a string" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like z'}", GOOD_EVAL GOOD_CASES), "'like z' is not a type" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='f32[...]'}", GOOD_EVAL GOOD_CASES), "and there is no infer" },
        { FIELDS("'d'", "{x='f32[n]'}", "{y='f32[m]'}", "eval_all = function() end, " GOOD_CASES), "no input says" },
        { FIELDS("'d'", "{x='f32[n]'}", "{y='f32[n]'}", GOOD_EVAL GOOD_CASES), "must be like an input" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_CASES), "needs an eval" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", "eval = 1, " GOOD_CASES), "eval must be a function" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", "lower = 1, " GOOD_EVAL GOOD_CASES), "lower must be" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "cases = {}"), "cases must be a list" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "cases = {'x:f32'}"), "" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "cases = {'z:f32[3]'}"), "" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "attr = 3, " GOOD_CASES), "attr must be a table" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "attr = {a = {}}, " GOOD_CASES), "attribute a is a" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "tolerance = 'x', " GOOD_CASES), "tolerance must" },
        { FIELDS("'d'", "{x='f32[...]'}", "{y='like x'}", GOOD_EVAL "version = 0, " GOOD_CASES), "version must" },
        { "setun.op 'add' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'}, " GOOD_EVAL GOOD_CASES " }", "add" },
        { "setun.op 'Bad Name' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'}, " GOOD_EVAL GOOD_CASES " }",
          "setun.op Bad Name: t.lua: an operator has no usable name" },
    };
    world *w = world_new(&small);
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[600];
        (void)snprintf(text, sizeof text, "\n%s", bad[i][0]);
        refuse(w, text, "t.lua:2: ", bad[i][1]);
    }
    assert_null(st_registry_find(w->r, "o"));
    /* An empty dimension would be a division by zero in map. */
    refuse(w, "setun.op 'empty' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'}, " GOOD_EVAL
              "cases = {'x:f32[2,3,0]'} }\nlocal g = setun.graph()\ng:empty(g:input('x', 'f32[2,3,0]'))", "t.lua:", "");
    world_free(w);
}

/* Mistakes that show when eval or lower runs. */
static void bad_callbacks(void **state)
{
#define OP(name, eval, lower) "setun.op '" name "' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'},\n" \
        "eval = function(x, a) " eval " end,\nlower = function(k, a) " lower " end, cases = {'x:f32[7]'} }\n"
    static const struct { const char *name, *text, *eval_says, *lower_says; } bad[] = {
        { "a", OP("a", "return 'x'", ""), "t.lua:2: eval gave a string for y", NULL },
        { "b", OP("b", "return nil", ""), "eval gave a nil", NULL },
        { "c", OP("c", "return x.y", ""), "t.lua:2: attempt to index", NULL },
        { "d", OP("d", "while true do end", ""), "t.lua:2: the script ran more than", NULL },
        { "e", OP("e", "return x", "k:max(1, 2)"), NULL, "t.lua:3: one of the two must be a value" },
        { "f", OP("f", "return x", "k:grid(k.input.x, 0, 1) k:mux(1)"), NULL, "t.lua:3: a kernel has no method 'mux'" },
        { "g", OP("g", "return x", "k:add(k.input.x, k.input.x)"), NULL, "t.lua:3: kernel g" },
        { "h", OP("h", "return x", "k:add(k:const('i32', 1), k:const('i64', 1))"), NULL, "t.lua:3: kernel h" },
        { "i", OP("i", "return x", "k:add(k:const('i8', 1), 300)"), NULL, "t.lua:3: argument 2: 300 does not fit" },
        { "j", OP("j", "return x", "k:grid(k.input.x, 0, 1) k:grid(k.input.x, 0, 1)"), NULL, "set twice" },
        { "k", OP("k", "return x", "return"), NULL, "it has no grid" },
        { "w", OP("w", "return x", "k:load_pad(k.input.x, 0, 3, 24)"), NULL, "t.lua:3: load_pad: 24 lanes" },
        { "x", OP("x", "return x", "k:exp(k.input.x)"), NULL, "t.lua:3: kernel x" },
        { "y", OP("y", "return x", "k:splat(3, 4)"), NULL, "t.lua:3: argument 1 must be a value of the kernel" },
        { "l", OP("l", "return x", "k:load(k.input.x, 0, 1000)"), NULL, "t.lua:3: argument 3: 1000 lanes" },
        { "m", OP("m", "return x", "k:map(k.input.x, k.output.y, function(v) return nil end)"), NULL, "t.lua:3: " },
        { "n", OP("n", "return x", "k:map(k.output.y, k.input.x, function(v) return v end)"), NULL, "is not x" },
        { "o", OP("o", "return x", "while true do k:const('i64', 1) end"), NULL, "t.lua:3: kernel o has more than" },
        { "p", OP("p", "return x", "k:shuffle(k:const('f32x4', 0), k:const('f32x4', 0), {99})"), NULL, "t.lua:3: " },
        { "q", OP("q", "return x", "k:info('colour')"), NULL, "t.lua:3: info: 'colour'" },
        { "r", OP("r", "return x", "setun.graph()"), NULL, "t.lua:3: setun.graph cannot be used inside" },
        { "s", OP("s", "setun.op 'z' {} return x", "keep = k"), "t.lua:2: setun.op cannot be used inside", "no grid" },
        { "t", OP("t", "return x", "k.input = 3"), NULL, "t.lua:3: attempt to index" },
        { "u", OP("u", "return x", "keep = k") "setun.op 'v' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'}, "
          "eval = function(x) keep:tile() return x end, cases = {'x:f32[7]'} }", NULL, "no grid" },
    };
    world *w = world_new(&small);
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setun_error err = { 0 };
        st_case c;
        st_kir *k;
        st_target t;
        accept(w, bad[i].text);
        const setun_op *op = st_registry_find(w->r, bad[i].name);
        assert_non_null(op);
        st_target_generic(&t);
        assert_int_equal(st_case_make(op, op->cases[0], 1, w->arena, &c, &err), SETUN_OK);
        setun_status s = op->eval(&c.run, &err);
        if ((s == SETUN_OK) != !bad[i].eval_says || (s != SETUN_OK && !strstr(err.text, bad[i].eval_says)))
            fail_msg("%s\n  eval gives: %s", bad[i].text, err.text);
        s = st_kir_lower(&k, &c.shape, &t, w->arena, &err);
        if (bad[i].lower_says && (s >= SETUN_OK || !strstr(err.text, bad[i].lower_says)))
            fail_msg("%s\n  lower gives: %s\n  wants: %s", bad[i].text, err.text, bad[i].lower_says);
    }
    /* A kernel that outlives its lower is dead. */
    setun_error err = { 0 };
    st_case c;
    const setun_op *op = st_registry_find(w->r, "v");
    assert_int_equal(st_case_make(op, op->cases[0], 1, w->arena, &c, &err), SETUN_OK);
    assert_int_not_equal(op->eval(&c.run, &err), SETUN_OK);
    assert_non_null(strstr(err.text, "a kernel lives only while lower runs"));
    world_free(w);
}

/* After the script is closed its operators still infer, and refuse the rest with a sentence. */
static void after_close(void **state)
{
    world *w = world_new(&small);
    setun_error err = { 0 };
    st_case c;
    st_kir *k;
    st_target t;
    (void)state;
    accept(w, OP("late", "return x", "return false"));
    const setun_op *op = st_registry_find(w->r, "late");
    st_target_generic(&t);
    assert_int_equal(st_case_make(op, "x:f32[7]", 1, w->arena, &c, &err), SETUN_OK);
    assert_int_equal(st_kir_lower(&k, &c.shape, &t, w->arena, &err), SETUN_DECLINED);
    st_script_close(w->s);
    w->s = NULL;
    assert_int_equal(st_case_make(op, "x:f32[7]", 1, w->arena, &c, &err), SETUN_OK);
    assert_int_equal(op->eval(&c.run, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "it can be checked but not served"));
    assert_int_equal(st_kir_lower(&k, &c.shape, &t, w->arena, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "is closed"));
    world_free(w);
}

/* Memory that runs out anywhere while the state opens gives a sentence, not a crash. */
static void no_room(void **state)
{
    (void)state;
    for (int64_t bytes = 1000; bytes < 400000; bytes += bytes / 16) {
        st_script_limits l = { bytes, 0 };
        setun_error err = { 0 };
        st_arena *arena = st_arena_new();
        st_registry *r;
        st_script *s;
        assert_int_equal(st_registry_new(&r, &err), SETUN_OK);
        if (st_script_open(&s, LIB, r, arena, &l, &err) != SETUN_OK) {
            assert_null(s);
            assert_true(err.text[0] != 0);
        }
        st_script_close(s);
        st_registry_free(r);
        st_arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endless), cmocka_unit_test(memory), cmocka_unit_test(recursion),
        cmocka_unit_test(slow_functions), cmocka_unit_test(closed_doors), cmocka_unit_test(error_values),
        cmocka_unit_test(order), cmocka_unit_test(arena_limit), cmocka_unit_test(lua_files),
        cmocka_unit_test(example_ops), cmocka_unit_test(rich_op), cmocka_unit_test(bad_ops),
        cmocka_unit_test(bad_callbacks), cmocka_unit_test(after_close),
        cmocka_unit_test(no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

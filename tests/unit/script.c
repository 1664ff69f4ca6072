/* tests/unit/script.c -- the Lua world: attacks, messages, operators in Lua, the model scripts.
 *
 * Scripts that are tests in themselves lie in tests/lua; what they print and how they fail stands in
 * their comments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "codegen/kir.h"
#include "graph/registry.h"
#include "graph/rules.h"
#include "scripts/host.h"

#define LIB SETUN_SOURCE_DIR "/scripts"

typedef struct world {
    st_arena    *arena;
    st_registry *r;
    st_script   *s;
    st_str       printed;
    char         dir[256];
} world;

static void on_print(void *user, const char *text)
{
    st_str_addf(user, "%s\n", text);
}

static world *world_new(const st_script_limits *limits)
{
    world *w = calloc(1, sizeof *w);
    setun_error err = { 0 };
    assert_non_null(w);
    w->arena = st_arena_new();
    assert_int_equal(st_registry_new(&w->r, &err), SETUN_OK);
    for (int i = 0; st_builtin_ops[i]; i++)
        if (st_registry_add(w->r, st_builtin_ops[i], "built-in", &err) != SETUN_OK)
            fail_msg("%s", err.text);
    if (st_script_open(&w->s, LIB, w->r, w->arena, limits, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_script_on_print(w->s, on_print, &w->printed);
    (void)snprintf(w->dir, sizeof w->dir, "%s/script-XXXXXX", SETUN_BINARY_DIR);
    assert_non_null(mkdtemp(w->dir));
    return w;
}

static void world_free(world *w)
{
    char path[300];
    (void)snprintf(path, sizeof path, "%s/t.lua", w->dir);
    (void)unlink(path);
    (void)rmdir(w->dir);
    st_script_close(w->s);
    st_registry_free(w->r);
    st_arena_free(w->arena);
    st_str_free(&w->printed);
    free(w);
}

/* Write text as t.lua; returns its path. */
static const char *file_of(world *w, const void *text, size_t n)
{
    setun_error err = { 0 };
    st_out *o;
    char *path = st_arena_printf(w->arena, "%s/t.lua", w->dir);
    assert_non_null(path);
    assert_int_equal(st_out_open(&o, path, 0, &err), SETUN_OK);
    assert_int_equal(st_out_write(o, text, (int64_t)n, &err), SETUN_OK);
    assert_int_equal(st_out_commit(o, &err), SETUN_OK);
    return path;
}

static setun_status run_text(world *w, const char *text, setun_error *err)
{
    memset(err, 0, sizeof *err);
    return st_script_ops(w->s, file_of(w, text, strlen(text)), err);
}

/* text must fail with a sentence that begins with start and contains part. */
static void refuse(world *w, const char *text, const char *start, const char *part)
{
    setun_error err;
    if (run_text(w, text, &err) == SETUN_OK)
        fail_msg("ran, but should not: %s", text);
    if (err.code != SETUN_BAD_SCRIPT || strncmp(err.text, start, strlen(start)) != 0 || !strstr(err.text, part) ||
        strchr(err.text, '\n'))
        fail_msg("script: %.300s\n  gives: %s\n  wants: %s ... %s", text, err.text, start, part);
}

static void accept(world *w, const char *text)
{
    setun_error err;
    if (run_text(w, text, &err) != SETUN_OK)
        fail_msg("%s\n  gives: %s", text, err.text);
}

/* ---------------------------------------------------------------- attacks */

static const st_script_limits small = { .memory_bytes = 32 << 20, .steps = 3000000 };

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
        { FIELDS("'d'", "{x='f32[...]'}", "{y='f32[...]'}", GOOD_EVAL GOOD_CASES), "is not a type" },
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

/* ---------------------------------------------------------------- models */

/* A model that exists only as names and sizes. */
typedef struct fake {
    int64_t     vocab, hidden, heads, kv_heads, head_dim, ffn;
    int         is_ternary, tied;
    const char *lie;  /* a tensor whose first size is one too many */
    int64_t     n_taken;
    int32_t     least_zeros;
} fake;

static int fake_view(const fake *f, const char *name, setun_view *v)
{
    const struct { const char *end; int64_t rows, columns; } rows[] = {
        { "embed_tokens.weight", f->vocab, f->hidden },
        { "lm_head.weight", f->tied ? 0 : f->vocab, f->hidden },
        { "model.norm.weight", f->hidden, 0 },
        { "input_layernorm.weight", f->hidden, 0 },
        { "post_attention_layernorm.weight", f->hidden, 0 },
        { "attn_sub_norm.weight", f->heads * f->head_dim, 0 },
        { "ffn_sub_norm.weight", f->ffn, 0 },
        { "q_proj.weight", f->heads * f->head_dim, f->hidden },
        { "k_proj.weight", f->kv_heads * f->head_dim, f->hidden },
        { "v_proj.weight", f->kv_heads * f->head_dim, f->hidden },
        { "o_proj.weight", f->hidden, f->heads * f->head_dim },
        { "gate_proj.weight", f->ffn, f->hidden },
        { "up_proj.weight", f->ffn, f->hidden },
        { "down_proj.weight", f->hidden, f->ffn },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(name), m = strlen(rows[i].end);
        if (n < m || strcmp(name + n - m, rows[i].end) != 0 || !rows[i].rows)
            continue;
        *v = (setun_view){ NULL, SETUN_BF16, rows[i].columns ? 2 : 1, { rows[i].rows, 1, 1, 1 } };
        v->dim[1] = rows[i].columns ? rows[i].columns : 1;
        if (f->lie && strcmp(f->lie, name) == 0)
            v->dim[0]++;
        return 1;
    }
    return 0;
}

static int fake_has(void *user, const char *name)
{
    setun_view v;
    return fake_view(user, name, &v);
}

static setun_status fake_tensor(void *user, const char *name, uint32_t want, setun_view *view, setun_error *err)
{
    fake *f = user;
    if (!fake_view(f, name, view))
        return setun_fail(err, SETUN_BAD_FILE, "model.safetensors: there is no tensor '%s'", name);
    if (want)
        view->dtype = want;
    f->n_taken++;
    return SETUN_OK;
}

static setun_status fake_ternary(void *user, const char *name, int32_t zeros, setun_view *codes, setun_view *scale,
                                 int32_t *across, setun_error *err)
{
    fake *f = user;
    if (!f->is_ternary || strstr(name, "embed_tokens") || strstr(name, "lm_head"))
        return SETUN_DECLINED;
    if (!fake_view(f, name, codes))
        return setun_fail(err, SETUN_BAD_FILE, "model.safetensors: there is no tensor '%s'", name);
    codes->dtype = SETUN_T2;
    *across = zeros >= f->least_zeros;
    if (*across) {
        int64_t rows = codes->dim[0];
        codes->dim[0] = codes->dim[1];
        codes->dim[1] = rows;
    }
    *scale = (setun_view){ NULL, SETUN_F32, 1, { 1, 1, 1, 1 } };
    f->n_taken++;
    return SETUN_OK;
}

#define HP_INT(k, v) { .key = k, .kind = ST_HP_INT, .i = v }
#define HP_FLOAT(k, v) { .key = k, .kind = ST_HP_FLOAT, .f = v }
#define HP_BOOL(k, v) { .key = k, .kind = ST_HP_BOOL, .i = v }
#define HP_STRING(k, v) { .key = k, .kind = ST_HP_STRING, .s = v }
#define HP_NULL(k) { .key = k, .kind = ST_HP_NULL }

/* The configuration of the 2B4T model with small sizes, then room for more keys. */
static const st_hparam bitnet_hp[24] = {
    HP_STRING("architectures.1", "BitNetForCausalLM"), HP_STRING("auto_map.AutoConfig", "x.BitNetConfig"),
    HP_INT("bos_token_id", 1), HP_INT("eos_token_id", 2), HP_STRING("hidden_act", "relu2"), HP_INT("hidden_size", 256),
    HP_FLOAT("initializer_range", 0.02), HP_INT("intermediate_size", 384), HP_INT("max_position_embeddings", 64),
    HP_STRING("model_type", "bitnet"), HP_INT("num_attention_heads", 4), HP_INT("num_hidden_layers", 2),
    HP_INT("num_key_value_heads", 2), HP_FLOAT("rms_norm_eps", 1e-5), HP_FLOAT("rope_theta", 500000.0),
    HP_BOOL("tie_word_embeddings", 1), HP_STRING("torch_dtype", "bfloat16"), HP_BOOL("use_cache", 1),
    HP_INT("vocab_size", 300), HP_STRING("quantization_config.quant_method", "bitnet"), HP_NULL("rope_scaling"),
    HP_INT("generation.eos_token_id.1", 2),
};
#define N_BITNET_HP 22

typedef struct trial {
    fake            f;
    st_hparam       hp[32];
    st_script_model m;
    const char     *arch, *file;
    st_graph       *g;
    const char     *path;
    setun_error     err;
} trial;

static void trial_init(trial *t)
{
    memset(t, 0, sizeof *t);
    t->f = (fake){ 300, 256, 4, 2, 64, 384, 1, 1, NULL, 0, INT32_MAX };
    memcpy(t->hp, bitnet_hp, sizeof bitnet_hp);
    t->m = (st_script_model){ NULL, NULL, N_BITNET_HP, 64, SETUN_F32, fake_has, fake_tensor, fake_ternary };
    t->arch = "BitNetForCausalLM";
}

static st_hparam *key_of(trial *t, const char *key)
{
    for (int64_t i = 0; i < t->m.n_hp; i++)
        if (strcmp(t->hp[i].key, key) == 0)
            return &t->hp[i];
    t->hp[t->m.n_hp].key = key;
    return &t->hp[t->m.n_hp++];
}

static void set(trial *t, const char *key, st_hparam v)
{
    st_hparam *p = key_of(t, key);
    v.key = key;
    *p = v;
}

static setun_status build(world *w, trial *t)
{
    t->m.user = &t->f;
    t->m.hp = t->hp;
    return st_script_model_build(w->s, t->file, t->arch, &t->m, &t->g, &t->path, &t->err);
}

static void build_fails(world *w, trial *t, const char *part)
{
    if (build(w, t) == SETUN_OK)
        fail_msg("built, but wants: %s", part);
    if (!strstr(t->err.text, part))
        fail_msg("gives: %s\n  wants: %s", t->err.text, part);
    assert_null(t->g);
}

/* A graph that differs is left in the build directory, to be looked at and, if right, copied. */
static void compare_golden(const char *text, const char *name)
{
    char path[1000], made[1000], *want = NULL;
    setun_error err = { 0 };
    int64_t n;
    st_out *o;
    (void)snprintf(path, sizeof path, "%s/tests/golden/%s", SETUN_SOURCE_DIR, name);
    (void)snprintf(made, sizeof made, "%s/%s", SETUN_BINARY_DIR, name);
    (void)st_file_read(path, 1 << 20, &want, &n, &err);
    if (!want || strcmp(text, want) != 0) {
        assert_int_equal(st_out_open(&o, made, 0, &err), SETUN_OK);
        assert_int_equal(st_out_write(o, text, (int64_t)strlen(text), &err), SETUN_OK);
        assert_int_equal(st_out_commit(o, &err), SETUN_OK);
        free(want);
        fail_msg("%s and %s differ", path, made);
    }
    free(want);
}

static void bitnet(void **state)
{
    world *w = world_new(NULL);
    trial t;
    (void)state;
    trial_init(&t);
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_non_null(strstr(t.path, "models/bitnet_b158.lua"));
    if (st_graph_verify(t.g, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_int_equal(t.f.n_taken, 2 + 2 * (7 + 4)); /* every tensor once; the head is tied */
    st_str text = { 0 };
    st_graph_print(t.g, &text);
    assert_false(text.failed);
    compare_golden(text.text, "bitnet_tiny.graph");
    /* Equal nodes are made once: three quantisations of one input become one. */
    st_graph *simple;
    if (st_graph_simplify(t.g, w->r, w->arena, &simple, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    if (st_graph_verify(simple, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_true(simple->n_node < t.g->n_node);
    /* The same script gives the same graph in another state. */
    world *w2 = world_new(NULL);
    trial t2;
    trial_init(&t2);
    assert_int_equal(build(w2, &t2), SETUN_OK);
    st_str text2 = { 0 };
    st_graph_print(t2.g, &text2);
    assert_string_equal(text.text, text2.text);
    st_str_free(&text);
    st_str_free(&text2);
    world_free(w2);
    world_free(w);
}

static void bitnet_refusals(void **state)
{
    static const struct { const char *key; st_hparam v; const char *says; } bad[] = {
        { "hidden_act", HP_STRING("", "gelu"), "bitnet_b158.lua:14: config.json: hidden_act is 'gelu', but" },
        { "foo", HP_INT("", 3), "config.json: key 'foo' = 3 is not understood by bitnet_b158.lua" },
        { "sliding.window", HP_FLOAT("", 0.5), "config.json: key 'sliding.window' = 0.5 is not understood" },
        { "logit_scale", HP_STRING("", "big"), "config.json: key 'logit_scale' = \"big\" is not" },
        { "attention_bias", HP_BOOL("", 1), "attention_bias is true" },
        { "hidden_size", HP_INT("", 0), "hidden_size must be a whole number from 1 on, it is 0" },
        { "hidden_size", HP_FLOAT("", 256.5), "hidden_size must be a whole number" },
        { "hidden_size", HP_NULL(""), "hidden_size must be a whole number from 1 on, it is missing" },
        { "hidden_size", HP_INT("", 254), "does not divide into 4 heads" },
        { "num_key_value_heads", HP_INT("", 3), "4 heads do not share 3" },
        { "num_hidden_layers", HP_INT("", INT64_MAX), "" },
        { "rms_norm_eps", HP_STRING("", "x"), "rms_norm_eps must be a number above 0" },
        { "rope_theta", HP_FLOAT("", 0.0), "rope_theta must be a number above 0" },
        { "vocab_size", HP_INT("", 299), "tensor token_embd is bf16[300,256], but config.json makes it [299,256]" },
        { "intermediate_size", HP_INT("", 385), "config.json makes it [385,256]" },
        { "rope_scaling.type", HP_STRING("", "yarn"), "rope_scaling of type 'yarn'" },
        { "rope_scaling", HP_STRING("", "linear"), "rope_scaling is 'linear', not an object" },
        { "rope_scaling.new", HP_INT("", 1), "config.json: key 'rope_scaling.new' = 1 is not understood" },
        { "tie_word_embeddings", HP_BOOL("", 0), "there is no tensor 'lm_head.weight'" },
    };
    world *w = world_new(NULL);
    trial t;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        trial_init(&t);
        if (strncmp(bad[i].key, "rope_scaling.", 13) == 0)
            key_of(&t, "rope_scaling")->key = "use_cache";
        set(&t, bad[i].key, bad[i].v);
        build_fails(w, &t, bad[i].says);
    }
    trial_init(&t);
    t.f.lie = "model.layers.1.self_attn.o_proj.weight";
    build_fails(w, &t, "tensor blk.1.attn_out is t2[257,256], but config.json makes it [256,256]");
    trial_init(&t);
    t.arch = "MysteryForCausalLM";
    build_fails(w, &t, "is for the architecture 'MysteryForCausalLM'; there are BitNetForCausalLM (bitnet_b158.lua), "
                       "LlamaForCausalLM (llama.lua)");
    world_free(w);
}

static void to_llama(trial *t)
{
    trial_init(t);
    t->arch = "LlamaForCausalLM";
    set(t, "hidden_act", (st_hparam)HP_STRING("", "silu"));
    set(t, "model_type", (st_hparam)HP_STRING("", "llama"));
    set(t, "mlp_bias", (st_hparam)HP_BOOL("", 0));
}

static int count_ops(const st_graph *g, const char *name)
{
    int n = 0;
    for (uint32_t i = 0; i < g->n_node; i++)
        n += strcmp(g->node[i].op->name, name) == 0;
    return n;
}

/* Which matrices come transposed is decided by what the graph tells about their inputs, and everything else
 * stays as it was. */
static void transposed(void **state)
{
    static const struct { int is_llama; int32_t least; int64_t n; } want[] = {
        { 0, ST_ZEROS_RELU, 2 }, { 0, ST_ZEROS_GATED, 2 }, { 1, ST_ZEROS_RELU, 0 }, { 1, ST_ZEROS_GATED, 2 }};
    world *w = world_new(NULL);
    trial t;
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        if (want[i].is_llama)
            to_llama(&t);
        else
            trial_init(&t);
        t.f.least_zeros = want[i].least;
        if (build(w, &t) != SETUN_OK)
            fail_msg("%s", t.err.text);
        assert_int_equal(count_ops(t.g, "ternary_matmul_t"), want[i].n);
        assert_int_equal(count_ops(t.g, "ternary_matmul"), 14 - want[i].n);
        for (int layer = 0; layer < 2; layer++) {
            char name[64];
            (void)snprintf(name, sizeof name, "blk.%d.ffn_down%s", layer, want[i].n ? ".t" : "");
            st_value_id v = st_graph_find(t.g, name);
            assert_int_not_equal(v, ST_NO_ID);
            assert_int_equal(t.g->value[v].view.dim[0], want[i].n ? 384 : 256);
            assert_int_equal(t.g->value[v].view.dim[1], want[i].n ? 256 : 384);
        }
    }
    world_free(w);
}

static void llama(void **state)
{
    world *w = world_new(NULL);
    trial t;
    (void)state;
    to_llama(&t);
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_int_equal(count_ops(t.g, "ternary_matmul"), 14);
    assert_int_equal(count_ops(t.g, "matmul"), 1);
    assert_int_equal(count_ops(t.g, "rmsnorm"), 5);
    /* floats, an untied head, a head size of its own, scaled rotary positions */
    to_llama(&t);
    t.f.is_ternary = t.f.tied = 0;
    t.f.head_dim = 32;
    set(&t, "tie_word_embeddings", (st_hparam)HP_BOOL("", 0));
    set(&t, "head_dim", (st_hparam)HP_INT("", 32));
    key_of(&t, "rope_scaling")->key = "rope_scaling.rope_type";
    set(&t, "rope_scaling.rope_type", (st_hparam)HP_STRING("", "llama3"));
    set(&t, "rope_scaling.factor", (st_hparam)HP_FLOAT("", 8.0));
    set(&t, "rope_scaling.low_freq_factor", (st_hparam)HP_FLOAT("", 1.0));
    set(&t, "rope_scaling.high_freq_factor", (st_hparam)HP_FLOAT("", 4.0));
    set(&t, "rope_scaling.original_max_position_embeddings", (st_hparam)HP_INT("", 32));
    t.m.kv_dtype = SETUN_F16;
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    if (st_graph_verify(t.g, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_int_equal(count_ops(t.g, "ternary_matmul"), 0);
    assert_int_equal(count_ops(t.g, "matmul"), 15);
    assert_int_equal(t.f.n_taken, 3 + 2 * 9);
    st_str text = { 0 };
    st_graph_print(t.g, &text);
    assert_non_null(strstr(text.text, "scaling=\"llama3\" factor=8"));
    assert_non_null(strstr(text.text, "state blk.1.v f16[2,64,32]"));
    st_str_free(&text);
    /* the newer spelling */
    to_llama(&t);
    key_of(&t, "rope_theta")->key = "rope_parameters.rope_theta";
    set(&t, "rope_parameters.rope_type", (st_hparam)HP_STRING("", "default"));
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    st_graph_print(t.g, &text);
    assert_non_null(strstr(text.text, "rope_table {theta=5e+05 dim=64"));
    st_str_free(&text);
    to_llama(&t);
    key_of(&t, "rope_scaling")->key = "rope_scaling.type";
    set(&t, "rope_scaling.type", (st_hparam)HP_STRING("", "linear"));
    build_fails(w, &t, "rope_scaling.factor must be a number above 0, it is missing");
    set(&t, "rope_scaling.factor", (st_hparam)HP_INT("", 2));
    assert_int_equal(build(w, &t), SETUN_OK);
    to_llama(&t);
    set(&t, "hidden_act", (st_hparam)HP_STRING("", "gelu"));
    build_fails(w, &t, "llama.lua:12: config.json: hidden_act is 'gelu', but this script computes only silu");
    to_llama(&t);
    set(&t, "mlp_bias", (st_hparam)HP_BOOL("", 1));
    build_fails(w, &t, "mlp_bias is true");
    world_free(w);
}

/* Scripts of the user's own. */
static void own_scripts(void **state)
{
#define MODEL(body) "return setun.model { architectures = {'X'}, build = function(g, hp)\n" body "\nend }"
    static const char *const bad[][2] = {
        { "return 1", "t.lua: a model script ends with return setun.model" },
        { "return setun.model {}", "t.lua:1: setun.model: architectures must be a list" },
        { "return setun.model { architectures = {1}, build = print }", "t.lua:1: architectures must be a string" },
        { "return setun.model { architectures = {'X'} }", "build must be a function" },
        { "return setun.model { architectures = {'X'}, build = print, layers = 3 }", "no field 'layers'" },
        { MODEL(""), "t.lua: build made no output" },
        { MODEL("g:rmsnrom(1)"), "t.lua:2: there is no operator or method 'rmsnrom'" },
        { MODEL("g.relu2(1)"), "t.lua:2: call methods of a graph with a colon" },
        { MODEL("g:relu2()"), "t.lua:2: relu2: input x is missing" },
        { MODEL("g:relu2(3)"), "t.lua:2: relu2: input x is number" },
        { MODEL("g:relu2(g:input 'tokens')"), "t.lua:2: relu2: x is i32[n]" },
        { MODEL("g:input 'x'"), "t.lua:2: input: a model has the inputs" },
        { MODEL("g:input('tokens', 'f32[n]')"), "t.lua:2: input: the inputs of a model have fixed types" },
        { MODEL("g:rmsnorm(g:input 'tokens', g:input 'tokens')"), "t.lua:2: rmsnorm: attribute eps is missing" },
        { MODEL("g:rmsnorm(g:input 'tokens', g:input 'tokens', {eps = 'x'})"), "t.lua:2: rmsnorm: attribute eps must be" },
        { MODEL("g:rmsnorm(g:input 'tokens', g:input 'tokens', {eps = 1, esp = 2})"), "t.lua:2: rmsnorm has no attribute 'esp'" },
        { MODEL("g:relu2(g:input 'tokens', 4, 5)"), "t.lua:2: relu2 takes 1 inputs" },
        { MODEL("local x = g:input 'tokens' + 1"), "t.lua:2: add works on two values" },
        { MODEL("g:weight 'model.embed_tokens.weight' g:output('y', g:scope 'b':weight('x'))"), "t.lua:2: model.safetensors: there is no tensor 'b.x'" },
        { MODEL("g:weight('model.norm.weight', 'i8')"), "t.lua:2: weight: a tensor is converted to f32 or not at all" },
        { MODEL("g:state('s', 'f32', {0})"), "t.lua:2: size 1 is not a number from 1 on" },
        { MODEL("g:state('s', 'f32', {1 << 62, 1 << 62})"), "t.lua:2: " },
        { MODEL("g:state('s', 'f9', {1})"), "'f9' is not an element type" },
        { MODEL("g:state('s', 'f32', {4}) g:state('s', 'f32', {4})"), "t.lua:2: " },
        { MODEL("g:scope('%s', 1)"), "t.lua:2: scope: " },
        { MODEL("g:scope('%d')"), "t.lua:2: scope: " },
        { MODEL("g:scope(('x'):rep(1000))"), "t.lua:2: scope: the name is longer" },
        { MODEL("hp.x.y = 1"), "t.lua:2: attempt to index a nil" },
        { MODEL("g:const('c', 'i32', {2}, {1, 2.5})"), "t.lua:2: const: value 2" },
        { MODEL("g:const('c', 'f32', {3}, {1, 2})"), "t.lua:2: const: the values must be a list of 3" },
        { MODEL("for i = 1, 1e9 do g:scope('a%d', i):state('s', 'f32', {1}) end"), "t.lua:2: " },
        { MODEL("g:output('y', setun.graph():input('x', 'f32[2]'))"), "t.lua:2: output: input y belongs to another graph" },
        { "return setun.model { architectures = {'X'}, names = {['a.%d'] = 'x.%d.%d'}, build = function(g)\n"
          "g:weight 'a.3' end }", "t.lua:2: the script's names have 'x.%d.%d' for 'a.%d'" },
        { "return setun.model { architectures = {'X'}, names = {}, build = function(g)\ng:weight 'a.3' end }",
          "t.lua:2: the script's names have no entry 'a.%d'" },
        { "return setun.model { architectures = {'X'}, names = {a = 'model.norm.weight', b = 'model.norm.weight'},\n"
          "build = function(g) g:weight 'a' g:weight 'b' end }", "t.lua:2: tensor 'model.norm.weight' is already used as a" },
    };
    world *w = world_new(&small);
    trial t;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        trial_init(&t);
        t.file = file_of(w, bad[i][0], strlen(bad[i][0]));
        build_fails(w, &t, bad[i][1]);
    }
    /* What a script keeps of a finished build is dead, and its tables are its own. */
    static const char keep[] =
        "kept = kept or {}\nlocal def = { architectures = {'X'}, names = {['a.%d'] = 'model.layers.%d.input_layernorm.weight'},\n"
        "ignore = {'generation.*'}, build = function(g, hp)\n"
        "  kept.g, kept.hp = g, hp\n  local v = hp.num_hidden_layers + hp.n_ctx assert(hp.kv == 'f32')\n"
        "  local x = g:embed(g:const('c', 'f32', {2, 2}, {1, 2, 3, 4}), g:input 'tokens')\n"
        "  assert(x.shape == 'f32[n,2]' and x.dtype == 'f32' and x.dims[1] == 'n' and x.dims[2] == 2)\n"
        "  local n = g:weight('a.7', 'f32') assert(n.shape == 'f32[256]' and g:has 'a.7')\n"
        "  kept.x = x\n  g:output('y', x * x) end }\n"
        "local m = setun.model(def)\ndef.build, def.names, def.architectures = 1, 2, 3\n"
        "setun.op 'probe' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'}, cases = {'x:f32[1]'},\n"
        "eval = function(x)\n"
        "  for _, f in pairs { function() return kept.g:input 'tokens' end, function() return kept.hp.n_ctx end,\n"
        "    function() return kept.x.shape end, function() return kept.x + kept.x end } do\n"
        "    local ok, why = pcall(f) assert(not ok and why:find 'finished' or why:find 'gone', why) end\n"
        "  return x end }\nreturn m";
    trial_init(&t);
    t.file = file_of(w, keep, strlen(keep));
    build_fails(w, &t, "is not understood by t.lua");
    t.m.n_hp = 0;
    set(&t, "num_hidden_layers", (st_hparam)HP_INT("", 2));
    world *w2 = world_new(&small);
    if (build(w2, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    setun_error err = { 0 };
    st_case c;
    const setun_op *op = st_registry_find(w2->r, "probe");
    assert_int_equal(st_case_make(op, "x:f32[1]", 1, w2->arena, &c, &err), SETUN_OK);
    if (op->eval(&c.run, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    world_free(w2);
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
        cmocka_unit_test(bad_callbacks), cmocka_unit_test(after_close), cmocka_unit_test(bitnet),
        cmocka_unit_test(bitnet_refusals), cmocka_unit_test(llama), cmocka_unit_test(transposed), cmocka_unit_test(own_scripts),
        cmocka_unit_test(no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

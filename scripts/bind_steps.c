/* scripts/bind_steps.c -- kernel = function(k, code): how kernels decode a field, written by hand in a packing's part.
 *
 *     kernel = function(k, code)
 *       local d = k.more(code, 8) + k.more(code, 17)        -- 255 or 0, as bytes: 0, -1 or -2
 *       return 0 - d, ...
 *     end
 *
 * The function runs once, on bytes that only note what is done with them; what comes out is the text of
 * setun/packing_steps.h, which is compared with the declaration for every code when it is read (bind_packing.c).  So
 * nothing of the script is needed in kernels, and no branch of it can depend on a code. */
#include <stdio.h>
#include <string.h>

#include "scripts/bind.h"
#include "setun/packing_steps.h"

#define BYTE "setun.packing.byte"
#define LONGEST 40 /* of one step's text */

typedef struct recorder {
    uint32_t n, over;               /* steps so far, with the code; it has ended */
    uint8_t  number[256];           /* the step that is this number; 0: none yet */
    size_t   len;
    char     text[SETUN_PACKING_STEPS * LONGEST + 64];
} recorder;

typedef struct byte { /* user value 1: the recorder, so that it lives as long */
    recorder *r;
    uint32_t  step;
} byte;

static void note(lua_State *L, recorder *r, const char *text)
{
    if (r->over)
        st_bind_fail(L, "kernel has ended: its bytes are of no use any more");
    if (r->n == SETUN_PACKING_STEPS)
        st_bind_fail(L, "kernel takes more than %d steps", SETUN_PACKING_STEPS - 1);
    r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, "%s%s", r->n > 1 ? "," : "", text);
    r->n++;
}

/* Who is noted in the byte at one of the first two indices. */
static recorder *recorder_of(lua_State *L, int n)
{
    for (int i = 1; i <= n; i++) {
        const byte *b = luaL_testudata(L, i, BYTE);
        if (b)
            return b->r;
    }
    st_bind_fail(L, "one of the operands must be a byte: the code, or what was made of it");
    return NULL;
}

/* The step that is the value at index i. */
static uint32_t operand(lua_State *L, recorder *r, int i)
{
    const byte *b = luaL_testudata(L, i, BYTE);
    char text[LONGEST];
    int whole = 0;
    lua_Integer v = lua_type(L, i) == LUA_TNUMBER ? lua_tointegerx(L, i, &whole) : 0;
    if (b && b->r != r)
        st_bind_fail(L, "a byte of another kernel cannot be used here");
    if (b)
        return b->step;
    if (!whole || v < 0 || v > 255)
        st_bind_fail(L, "an operand is %s; bytes and whole numbers from 0 to 255 are wanted", luaL_tolstring(L, i, NULL));
    if (!r->number[v]) {
        (void)snprintf(text, sizeof text, "k%d", (int)v);
        note(L, r, text);
        r->number[v] = (uint8_t)(r->n - 1);
    }
    return r->number[v];
}

/* Push the byte that the newest step made; one that came before is at index i. */
static int push_byte(lua_State *L, recorder *r, uint32_t step, int i)
{
    byte *b = lua_newuserdatauv(L, sizeof *b, 1);
    *b = (byte){ r, step };
    if (luaL_testudata(L, i, BYTE))
        lua_getiuservalue(L, i, 1);
    else
        lua_pushvalue(L, i);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, BYTE);
    return 1;
}

static int push_newest(lua_State *L, recorder *r)
{
    int i = 1;
    while (!luaL_testudata(L, i, BYTE))
        i++;
    return push_byte(L, r, r->n - 1, i);
}

/* upvalue 1: the sign of the step. */
static int two(lua_State *L)
{
    char text[LONGEST];
    const char *sign = lua_tostring(L, lua_upvalueindex(1));
    recorder *r = recorder_of(L, 2);
    uint32_t a = operand(L, r, 1), b = operand(L, r, 2);
    (void)snprintf(text, sizeof text, "%s%u.%u", sign, a, b);
    note(L, r, text);
    return push_newest(L, r);
}

static int shift(lua_State *L)
{
    char text[LONGEST];
    const char *sign = lua_tostring(L, lua_upvalueindex(1));
    recorder *r = recorder_of(L, 1);
    int whole;
    lua_Integer n = lua_tointegerx(L, 2, &whole);
    if (!whole || n < 0 || n > 7)
        return st_bind_fail(L, "a byte is shifted by 0 to 7, not by %s", luaL_tolstring(L, 2, NULL));
    (void)snprintf(text, sizeof text, "%s%u.%d", sign, operand(L, r, 1), (int)n);
    note(L, r, text);
    return push_newest(L, r);
}

static int choose(lua_State *L)
{
    char text[LONGEST];
    recorder *r = recorder_of(L, 3);
    uint32_t m = operand(L, r, 1), a = operand(L, r, 2), b = operand(L, r, 3);
    (void)snprintf(text, sizeof text, "?%u.%u.%u", m, a, b);
    note(L, r, text);
    return push_newest(L, r);
}

/* look_up({ 16 numbers }, byte) */
static int look_up(lua_State *L)
{
    char text[LONGEST + 8];
    lua_settop(L, 2);
    const byte *b = luaL_testudata(L, 2, BYTE);
    if (!b || !lua_istable(L, 1) || lua_rawlen(L, 1) != 16)
        return st_bind_fail(L, "look_up wants a list of 16 numbers and a byte");
    text[0] = 't';
    for (int i = 0; i < 16; i++, lua_pop(L, 1)) {
        int whole;
        lua_rawgeti(L, 1, i + 1);
        lua_Integer v = lua_tointegerx(L, -1, &whole);
        if (!whole || v < 0 || v > 255)
            return st_bind_fail(L, "entry %d of look_up is %s; whole numbers from 0 to 255 are wanted", i + 1, luaL_tolstring(L, -1, NULL));
        (void)snprintf(text + 1 + 2 * i, 3, "%02x", (unsigned)v);
    }
    (void)snprintf(text + 33, sizeof text - 33, ".%u", b->step);
    note(L, b->r, text);
    return push_newest(L, b->r);
}

static void set_closure(lua_State *L, const char *name, const char *sign, lua_CFunction fn)
{
    lua_pushstring(L, sign);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

/* The function at `fn` becomes text, which is pushed. */
void st_bind_steps(lua_State *L, int fn, uint32_t digits)
{
    char text[LONGEST];
    int top = lua_gettop(L);
    recorder *r = lua_newuserdatauv(L, sizeof *r, 0);
    memset(r, 0, sizeof *r);
    r->n = 1;
    lua_pushvalue(L, fn);
    lua_newtable(L);
    set_closure(L, "more", "g", two);
    set_closure(L, "equal", "=", two);
    set_closure(L, "choose", "?", choose);
    set_closure(L, "look_up", "t", look_up);
    push_byte(L, r, 0, top + 1);
    lua_call(L, 2, LUA_MULTRET);
    if (lua_gettop(L) - top - 1 != (int)digits)
        st_bind_fail(L, "kernel gives %d values; %d bytes are wanted, one for each digit", lua_gettop(L) - top - 1, (int)digits);
    uint32_t at[16] = { 0 };
    for (uint32_t i = 0; i < digits; i++)
        at[i] = operand(L, r, top + 2 + (int)i);
    for (uint32_t i = 0; i < digits; i++) {
        (void)snprintf(text, sizeof text, "%s%u", i ? "." : ":", at[i]);
        r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, "%s", text);
    }
    r->over = 1;
    lua_pushfstring(L, "!%s", r->text);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
}

void st_bind_steps_open(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const struct { const char *name, *sign; } signs[] = {
        { "__add", "+" }, { "__sub", "-" }, { "__band", "&" }, { "__bor", "|" }, { "__bxor", "^" } };
    st_bind_class(L, BYTE, none, NULL);
    luaL_getmetatable(L, BYTE);
    for (size_t i = 0; i < SETUN_LEN(signs); i++)
        set_closure(L, signs[i].name, signs[i].sign, two);
    set_closure(L, "__shl", "<", shift);
    set_closure(L, "__shr", ">", shift);
    lua_pop(L, 1);
}

/* scripts/bind_packing.c -- setun.packing: how weights lie in bytes, declared in a script.
 *
 *     return setun.packing "base3" {
 *       doc      = "five trits in a byte",
 *       alphabet = { -1, 0, 1 },
 *       unit     = 160, bytes = 32,                              -- checked, not needed
 *       quantise = { "absmean", per = "matrix" },                -- how floats get into it
 *       { fields = 32, bits = 8, digits = 5, base = "fraction", order = "strided" },
 *     }
 *
 * The list part has the parts of a unit in the order of its bytes; one may be { scale = "f16" }.  What a script says
 * becomes the text of setun/packing.h, an attribute of packed_matmul, so nothing of the script is needed once it
 * has run: a decode function is called here, for every code, and becomes a table.  But a function that quantises is kept, and
 * called for the values of each scale while matrices are packed.  Text that is right so far is read
 * after every part, so that a sentence about what is wrong names the part.
 * Not here: packing anything, kernels, tests (runtime/). */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "scripts/bind.h"
#include "setun/packing.h"

#define PACKING "setun.packing"

typedef struct declared {
    lua_State    *L;
    const char   *name;
    int           part;      /* that is read now, from 1; 0: the whole */
    int           n_weights; /* parts that hold weights */
    char          text[SETUN_PACKING_TEXT];
    size_t        len;
    setun_packing p;         /* what the text says so far */
} declared;

/* Raise "base3.lua:4: packing base3, part 2: sentence". */
static void refuse(const declared *d, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (d->part)
        st_bind_fail(d->L, "packing %s, part %d: %s", d->name, d->part, text);
    st_bind_fail(d->L, "packing %s: %s", d->name, text);
}

static void say(declared *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->text + d->len, sizeof d->text - d->len, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof d->text - d->len)
        refuse(d, "the tables of all parts together are too long");
    d->len += (size_t)n;
}

/* The value at the top as a message calls it: 128 and the text '128' are told apart.  Stays on the stack. */
static const char *shown(lua_State *L)
{
    if (lua_type(L, -1) == LUA_TSTRING)
        return lua_pushfstring(L, "the text '%s'", lua_tostring(L, -1));
    return lua_type(L, -1) == LUA_TNUMBER ? luaL_tolstring(L, -1, NULL) : lua_pushfstring(L, "a %s", luaL_typename(L, -1));
}

static int is_word(const char *word, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(word, list[i]) == 0)
            return 1;
    return 0;
}

/* What a part that holds weights can say. */
static const char *const part_fields[] = { "base", "bits", "bytes", "columns", "decode", "digits", "encode", "fields", "first",
                                           "from", "kernel", "order", "planes", "sparse", "table" };

static void check_fields(const declared *d, int table, const char *const *known, size_t n, const char *list)
{
    lua_State *L = d->L;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_isinteger(L, -2) && !d->part)
            continue;
        if (lua_type(L, -2) == LUA_TNUMBER)
            refuse(d, "it has %s without a name: a part is { fields = 64, bits = 2 }, in one pair of braces", shown(L));
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        if (is_word(key, known, n))
            continue;
        int is_scale = strcmp(key, "scale") == 0;
        if (!d->part && (is_scale || is_word(key, part_fields, SETUN_LEN(part_fields))))
            refuse(d, "'%s' is of a part, which has braces of its own: %s", key, is_scale ? "{ scale = \"f16\" }" : "{ fields = 64, bits = 2 }");
        refuse(d, "there is no field '%.40s'; there are %s", key, list);
    }
}

/* Field `key` of the table as a whole number in [low, high], or fallback where it is absent. */
static int64_t number(const declared *d, int table, const char *key, int64_t low, int64_t high, int64_t fallback)
{
    lua_State *L = d->L;
    int whole, have = lua_getfield(L, table, key) != LUA_TNIL;
    lua_Integer v = lua_tointegerx(L, -1, &whole);
    if (have && (!whole || lua_type(L, -1) != LUA_TNUMBER || v < low || v > high))
        refuse(d, "%s is %s; a whole number from %lld to %lld is wanted", key, shown(L),
               (long long)low, (long long)high);
    lua_settop(L, lua_gettop(L) - 1);
    return have ? v : fallback;
}

/* Is the field there, and which of two words is it?  0 for the first, which is also the default. */
static int choice(const declared *d, int table, const char *key, const char *a, const char *b)
{
    lua_State *L = d->L;
    int type = lua_getfield(L, table, key);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        refuse(d, "%s is %s; it is \"%s\" or \"%s\"", key, shown(L), a, b);
    const char *v = type == LUA_TNIL ? a : lua_tostring(L, -1);
    if (strcmp(v, a) && strcmp(v, b))
        refuse(d, "%s is '%.40s'; it is \"%s\" or \"%s\"", key, v, a, b);
    int second = strcmp(v, b) == 0;
    lua_pop(L, 1);
    return second;
}

static int has(const declared *d, int table, const char *key)
{
    int is = lua_getfield(d->L, table, key) != LUA_TNIL;
    lua_pop(d->L, 1);
    return is;
}

/* The text so far, as C reads it.  Without a part that holds weights it is no packing yet: the smallest is lent to it. */
static void read_text(declared *d)
{
    static const char lent[] = "; bits 8x1 7";
    char text[sizeof d->text + sizeof lent];
    setun_error err;
    (void)snprintf(text, sizeof text, "%s%s", d->text, d->n_weights ? "" : lent);
    if (setun_packing_read(&d->p, text, &err) != SETUN_OK)
        refuse(d, "%s", err.text);
}

/* ---------------------------------------------------------------- levels */

/* alphabet = { -1, 0, 1 }, or levels = 16 with zero = 8: the number that stands for 0. */
static void read_alphabet(declared *d)
{
    lua_State *L = d->L;
    int64_t levels = number(d, 1, "levels", 2, SETUN_PACKING_LEVELS, 0), zero = number(d, 1, "zero", 0, 127, 0);
    if (levels && zero >= levels)
        refuse(d, "zero = %d, but the %d levels are the numbers 0 to %d: zero is the one that stands for 0", (int)zero, (int)levels, (int)levels - 1);
    int type = lua_getfield(L, 1, "alphabet");
    if (type == LUA_TNIL && levels) {
        say(d, "levels %d:%d", (int)-zero, (int)(levels - 1 - zero));
    } else if (type == LUA_TTABLE && !levels && !has(d, 1, "zero")) {
        int64_t n = (int64_t)lua_rawlen(L, -1);
        say(d, "levels");
        for (int64_t i = 1; i <= n; i++, lua_pop(L, 1)) {
            int whole;
            lua_rawgeti(L, -1, i);
            lua_Integer v = lua_tointegerx(L, -1, &whole);
            if (!whole || v < -127 || v > 127)
                refuse(d, "entry %d of alphabet is %s; whole numbers from -127 to 127 are wanted (scales make them weights)", (int)i,
                       luaL_tolstring(L, -1, NULL));
            say(d, " %d", (int)v);
        }
        if (n < 2)
            refuse(d, "alphabet has %d entries; two at least are wanted", (int)n);
    } else {
        refuse(d, "what a digit can be is said by alphabet = { -1, 0, 1 }, or by levels = 16, zero = 8: one of the two");
    }
    lua_settop(L, 1);
    read_text(d);
}

static int level_number(const declared *d, lua_Integer v)
{
    for (int32_t i = 0; i < d->p.n_level; i++)
        if (d->p.level[i] == v)
            return i;
    return -1;
}

/* ---------------------------------------------------------------- tables */

typedef struct rows {
    uint8_t  digit[128][SETUN_PACKING_DIGITS]; /* level numbers */
    uint8_t  known[128];
    uint32_t n;
} rows;

/* The list at the top of the stack as digits of a row; pops it. */
static void read_row(const declared *d, rows *r, uint32_t row, uint32_t digits, const char *what)
{
    lua_State *L = d->L;
    if (!lua_istable(L, -1) || lua_rawlen(L, -1) != digits)
        refuse(d, "%s %u is no list of %u digit%s such as { %d%s }, but %s", what, row, digits, digits == 1 ? "" : "s", d->p.level[0],
               digits == 1 ? "" : ", ...", lua_istable(L, -1) ? lua_pushfstring(L, "one of %d", (int)lua_rawlen(L, -1)) : shown(L));
    for (uint32_t i = 0; i < digits; i++) {
        int whole;
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        lua_Integer v = lua_tointegerx(L, -1, &whole);
        int level = whole ? level_number(d, v) : -1;
        if (level < 0)
            refuse(d, "%s %u: digit %u is %s, which is not in the alphabet", what, row, i + 1, luaL_tolstring(L, -1, NULL));
        r->digit[row][i] = (uint8_t)level;
        lua_pop(L, 1);
    }
    r->known[row] = 1;
    lua_pop(L, 1);
}

/* A level in no row is a mistake in the table, or too much in the alphabet; weights would silently become others. */
static void check_levels(const declared *d, const rows *r, uint32_t digits)
{
    for (int32_t level = 0; level < d->p.n_level; level++) {
        int there = 0;
        for (uint32_t i = 0; i < r->n * digits; i++)
            there |= r->known[i / digits] && r->digit[i / digits][i % digits] == level;
        if (!there)
            refuse(d, "no code stands for the level %d, so no weight could be that: give it one, or take %d out of the alphabet", d->p.level[level],
                   d->p.level[level]);
    }
}

static void from_table(const declared *d, int part, rows *r, uint32_t width, uint32_t digits)
{
    lua_State *L = d->L;
    lua_getfield(L, part, "table");
    if (!lua_istable(L, -1) || lua_rawlen(L, -1) < 1 || lua_rawlen(L, -1) > (size_t)1 << width)
        refuse(d, "table is not a list of 1 to %u rows, which is what %u bits can tell", 1u << width, width);
    r->n = (uint32_t)lua_rawlen(L, -1);
    for (uint32_t i = 0; i < r->n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        read_row(d, r, i, digits, "row");
    }
    lua_pop(L, 1);
    check_levels(d, r, digits);
}

/* encode(d1, d2, ...) of every row that decode gives must be a code that decode gives those digits for. */
static void check_encode(const declared *d, int part, const rows *r, uint32_t digits)
{
    lua_State *L = d->L;
    char was[80] = "", is[80] = "";
    for (uint32_t c = 0; c < r->n; c++) {
        int whole, ok = 1;
        if (!r->known[c])
            continue;
        lua_getfield(L, part, "encode");
        for (uint32_t i = 0; i < digits; i++)
            lua_pushinteger(L, d->p.level[r->digit[c][i]]);
        lua_call(L, (int)digits, 1);
        lua_Integer v = lua_tointegerx(L, -1, &whole);
        for (uint32_t i = 0; i < digits; i++) {
            (void)snprintf(was + strlen(was), sizeof was - strlen(was), " %d", (int)d->p.level[r->digit[c][i]]);
            int there = whole && v >= 0 && v < r->n && r->known[v];
            ok &= there && r->digit[v][i] == r->digit[c][i];
            (void)snprintf(is + strlen(is), sizeof is - strlen(is), there ? " %d" : " ?", there ? (int)d->p.level[r->digit[v][i]] : 0);
        }
        if (!ok)
            refuse(d, "decode disagrees with encode: encode of%s gives %s, and decode of that gives%s; one of the two is wrong", was,
                   luaL_tolstring(L, -1, NULL), is);
        was[0] = is[0] = 0;
        lua_pop(L, 1);
    }
}

/* decode(code) for every code; nil says that a code is never written. */
static void from_decode(const declared *d, int part, rows *r, uint32_t width, uint32_t digits)
{
    lua_State *L = d->L;
    uint32_t first = 1u << width;
    r->n = 1u << width;
    for (uint32_t c = r->n; c-- > 0;) {
        if (lua_getfield(L, part, "decode") != LUA_TFUNCTION)
            refuse(d, "decode is not a function of a code");
        lua_pushinteger(L, c);
        lua_call(L, 1, 1);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        read_row(d, r, c, digits, "decode of code");
        first = c;
    }
    if (first == r->n)
        refuse(d, "decode knows no code");
    check_levels(d, r, digits);
    if (has(d, part, "encode"))
        check_encode(d, part, r, digits);
    for (uint32_t c = 0; c < r->n; c++) /* the first of equal rows is the one that is written */
        if (!r->known[c])
            memcpy(r->digit[c], r->digit[first], sizeof r->digit[c]);
}

/* sparse = "3:4": three of four digits are not 0.  The code says which are 0 and what the others are; where the
 * levels are -1, 0 and 1 its upper half is the lower half with all signs turned, which kernels make of it so. */
static void from_sparse(const declared *d, int part, rows *r, uint32_t width, uint32_t digits)
{
    lua_State *L = d->L;
    const char *text = lua_getfield(L, part, "sparse") == LUA_TSTRING ? lua_tostring(L, -1) : "";
    int some = 0, of = 0, zero = level_number(d, 0);
    char rest;
    if (sscanf(text, "%d:%d%c", &some, &of, &rest) != 2 || some < 1 || of <= some || of != (int)digits)
        refuse(d, "sparse is '%.40s'; \"3:4\" says that 3 of the 4 digits of a field are not 0, with digits = 4", text);
    if (zero < 0)
        refuse(d, "sparse needs 0 in the alphabet");
    lua_pop(L, 1);
    uint32_t others = (uint32_t)d->p.n_level - 1, ways = 1, n = 0;
    for (int i = 1; i < some; i++)
        ways *= others < 128 ? others : 128;
    for (uint32_t first = 0; first < others; first++) /* the level of the first digit that is not 0 */
        for (uint32_t mask = 0; mask < 1u << of; mask++) {
            int bits = 0;
            for (int i = 0; i < of; i++)
                bits += (int)(mask >> i & 1);
            if (bits != some)
                continue;
            for (uint32_t way = 0; way < ways; way++, n++) {
                if (n >= 1u << width)
                    refuse(d, "%d of %d digits with %u other levels are more than %u bits can tell", some, of, others, width);
                uint32_t left = way, seen = 0;
                for (int i = 0; i < of; i++) {
                    uint32_t other = seen == 0 ? first : left % others;
                    if (mask >> i & 1) {
                        left = seen++ ? left / others : left;
                        if (d->p.n_level == 3 && seen > 1 && first) /* turned, as the lower half is */
                            other = 1 - other;
                        r->digit[n][i] = (uint8_t)(other + (other >= (uint32_t)zero));
                    } else {
                        r->digit[n][i] = (uint8_t)zero;
                    }
                }
            }
        }
    r->n = n;
}

/* ---------------------------------------------------------------- parts */

static void read_scale(declared *d, int part)
{
    static const char *const known[] = { "per", "scale" };
    lua_State *L = d->L;
    check_fields(d, part, known, SETUN_LEN(known), "scale and per, in the part of a scale");
    lua_getfield(L, part, "scale");
    if (lua_type(L, -1) != LUA_TSTRING)
        refuse(d, "scale is %s; it is \"f16\", \"bf16\" or \"f32\"", shown(L));
    const char *type = lua_tostring(L, -1);
    if (!setun_packing_float(type))
        refuse(d, "scale is '%.40s'; it is \"f16\", \"bf16\" or \"f32\"", type);
    say(d, "; scale %s%s", type, choice(d, part, "per", "unit", "row") ? " row" : "");
    lua_pop(L, 1);
}

/* bits = 5, or planes = { 4, 1 }; the sum is returned and the words are in out. */
static uint32_t read_width(const declared *d, int part, char *out, size_t cap)
{
    lua_State *L = d->L;
    int64_t bits = number(d, part, "bits", 1, 8, 0), sum = 0;
    out[0] = 0;
    if (lua_getfield(L, part, "planes") == LUA_TTABLE) {
        for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, -1); i <= n && i <= 8; i++) {
            int whole;
            lua_rawgeti(L, -1, i);
            lua_Integer w = lua_tointegerx(L, -1, &whole);
            if (!whole || w < 1 || w > 8)
                refuse(d, "entry %d of planes is %s; the bits of a plane are from 1 to 8", (int)i, luaL_tolstring(L, -1, NULL));
            (void)snprintf(out + strlen(out), cap - strlen(out), "%s%d", sum ? "+" : "", (int)w);
            sum += w;
            lua_pop(L, 1);
        }
    } else if (!lua_isnil(L, -1)) {
        refuse(d, "planes is not a list such as { 4, 1 }");
    }
    lua_pop(L, 1);
    if (!sum && bits)
        (void)snprintf(out, cap, "%d", (int)bits);
    sum = sum ? sum : bits;
    if (!sum || sum > 8)
        refuse(d, sum ? "its planes have %d bits together; a field has at most 8" : "bits = 2 says how many bits a field has "
               "(or planes = { 4, 1 }, when they do not lie together)", (int)sum);
    if (bits && bits != sum)
        refuse(d, "bits is %d, but planes are %d together", (int)bits, (int)sum);
    return (uint32_t)sum;
}

static uint32_t read_fields(const declared *d, int part, uint32_t width)
{
    int64_t fields = number(d, part, "fields", 1, SETUN_PACKING_UNIT, 0), bytes = number(d, part, "bytes", 1, SETUN_PACKING_UNIT, 0);
    if (!fields && !bytes)
        refuse(d, "fields = 32 says how many fields it has, or bytes = 32 how many bytes");
    if (!fields && bytes * 8 % width)
        refuse(d, "%d bytes are not whole fields of %u bits; write how many fields there are", (int)bytes, width);
    if (fields && bytes && fields * width != bytes * 8)
        refuse(d, "fields and bytes disagree: %d fields of %u bits are %g bytes, not %d", (int)fields, width,
               (double)(fields * width) / 8.0, (int)bytes);
    return (uint32_t)(fields ? fields : bytes * 8 / width);
}

static void read_part(declared *d, int part)
{
    static const char *const ways[] = { "base", "decode", "sparse", "table" };
    rows r;
    char planes[40];
    const char *coding = "bits";
    if (has(d, part, "scale")) {
        read_scale(d, part);
        return;
    }
    check_fields(d, part, part_fields, SETUN_LEN(part_fields), "fields, bytes, bits, planes, digits, base, table, sparse, decode, encode, kernel, "
                 "order, columns, first and from; or scale");
    uint32_t width = read_width(d, part, planes, sizeof planes), fields = read_fields(d, part, width);
    uint32_t digits = (uint32_t)number(d, part, "digits", 1, SETUN_PACKING_DIGITS, 1);
    int n_way = 0, is_table = 0;
    for (size_t i = 0; i < SETUN_LEN(ways); i++)
        if (has(d, part, ways[i])) {
            n_way++;
            is_table = i > 0;
        }
    if (n_way > 1 || (n_way == 0 && digits > 1))
        refuse(d, n_way ? "base, table, sparse and decode are four ways to say what a code means: choose one" :
               "a field of %u digits needs base = \"fraction\" or \"integer\", or a table, sparse or decode", digits);
    if (has(d, part, "encode") && !has(d, part, "decode"))
        refuse(d, "encode is there to be compared with decode, which is missing");
    memset(&r, 0, sizeof r);
    if (is_table && width > 7)
        refuse(d, "a field with a table has at most 7 bits, not %u", width);
    if (n_way && !is_table)
        coding = choice(d, part, "base", "fraction", "integer") ? "integer" : "fraction";
    else if (is_table)
        coding = "table";
    if (has(d, part, "table"))
        from_table(d, part, &r, width, digits);
    else if (has(d, part, "decode"))
        from_decode(d, part, &r, width, digits);
    else if (has(d, part, "sparse"))
        from_sparse(d, part, &r, width, digits);
    d->n_weights++;
    int strided = choice(d, part, "order", "packed", "strided");
    int apart = has(d, part, "columns") ? choice(d, part, "columns", "packed", "strided") : strided;
    say(d, "; %s %ux%u %s%s%s%s%s", coding, fields, digits, planes, strided && strcmp(planes, "8") ? " strided" : "",
        choice(d, part, "from", "low", "high") ? " down" : "", apart && digits > 1 ? " apart" : "",
        choice(d, part, "first", "high", "low") ? " low" : "");
    if (is_table) {
        say(d, " =");
        for (uint32_t i = 0; i < r.n; i++)
            for (uint32_t j = 0; j < digits; j++)
                say(d, "%x", (unsigned)r.digit[i][j]);
    }
    int kernel = lua_getfield(d->L, part, "kernel");
    if (kernel == LUA_TFUNCTION) {
        st_bind_steps(d->L, lua_gettop(d->L), digits);
        say(d, " %s", lua_tostring(d->L, -1));
        lua_pop(d->L, 1);
    } else if (kernel != LUA_TNIL) {
        refuse(d, "kernel is not a function of k and the code, as bytes, which gives the digits as bytes");
    }
    lua_pop(d->L, 1);
}

/* ---------------------------------------------------------------- the whole */

/* What the script says of the whole must be what its parts are. */
static void check_whole(const declared *d)
{
    const setun_packing *p = &d->p;
    int64_t unit = number(d, 1, "unit", 1, 1 << 20, 0), bytes = number(d, 1, "bytes", 1, 1 << 20, 0);
    int64_t group = number(d, 1, "group", 1, 1 << 20, 0);
    if (!d->n_weights)
        refuse(d, "it has no part that holds weights: add { fields = 64, bits = 2 }");
    if (unit && unit != p->digits)
        refuse(d, "unit says %d weights, but its parts hold %u: fields times digits of every part must add up to it",
               (int)unit, p->digits);
    if (bytes && bytes != p->bytes)
        refuse(d, "bytes says %d, but its parts take %u: fields times bits of every part, and the scale, must add up to it", (int)bytes,
               p->bytes);
    if (group && !p->scale)
        refuse(d, "group = %d says that so many weights share a scale, but no part holds it: add { scale = \"f16\" }, or leave group out "
               "and scales are kept apart", (int)group);
    if (group && group != p->digits)
        refuse(d, "group = %d, but the scale in a unit is that of the unit's %u weights: make units of %d", (int)group, p->digits,
               (int)group);
}

/* ---------------------------------------------------------------- from floats */

static int32_t read_per(const declared *d, int table)
{
    static const char *const words[] = { "matrix", "row", "unit" };
    const setun_packing *p = &d->p;
    int32_t per = 0, fallback = p->scale ? ST_PER_UNIT : p->row_scale ? ST_PER_ROW : ST_PER_MATRIX;
    lua_State *L = d->L;
    if (!table || lua_getfield(L, table, "per") == LUA_TNIL)
        return fallback;
    const char *v = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    while (per < 3 && strcmp(v, words[per]))
        per++;
    if (per == 3)
        refuse(d, "per in quantise is '%.40s'; a scale is for a \"matrix\", a \"row\" or a \"unit\"", v);
    if (per == ST_PER_UNIT && p->row_scale)
        refuse(d, "quantise makes a scale for each unit, but the packing keeps one for each row: say per = \"row\" here, or leave "
               "it out of the scale's part");
    return per;
}

/* quantise = "absmean", { "absmax", per = "row" }, or a function in the place of the word. */
static void read_quantise(const declared *d, st_script_rule *rule)
{
    static const char *const known[] = { "per" };
    lua_State *L = d->L;
    int is_table = lua_getfield(L, 1, "quantise") == LUA_TTABLE, top = lua_gettop(L), negative = 0, positive = 0;
    if (is_table) {
        check_fields(d, top, known, SETUN_LEN(known), "per, behind the rule, as in { \"absmax\", per = \"row\" }");
        lua_rawgeti(L, top, 1);
    } else if (lua_isnil(L, top)) {
        lua_settop(L, 1);
        return;
    }
    for (int32_t i = 0; i < d->p.n_level; i++) {
        negative |= d->p.level[i] < 0;
        positive |= d->p.level[i] > 0;
    }
    const char *word = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
    rule->kind = lua_isfunction(L, -1) ? ST_RULE_SCRIPT : strcmp(word, "absmean") == 0 ? ST_RULE_ABSMEAN : ST_RULE_ABSMAX;
    if (rule->kind == ST_RULE_ABSMAX && strcmp(word, "absmax"))
        refuse(d, "quantise is '%.40s'; it is \"absmean\", \"absmax\" or a function of a list of values, which gives digits and a scale", word);
    if (rule->kind == ST_RULE_ABSMAX && !(negative && positive))
        refuse(d, "absmax needs digits on both sides of 0: no scale brings all values into this alphabet");
    if (rule->kind == ST_RULE_SCRIPT) {
        lua_pushvalue(L, -1);
        rule->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    rule->per = read_per(d, is_table ? top : 0);
    if (rule->kind == ST_RULE_SCRIPT && rule->per == ST_PER_MATRIX)
        refuse(d, "a function that quantises gets the values of a unit or a row, not of a matrix: say quantise = { f, per = \"unit\" }");
    lua_settop(L, 1);
}

typedef struct quantise_call {
    const st_script_packing *p;
    const setun_packing *is;
    const float *x;
    int64_t      n;
    const char  *what;
    int8_t      *digit;
    float       *scale;
} quantise_call;

static uint32_t stored_type(const setun_packing *p) { return p->scale ? p->scale : p->row_scale; }

/* The second argument of the script's function: a scale as it will be stored.  upvalue 1: its type. */
static int keep_scale(lua_State *L)
{
    int is_number;
    double scale = lua_tonumberx(L, 1, &is_number);
    if (!is_number)
        return st_bind_fail(L, "a scale must be a number, not %s", luaL_typename(L, 1));
    lua_pushnumber(L, (double)setun_packing_keep_scale((uint32_t)lua_tointeger(L, lua_upvalueindex(1)), (float)scale));
    return 1;
}

static int call_quantise(lua_State *L)
{
    const quantise_call *c = lua_touserdata(L, 1);
    uint8_t known[256] = { 0 };
    for (int32_t i = 0; i < c->is->n_level; i++)
        known[(uint8_t)(int8_t)c->is->level[i]] = 1;
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->p->quantise.ref);
    st_bind_place(L);
    lua_createtable(L, (int)c->n, 0);
    for (int64_t i = 0; i < c->n; i++) {
        lua_pushnumber(L, (double)c->x[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushinteger(L, stored_type(c->is));
    lua_pushcclosure(L, keep_scale, 1);
    lua_call(L, 2, 2);
    if (!lua_istable(L, -2) || lua_rawlen(L, -2) != (size_t)c->n)
        return st_bind_fail(L, "%s: quantise gives a %s of %I; a list of %I digits is wanted, one for each value, and then a scale", c->what,
                            luaL_typename(L, -2), lua_istable(L, -2) ? (lua_Integer)lua_rawlen(L, -2) : 0, (lua_Integer)c->n);
    int is_number = lua_type(L, -1) == LUA_TNUMBER;
    *c->scale = is_number ? setun_packing_keep_scale(stored_type(c->is), (float)lua_tonumber(L, -1)) : 0.0f;
    if (!is_number || !__builtin_isfinite(*c->scale))
        return st_bind_fail(L, "%s: quantise gives the scale %s; as it is stored it must be a finite number", c->what,
                            is_number ? lua_tostring(L, -1) : luaL_typename(L, -1));
    lua_pop(L, 1);
    for (int64_t i = 0; i < c->n; i++, lua_pop(L, 1)) {
        int whole;
        lua_rawgeti(L, -1, i + 1);
        lua_Integer v = lua_tointegerx(L, -1, &whole);
        if (!whole || v < -127 || v > 127 || !known[(uint8_t)(int8_t)v])
            return st_bind_fail(L, "%s: quantise gives %s as digit %I, which is not in the alphabet", c->what,
                                luaL_tolstring(L, -1, NULL), (lua_Integer)i + 1);
        c->digit[i] = (int8_t)v;
    }
    return 0;
}

setun_status st_script_quantise(st_script *s, const st_script_packing *p, const setun_packing *is, const float *x, int64_t n,
                                const char *what, int8_t *digit, float *scale, setun_error *err)
{
    quantise_call c = { p, is, x, n, what, digit, scale };
    int was = s->callback;
    s->callback = 1; /* neither graphs nor operators belong into it */
    setun_status st = st_bind_call(s, call_quantise, &c, p->name, err);
    s->callback = was;
    return st;
}

static int packing_index(lua_State *L)
{
    const st_script_packing *p = *(const st_script_packing **)luaL_checkudata(L, 1, PACKING);
    const char *key = st_bind_text(L, 2, "a field's name");
    setun_packing is;
    setun_error err;
    if (setun_packing_read(&is, p->text, &err) != SETUN_OK)
        return st_bind_error(L, &err);
    if (strcmp(key, "name") == 0)
        lua_pushstring(L, p->name);
    else if (strcmp(key, "text") == 0)
        lua_pushstring(L, p->text);
    else if (strcmp(key, "unit") == 0)
        lua_pushinteger(L, is.digits);
    else if (strcmp(key, "bytes") == 0)
        lua_pushinteger(L, is.bytes);
    else if (strcmp(key, "bits_per_weight") == 0)
        lua_pushnumber(L, setun_packing_bits(&is));
    else
        return st_bind_fail(L, "a packing has name, text, unit, bytes and bits_per_weight, and no '%s'", key);
    return 1;
}

const st_script_packing *st_bind_packing(lua_State *L, int i)
{
    st_script_packing **p = luaL_testudata(L, i, PACKING);
    return p ? *p : NULL;
}

/* upvalue 1: the name; argument 1: the table */
static int define(lua_State *L)
{
    static const char *const fields[] = { "alphabet", "bytes", "doc", "group", "levels", "quantise", "unit", "zero" };
    st_script *s = st_bind_script(L);
    const char *name = lua_tostring(L, lua_upvalueindex(1));
    char where[80];
    lua_settop(L, 1);
    st_bind_no_callback(L, "setun.packing");
    if (!lua_istable(L, 1) || lua_getmetatable(L, 1))
        return st_bind_fail(L, "setun.packing \"%s\" wants a table", name);
    st_bind_charge(L, (int64_t)sizeof(declared));
    declared *d = st_arena_alloc(s->arena, sizeof *d);
    st_script_packing *made = st_arena_alloc(s->arena, sizeof *made);
    if (!d || !made)
        return st_bind_fail(L, "out of memory");
    d->L = L;
    d->name = name;
    check_fields(d, 1, fields, SETUN_LEN(fields), "doc, alphabet, levels, zero, unit, bytes, group, quantise, and a list of parts");
    read_alphabet(d);
    for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, 1); i <= n; i++) {
        d->part = (int)i;
        if (lua_rawgeti(L, 1, i) != LUA_TTABLE)
            refuse(d, "it is a %s, not a table such as { fields = 64, bits = 2 }", luaL_typename(L, -1));
        read_part(d, lua_gettop(L));
        lua_settop(L, 1);
        read_text(d);
    }
    d->part = 0;
    check_whole(d);
    read_quantise(d, &made->quantise);
    st_bind_where(L, where, sizeof where);
    lua_getfield(L, 1, "doc");
    made->name = st_arena_strdup(s->arena, name);
    made->doc = st_arena_strdup(s->arena, lua_isnil(L, -1) ? "" : st_bind_text(L, -1, "doc"));
    made->text = st_arena_strdup(s->arena, d->text);
    made->where = st_arena_strdup(s->arena, where);
    if (!made->name || !made->doc || !made->text || !made->where)
        return st_bind_fail(L, "out of memory");
    made->next = s->packings;
    s->packings = made;
    *(st_script_packing **)lua_newuserdatauv(L, sizeof made, 0) = made;
    luaL_setmetatable(L, PACKING);
    return 1;
}

/* setun.packing "name" { ... } */
static int l_packing(lua_State *L)
{
    const char *name = st_bind_text(L, 1, "a packing's name");
    if (!*name || strlen(name) > 96 ||
        strlen(name) != strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")) /* kernels are called so */
        return st_bind_fail(L, "a packing's name is 1 to 96 letters, digits, '_', '.' and '-', and \"%s\" is not", name);
    lua_settop(L, 1);
    lua_pushcclosure(L, define, 1);
    return 1;
}

void st_bind_packing_open(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const luaL_Reg own[] = { { "packing", l_packing }, { NULL, NULL } };
    st_bind_class(L, PACKING, none, packing_index);
    st_bind_steps_open(L);
    luaL_setfuncs(L, own, 0);
}

const st_script_packing *st_script_packings(const st_script *s)
{
    return s->packings;
}

/* model/npy.c -- see npy.h.
 *
 * The header is a literal of Python.  Read is the part of Python's grammar that a dict of a string, a truth value
 * and a tuple of whole numbers needs: keys in any order, either kind of quotes, white space between words, a comma
 * before a closing bracket.  Not here: structured types, Python objects, complex numbers, arrays stored columns first. */
#include "model/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "setun/numerics.h"

static const char magic[] = "\x93NUMPY";
#define MAGIC 6
#define ALIGN 64
#define MOST_HEADER 65535 /* what format 1.0 can say; later ones could say 4 GB */

/* ---------------------------------------------------------------- writing */

const char *st_npy_type(uint32_t dtype)
{
    switch (dtype) {
    case SETUN_F32: case SETUN_BF16: return "<f4";
    case SETUN_F16: return "<f2";
    case SETUN_I8: return "|i1";
    case SETUN_U8: return "|u1";
    case SETUN_I16: return "<i2";
    case SETUN_I32: return "<i4";
    case SETUN_I64: return "<i8";
    default: return NULL;
    }
}

/* Bytes of an element in the file: the digit of its type. */
static int64_t width_of(uint32_t dtype) { return st_npy_type(dtype)[2] - '0'; }

/* The whole header; its length is returned.  Four dimensions of 19 digits need less than 160 characters. */
static int64_t make_header(const setun_view *v, char header[4 * ALIGN])
{
    size_t cap = 4 * ALIGN, n = MAGIC + 4;
    n += (size_t)snprintf(header + n, cap - n, "{'descr': '%s', 'fortran_order': False, 'shape': (", st_npy_type(v->dtype));
    for (uint32_t i = 0; i < v->rank; i++) /* a tuple of one number needs its comma */
        n += (size_t)snprintf(header + n, cap - n, i + 1 < v->rank ? "%" PRId64 ", " : v->rank == 1 ? "%" PRId64 "," : "%" PRId64, v->dim[i]);
    n += (size_t)snprintf(header + n, cap - n, "), }");
    size_t all = (n + 1 + ALIGN - 1) / ALIGN * ALIGN;
    memset(header + n, ' ', all - n);
    header[all - 1] = '\n';
    memcpy(header, magic, MAGIC);
    header[6] = 1;
    header[7] = 0;
    header[8] = (char)((all - 10) & 255);
    header[9] = (char)((all - 10) >> 8);
    return (int64_t)all;
}

int64_t st_npy_bytes(const setun_view *v)
{
    char header[4 * ALIGN];
    return st_npy_type(v->dtype) ? make_header(v, header) + setun_count(v) * width_of(v->dtype) : -1;
}

/* Elements first .. first + n - 1, least significant byte first. */
static void encode(const setun_view *v, int64_t first, int64_t n, uint8_t *to)
{
    const uint8_t *from = (const uint8_t *)v->data + first * setun_row_bytes(v->dtype, 1);
    int64_t width = width_of(v->dtype);
    for (int64_t i = 0; i < n; i++, to += width) {
        uint64_t bits = from[i];
        uint16_t two;
        uint32_t four;
        if (v->dtype == SETUN_BF16) {
            memcpy(&two, from + 2 * i, 2);
            bits = (uint64_t)two << 16;
        } else if (width == 2) {
            memcpy(&two, from + 2 * i, 2);
            bits = two;
        } else if (width == 4) {
            memcpy(&four, from + 4 * i, 4);
            bits = four;
        } else if (width == 8) {
            memcpy(&bits, from + 8 * i, 8);
        }
        for (int64_t b = 0; b < width; b++)
            to[b] = (uint8_t)(bits >> 8 * b);
    }
}

setun_status st_npy_save(const char *path, const setun_view *v, int durable, setun_error *err)
{
    enum { PART = 4096 };
    char header[4 * ALIGN];
    uint8_t bytes[8 * PART];
    st_out *o = NULL;
    if (!st_npy_type(v->dtype))
        return st_fail(err, SETUN_UNKNOWN, "%s: NumPy has no type for blocks of packed weights", path);
    int64_t count = setun_count(v), n = make_header(v, header);
    setun_status st = st_out_open(&o, path, durable, err);
    if (st == SETUN_OK)
        st = st_out_write(o, header, n, err);
    for (int64_t i = 0; i < count && st == SETUN_OK; i += PART) {
        n = count - i < PART ? count - i : PART;
        encode(v, i, n, bytes);
        st = st_out_write(o, bytes, n * width_of(v->dtype), err);
    }
    if (st == SETUN_OK)
        return st_out_commit(o, err);
    st_out_abort(o);
    return st;
}

/* ---------------------------------------------------------------- reading: the literal */

typedef struct reader {
    const char  *p, *end; /* of the literal */
    const char  *path;
    setun_error *err;
} reader;

static setun_status refuse(const reader *r, const char *what)
{
    return st_fail(r->err, SETUN_BAD_FILE, "%s: the header of the array %s", r->path, what);
}

static void skip_space(reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

static int take(reader *r, char c)
{
    skip_space(r);
    if (r->p == r->end || *r->p != c)
        return 0;
    r->p++;
    return 1;
}

static int take_word(reader *r, const char *word)
{
    size_t n = strlen(word);
    skip_space(r);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n))
        return 0;
    r->p += n;
    return 1;
}

/* A string without escapes; 0: there is none. */
static int take_string(reader *r, const char **text, size_t *n)
{
    skip_space(r);
    if (r->p == r->end || (*r->p != '\'' && *r->p != '"'))
        return 0;
    const char *stop = memchr(r->p + 1, *r->p, (size_t)(r->end - r->p - 1));
    if (!stop || memchr(r->p, '\\', (size_t)(stop - r->p)) || memchr(r->p, '\n', (size_t)(stop - r->p)))
        return 0;
    *text = r->p + 1;
    *n = (size_t)(stop - *text);
    r->p = stop + 1;
    return 1;
}

static setun_status read_type(reader *r, st_npy *a)
{
    static const char *const known[] = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"};
    const char *text;
    size_t n, i = 0, n_known = sizeof known / sizeof known[0];
    skip_space(r);
    if (r->p < r->end && *r->p == '[')
        return refuse(r, "says that its elements have fields ('descr' is a list); save one plain array for each");
    if (!take_string(r, &text, &n))
        return refuse(r, "does not give 'descr', the type, as a string");
    while (i < n_known && (n != 3 || memcmp(text + 1, known[i], 2)))
        i++;
    if (i == n_known || !strchr("<>|", text[0]) || (text[0] == '|' && text[2] != '1')) {
        for (i = 0; i < n; i++) /* it goes to a terminal */
            if (text[i] < ' ' || text[i] > '~')
                return refuse(r, "has a type that is not known");
        return st_fail(r->err, SETUN_UNKNOWN, "%s: the array's type '%.*s' is not known; read are f2, f4, f8, i1 to i8, u1 to u8 and b1 "
                       "in either byte order: save others (bfloat16, say) as float32", r->path, n > 40 ? 40 : (int)n, text);
    }
    a->kind = text[1];
    a->width = (uint32_t)(text[2] - '0');
    a->order = a->width == 1 ? '|' : text[0];
    return SETUN_OK;
}

static setun_status read_order(reader *r, int *columns_first)
{
    if (take_word(r, "False"))
        *columns_first = 0;
    else if (take_word(r, "True"))
        *columns_first = 1;
    else
        return refuse(r, "says neither True nor False for 'fortran_order'");
    return SETUN_OK;
}

/* Digits as Python takes them: no sign, no zeros in front. */
static int take_number(reader *r, int64_t *value)
{
    skip_space(r);
    const char *first = r->p;
    *value = 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        if (st_mul_i64(*value, 10, value) || st_add_i64(*value, *r->p - '0', value))
            return 0;
    return r->p > first && (*first != '0' || r->p == first + 1);
}

static setun_status read_shape(reader *r, st_npy *a)
{
    int comma = 1;
    if (!take(r, '('))
        return refuse(r, "does not give 'shape' as a tuple");
    a->count = 1;
    for (a->rank = 0; !take(r, ')'); a->rank++) {
        int64_t n;
        if (a->rank == ST_NPY_MAX_RANK)
            return refuse(r, "gives more than 8 dimensions");
        if (!comma || !take_number(r, &n))
            return refuse(r, "does not give 'shape' as a tuple of whole numbers");
        a->dim[a->rank] = n;
        comma = take(r, ',');
        if (st_mul_i64(a->count, n, &a->count))
            return refuse(r, "gives more elements than a file can have");
    }
    if (a->rank == 1 && !comma)
        return refuse(r, "gives a number in brackets as 'shape', where a tuple of one has a comma");
    return SETUN_OK;
}

/* One `key: value`; which of the three keys it was goes into *seen. */
static setun_status read_member(reader *r, st_npy *a, int *columns_first, unsigned *seen)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    const char *text;
    size_t n, i = 0;
    if (!take_string(r, &text, &n))
        return refuse(r, "has a key that is not a string");
    while (i < 3 && (strlen(keys[i]) != n || memcmp(keys[i], text, n)))
        i++;
    if (i == 3)
        return refuse(r, "has other keys than 'descr', 'fortran_order' and 'shape'");
    if (*seen & 1u << i || !take(r, ':'))
        return refuse(r, *seen & 1u << i ? "has a key twice" : "lacks a colon behind a key");
    *seen |= 1u << i;
    return i == 0 ? read_type(r, a) : i == 1 ? read_order(r, columns_first) : read_shape(r, a);
}

static setun_status read_literal(reader *r, st_npy *a)
{
    unsigned seen = 0;
    int comma = 1, columns_first = 0, long_sides = 0;
    if (r->p == r->end || r->end[-1] != '\n')
        return refuse(r, "does not end with a newline");
    if (!take(r, '{'))
        return refuse(r, "does not begin with a brace");
    while (!take(r, '}')) {
        if (!comma)
            return refuse(r, "lacks a comma or its closing brace");
        ST_TRY(read_member(r, a, &columns_first, &seen));
        comma = take(r, ',');
    }
    skip_space(r);
    if (r->p != r->end)
        return refuse(r, "goes on behind its closing brace");
    if (seen != 7)
        return refuse(r, "lacks 'descr', 'fortran_order' or 'shape'");
    for (uint32_t i = 0; i < a->rank; i++)
        long_sides += a->dim[i] != 1;
    if (columns_first && long_sides > 1) /* with one long side both orders are the same */
        return st_fail(r->err, SETUN_UNKNOWN, "%s: the array is stored columns first (fortran_order); save numpy.ascontiguousarray(x)", r->path);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- reading: the file */

static setun_status read_array(st_npy *a, const char *path, setun_error *err)
{
    const uint8_t *p = a->map.data;
    int64_t bytes, all = a->map.bytes;
    if (all < MAGIC + 4 || memcmp(p, magic, MAGIC))
        return st_fail(err, SETUN_BAD_FILE, "%s: not a NumPy array: it does not begin with \\x93NUMPY", path);
    int wide = p[6] > 1;
    if (p[6] < 1 || p[6] > 3 || p[7] != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: format %d.%d of NumPy arrays; 1.0, 2.0 and 3.0 are known", path, p[6], p[7]);
    if (wide && all < MAGIC + 6)
        return st_fail(err, SETUN_BAD_FILE, "%s: it ends inside its header", path);
    int64_t begin = MAGIC + (wide ? 6 : 4);
    int64_t n = p[8] | p[9] << 8 | (wide ? (int64_t)p[10] << 16 | (int64_t)p[11] << 24 : 0);
    if (n > MOST_HEADER || n > all - begin)
        return st_fail(err, SETUN_BAD_FILE, "%s: a header of %" PRId64 " bytes, where %s", path, n,
                       n > MOST_HEADER ? "at most 65535 make sense" : "the file ends earlier");
    reader r = {(const char *)p + begin, (const char *)p + begin + n, path, err};
    ST_TRY(read_literal(&r, a));
    if (st_mul_i64(a->count, a->width, &bytes) || bytes != all - begin - n)
        return st_fail(err, SETUN_BAD_FILE, "%s: %" PRId64 " elements of %" PRIu32 " bytes, but %" PRId64 " bytes behind the header", path,
                       a->count, a->width, all - begin - n);
    a->data = p + begin + n;
    return SETUN_OK;
}

setun_status st_npy_open(st_npy *a, const char *path, setun_error *err)
{
    memset(a, 0, sizeof *a);
    ST_TRY(st_map_open(&a->map, path, err));
    setun_status st = read_array(a, path, err);
    if (st != SETUN_OK)
        st_npy_close(a);
    return st;
}

void st_npy_close(st_npy *a)
{
    st_map_close(&a->map);
    memset(a, 0, sizeof *a);
}

double st_npy_at(const st_npy *a, int64_t i)
{
    const uint8_t *p = a->data + i * a->width;
    uint64_t u = 0;
    for (uint32_t b = 0; b < a->width; b++) /* most significant byte first */
        u = u << 8 | p[a->order == '>' ? b : a->width - 1 - b];
    if (a->kind == 'f' && a->width == 8) {
        double d;
        memcpy(&d, &u, sizeof d);
        return d;
    }
    if (a->kind == 'f')
        return (double)(a->width == 4 ? setun_bits_f32((uint32_t)u) : setun_f16_f32((uint16_t)u));
    if (a->kind != 'i')
        return (double)u;
    uint64_t sign = (uint64_t)1 << (8 * a->width - 1);
    return (double)(int64_t)((u ^ sign) - sign); /* two's complement: -sign + (u without its top bit) */
}

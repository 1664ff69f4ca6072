/* model/gguf.c -- read GGUF headers, believe nothing.
 *
 *     0       4         8             16           24                         data_at
 *     +-------+---------+-------------+------------+--------+---------+-----+--------------------+
 *     | GGUF  | version | tensors,    | keys,      | keys   | tensor  | pad | tensors, each      |
 *     |       | u32     | u64         | u64        |        | infos   |     | padded             |
 *     +-------+---------+-------------+------------+--------+---------+-----+--------------------+
 *     key     = string, u32 type, value;  string = u64 bytes, text;  array = u32 type, u64 n, elements
 *     info    = string, u32 rank, rank x u64 (innermost first), u32 type, u64 offset
 *
 * Not here: which type a number stands for and how many bytes it has (gguf_types.c).
 *
 * A count or length is compared with the bytes that are left before anything is done with it, so a
 * small file costs little whatever it claims.  Offsets must be the running sum of padded sizes, as
 * the format's own reader demands: after that every byte of the data belongs to one tensor or to
 * the padding behind it. */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/gguf_types.h"

#define KEY_BYTES 1024             /* the format allows 65535; published keys have some forty */
#define MOST_ELEMENTS (1 << 30)   /* of an array or a string: the limit of the format's own reader */
#define SMALLEST_KEY (8 + 1 + 4 + 1)
#define SMALLEST_INFO (8 + 1 + 4 + 4 + 8)

/* ---------------------------------------------------------------- bytes */

/* What is left of a file.  In messages, `what` is where its end was met. */
typedef struct reader {
    const uint8_t *base, *at, *end;
    const char    *path;
    setun_error   *err;
} reader;

static uint64_t little(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static setun_status take(reader *r, int64_t n, const char *what, const uint8_t **out)
{
    *out = NULL;
    if (n > r->end - r->at)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: %s needs %lld bytes at byte %lld, %lld are left",
                       r->path, what, (long long)n, (long long)(r->at - r->base),
                       (long long)(r->end - r->at));
    *out = r->at;
    r->at += n;
    return SETUN_OK;
}

static setun_status take_int(reader *r, int bytes, const char *what, uint64_t *out)
{
    const uint8_t *p;
    *out = 0;
    ST_TRY(take(r, bytes, what, &p));
    *out = little(p, bytes);
    return SETUN_OK;
}

static setun_status take_string(reader *r, const char *what, const char **text, int64_t *n)
{
    uint64_t bytes;
    const uint8_t *p;
    *text = NULL;
    *n = 0;
    ST_TRY(take_int(r, 8, what, &bytes));
    if (bytes > MOST_ELEMENTS)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: %s has a string of %" PRIu64 " bytes, at most %d are taken",
                       r->path, what, bytes, MOST_ELEMENTS);
    ST_TRY(take(r, (int64_t)bytes, what, &p));
    *text = (const char *)p;
    *n = (int64_t)bytes;
    return SETUN_OK;
}

/* What may go to a terminal: UTF-8 without control characters (U+0080 to U+009F are some, too). */
static int is_plain(const char *text, int64_t n)
{
    int good = st_utf8_valid(text, (size_t)n) == (size_t)n;
    for (int64_t i = 0; i < n; i++)
        good &= (unsigned char)text[i] >= 0x20 && text[i] != 0x7f &&
                !((unsigned char)text[i] == 0xc2 && i + 1 < n && (unsigned char)text[i + 1] < 0xa0);
    return good;
}

/* A name is printed and compared: plain text, kept with a final 0. */
static setun_status take_name(reader *r, st_arena *arena, const char *kind, int64_t number,
                              int64_t most, const char **name)
{
    char what[64];
    const char *text;
    int64_t n;
    (void)snprintf(what, sizeof what, "the name of %s %lld", kind, (long long)number);
    ST_TRY(take_string(r, what, &text, &n));
    if (n == 0 || n > most)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: %s has %lld bytes, not 1 to %lld", r->path, what,
                       (long long)n, (long long)most);
    if (!is_plain(text, n))
        return st_fail(r->err, SETUN_BAD_FILE, "%s: %s is not plain UTF-8 text", r->path, what);
    *name = st_arena_strndup(arena, text, (size_t)n);
    return *name ? SETUN_OK : st_fail(r->err, SETUN_NO_MEMORY, "no memory for the names of %s", r->path);
}

/* ---------------------------------------------------------------- keys and values */

static const struct { const char *name; int bytes; } value_rows[ST_GGUF_VALUE_TYPES] = {
    [ST_GGUF_U8] = {"u8", 1},   [ST_GGUF_I8] = {"i8", 1},   [ST_GGUF_U16] = {"u16", 2}, [ST_GGUF_I16] = {"i16", 2},
    [ST_GGUF_U32] = {"u32", 4}, [ST_GGUF_I32] = {"i32", 4}, [ST_GGUF_F32] = {"f32", 4}, [ST_GGUF_BOOL] = {"bool", 1},
    [ST_GGUF_STRING] = {"string", 0}, [ST_GGUF_ARRAY] = {"array", 0},
    [ST_GGUF_U64] = {"u64", 8}, [ST_GGUF_I64] = {"i64", 8}, [ST_GGUF_F64] = {"f64", 8},
};

const char *st_gguf_value_name(uint32_t type)
{
    return type < ST_GGUF_VALUE_TYPES ? value_rows[type].name : "unknown";
}

static setun_status bad_value(const reader *r, const char *key, const char *what)
{
    return st_fail(r->err, SETUN_BAD_FILE, "%s: key %s: %s", r->path, key, what);
}

/* v->n elements of type v->element. */
static setun_status take_elements(reader *r, st_gguf_value *v)
{
    v->data = r->at;
    int size = value_rows[v->element].bytes;
    if (v->element == ST_GGUF_STRING) {
        const char *text;
        int64_t n;
        for (int64_t i = 0; i < v->n; i++)
            ST_TRY(take_string(r, v->key, &text, &n));
    } else {
        const uint8_t *p;
        ST_TRY(take(r, v->n * size, v->key, &p)); /* at most 2^30 times 8 */
        for (int64_t i = 0; v->element == ST_GGUF_BOOL && i < v->n; i++)
            if (p[i] > 1)
                return bad_value(r, v->key, "a bool is neither 0 nor 1");
    }
    v->bytes = r->at - v->data;
    return SETUN_OK;
}

static setun_status take_value(reader *r, st_arena *arena, int64_t number, st_gguf_value *v)
{
    uint64_t type, n = 1;
    ST_TRY(take_name(r, arena, "key", number, KEY_BYTES, &v->key));
    ST_TRY(take_int(r, 4, v->key, &type));
    v->type = v->element = (uint32_t)type;
    if (type == ST_GGUF_ARRAY) {
        ST_TRY(take_int(r, 4, v->key, &type));
        ST_TRY(take_int(r, 8, v->key, &n));
        v->element = (uint32_t)type;
    }
    if (v->type >= ST_GGUF_VALUE_TYPES || v->element >= ST_GGUF_VALUE_TYPES)
        return st_fail(r->err, SETUN_UNKNOWN, "%s: key %s: %" PRIu64 " is no type of values", r->path,
                       v->key, type);
    if (v->element == ST_GGUF_ARRAY)
        return bad_value(r, v->key, "an array of arrays");
    if (n > MOST_ELEMENTS)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: key %s: an array of %" PRIu64 " elements, at most %d are taken",
                       r->path, v->key, n, MOST_ELEMENTS);
    v->n = (int64_t)n;
    return take_elements(r, v);
}

int st_gguf_int(const st_gguf_value *v, int64_t i, int64_t *out)
{
    int bytes = value_rows[v->element].bytes;
    if (v->element == ST_GGUF_F32 || v->element == ST_GGUF_F64 || bytes == 0 || i < 0 || i >= v->n)
        return -1;
    uint64_t bits = little(v->data + i * bytes, bytes);
    int is_signed = v->element == ST_GGUF_I8 || v->element == ST_GGUF_I16 || v->element == ST_GGUF_I32;
    if (is_signed && bits >> (8 * bytes - 1)) /* the value is bits - 2^(8 bytes) */
        *out = (int64_t)bits - ((int64_t)1 << 8 * bytes);
    else
        memcpy(out, &bits, sizeof bits);
    return v->element == ST_GGUF_U64 && bits > INT64_MAX ? -1 : 0;
}

double st_gguf_float(const st_gguf_value *v, int64_t i)
{
    if (v->element == ST_GGUF_F64) {
        uint64_t bits = little(v->data + 8 * i, 8);
        double d;
        memcpy(&d, &bits, sizeof d);
        return d;
    }
    uint32_t bits = (uint32_t)little(v->data + 4 * i, 4);
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

const char *st_gguf_next(const uint8_t **at, int64_t *n)
{
    const char *text = (const char *)*at + 8;
    *n = (int64_t)little(*at, 8);
    *at += 8 + *n;
    return text;
}

const char *st_gguf_text(const st_gguf_value *v, int64_t *n)
{
    const uint8_t *at = v->data;
    return v->type == ST_GGUF_STRING ? st_gguf_next(&at, n) : NULL;
}

const st_gguf_value *st_gguf_find(const st_gguf *g, const char *key)
{
    int64_t i;
    return g->by_key && st_table_get(g->by_key, key, strlen(key), &i) ? &g->value[i] : NULL;
}

/* ---------------------------------------------------------------- tensor infos */

static setun_status take_info(reader *r, st_arena *arena, int64_t number, st_gguf_tensor *t)
{
    uint64_t rank, id, offset;
    ST_TRY(take_name(r, arena, "tensor", number, ST_GGUF_NAME_BYTES - 1, &t->name));
    ST_TRY(take_int(r, 4, t->name, &rank));
    if (rank > 4)
        return st_fail(r->err, SETUN_BAD_SHAPE, "%s: tensor %s has %" PRIu64 " dimensions, at most 4 can be used",
                       r->path, t->name, rank);
    t->rank = (uint32_t)rank;
    t->values = 1;
    int overflow = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t dim = 1;
        if (i < t->rank)
            ST_TRY(take_int(r, 8, t->name, &dim));
        overflow |= dim > INT64_MAX;
        t->dim[i] = overflow ? 0 : (int64_t)dim;
        overflow |= st_mul_i64(t->values, t->dim[i], &t->values);
    }
    if (overflow)
        return st_fail(r->err, SETUN_BAD_SHAPE, "%s: tensor %s: the dimensions overflow 63 bits", r->path, t->name);
    ST_TRY(take_int(r, 4, t->name, &id));
    ST_TRY(take_int(r, 8, t->name, &offset));
    if (offset > INT64_MAX)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: tensor %s: the offset %" PRIu64 " is no place in a file", r->path,
                       t->name, offset);
    t->id = (uint32_t)id;
    t->offset = (int64_t)offset;
    t->file = r->path;
    return SETUN_OK;
}

/* Where each tensor ends: where the next one begins, or the file ends. */
static setun_status place(st_gguf *g, int64_t first, const st_gguf_file *f, const uint8_t *base, int64_t bytes,
                          setun_error *err)
{
    int64_t data = bytes > f->data_at ? bytes - f->data_at : 0;
    for (int64_t i = first; i < g->n_tensors; i++) {
        st_gguf_tensor *t = &g->tensor[i];
        t->alignment = f->alignment;
        t->is_last = i + 1 == g->n_tensors;
        int64_t end = t->is_last ? data : t[1].offset;
        if (t->offset % f->alignment != 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s begins at %lld, which is not a multiple of %lld", f->path,
                           t->name, (long long)t->offset, (long long)f->alignment);
        if (i == first && t->offset != 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s, the first one, begins at %lld, not at 0", f->path,
                           t->name, (long long)t->offset);
        if (t->offset > data || end > data)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s reaches to %lld, the file has %lld bytes of data", f->path,
                           t->name, (long long)(t->offset > end ? t->offset : end), (long long)data);
        if (end < t->offset)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s begins at %lld, the one after it at %lld", f->path,
                           t->name, (long long)t->offset, (long long)end);
        t->extent = end - t->offset;
        t->data = t->extent ? base + f->data_at + t->offset : base;
    }
    if (first == g->n_tensors && data > 0)
        return st_fail(err, SETUN_BAD_FILE, "%s: %lld bytes behind the header, which belong to no tensor", f->path,
                       (long long)data);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- one file */

static setun_status take_header(reader *r, uint32_t *version, int64_t *n_tensors, int64_t *n_values)
{
    const uint8_t *magic;
    uint64_t v, tensors, values, left;
    ST_TRY(take(r, 4, "the magic number", &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return st_fail(r->err, SETUN_BAD_FILE, "%s is not a GGUF file", r->path);
    ST_TRY(take_int(r, 4, "the version", &v));
    if (v && (v & 0xffff) == 0)
        return st_fail(r->err, SETUN_UNKNOWN, "%s is a big-endian GGUF file; Setun reads little-endian ones", r->path);
    if (v != 2 && v != 3)
        return st_fail(r->err, SETUN_UNKNOWN, "%s: version %" PRIu64 " of GGUF; Setun reads 2 and 3", r->path, v);
    ST_TRY(take_int(r, 8, "the number of tensors", &tensors));
    ST_TRY(take_int(r, 8, "the number of keys", &values));
    left = (uint64_t)(r->end - r->at);
    if (values > ST_GGUF_KEY_LIMIT || values > left / SMALLEST_KEY)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: %" PRIu64 " keys do not fit into %" PRIu64 " bytes and the limit of %d",
                       r->path, values, left, ST_GGUF_KEY_LIMIT);
    if (tensors > ST_GGUF_TENSOR_LIMIT || tensors > left / SMALLEST_INFO)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: %" PRIu64 " tensors do not fit into %" PRIu64 " bytes and the limit of %d",
                       r->path, tensors, left, ST_GGUF_TENSOR_LIMIT);
    *version = (uint32_t)v;
    *n_tensors = (int64_t)tensors;
    *n_values = (int64_t)values;
    return SETUN_OK;
}

static setun_status read_alignment(const st_gguf_value *v, const char *path, int64_t *out, setun_error *err)
{
    *out = 32;
    if (v && (v->type != ST_GGUF_U32 || st_gguf_int(v, 0, out) || *out == 0 || (*out & (*out - 1))))
        return st_fail(err, SETUN_BAD_FILE, "%s: key general.alignment is not a u32 that is a power of two", path);
    return SETUN_OK;
}

/* Keys of a file into a list and a table of its own. */
static setun_status read_values(st_gguf *g, reader *r, int64_t n, st_gguf_value **list, st_table *by_key)
{
    st_gguf_value *value = st_arena_array(g->arena, n + 1, sizeof *value);
    if (!value)
        return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the keys of %s", r->path);
    *list = value;
    for (int64_t i = 0; i < n; i++) {
        int64_t other;
        ST_TRY(take_value(r, g->arena, i, &value[i]));
        if (st_table_get(by_key, value[i].key, strlen(value[i].key), &other))
            return bad_value(r, value[i].key, "there twice");
        if (st_table_put(by_key, value[i].key, strlen(value[i].key), i))
            return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the keys of %s", r->path);
    }
    return SETUN_OK;
}

static setun_status read_infos(st_gguf *g, reader *r, int64_t n)
{
    if (g->n_tensors + n > ST_GGUF_TENSOR_LIMIT)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: with this file there are %lld tensors, above the limit of %d", r->path,
                       (long long)(g->n_tensors + n), ST_GGUF_TENSOR_LIMIT);
    if (g->n_tensors + n > g->cap_tensors) {
        int64_t want = g->n_tensors + n;
        st_gguf_tensor *t = realloc(g->tensor, (size_t)want * sizeof *t);
        if (!t)
            return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the tensors of %s", r->path);
        g->tensor = t;
        g->cap_tensors = want;
    }
    for (int64_t i = 0; i < n; i++) {
        st_gguf_tensor *t = &g->tensor[g->n_tensors];
        int64_t other;
        memset(t, 0, sizeof *t);
        ST_TRY(take_info(r, g->arena, i, t));
        if (st_table_get(g->by_name, t->name, strlen(t->name), &other))
            return st_fail(r->err, SETUN_BAD_FILE, "%s: tensor %s is there twice; the other one is in %s", r->path,
                           t->name, g->tensor[other].file);
        if (st_table_put(g->by_name, t->name, strlen(t->name), g->n_tensors))
            return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the tensors of %s", r->path);
        g->n_tensors++;
    }
    return SETUN_OK;
}

/* Header, keys, infos, places of one file; the keys go to list and by_key. */
static setun_status read_file(st_gguf *g, st_gguf_file *f, const uint8_t *data, int64_t bytes, st_gguf_value **list,
                              int64_t *n_values, st_table *by_key, setun_error *err)
{
    static const uint8_t nothing[1];
    const uint8_t *base = data ? data : nothing;
    reader r = { base, base, base + bytes, f->path, err };
    int64_t n_tensors = 0, first = g->n_tensors, i;
    ST_TRY(take_header(&r, &f->version, &n_tensors, n_values));
    ST_TRY(read_values(g, &r, *n_values, list, by_key));
    const st_gguf_value *alignment = st_table_get(by_key, "general.alignment", 17, &i) ? &(*list)[i] : NULL;
    ST_TRY(read_alignment(alignment, f->path, &f->alignment, err));
    ST_TRY(read_infos(g, &r, n_tensors));
    f->data_at = r.at - r.base + f->alignment - 1; /* an address and a u32: no overflow */
    f->data_at -= f->data_at % f->alignment;
    return place(g, first, f, base, bytes, err);
}

static setun_status begin(st_gguf *g, const char *path, st_arena *arena, setun_error *err)
{
    g->arena = arena;
    g->file_type = -1;
    g->path = st_arena_strdup(arena, path);
    g->by_key = st_table_new(64);
    g->by_name = st_table_new(512);
    g->file = calloc(1, sizeof *g->file);
    return g->path && g->by_key && g->by_name && g->file ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", path);
}

/* What the choice of types goes by. */
static setun_status read_general(st_gguf *g, setun_error *err)
{
    const st_gguf_value *v = st_gguf_find(g, "general.architecture");
    int64_t n = 0;
    const char *text = v ? st_gguf_text(v, &n) : NULL;
    if (!text || n == 0 || n > 64 || !is_plain(text, n))
        return st_fail(err, SETUN_BAD_FILE, "%s: key general.architecture is %s", g->path,
                       v ? "not a short text" : "missing");
    if (!(g->architecture = st_arena_strndup(g->arena, text, (size_t)n)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", g->path);
    v = st_gguf_find(g, "general.file_type");
    if (v && (v->type == ST_GGUF_ARRAY || st_gguf_int(v, 0, &g->file_type) || g->file_type < 0))
        return st_fail(err, SETUN_BAD_FILE, "%s: key general.file_type is not a whole number from 0 on", g->path);
    return SETUN_OK;
}

setun_status st_gguf_parse(st_gguf *g, const char *path, const uint8_t *data, int64_t bytes, int i2s, st_arena *arena,
                           setun_error *err)
{
    ST_TRY(begin(g, path, arena, err));
    g->file[0].path = g->path;
    g->n_files = 1;
    ST_TRY(read_file(g, &g->file[0], data, bytes, &g->value, &g->n_values, g->by_key, err));
    ST_TRY(read_general(g, err));
    return st_gguf_settle(g, i2s, err);
}

/* ---------------------------------------------------------------- several files */

static setun_status part_number(const st_gguf_value *v, const char *key, const char *path, int64_t most,
                                int64_t *out, setun_error *err)
{
    if (!v)
        return st_fail(err, SETUN_BAD_FILE, "%s: key %s is missing", path, key);
    if (v->type == ST_GGUF_ARRAY || st_gguf_int(v, 0, out))
        return st_fail(err, SETUN_BAD_FILE, "%s: key %s is not a whole number", path, key);
    if (*out < 0 || *out > most)
        return st_fail(err, SETUN_BAD_FILE, "%s: key %s is %lld, wants 0 to %lld", path, key, (long long)*out, (long long)most);
    return SETUN_OK;
}

/* The other parts are named as the first one is: its own "-00001-of-00003" with another number. */
static const char *part_path(st_gguf *g, int64_t i, int64_t n)
{
    char mark[48];
    (void)snprintf(mark, sizeof mark, "-00001-of-%05lld", (long long)n);
    const char *slash = strrchr(g->path, '/'), *at = NULL;
    for (const char *p = strstr(slash ? slash : g->path, mark); p; p = strstr(p + 1, mark))
        at = p;
    if (!at)
        return NULL;
    return st_arena_printf(g->arena, "%.*s-%05lld-of-%05lld%s", (int)(at - g->path), g->path, (long long)(i + 1),
                           (long long)n, at + strlen(mark));
}

/* A later part says which one it is, and nothing that the first does not say as well. */
static setun_status check_part(const st_gguf *g, const st_gguf_file *f, const st_gguf_value *list, int64_t n,
                               int64_t number, int64_t count, setun_error *err)
{
    const st_gguf_value *no = NULL, *of = NULL;
    int64_t is = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        const st_gguf_value *v = &list[i], *same = st_gguf_find(g, v->key);
        if (strcmp(v->key, "split.no") == 0) {
            no = v;
            continue;
        }
        of = strcmp(v->key, "split.count") == 0 ? v : of;
        if (!same || same->type != v->type || same->element != v->element || same->n != v->n ||
            same->bytes != v->bytes || memcmp(same->data, v->data, (size_t)v->bytes) != 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: key %s is not as in %s", f->path, v->key, g->path);
    }
    ST_TRY(part_number(no, "split.no", f->path, ST_GGUF_SHARD_LIMIT, &is, err));
    ST_TRY(part_number(of, "split.count", f->path, ST_GGUF_SHARD_LIMIT, &all, err));
    if (is != number || all != count)
        return st_fail(err, SETUN_BAD_FILE, "%s: its keys say part %lld of %lld, its name part %lld of %lld", f->path,
                       (long long)is + 1, (long long)all, (long long)number + 1, (long long)count);
    return SETUN_OK;
}

static setun_status open_part(st_gguf *g, int64_t i, int64_t count, setun_error *err)
{
    st_gguf_file *f = &g->file[i];
    st_gguf_value *list = NULL;
    int64_t n = 0;
    if (!(f->path = part_path(g, i, count)))
        return st_fail(err, SETUN_BAD_FILE, "%s is part 1 of %lld, but its name has no -00001-of-%05lld by which to find the others",
                       g->path, (long long)count, (long long)count);
    ST_TRY(st_map_open(&f->map, f->path, err));
    g->n_files = i + 1;
    st_table *by_key = st_table_new(64);
    if (!by_key)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", f->path);
    setun_status s = read_file(g, f, f->map.data, f->map.bytes, &list, &n, by_key, err);
    st_table_free(by_key);
    return s == SETUN_OK ? check_part(g, f, list, n, i, count, err) : s;
}

static setun_status open_parts(st_gguf *g, setun_error *err)
{
    const st_gguf_value *count = st_gguf_find(g, "split.count"), *all = st_gguf_find(g, "split.tensors.count");
    int64_t n = 1, no = 0, tensors = 0;
    if (!count && !st_gguf_find(g, "split.no"))
        return SETUN_OK;
    ST_TRY(part_number(count, "split.count", g->path, ST_GGUF_SHARD_LIMIT, &n, err));
    ST_TRY(part_number(st_gguf_find(g, "split.no"), "split.no", g->path, ST_GGUF_SHARD_LIMIT, &no, err));
    if (no != 0)
        return st_fail(err, SETUN_BAD_FILE, "%s is part %lld of %lld of a model: name the first one", g->path,
                       (long long)no + 1, (long long)n);
    st_gguf_file *more = realloc(g->file, (size_t)(n + 1) * sizeof *more);
    if (!more)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", g->path);
    g->file = more;
    memset(more + 1, 0, (size_t)n * sizeof *more);
    for (int64_t i = 1; i < n; i++)
        ST_TRY(open_part(g, i, n, err));
    if (n <= 1 && !all) /* 0 parts: joined again by a program that leaves the key */
        return SETUN_OK;
    ST_TRY(part_number(all, "split.tensors.count", g->path, INT32_MAX, &tensors, err));
    if (tensors != g->n_tensors)
        return st_fail(err, SETUN_BAD_FILE, "%s: key split.tensors.count is %lld, and by key split.count (%lld) the parts have %lld tensors",
                       g->path, (long long)tensors, (long long)n, (long long)g->n_tensors);
    return SETUN_OK;
}

setun_status st_gguf_open(st_gguf *g, const char *path, int i2s, st_arena *arena, setun_error *err)
{
    ST_TRY(begin(g, path, arena, err));
    g->file[0].path = g->path;
    ST_TRY(st_map_open(&g->file[0].map, path, err));
    g->n_files = 1;
    ST_TRY(read_file(g, &g->file[0], g->file[0].map.data, g->file[0].map.bytes, &g->value, &g->n_values, g->by_key, err));
    ST_TRY(open_parts(g, err));
    ST_TRY(read_general(g, err));
    return st_gguf_settle(g, i2s, err);
}

void st_gguf_close(st_gguf *g)
{
    for (int64_t i = 0; i < g->n_files; i++)
        st_map_close(&g->file[i].map);
    free(g->file);
    free(g->tensor);
    st_table_free(g->by_key);
    st_table_free(g->by_name);
    memset(g, 0, sizeof *g);
}

int st_gguf_is(const char *path)
{
    st_map m = { 0 };
    int is = st_is_file(path) && st_map_open(&m, path, NULL) == SETUN_OK && m.bytes >= 4 && memcmp(m.data, "GGUF", 4) == 0;
    st_map_close(&m);
    return is;
}

/* model/safetensors.c -- read safetensors headers, believe nothing.
 *
 *     0            8                8 + N                               end of file
 *     +------------+----------------+------------------------------------+
 *     | N, u64 LE  | JSON, N bytes  | tensor data, tiled without holes   |
 *     +------------+----------------+------------------------------------+
 *
 * Not here: what tensors mean (weights.c), and byte order: the data stay as the file has them,
 * little-endian, and are swapped where they are converted (convert.c).
 *
 * Everything the reference reader checks is checked: the length, UTF-8, the JSON, its types, unique
 * keys, sizes without overflow, tiling from 0 to exactly the end of the file.  Offsets can be wrong
 * in many ways, but after these checks every byte of the buffer belongs to exactly one tensor. */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/str.h"
#include "model/json.h"

typedef struct dtype_row {
    const char *name;
    int32_t     bits;
    uint32_t    dtype; /* 0: Setun cannot use it, but its size is checked all the same */
} dtype_row;

static const dtype_row dtype_rows[] = {
    { "BF16", 16, SETUN_BF16 }, { "U8", 8, SETUN_U8 },       { "F32", 32, SETUN_F32 },
    { "F16", 16, SETUN_F16 },   { "I8", 8, SETUN_I8 },       { "I16", 16, SETUN_I16 },
    { "I32", 32, SETUN_I32 },   { "I64", 64, SETUN_I64 },    { "BOOL", 8, 0 },
    { "F4", 4, 0 },             { "F6_E2M3", 6, 0 },         { "F6_E3M2", 6, 0 },
    { "F8_E5M2", 8, 0 },        { "F8_E4M3", 8, 0 },         { "F8_E8M0", 8, 0 },
    { "F8_E4M3FNUZ", 8, 0 },    { "F8_E5M2FNUZ", 8, 0 },     { "U16", 16, 0 },
    { "U32", 32, 0 },           { "C64", 64, 0 },            { "F64", 64, 0 },
    { "U64", 64, 0 },
};

typedef struct span {
    int64_t begin, end, tensor;
} span;

static int compare_spans(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static setun_status bad(setun_error *err, const char *path, const char *name, const char *what)
{
    return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s: %s", path, name, what);
}

/* One header member into *t and *where; the data pointer is set when the tiling is known. */
static setun_status read_entry(const char *path, const char *name, json_t *entry, st_tensor *t,
                               span *where, setun_error *err)
{
    json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) ||
        json_array_size(offsets) != 2 || json_object_size(entry) != 3)
        return bad(err, path, name, "the header entry is not {dtype, shape, data_offsets}");
    const dtype_row *row = NULL;
    for (size_t i = 0; i < sizeof dtype_rows / sizeof *dtype_rows; i++)
        if (strcmp(dtype_rows[i].name, json_string_value(dtype)) == 0)
            row = &dtype_rows[i];
    if (!row)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s: unknown dtype %s", path, name,
                       json_string_value(dtype));
    t->dtype = row->name;
    t->view.dtype = row->dtype;
    if (json_array_size(shape) > SETUN_MAX_RANK)
        return st_fail(err, SETUN_BAD_SHAPE,
                       "%s: tensor %s has %zu dimensions, at most %d can be used", path, name,
                       json_array_size(shape), SETUN_MAX_RANK);
    t->view.rank = (uint32_t)json_array_size(shape);
    int64_t bits = row->bits;
    for (uint32_t i = 0; i < SETUN_MAX_RANK; i++) {
        t->view.dim[i] = 1;
        if (i >= t->view.rank)
            continue;
        json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad(err, path, name, "a dimension is not a whole number from 0 up");
        t->view.dim[i] = json_integer_value(dim);
        if (st_mul_i64(bits, t->view.dim[i], &bits))
            return bad(err, path, name, "the size overflows 64 bits");
    }
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < json_integer_value(begin))
        return bad(err, path, name, "data_offsets are not two whole numbers in order");
    where->begin = json_integer_value(begin);
    where->end = json_integer_value(end);
    t->bytes = where->end - where->begin;
    if (bits % 8 != 0 || bits / 8 != t->bytes)
        return st_fail(
            err, SETUN_BAD_FILE,
            "%s: tensor %s: shape and dtype %s need %lld bits, data_offsets span %lld bytes", path,
            name, row->name, (long long)bits, (long long)t->bytes);
    return SETUN_OK;
}

static setun_status check_metadata(const char *path, json_t *meta, setun_error *err)
{
    const char *key;
    json_t *value;
    int good = json_is_object(meta);
    if (good)
        json_object_foreach(meta, key, value)
            good &= json_is_string(value);
    return good
               ? SETUN_OK
               : st_fail(err, SETUN_BAD_FILE, "%s: __metadata__ is not an object of strings", path);
}

static setun_status grow(st_safetensors *s, int64_t more, setun_error *err)
{
    int64_t want = s->n_tensors + more;
    if (want <= s->cap_tensors)
        return SETUN_OK;
    st_tensor *t = realloc(s->tensor, (size_t)want * sizeof *t);
    if (!t)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld tensors", (long long)want);
    s->tensor = t;
    s->cap_tensors = want;
    return SETUN_OK;
}

/* Every member of the header becomes a tensor; spans has room for all of them. */
static setun_status read_header(st_safetensors *s, const char *path, json_t *root, span *spans,
                                int64_t *n_spans, setun_error *err)
{
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            ST_TRY(check_metadata(path, entry, err));
            continue;
        }
        st_tensor *t = &s->tensor[s->n_tensors];
        memset(t, 0, sizeof *t);
        ST_TRY(read_entry(path, name, entry, t, &spans[*n_spans], err));
        int64_t other;
        if (st_table_get(s->by_name, name, strlen(name), &other))
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is also in %s", path, name,
                           s->tensor[other].file);
        t->name = st_arena_strdup(s->arena, name);
        t->file = path;
        if (!t->name || st_table_put(s->by_name, t->name, strlen(t->name), s->n_tensors))
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the tensor names of %s", path);
        spans[(*n_spans)++].tensor = s->n_tensors++;
    }
    return SETUN_OK;
}

setun_status st_safetensors_parse(st_safetensors *s, const char *path, const uint8_t *data,
                                  int64_t bytes, uint64_t *header_hash, setun_error *err)
{
    if (!s->by_name && !(s->by_name = st_table_new(256)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tensor names of %s", path);
    if (bytes < 8)
        return st_fail(err, SETUN_BAD_FILE, "%s: %lld bytes are too short for a safetensors file",
                       path, (long long)bytes);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | data[i];
    if (n > (uint64_t)bytes - 8)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: the header wants %llu bytes, the file has %lld after its length", path,
                       (unsigned long long)n, (long long)bytes - 8);
    if (n > ST_SAFETENSORS_HEADER_LIMIT)
        return st_fail(err, SETUN_BAD_FILE, "%s: a header of %llu bytes is above the limit of %d",
                       path, (unsigned long long)n, ST_SAFETENSORS_HEADER_LIMIT);
    const char *header = (const char *)data + 8;
    if (n == 0 || header[0] != '{')
        return st_fail(err, SETUN_BAD_FILE, "%s: the header is not a JSON object", path);
    if (st_utf8_valid(header, (size_t)n) != (size_t)n)
        return st_fail(err, SETUN_BAD_FILE, "%s: the header is not valid UTF-8 at byte %zu", path,
                       8 + st_utf8_valid(header, (size_t)n));
    json_error_t je;
    json_t *root = json_loadb(header, (size_t)n, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return st_fail(err, SETUN_BAD_FILE, "%s: the header is not valid JSON: %s (byte %d)", path,
                       je.text, je.position + 8);
    int64_t count = (int64_t)json_object_size(root), n_spans = 0, at = 0;
    span *spans = malloc((size_t)(count + 1) * sizeof *spans);
    setun_status st =
        spans ? grow(s, count, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", path);
    if (st == SETUN_OK)
        st = read_header(s, path, root, spans, &n_spans, err);
    json_decref(root);
    if (st == SETUN_OK)
        qsort(spans, (size_t)n_spans, sizeof *spans, compare_spans);
    int64_t buffer = bytes - 8 - (int64_t)n;
    for (int64_t i = 0; st == SETUN_OK && i < n_spans; i++) {
        st_tensor *t = &s->tensor[spans[i].tensor];
        if (spans[i].begin != at)
            st = st_fail(err, SETUN_BAD_FILE,
                         "%s: tensor %s begins at %lld, the one before it ends at %lld", path,
                         t->name, (long long)spans[i].begin, (long long)at);
        else if (spans[i].end > buffer)
            st = st_fail(err, SETUN_BAD_FILE,
                         "%s: tensor %s ends at %lld, the file has %lld bytes of data", path,
                         t->name, (long long)spans[i].end, (long long)buffer);
        else
            /* Views have plain pointers; nobody writes through those of a weight file. */
            t->view.data = (void *)(uintptr_t)(data + 8 + n + (uint64_t)spans[i].begin);
        at = spans[i].end;
    }
    if (st == SETUN_OK && at != buffer)
        st = st_fail(err, SETUN_BAD_FILE, "%s: %lld bytes after the last tensor, which belong to none",
                     path, (long long)(buffer - at));
    free(spans);
    if (st != SETUN_OK)
        return st;
    *header_hash = st_hash(ST_HASH_INIT, data, (size_t)n + 8);
    return SETUN_OK;
}

static setun_status open_shard(st_safetensors *s, const char *path, setun_error *err)
{
    st_shard *sh = &s->shard[s->n_shards];
    memset(sh, 0, sizeof *sh);
    sh->path = path;
    int64_t size;
    ST_TRY(st_file_stat(path, &size, &sh->mtime_ns, err));
    ST_TRY(st_map_open(&sh->map, path, err));
    s->n_shards++;
    return st_safetensors_parse(s, path, sh->map.data, sh->map.bytes, &sh->header_hash, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A shard is a plain file name beside the index: an index must not reach into other directories. */
static int plain_name(const char *s)
{
    return s[0] != '\0' && s[0] != '.' && !strchr(s, '/') && !strchr(s, '\\') && strlen(s) < 256;
}

/* Distinct file names of a weight map, sorted, so that nothing depends on the order of JSON. */
static setun_status shard_names(st_safetensors *s, const char *index, json_t *map,
                                const char ***names, int64_t *n, setun_error *err)
{
    const char *tensor;
    json_t *value;
    const char **all = st_arena_array(s->arena, (int64_t)json_object_size(map) + 1, sizeof *all);
    if (!all)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", index);
    int64_t count = 0;
    json_object_foreach(map, tensor, value) {
        if (!json_is_string(value) || !plain_name(json_string_value(value)))
            return st_fail(err, SETUN_BAD_FILE,
                           "%s: the file of tensor %s is not a plain file name", index, tensor);
        all[count++] = json_string_value(value);
    }
    qsort(all, (size_t)count, sizeof *all, compare_names);
    *n = 0;
    for (int64_t i = 0; i < count; i++)
        if (i == 0 || strcmp(all[i], all[i - 1]) != 0)
            all[(*n)++] = all[i];
    if (*n > ST_SAFETENSORS_SHARD_LIMIT)
        return st_fail(err, SETUN_BAD_FILE, "%s: %lld shards are above the limit of %d", index,
                       (long long)*n, ST_SAFETENSORS_SHARD_LIMIT);
    *names = all;
    return SETUN_OK;
}

/* The index and the shards must tell the same story, in both directions. */
static setun_status check_index(const st_safetensors *s, const char *index, json_t *map,
                                setun_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        int64_t i;
        const char *file =
            st_table_get(s->by_name, name, strlen(name), &i) ? s->tensor[i].file : NULL;
        const char *slash = file ? strrchr(file, '/') : NULL;
        if (!file || strcmp(slash ? slash + 1 : file, json_string_value(value)) != 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is not in %s as the index says",
                           index, name, json_string_value(value));
    }
    for (int64_t i = 0; i < s->n_tensors; i++)
        if (!json_object_get(map, s->tensor[i].name))
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s of %s is not in the index", index,
                           s->tensor[i].name, s->tensor[i].file);
    return SETUN_OK;
}

static setun_status open_indexed(st_safetensors *s, const char *dir, const char *index,
                                 json_t *root, setun_error *err)
{
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return st_fail(err, SETUN_BAD_FILE, "%s: no weight_map", index);
    const char **names = NULL;
    int64_t n = 0;
    ST_TRY(shard_names(s, index, map, &names, &n, err));
    s->shard = calloc((size_t)n, sizeof *s->shard);
    if (!s->shard)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", index);
    for (int64_t i = 0; i < n; i++) {
        const char *path = st_arena_printf(s->arena, "%s/%s", dir, names[i]);
        if (!path)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", index);
        if (st_is_absent(path))
            return st_fail(err, SETUN_BAD_FILE, "%s: the shard %s is missing", index, path);
        ST_TRY(open_shard(s, path, err));
    }
    return check_index(s, index, map, err);
}

setun_status st_safetensors_open(st_safetensors *s, const char *dir, st_arena *arena,
                                 setun_error *err)
{
    s->arena = arena;
    const char *index = st_arena_printf(arena, "%s/model.safetensors.index.json", dir);
    const char *single = st_arena_printf(arena, "%s/model.safetensors", dir);
    if (!index || !single)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", dir);
    if (!st_is_absent(index)) {
        json_t *root;
        ST_TRY(st_json_load(index, ST_SAFETENSORS_HEADER_LIMIT, NULL, &root, err));
        setun_status st = open_indexed(s, dir, index, root, err);
        json_decref(root);
        return st;
    }
    if (st_is_absent(single))
        return st_fail(err, SETUN_BAD_FILE,
                       "%s has no model.safetensors and no model.safetensors.index.json", dir);
    s->shard = calloc(1, sizeof *s->shard);
    if (!s->shard)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", dir);
    return open_shard(s, single, err);
}

void st_safetensors_close(st_safetensors *s)
{
    for (int64_t i = 0; i < s->n_shards; i++)
        st_map_close(&s->shard[i].map);
    free(s->shard);
    free(s->tensor);
    st_table_free(s->by_name);
    memset(s, 0, sizeof *s);
}

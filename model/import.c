/* model/import.c -- see import.h.
 *
 * A plugin is code and can do anything; but what it says of a file is often the file's own word, and so hostile.
 * All of it is checked before the first byte is written: afterwards offsets, counts and names are known to be good. */
#include "model/import.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"
#include "model/convert.h"
#include "model/source.h"
#include "model/write_safetensors.h"

#define MOST_TENSORS 1000000
#define MOST_NAME    512
#define MOST_TEXT    ((uint64_t)1 << 29)
#define END_OF(T, field) (offsetof(T, field) + sizeof(((T *)0)->field))

typedef struct job {
    const st_import  *in;
    const st_newdir  *dir;
    st_watch         *watch;
    setun_format_file file;
    st_arena         *arena;
    st_tensor        *out;  /* what is written: each tensor, and a scale behind each ternary one */
    int64_t          *from; /* of each: the tensor's number */
    int64_t           n_out;
    int64_t           n_bytes; /* of all that is written */
    int64_t           n_plain; /* of these, copied from the file */
    st_out           *to;
} job;

static const setun_format_tensor *tensor_at(const job *j, int64_t i)
{
    return (const setun_format_tensor *)(const void *)((const char *)j->file.tensor + i * j->file.tensor->size);
}

static const setun_format_text *text_at(const job *j, int64_t i)
{
    return (const setun_format_text *)(const void *)((const char *)j->file.text + i * j->file.text->size);
}

static setun_status no_memory(const job *j, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", j->in->path);
}

/* ---------------------------------------------------------------- what a plugin says */

/* Names are bounded here, so that a wild pointer is followed no further. */
static setun_status check_name(const job *j, const char *what, int64_t i, const char *name, setun_error *err)
{
    size_t n = name ? strnlen(name, MOST_NAME + 1) : 0;
    int bad = !n || n > MOST_NAME || st_utf8_valid(name, n) != n;
    for (size_t k = 0; k < n && !bad; k++)
        bad = (unsigned char)name[k] < ' ' || name[k] == 127;
    return bad ? st_fail(err, SETUN_BAD_FILE, "%s: the name of %s %lld is empty, longer than %d bytes or no text", j->in->path, what,
                         (long long)i, MOST_NAME)
               : SETUN_OK;
}

static setun_status check_text(const job *j, int64_t i, setun_error *err)
{
    static const char *const known[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"};
    const setun_format_text *t = text_at(j, i);
    int is_known = 0;
    ST_TRY(check_name(j, "text", i, t->name, err));
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
        is_known |= strcmp(t->name, known[k]) == 0;
    if (!is_known)
        return st_fail(err, SETUN_UNKNOWN, "%s: the text '%s' is no file of a checkpoint that Setun reads", j->in->path, t->name);
    for (int64_t k = 0; k < i; k++)
        if (strcmp(text_at(j, k)->name, t->name) == 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: there are two texts '%s'", j->in->path, t->name);
    if (t->n > MOST_TEXT || !t->n || !t->text)
        return st_fail(err, SETUN_BAD_FILE, "%s: the text '%s' has %llu bytes%s, of 1 to %llu", j->in->path, t->name,
                       (unsigned long long)t->n, t->text ? "" : " at no address", (unsigned long long)MOST_TEXT);
    return SETUN_OK;
}

/* Elements of a tensor; refuses shapes that none has. */
static setun_status check_shape(const job *j, const setun_format_tensor *t, int64_t *count, setun_error *err)
{
    *count = 1;
    if (t->rank < 1 || t->rank > 4)
        return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s has %u dimensions; 1 to 4 are possible", j->in->path, t->name, (unsigned)t->rank);
    for (uint32_t k = 0; k < t->rank; k++)
        if (t->dim[k] < 1 || st_mul_i64(*count, t->dim[k], count) || *count > INT64_MAX / 8)
            return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s has %lld as dimension %u: none, or too many in all", j->in->path, t->name,
                           (long long)t->dim[k], (unsigned)k);
    return SETUN_OK;
}

/* PLAIN elements lie in the file.  Compared as integers: the pointer may be any. */
static setun_status check_plain(const job *j, const setun_format_tensor *t, int64_t count, setun_error *err)
{
    int64_t size = t->dtype == SETUN_F32 ? 4 : t->dtype == SETUN_F16 || t->dtype == SETUN_BF16 ? 2 : 0;
    uintptr_t begin = (uintptr_t)j->in->bytes, at = (uintptr_t)t->data;
    if (!size)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s has elements of type %u; plain ones are SETUN_F32, SETUN_F16 or SETUN_BF16",
                       j->in->path, t->name, (unsigned)t->dtype);
    if (at < begin || at - begin > (uintptr_t)j->in->n || (uint64_t)(count * size) > (uint64_t)j->in->n - (at - begin))
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s has %lld bytes that do not lie in the file, which has %lld", j->in->path, t->name,
                       (long long)(count * size), (long long)j->in->n);
    return SETUN_OK;
}

static setun_status check_ternary(const job *j, const setun_format_tensor *t, setun_error *err)
{
    static const char end[] = ".weight";
    size_t n = strlen(t->name);
    float scale = (float)t->scale;
    if (t->rank != 2 || n < sizeof end || strcmp(t->name + n - (sizeof end - 1), end) != 0)
        return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s has %u dimensions; a ternary one has two and is called X.weight", j->in->path,
                       t->name, (unsigned)t->rank);
    if (!(scale > 0.0f) || !isfinite(scale))
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s has the scale %g, which is not above 0 or no float", j->in->path, t->name, t->scale);
    return SETUN_OK;
}

/* The shape of each is possible; that of all together is bounded here, as offsets are sums. */
static setun_status add(job *j, const char *name, const char *dtype, int64_t from, uint32_t rank, const int64_t *dim, int64_t element,
                        setun_error *err)
{
    st_tensor *o = &j->out[j->n_out];
    j->from[j->n_out++] = from;
    *o = (st_tensor){name, NULL, dtype, {NULL, 0, rank, {1, 1, 1, 1}}, element};
    for (uint32_t k = 0; k < rank; k++) {
        o->view.dim[k] = dim[k];
        o->bytes *= dim[k];
    }
    return st_add_i64(j->n_bytes, o->bytes, &j->n_bytes)
               ? st_fail(err, SETUN_BAD_SHAPE, "%s: with tensor %s, of %lld bytes, there are too many in all", j->in->path, name,
                         (long long)o->bytes)
               : SETUN_OK;
}

/* Names of what is written, those of scales among them, are each other's once. */
static setun_status add_name(const job *j, const char *name, st_table *names, setun_error *err)
{
    int64_t was;
    if (!name)
        return no_memory(j, err);
    if (st_table_get(names, name, strlen(name), &was))
        return st_fail(err, SETUN_BAD_FILE, "%s: there are two tensors %s", j->in->path, name);
    return st_table_put(names, name, strlen(name), 0) ? no_memory(j, err) : SETUN_OK;
}

static setun_status check_tensor(job *j, int64_t i, st_table *names, setun_error *err)
{
    const setun_format_tensor *t = tensor_at(j, i);
    const char *scale;
    int64_t count;
    ST_TRY(check_name(j, "tensor", i, t->name, err));
    ST_TRY(add_name(j, t->name, names, err));
    ST_TRY(check_shape(j, t, &count, err));
    switch (t->kind) {
    case SETUN_FORMAT_PLAIN:
        ST_TRY(check_plain(j, t, count, err));
        ST_TRY(add(j, t->name, t->dtype == SETUN_F32 ? "F32" : t->dtype == SETUN_F16 ? "F16" : "BF16", i, t->rank, t->dim,
                   t->dtype == SETUN_F32 ? 4 : 2, err));
        /* Else few bytes, listed often, would fill a disk. */
        j->n_plain += j->out[j->n_out - 1].bytes;
        return j->n_plain <= j->in->n ? SETUN_OK
                                      : st_fail(err, SETUN_BAD_FILE, "%s: with tensor %s, plain ones have %lld bytes, and the file %lld: some "
                                                "lie in each other", j->in->path, t->name, (long long)j->n_plain, (long long)j->in->n);
    case SETUN_FORMAT_FLOATS:
        return add(j, t->name, "F32", i, t->rank, t->dim, 4, err);
    case SETUN_FORMAT_TERNARY:
        ST_TRY(check_ternary(j, t, err));
        ST_TRY(add(j, t->name, "U8", i, 2, (const int64_t[]){(t->dim[0] + 3) / 4, t->dim[1]}, 1, err));
        scale = st_arena_printf(j->arena, "%s_scale", t->name);
        ST_TRY(add_name(j, scale, names, err));
        return add(j, scale, "F32", i, 1, (const int64_t[]){1}, 4, err);
    default:
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is of kind %u; there are plain, floats and ternary (1 to 3)", j->in->path, t->name,
                       (unsigned)t->kind);
    }
}

static setun_status check_file(job *j, setun_error *err)
{
    const setun_format_file *f = &j->file;
    int has_config = 0;
    if (f->n_texts > 64 || (f->n_texts && (!f->text || f->text->size < END_OF(setun_format_text, n) || f->text->size % 8)))
        return st_fail(err, SETUN_BAD_FILE, "%s: %u texts are listed, of at most 64, or elements of a size that none has", j->in->path,
                       (unsigned)f->n_texts);
    if (f->n_tensors < 1 || f->n_tensors > MOST_TENSORS || !f->tensor || f->tensor->size < END_OF(setun_format_tensor, scale) ||
        f->tensor->size % 8)
        return st_fail(err, SETUN_BAD_FILE, "%s: %lld tensors are listed, of 1 to %d, or elements of a size that none has", j->in->path,
                       (long long)f->n_tensors, MOST_TENSORS);
    for (int64_t i = 0; i < f->n_texts; i++) {
        ST_TRY(check_text(j, i, err));
        has_config |= strcmp(text_at(j, i)->name, "config.json") == 0;
    }
    if (!has_config)
        return st_fail(err, SETUN_BAD_FILE, "%s: there is no text 'config.json'; it says what the tensors make", j->in->path);
    j->out = st_arena_array(j->arena, 2 * f->n_tensors, sizeof *j->out);
    j->from = st_arena_array(j->arena, 2 * f->n_tensors, sizeof *j->from);
    st_table *names = st_table_new(f->n_tensors);
    setun_status s = j->out && j->from && names ? SETUN_OK : no_memory(j, err);
    for (int64_t i = 0; i < f->n_tensors && s == SETUN_OK; i++)
        s = check_tensor(j, i, names, err);
    st_table_free(names);
    /* Last, as wrong offsets are what makes a text no text, and the lists say better what is wrong with them. */
    for (int64_t i = 0; i < f->n_texts && s == SETUN_OK; i++) {
        const setun_format_text *t = text_at(j, i);
        size_t good = st_utf8_valid(t->text, (size_t)t->n);
        if (good != t->n)
            s = st_fail(err, SETUN_BAD_FILE, "%s: the text '%s' is no UTF-8 at byte %llu", j->in->path, t->name, (unsigned long long)good);
    }
    return s;
}

/* ---------------------------------------------------------------- writing */

static setun_status put(job *j, const void *bytes, int64_t n, setun_error *err)
{
    ST_TRY(st_out_write(j->to, bytes, n, err));
    return st_watch_add(j->watch, n, err);
}

/* One row, from the plugin; of codes, those that are none are refused, and so are those that it left as they were. */
static setun_status read_row(const job *j, int64_t i, int64_t r, void *to, setun_error *err)
{
    const setun_format_tensor *t = tensor_at(j, i);
    setun_error why = {0, ""};
    int64_t cols = t->dim[t->rank - 1];
    memset(to, t->kind == SETUN_FORMAT_TERNARY ? 2 : 0, (size_t)cols * (t->kind == SETUN_FORMAT_TERNARY ? 1 : sizeof(float)));
    setun_status s = j->in->format->rows(j->file.self, i, r, 1, to, &why);
    if (s != SETUN_OK) {
        why.text[sizeof why.text - 1] = 0;
        return st_fail(err, s < 0 ? s : SETUN_FAILED, "%s: tensor %s, row %lld: %s", j->in->path, t->name, (long long)r,
                       why.text[0] ? why.text : "the plugin gives no reason");
    }
    const int8_t *code = to;
    for (int64_t c = 0; t->kind == SETUN_FORMAT_TERNARY && c < t->dim[1]; c++)
        if (code[c] < -1 || code[c] > 1)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s has the code %d at row %lld, column %lld; there are -1, 0 and 1", j->in->path,
                           t->name, code[c], (long long)r, (long long)c);
    return SETUN_OK;
}

/* Packed row p holds rows p, p + q, p + 2q, p + 3q, q = rows / 4 rounded up, two bits each from the lowest on, a code
 * more than the weight: docs/formats.md.  What is behind the last row is weight 0. */
static setun_status put_planes(job *j, int64_t i, setun_error *err)
{
    const setun_format_tensor *t = tensor_at(j, i);
    int64_t cols = t->dim[1], q = (t->dim[0] + 3) / 4;
    uint8_t *packed = malloc((size_t)cols);
    int8_t *code = malloc((size_t)cols);
    setun_status s = packed && code ? SETUN_OK : no_memory(j, err);
    for (int64_t p = 0; p < q && s == SETUN_OK; p++) {
        memset(packed, 0, (size_t)cols);
        for (int64_t plane = 0; plane < 4 && s == SETUN_OK; plane++) {
            int64_t r = p + plane * q;
            memset(code, 0, (size_t)cols);
            if (r < t->dim[0])
                s = read_row(j, i, r, code, err);
            for (int64_t c = 0; c < cols && s == SETUN_OK; c++)
                packed[c] = (uint8_t)(packed[c] | (code[c] + 1) << 2 * plane);
        }
        if (s == SETUN_OK)
            s = put(j, packed, cols, err);
    }
    free(packed);
    free(code);
    return s;
}

static setun_status put_floats(job *j, int64_t i, setun_error *err)
{
    const setun_format_tensor *t = tensor_at(j, i);
    int64_t cols = t->dim[t->rank - 1], rows = 1;
    for (uint32_t k = 0; k + 1 < t->rank; k++)
        rows *= t->dim[k];
    float *row = malloc((size_t)cols * sizeof *row), *file = malloc((size_t)cols * sizeof *row);
    setun_status s = row && file ? SETUN_OK : no_memory(j, err);
    for (int64_t r = 0; r < rows && s == SETUN_OK; r++) {
        s = read_row(j, i, r, row, err);
        if (s == SETUN_OK) {
            st_convert_order(file, row, sizeof *row, cols);
            s = put(j, file, cols * (int64_t)sizeof *row, err);
        }
    }
    free(row);
    free(file);
    return s;
}

static setun_status put_tensor(job *j, int64_t o, setun_error *err)
{
    int64_t i = j->from[o];
    const setun_format_tensor *t = tensor_at(j, i);
    float scale = (float)t->scale, file;
    if (t->kind == SETUN_FORMAT_PLAIN)
        return put(j, t->data, j->out[o].bytes, err);
    if (t->kind == SETUN_FORMAT_FLOATS)
        return put_floats(j, i, err);
    if (o && j->from[o - 1] == i) { /* behind its codes */
        st_convert_order(&file, &scale, sizeof scale, 1);
        return put(j, &file, sizeof file, err);
    }
    return put_planes(j, i, err);
}

static setun_status write_tensors(job *j, setun_error *err)
{
    st_str header = {0}, path = {0};
    st_safetensors_header(j->out, j->n_out, &header);
    setun_status s = header.failed ? no_memory(j, err) : st_newdir_path(j->dir, "model.safetensors", &path, err);
    j->watch->total += j->n_bytes;
    if (s == SETUN_OK)
        s = st_out_open(&j->to, path.text, 0, err);
    if (s == SETUN_OK)
        s = st_out_write(j->to, header.text, (int64_t)header.len, err);
    for (int64_t o = 0; o < j->n_out && s == SETUN_OK; o++)
        s = put_tensor(j, o, err);
    st_str_free(&header);
    st_str_free(&path);
    if (s == SETUN_OK)
        return st_out_commit(j->to, err);
    st_out_abort(j->to);
    return s;
}

/* Four planes say how many rows there are to within three, and are read as having those of config.json.  The plugin
 * said it exactly: rows must be neither made nor lost. */
static setun_status check_rows(const job *j, setun_error *err)
{
    st_source made = {0};
    const st_weights_choice choice = {.i2s = ST_I2S_ASK};
    setun_status s = st_source_open(&made, j->dir->dir.text, &choice, ST_FLOATS_STAY, err);
    if (s != SETUN_OK)
        st_wrap(err, "%s, read as %s", j->in->path, j->in->format->name);
    for (int64_t i = 0; i < j->file.n_tensors && s == SETUN_OK; i++) {
        const setun_format_tensor *t = tensor_at(j, i);
        const st_source_tensor *m = t->kind == SETUN_FORMAT_TERNARY ? st_source_find(&made, t->name) : NULL;
        if (m && m->rows != t->dim[0])
            s = st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s has %lld rows, and by config.json %lld", j->in->path, t->name,
                        (long long)t->dim[0], (long long)m->rows);
    }
    st_source_close(&made);
    return s;
}

static setun_status write_all(job *j, setun_error *err)
{
    ST_TRY(check_file(j, err));
    for (int64_t i = 0; i < j->file.n_texts; i++)
        ST_TRY(st_newdir_text(j->dir, text_at(j, i)->name, text_at(j, i)->text, (size_t)text_at(j, i)->n, err));
    ST_TRY(write_tensors(j, err));
    return check_rows(j, err);
}

setun_status st_import_write(const st_import *in, const st_newdir *d, st_watch *watch, setun_error *err)
{
    job j = {.in = in, .dir = d, .watch = watch, .file = {.size = sizeof j.file}, .arena = st_arena_new()};
    setun_error why = {0, ""};
    if (!j.arena)
        return no_memory(&j, err);
    setun_status s = in->format->open(in->self, in->bytes, (uint64_t)in->n, &j.file, &why);
    if (s != SETUN_OK) {
        why.text[sizeof why.text - 1] = 0;
        s = st_fail(err, s < 0 ? s : SETUN_FAILED, "%s, read as %s: %s", in->path, in->format->name,
                    why.text[0] ? why.text : "the plugin gives no reason");
    } else {
        s = write_all(&j, err);
        in->format->close(j.file.self);
    }
    st_arena_free(j.arena);
    return s;
}

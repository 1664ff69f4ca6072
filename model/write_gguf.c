/* model/write_gguf.c -- see write_gguf.h; docs/formats.md draws the container.
 *
 * The header lies in front of the data and is as long as the names in it, so that all of it is made
 * in memory before the first tensor is written: a vocabulary of 256,000 and its merges take 20 MB.
 * Offsets are the running sum of the padded sizes, which is the only thing that readers take. */
#include "model/write_gguf.h"

#include <string.h>

#include "base/error.h"

static void add_le(st_str *s, uint64_t v, int bytes)
{
    uint8_t le[8];
    for (int i = 0; i < bytes; i++)
        le[i] = (uint8_t)(v >> 8 * i);
    st_str_addn(s, le, (size_t)bytes);
}

void st_gguf_add_u32(st_str *s, uint32_t v) { add_le(s, v, 4); }

void st_gguf_add_text(st_str *s, const char *text, size_t n)
{
    add_le(s, n, 8);
    st_str_addn(s, text, n);
}

static void begin_key(st_gguf_writer *w, const char *key, uint32_t type)
{
    w->n_keys++;
    st_gguf_add_text(&w->keys, key, strlen(key));
    add_le(&w->keys, type, 4);
}

void st_gguf_write_int(st_gguf_writer *w, const char *key, uint32_t type, int64_t v)
{
    static const int bytes[ST_GGUF_VALUE_TYPES] = {
        [ST_GGUF_U8] = 1, [ST_GGUF_I8] = 1, [ST_GGUF_BOOL] = 1, [ST_GGUF_U16] = 2, [ST_GGUF_I16] = 2,
        [ST_GGUF_U32] = 4, [ST_GGUF_I32] = 4, [ST_GGUF_U64] = 8, [ST_GGUF_I64] = 8,
    };
    begin_key(w, key, type);
    add_le(&w->keys, (uint64_t)v, bytes[type]);
}

void st_gguf_write_f32(st_gguf_writer *w, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    begin_key(w, key, ST_GGUF_F32);
    add_le(&w->keys, bits, 4);
}

void st_gguf_write_text(st_gguf_writer *w, const char *key, const char *text, size_t n)
{
    begin_key(w, key, ST_GGUF_STRING);
    st_gguf_add_text(&w->keys, text, n);
}

static void begin_array(st_gguf_writer *w, const char *key, uint32_t element, int64_t n)
{
    begin_key(w, key, ST_GGUF_ARRAY);
    add_le(&w->keys, element, 4);
    add_le(&w->keys, (uint64_t)n, 8);
}

void st_gguf_write_array(st_gguf_writer *w, const char *key, uint32_t element, int64_t n, const st_str *bytes)
{
    begin_array(w, key, element, n);
    st_str_addn(&w->keys, bytes->text, bytes->len);
    w->keys.failed |= bytes->failed;
}

void st_gguf_write_value(st_gguf_writer *w, const st_gguf_value *v)
{
    if (v->type == ST_GGUF_ARRAY)
        begin_array(w, v->key, v->element, v->n);
    else
        begin_key(w, v->key, v->type);
    st_str_addn(&w->keys, v->data, (size_t)v->bytes);
}

static int64_t padding(int64_t at)
{
    return (ST_GGUF_ALIGNMENT - at % ST_GGUF_ALIGNMENT) % ST_GGUF_ALIGNMENT;
}

int st_gguf_write_info(st_gguf_writer *w, const char *name, const st_gguf_type *type, uint32_t rank, const int64_t dim[4],
                       int64_t *bytes)
{
    int64_t end;
    if (st_gguf_type_bytes(type, dim, bytes) || st_add_i64(w->data_bytes, *bytes, &end) ||
        st_add_i64(end, ST_GGUF_ALIGNMENT, &end))
        return -1;
    w->n_tensors++;
    st_gguf_add_text(&w->infos, name, strlen(name));
    add_le(&w->infos, rank, 4);
    for (uint32_t i = 0; i < rank; i++)
        add_le(&w->infos, (uint64_t)dim[i], 8);
    add_le(&w->infos, type->id, 4);
    add_le(&w->infos, (uint64_t)w->data_bytes, 8);
    w->data_bytes += *bytes + padding(*bytes);
    return 0;
}

setun_status st_gguf_write_header(st_gguf_writer *w, const char *path, setun_error *err)
{
    st_str head = { 0 };
    st_str_add(&head, "GGUF");
    add_le(&head, 3, 4);
    add_le(&head, w->n_tensors, 8);
    add_le(&head, w->n_keys, 8);
    setun_status st = head.failed || w->keys.failed || w->infos.failed
                          ? st_fail(err, SETUN_NO_MEMORY, "no memory for the header of %s", path)
                          : st_out_open(&w->out, path, 1, err);
    if (st == SETUN_OK)
        st = st_out_write(w->out, head.text, (int64_t)head.len, err);
    st_str_free(&head);
    if (st == SETUN_OK)
        st = st_out_write(w->out, w->keys.text, (int64_t)w->keys.len, err);
    if (st == SETUN_OK)
        st = st_out_write(w->out, w->infos.text, (int64_t)w->infos.len, err);
    if (st == SETUN_OK)
        st = st_gguf_write_pad(w, err);
    w->header_bytes = st == SETUN_OK ? st_out_tell(w->out) : 0;
    return st;
}

setun_status st_gguf_write_data(st_gguf_writer *w, const void *bytes, int64_t n, setun_error *err)
{
    return st_out_write(w->out, bytes, n, err);
}

/* The header ends at the alignment and so does each tensor, so that places in the file pad like places in the data. */
setun_status st_gguf_write_pad(st_gguf_writer *w, setun_error *err)
{
    static const uint8_t zeros[ST_GGUF_ALIGNMENT];
    return st_out_write(w->out, zeros, padding(st_out_tell(w->out)), err);
}

setun_status st_gguf_write_commit(st_gguf_writer *w, setun_error *err)
{
    int64_t data = st_out_tell(w->out) - w->header_bytes;
    if (data != w->data_bytes)
        return st_fail(err, SETUN_BAD_ARG, "%lld bytes of tensors were written, %lld announced", (long long)data,
                       (long long)w->data_bytes);
    st_out *o = w->out;
    w->out = NULL;
    return st_out_commit(o, err);
}

void st_gguf_writer_end(st_gguf_writer *w)
{
    st_out_abort(w->out);
    st_str_free(&w->keys);
    st_str_free(&w->infos);
    memset(w, 0, sizeof *w);
}

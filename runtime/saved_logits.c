/* runtime/saved_logits.c -- a file of logits.  See saved_logits.h, which draws it.
 *
 * Rows go through one buffer of bytes in file order, so that a host's own order never shows. */
#include "runtime/saved_logits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/str.h"

#define HEAD_BYTES 80
#define VERSION 1
static const char magic[8] = "SETUNLGT";

struct st_saved_out {
    st_out       *out;
    st_saved_head head;
    uint8_t      *row; /* as it stands in the file */
};

static void put(uint8_t *to, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get(const uint8_t *from, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;)
        v = v << 8 | from[i];
    return v;
}

static int64_t row_bytes(const st_saved_head *h) { return 8 + 4 * h->n_vocab + 8; }

int64_t st_saved_bytes(const st_saved_head *h)
{
    int64_t rows, all;
    return h->n_vocab > INT32_MAX || st_mul_i64(h->tokens, row_bytes(h), &rows) || st_add_i64(rows, HEAD_BYTES, &all) ? -1 : all;
}

static void write_head(const st_saved_head *h, uint8_t *to)
{
    const int64_t value[] = {h->window, h->stride, h->windows, h->tokens, h->n_vocab, (int64_t)h->text, (int64_t)h->vocab};
    memcpy(to, magic, 8);
    put(to + 8, VERSION, 4);
    put(to + 12, (uint64_t)h->convention, 4);
    for (int i = 0; i < 7; i++)
        put(to + 16 + 8 * i, (uint64_t)value[i], 8);
    put(to + 72, st_checksum(to, 72), 8);
}

setun_status st_saved_create(st_saved_out **o, const char *path, const st_saved_head *h, setun_error *err)
{
    uint8_t head[HEAD_BYTES];
    *o = calloc(1, sizeof **o);
    if (!*o || !((*o)->row = malloc((size_t)row_bytes(h)))) {
        st_saved_abort(*o);
        *o = NULL;
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a row of logits");
    }
    (*o)->head = *h;
    write_head(h, head);
    setun_status s = st_out_open(&(*o)->out, path, 1, err);
    if (s == SETUN_OK)
        s = st_out_write((*o)->out, head, sizeof head, err);
    if (s != SETUN_OK) {
        st_saved_abort(*o);
        *o = NULL;
    }
    return s;
}

setun_status st_saved_write(st_saved_out *o, int32_t token, const float *logits, setun_error *err)
{
    int64_t n = row_bytes(&o->head);
    put(o->row, (uint32_t)token, 8);
    for (int64_t i = 0; i < o->head.n_vocab; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], 4);
        put(o->row + 8 + 4 * i, bits, 4);
    }
    put(o->row + n - 8, st_checksum(o->row, (size_t)n - 8), 8);
    return st_out_write(o->out, o->row, n, err);
}

setun_status st_saved_commit(st_saved_out *o, setun_error *err)
{
    setun_status s = st_out_commit(o->out, err);
    o->out = NULL;
    st_saved_abort(o);
    return s;
}

void st_saved_abort(st_saved_out *o)
{
    if (!o)
        return;
    st_out_abort(o->out);
    free(o->row);
    free(o);
}

/* ---------------------------------------------------------------- reading */

static setun_status compare_heads(const char *path, const st_saved_head *is, const st_saved_head *want, setun_error *err)
{
    const struct { const char *what; int64_t is, want; } rows[] = {
        {"convention", is->convention, want->convention}, {"window", is->window, want->window},
        {"stride", is->stride, want->stride}, {"number of windows", is->windows, want->windows},
        {"number of predicted tokens", is->tokens, want->tokens}, {"number of logits", is->n_vocab, want->n_vocab}};
    if (is->vocab != want->vocab)
        return st_fail(err, SETUN_BAD_FILE, "%s: its tokens are those of another tokenizer", path);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].is != rows[i].want)
            return st_fail(err, SETUN_BAD_FILE, "%s: its %s is %lld, this run's is %lld", path, rows[i].what, (long long)rows[i].is,
                           (long long)rows[i].want);
    return is->text == want->text ? SETUN_OK : st_fail(err, SETUN_BAD_FILE, "%s: its text is another one", path);
}

setun_status st_saved_open(st_saved_in *in, const char *path, const st_saved_head *want, setun_error *err)
{
    st_saved_head *h = &in->head;
    in->path = path;
    ST_TRY(st_map_open(&in->map, path, err));
    const uint8_t *p = in->map.data;
    if (in->map.bytes < HEAD_BYTES || memcmp(p, magic, 8) != 0)
        return st_fail(err, SETUN_BAD_FILE, "%s is not a file of saved logits", path);
    if (get(p + 8, 4) != VERSION)
        return st_fail(err, SETUN_UNKNOWN, "%s is version %lld of saved logits, which Setun does not know", path, (long long)get(p + 8, 4));
    if (get(p + 72, 8) != st_checksum(p, 72))
        return st_fail(err, SETUN_BAD_FILE, "%s: its first 80 bytes are damaged", path);
    h->convention = (int64_t)get(p + 12, 4);
    int64_t *const value[] = {&h->window, &h->stride, &h->windows, &h->tokens, &h->n_vocab};
    for (int i = 0; i < 5; i++)
        *value[i] = (int64_t)get(p + 16 + 8 * i, 8);
    h->text = get(p + 56, 8);
    h->vocab = get(p + 64, 8);
    ST_TRY(compare_heads(path, h, want, err));
    if (in->map.bytes != st_saved_bytes(want))
        return st_fail(err, SETUN_BAD_FILE, "%s has %lld bytes, not the %lld of %lld tokens", path, (long long)in->map.bytes,
                       (long long)st_saved_bytes(want), (long long)want->tokens);
    in->row = malloc((size_t)want->n_vocab * sizeof *in->row);
    in->at = 0;
    return in->row ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a row of logits");
}

setun_status st_saved_next(st_saved_in *in, int32_t token, const float **logits, setun_error *err)
{
    int64_t n = row_bytes(&in->head), i = in->at++;
    if (i >= in->head.tokens)
        return st_fail(err, SETUN_BAD_FILE, "%s ends after %lld tokens", in->path, (long long)i);
    const uint8_t *p = in->map.data + HEAD_BYTES + i * n;
    if (get(p + n - 8, 8) != st_checksum(p, (size_t)n - 8))
        return st_fail(err, SETUN_BAD_FILE, "%s: the logits of token %lld are damaged", in->path, (long long)i);
    if (get(p, 8) != (uint32_t)token)
        return st_fail(err, SETUN_BAD_FILE, "%s: token %lld is %lld, not %d", in->path, (long long)i, (long long)get(p, 8), token);
    for (int64_t k = 0; k < in->head.n_vocab; k++) {
        uint32_t bits = (uint32_t)get(p + 8 + 4 * k, 4);
        memcpy(&in->row[k], &bits, 4);
        if (!isfinite(in->row[k]))
            return st_fail(err, SETUN_BAD_FILE, "%s: logit %lld of token %lld is not finite", in->path, (long long)k, (long long)i);
    }
    *logits = in->row;
    return SETUN_OK;
}

void st_saved_close(st_saved_in *in)
{
    st_map_close(&in->map);
    free(in->row);
    memset(in, 0, sizeof *in);
}

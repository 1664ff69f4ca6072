/* model/tokenizer_save.c -- a tokenizer as bytes; tokenizer_bytes.h says which. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/normal.h"
#include "model/pretok.h"
#include "model/tokenizer_bytes.h"
#include "model/tokenizer_inside.h"

static void put_tokens(const st_bpe *b, st_str *out)
{
    st_put_u32(out, (uint32_t)b->n_tokens);
    for (int64_t i = 0; i < b->n_tokens; i++) {
        const st_token *t = &b->token[i];
        st_put_u32(out, t->bytes ? (uint32_t)t->n << 2 | (t->added ? 2u : 0) | (t->special ? 1u : 0) : ST_TB_NONE);
    }
    for (int64_t i = 0; i < b->n_tokens; i++)
        if (b->token[i].bytes)
            st_str_addn(out, b->token[i].bytes, (size_t)b->token[i].n);
}

static void put_spelled(const st_bpe *b, st_str *out)
{
    int64_t n = st_table_count(b->by_bytes);
    st_put_u32(out, (uint32_t)n);
    for (int64_t i = 0; i < n; i++) {
        const void *s;
        size_t len;
        int64_t id;
        st_table_at(b->by_bytes, i, &s, &len, &id);
        int same = b->token[id].n == (int32_t)len && memcmp(b->token[id].bytes, s, len) == 0;
        st_put_u32(out, (uint32_t)id);
        st_put_text(out, s, same ? 0 : (int64_t)len);
    }
    n = b->loose ? st_table_count(b->loose) : 0;
    st_put_u32(out, (uint32_t)n);
    for (int64_t i = 0; i < n; i++) {
        const void *s;
        size_t len;
        int64_t index; /* the same as i */
        st_table_at(b->loose, i, &s, &len, &index);
        st_put_text(out, s, (int64_t)len);
    }
}

/* The hash has a seed of its own each time; sorted, equal tokenizers are equal bytes. */
static int compare_pairs(const void *a, const void *b)
{
    const st_pair_slot *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->key < y->key ? -1 : x->key > y->key;
}

static setun_status put_pairs(const st_bpe *b, const char *path, st_str *out, setun_error *err)
{
    int64_t n = 0;
    st_pair_slot *pair = malloc((size_t)(b->n_pairs + 1) * sizeof *pair);
    if (!pair)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the merges of %s", path);
    for (uint64_t i = 0; i <= b->mask && n < b->n_pairs; i++)
        if (b->pair[i].key != ST_BPE_NO_PAIR)
            pair[n++] = b->pair[i];
    qsort(pair, (size_t)n, sizeof *pair, compare_pairs);
    st_put_u32(out, (uint32_t)n);
    for (int64_t i = 0; i < n; i++) {
        st_put_u32(out, (uint32_t)(pair[i].key >> 32));
        st_put_u32(out, (uint32_t)pair[i].key);
        st_put_u32(out, pair[i].rank);
        st_put_u32(out, (uint32_t)pair[i].merged);
    }
    free(pair);
    return SETUN_OK;
}

static void put_single(const st_bpe *b, st_str *out)
{
    uint8_t crosses[32] = {0};
    for (int i = 0; i < 256; i++) {
        st_put_u32(out, (uint32_t)b->byte_id[i]);
        crosses[i / 8] |= (uint8_t)((b->crosses[i] ? 1 : 0) << i % 8);
    }
    for (int i = 0; i < 128; i++)
        st_put_u32(out, (uint32_t)b->ascii[i]);
    st_str_addn(out, crosses, sizeof crosses);
}

static void put_added(const st_tokenizer *t, st_str *out)
{
    int64_t n = st_table_count(t->names);
    st_put_u32(out, (uint32_t)n);
    for (int64_t i = 0; i < n; i++) {
        const void *s;
        size_t len;
        int64_t id;
        st_table_at(t->names, i, &s, &len, &id);
        st_put_text(out, s, (int64_t)len);
        st_put_u32(out, (uint32_t)id);
    }
    for (int k = 0; k < 2; k++) {
        st_put_u32(out, (uint32_t)t->set[k].n);
        for (int64_t i = 0; i < t->set[k].n; i++) {
            const st_added *a = &t->set[k].item[i];
            st_put_text(out, a->text, a->n);
            st_put_u32(out, (uint32_t)a->id);
            st_put_u32(out, (a->special ? ST_TB_SPECIAL : 0) | (a->alone ? ST_TB_ALONE : 0) | (a->left ? ST_TB_LEFT : 0) |
                                (a->right ? ST_TB_RIGHT : 0));
        }
    }
}

static void put_ids(const int32_t *id, int64_t n, st_str *out)
{
    st_put_u32(out, (uint32_t)n);
    for (int64_t i = 0; i < n; i++)
        st_put_u32(out, (uint32_t)id[i]);
}

setun_status st_tokenizer_save(const st_tokenizer *t, st_str *out, setun_error *err)
{
    const st_bpe *b = &t->bpe;
    st_str_addn(out, ST_TB_MAGIC, 8);
    st_put_u32(out, ST_TB_VERSION);
    st_put_u32(out, (b->chars ? ST_TB_CHARS : 0) | (b->byte_fallback ? ST_TB_BYTE_FALLBACK : 0) |
                        (b->fuse_unk ? ST_TB_FUSE_UNK : 0) | (b->ignore_merges ? ST_TB_IGNORE_MERGES : 0) |
                        (b->loose ? ST_TB_LOOSE : 0));
    st_put_u32(out, (uint32_t)t->strip);
    st_put_u32(out, (uint32_t)b->unk);
    put_tokens(b, out);
    put_spelled(b, out);
    put_single(b, out);
    ST_TRY(put_pairs(b, t->path, out, err));
    st_chars_put(&t->words, out);
    put_added(t, out);
    put_ids(t->before, t->n_before, out);
    put_ids(t->after, t->n_after, out);
    put_ids(t->end, t->n_end, out);
    ST_TRY(st_normal_put(t->normal, t->path, out, err));
    ST_TRY(st_pretok_put(t->pretok, t->path, out, err));
    return out->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer of %s", t->path) : SETUN_OK;
}

/* model/gguf_rotation.c -- prism.hadamard.* of a GGUF file as the same keys of a config.json, and back.
 *
 * These keys say which matrices want rotated inputs, so one that is not understood changes every logit: a
 * key that is not in the table here is refused by whoever asks st_gguf_rotation_knows.  Here only the form
 * of a value is checked; what it may be is checked where it is used (scripts/models/qwen3_hadamard.lua),
 * for directories and files alike. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf_model.h"
#include "model/write_gguf.h"

#define MOST 65536 /* values of a key; widths of a model of 27B add up to 28672 */
#define LONGEST 128 /* bytes of a text */

enum { ONE, LIST };

static const struct {
    const char *suffix;
    int         is_text, form;
} keys[] = {
    { "version", 0, ONE }, { "transform", 1, ONE }, { "axis", 1, ONE }, { "block_size", 0, ONE }, { "sign_mode", 1, ONE },
    { "sign_widths", 0, LIST }, { "sign_values", 0, LIST }, { "weight_names", 1, LIST }, { "inverse_weight_names", 1, LIST },
    { "gdn_v_grouped", 0, ONE },
};

/* The row of the table; -1: none. */
static int row_of(const char *key)
{
    size_t n = strlen(ST_ROTATION_PREFIX);
    for (int i = 0; strncmp(key, ST_ROTATION_PREFIX, n) == 0 && i < (int)(sizeof keys / sizeof *keys); i++)
        if (strcmp(key + n, keys[i].suffix) == 0)
            return i;
    return -1;
}

int st_gguf_rotation_knows(const char *key) { return row_of(key) >= 0; }

int64_t st_gguf_rotation_count(const st_gguf *g)
{
    int64_t n = 0;
    for (int64_t i = 0; i < g->n_values; i++)
        n += !st_gguf_rotation_knows(g->value[i].key) ? 0 : g->value[i].n < MOST ? g->value[i].n : MOST;
    return n;
}

/* Elements are numbered from 1, as those of a list in a config.json. */
static setun_status take(st_gguf_model *m, const st_gguf_value *v, int row, setun_error *err)
{
    int is_list = v->type == ST_GGUF_ARRAY, is_text = keys[row].is_text;
    const uint8_t *at = v->data;
    if (is_list != (keys[row].form == LIST) || (v->element == ST_GGUF_STRING) != is_text || v->n > MOST)
        return st_fail(err, SETUN_BAD_FILE, "%s: key %s is not %s%s", m->g.path, v->key, is_list != (keys[row].form == LIST)
                       ? (keys[row].form == LIST ? "a list of " : "one of the ") : v->n > MOST ? "a list of at most 65536 " : "made of ",
                       is_text ? "texts" : "whole numbers");
    for (int64_t i = 0; i < v->n; i++) {
        st_hparam h = { .kind = ST_HP_INT };
        int64_t n = 0;
        if (is_text) {
            const char *text = is_list ? st_gguf_next(&at, &n) : st_gguf_text(v, &n);
            if (n > LONGEST || memchr(text, 0, (size_t)n))
                return st_fail(err, SETUN_BAD_FILE, "%s: key %s has a text that is longer than %d bytes or has a 0 in it", m->g.path,
                               v->key, LONGEST);
            h.kind = ST_HP_STRING;
            h.s = st_arena_strndup(m->arena, text, (size_t)n);
        } else if (st_gguf_int(v, i, &h.i)) {
            return st_fail(err, SETUN_BAD_FILE, "%s: key %s is not made of whole numbers", m->g.path, v->key);
        }
        h.f = (double)h.i;
        const char *key = is_list ? st_arena_printf(m->arena, "%s.%lld", v->key, (long long)i + 1) : v->key;
        ST_TRY(st_gguf_model_put(m, is_text && !h.s ? NULL : key, h, err));
    }
    return SETUN_OK;
}

setun_status st_gguf_rotation_take(st_gguf_model *m, setun_error *err)
{
    for (int64_t i = 0; i < m->g.n_values; i++) {
        int row = row_of(m->g.value[i].key);
        if (row >= 0)
            ST_TRY(take(m, &m->g.value[i], row, err));
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- writing */

/* The elements of a list; if there are none, nothing is written. */
static void put_list(st_gguf_writer *w, const st_hparam *config, int64_t n, const char *key, int is_text)
{
    st_str bytes = { 0 };
    int64_t count = 0;
    size_t stem = strlen(key);
    for (int64_t i = 0; i < n; i++) {
        const st_hparam *h = &config[i];
        if (strncmp(h->key, key, stem) != 0 || h->key[stem] != '.')
            continue;
        if (is_text && h->kind == ST_HP_STRING)
            st_gguf_add_text(&bytes, h->s, strlen(h->s));
        else if (!is_text && h->kind == ST_HP_INT)
            st_gguf_add_u32(&bytes, (uint32_t)h->i);
        else
            continue;
        count++;
    }
    if (count)
        st_gguf_write_array(w, key, is_text ? ST_GGUF_STRING : ST_GGUF_I32, count, &bytes);
    st_str_free(&bytes);
}

/* What is in no row, of another kind than its row, or too large, is missing or other in the file: whoever writes one
 * reads it again and compares. */
void st_gguf_rotation_put(st_gguf_writer *w, const st_hparam *config, int64_t n)
{
    for (int row = 0; row < (int)(sizeof keys / sizeof *keys); row++) {
        char key[64];
        (void)snprintf(key, sizeof key, "%s%s", ST_ROTATION_PREFIX, keys[row].suffix);
        if (keys[row].form == LIST)
            put_list(w, config, n, key, keys[row].is_text);
        for (int64_t i = 0; i < n && keys[row].form == ONE; i++) {
            if (strcmp(config[i].key, key) != 0)
                continue;
            if (keys[row].is_text && config[i].kind == ST_HP_STRING)
                st_gguf_write_text(w, key, config[i].s, strlen(config[i].s));
            else if (!keys[row].is_text && config[i].kind == ST_HP_INT)
                st_gguf_write_int(w, key, ST_GGUF_I64, config[i].i);
        }
    }
}

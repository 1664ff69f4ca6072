/* model/carry_files.c -- the tokenizer of a GGUF file as the files of a Hugging Face directory.
 *
 *     tokenizer.json           what the keys mean, in the words in which gguf_vocab.c says it to our own reader
 *     tokenizer_config.json    the chat template, and how the first, last and padding tokens are spelled
 *     generation_config.json   the ids of these tokens
 *
 * tokenizer.json is put together from text: its two large members go from the file's lists straight into the
 * buffer, and only what is around them passes through the JSON library.
 *
 * Not here: the way there (carry_vocab.c), and weights and config.json (recode.c, carry.c). */
#include "model/carry.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf_vocab.h"

#define KEY "tokenizer.ggml."

static setun_status no_memory(const char *path, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer of %s", path);
}

/* ---------------------------------------------------------------- tokenizer.json */

/* Two neighbours that make token id, of which the first has so many bytes. */
typedef struct split {
    float   score;
    int32_t id, left;
} split;

/* The best token first.  Ids and places make the order a total one, so that the same file always gives the same list. */
static int by_score(const void *a, const void *b)
{
    const split *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id != y->id ? (x->id < y->id ? -1 : 1) : x->left - y->left;
}

/* As a pair of strings, the newer spelling: over characters, tokens may have spaces in them. */
static void add_merge(st_str *s, int64_t i, const char *left, size_t nl, const char *right, size_t nr)
{
    st_str_add(s, i ? ",\n   [" : "\n   [");
    st_str_add_json(s, left, nl);
    st_str_add(s, ", ");
    st_str_add_json(s, right, nr);
    st_str_add(s, "]");
}

/* A token's text, where it stands in the file. */
typedef struct piece {
    const char *p;
    int64_t     n;
} piece;

/* Of tokens with equal scores the leftmost in a text is made first, whichever that is, and merges of two tokens always have
 * an order.  User-defined tokens often share a score, and are cut out of a text before anything is merged. */
static setun_status check_ties(const st_gguf_vocab *v, const split *all, int64_t n, setun_error *err)
{
    for (int64_t i = 0, last = -1; i < n; i++) {
        if (st_gguf_vocab_type(v, all[i].id) != ST_TOKEN_NORMAL)
            continue;
        if (last >= 0 && all[last].score == all[i].score && all[last].id != all[i].id)
            return st_fail(err, SETUN_UNKNOWN, "%s: tokens %d and %d have equal scores and are made of others, which merges cannot say",
                           v->g->path, all[last].id, all[i].id);
        last = i;
    }
    return SETUN_OK;
}

/* By scores, any two neighbours that make a token are merged, the best token first.  So every pair that makes a token
 * is a merge, and merges are in the order of the scores of what they make: tokens of other types than these two
 * are never made.  Pairs of one token stand one behind the other, which is also what the way there asks for. */
static setun_status merges_of(const st_gguf_vocab *v, const piece *token, const st_table *by_text, st_str *s, setun_error *err)
{
    split *all = NULL;
    int64_t n = 0, cap = 0, other;
    for (int64_t id = 0; id < v->n; id++) {
        int type = st_gguf_vocab_type(v, id);
        for (int64_t cut = 1; cut < token[id].n && (type == ST_TOKEN_NORMAL || type == ST_TOKEN_USER_DEFINED); cut++) {
            if (((unsigned char)token[id].p[cut] & 0xc0u) == 0x80u || !st_table_get(by_text, token[id].p, (size_t)cut, &other) ||
                !st_table_get(by_text, token[id].p + cut, (size_t)(token[id].n - cut), &other))
                continue;
            if (n == cap) {
                split *more = realloc(all, (size_t)(cap = cap ? 2 * cap : 4096) * sizeof *all);
                if (!more) {
                    free(all);
                    return no_memory(v->g->path, err);
                }
                all = more;
            }
            all[n++] = (split){ (float)st_gguf_float(v->scores, id), (int32_t)id, (int32_t)cut };
        }
    }
    if (n)
        qsort(all, (size_t)n, sizeof *all, by_score);
    setun_status st = check_ties(v, all, n, err);
    for (int64_t i = 0; i < n && st == SETUN_OK; i++) {
        const piece *t = &token[all[i].id];
        add_merge(s, i, t->p, (size_t)all[i].left, t->p + all[i].left, (size_t)(t->n - all[i].left));
    }
    free(all);
    return st;
}

/* "vocab" and "merges".  Control tokens over characters are entries, too, as the files of SentencePiece's models
 * have it, but no part of another token. */
static setun_status add_vocab(const st_gguf_vocab *v, st_str *s, setun_error *err)
{
    piece *token = calloc((size_t)v->n + 1, sizeof *token);
    st_table *by_text = st_table_new(v->n);
    const uint8_t *at = v->tokens->data;
    int first = 1, failed = !token || !by_text;
    st_str_add(s, ",\n  \"vocab\": {");
    for (int64_t id = 0; id < v->n && !failed; id++) {
        int type = st_gguf_vocab_type(v, id);
        token[id].p = st_gguf_next(&at, &token[id].n);
        /* Byte-level vocabularies have their special tokens among the added ones alone. */
        if (type == ST_TOKEN_UNUSED || (type == ST_TOKEN_CONTROL && !v->scores))
            continue;
        failed = type != ST_TOKEN_CONTROL && st_table_put(by_text, token[id].p, (size_t)token[id].n, id);
        st_str_add(s, first ? "\n   " : ",\n   ");
        st_str_add_json(s, token[id].p, (size_t)token[id].n);
        st_str_addf(s, ": %lld", (long long)id);
        first = 0;
    }
    st_str_add(s, "\n  },\n  \"merges\": [");
    setun_status st = failed ? no_memory(v->g->path, err) : SETUN_OK;
    if (st == SETUN_OK && v->scores)
        st = merges_of(v, token, by_text, s, err);
    at = v->merges ? v->merges->data : NULL;
    for (int64_t i = 0; st == SETUN_OK && v->merges && i < v->merges->n; i++) {
        const char *pair;
        size_t n, space;
        st = st_gguf_vocab_merge(v, &at, i, &pair, &n, &space, err);
        if (st == SETUN_OK)
            add_merge(s, i, pair, space, pair + space + 1, n - space - 1);
    }
    st_str_add(s, "\n  ]");
    free(token);
    st_table_free(by_text);
    return st;
}

/* The reader of GGUF leaves out what it does not need, and other readers ask for. */
static int complete(json_t *root)
{
    static const char *const flags[] = { "single_word", "lstrip", "rstrip" };
    json_t *item, *post = json_object_get(root, "post_processor"), *single = json_object_get(post, "single"), *tokens, *pair;
    const char *name;
    size_t i;
    int failed = json_object_set_new(root, "version", json_string("1.0")) | json_object_set_new(root, "truncation", json_null()) |
                 json_object_set_new(root, "padding", json_null());
    json_array_foreach(json_object_get(root, "added_tokens"), i, item)
        for (int k = 0; k < 3; k++)
            failed |= json_object_set_new(item, flags[k], json_false());
    json_array_foreach(single, i, item)
        failed |= json_object_set_new(json_object_iter_value(json_object_iter(item)), "type_id", json_integer(0));
    tokens = json_object_get(post, "special_tokens");
    json_object_foreach(tokens, name, item) {
        failed |= json_object_set_new(item, "id", json_string(name));
        failed |= json_object_set_new(item, "tokens", json_pack("[s]", name));
    }
    /* A pair of texts is one behind the other. */
    pair = json_deep_copy(single);
    failed |= json_array_append_new(pair, json_pack("{s{sssi}}", "Sequence", "id", "B", "type_id", 1));
    return failed | json_object_set_new(post, "pair", pair);
}

/* The members, and model with the two large ones inside. */
static setun_status write_tokenizer(const st_gguf_vocab *v, st_newdir *d, setun_error *err)
{
    st_str s = { 0 };
    json_t *model = json_incref(json_object_get(v->root, "model"));
    int failed = complete(v->root) | json_object_del(v->root, "model");
    char *head = json_dumps(v->root, JSON_INDENT(1)), *inner = json_dumps(model, JSON_INDENT(1));
    setun_status st = failed || !head || !inner ? no_memory(v->g->path, err) : SETUN_OK;
    if (st == SETUN_OK) { /* both end with a brace on a line of its own, which comes after what is added */
        st_str_addn(&s, head, strlen(head) - 2);
        st_str_add(&s, ",\n \"model\": ");
        st_str_addn(&s, inner, strlen(inner) - 2);
        st = add_vocab(v, &s, err);
        st_str_add(&s, "\n }\n}\n");
    }
    if (st == SETUN_OK)
        st = s.failed ? no_memory(v->g->path, err) : st_newdir_text(d, "tokenizer.json", s.text, s.len, err);
    free(head);
    free(inner);
    json_decref(model);
    st_str_free(&s);
    return st;
}

/* ---------------------------------------------------------------- the files beside it */

/* -1: the key is absent or no id; what matters of it has been checked by the reader. */
static int64_t id_key(const st_gguf *g, const char *key)
{
    const st_gguf_value *v = st_gguf_find(g, key);
    int64_t id = -1;
    return v && v->type != ST_GGUF_ARRAY && st_gguf_int(v, 0, &id) == 0 ? id : -1;
}

/* Strings of a file have no index: token id is found by walking, for three tokens at most. */
static json_t *token_text(const st_gguf_vocab *v, int64_t id)
{
    const uint8_t *at = v->tokens->data;
    const char *p = "";
    int64_t n = 0;
    if (id < 0 || id >= v->n)
        return NULL;
    for (int64_t i = 0; i <= id; i++)
        p = st_gguf_next(&at, &n);
    return json_stringn(p, (size_t)n);
}

/* Takes root, which is NULL where memory ended. */
static setun_status write_object(st_newdir *d, const char *name, json_t *root, const char *path, setun_error *err)
{
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    setun_status st = text ? st_newdir_text(d, name, text, strlen(text), err) : no_memory(path, err);
    free(text);
    json_decref(root);
    return st;
}

/* The token that ends a text is a list in generation_config.json, since files name several, and programs stop at any of
 * them.  Other templates than the default one have no place that all programs read, so they are noted, as are the
 * records of who made the file. */
static setun_status write_companions(const st_source *s, const st_gguf_vocab *v, st_newdir *d, st_str *notes, setun_error *err)
{
    static const char *const keys[] = { KEY "bos_token_id", KEY "eos_token_id", KEY "padding_token_id" };
    static const char *const names[] = { "bos_token", "eos_token", "pad_token" };
    const st_gguf *g = &s->model->g;
    const st_gguf_value *chat = st_gguf_find(g, "tokenizer.chat_template");
    json_t *about = json_pack("{ss}", "tokenizer_class", "PreTrainedTokenizerFast"), *start = json_object(), *ends = json_array();
    int64_t n = 0;
    const char *text = chat ? st_gguf_text(chat, &n) : NULL;
    int failed = !about || !start || !ends;
    for (int i = 0; i < 3; i++) {
        int64_t id = id_key(g, keys[i]);
        json_t *name = token_text(v, id);
        if (!name)
            continue;
        failed |= json_object_set_new(about, names[i], name);
        if (i != 1)
            failed |= json_object_set_new(start, i ? "pad_token_id" : "bos_token_id", json_integer(id));
    }
    if (text)
        failed |= json_object_set_new(about, "chat_template", json_stringn(text, (size_t)n));
    for (int64_t i = 0; i < v->n_end; i++)
        failed |= json_array_append_new(ends, json_integer(v->end[i]));
    failed |= json_object_set_new(start, "eos_token_id", ends);
    for (int64_t i = 0; i < g->n_values; i++) {
        const char *key = g->value[i].key;
        if (strncmp(key, "tokenizer.chat_template.", 24) == 0 || (strncmp(key, "general.", 8) == 0 && strcmp(key, "general.architecture") != 0))
            st_str_addf(notes, "not carried: %s\n", key);
    }
    if (failed) {
        json_decref(about);
        json_decref(start);
        return no_memory(s->path, err);
    }
    setun_status st = write_object(d, "tokenizer_config.json", about, s->path, err);
    if (st == SETUN_OK)
        return write_object(d, "generation_config.json", start, s->path, err);
    json_decref(start);
    return st;
}

/* A file of weights alone is a model, too: it is run with ids. */
setun_status st_carry_vocab_files(const st_source *s, st_newdir *d, st_str *notes, setun_error *err)
{
    st_gguf_vocab v = { .n = 0 };
    if (!st_gguf_find(&s->model->g, KEY "model")) {
        st_str_add(notes, "not carried: the file has no tokenizer\n");
        return SETUN_OK;
    }
    setun_status st = st_gguf_vocab_read(&v, &s->model->g, err);
    if (st == SETUN_OK)
        st = write_companions(s, &v, d, notes, err);
    if (st == SETUN_OK)
        st = write_tokenizer(&v, d, err);
    st_gguf_vocab_free(&v);
    return st;
}

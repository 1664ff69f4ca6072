/* model/compare_tokens.c -- do the tokenizers of two models do the same?
 *
 * Every token's bytes, and what is special, are compared.  How a text is cut and merged is code, not
 * data, in both formats: there a text decides that has what rules differ about, which is evidence and
 * no proof. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "model/compare.h"
#include "model/tokenizer.h"

/* Letters of several scripts, marks, numbers, runs of spaces and line ends, contractions, code. */
static const char *const texts[] = {
    "Hello, world! It's 12345.678 o'clock -- isn't it?  I'LL  say   so;\n\n\n\tyes.\r\n  trailing   ",
    "na\xc3\xafve caf\xc3\xa9, \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e, \xf0\x9f\x99\x82\xf0\x9f\x91\x8d",
    "\xc2\xbd \xc2\xb2 \xd9\xa3 e\xcc\x81 \xc2\xa0 \xe2\x96\x81",
    "int main(void) {\n\treturn x[0x1F] << 2 == ~y ? a->b : 3.14e-10; /* $100 + 5% @ #1 */\n}\n",
    " leading, aaaaaaaaaaaaaaaaaaaaaaaa, ThisIsCamelCase_and_snake_case, https://example.org/?q=1&r=2 ",
    "<s>[INST] <|im_start|>user <|begin_of_text|><|eot_id|></s> <0x41> \\u0041",
};

static setun_status compare_texts(const st_tokenizer *a, const st_tokenizer *b, const char *path, setun_error *err)
{
    for (size_t i = 0; i < 2 * sizeof texts / sizeof *texts; i++) {
        const char *text = texts[i / 2];
        uint32_t flags = i % 2 ? ST_TOK_BOS | ST_TOK_SPECIAL : 0;
        int32_t *ids_a = NULL, *ids_b = NULL;
        int64_t n_a = 0, n_b = 0, k = 0;
        /* A text that one of them refuses says nothing: there are vocabularies without some characters, and
         * normalizers that want a text composed. */
        setun_status sa = st_tokenizer_encode(a, text, (int64_t)strlen(text), flags, &ids_a, &n_a, NULL);
        setun_status sb = st_tokenizer_encode(b, text, (int64_t)strlen(text), flags, &ids_b, &n_b, NULL);
        while (k < n_a && k < n_b && ids_a[k] == ids_b[k])
            k++;
        int same = sa != SETUN_OK || sb != SETUN_OK || (n_a == n_b && k == n_a);
        free(ids_a);
        free(ids_b);
        if (!same)
            return st_fail(err, SETUN_BAD_FILE, "%s: another tokenizer: from token %lld on, it cuts otherwise: %.60s", path, (long long)k, text);
    }
    return SETUN_OK;
}

static setun_status compare_bytes(const st_tokenizer *a, const st_tokenizer *b, const char *path, setun_error *err)
{
    int64_t size_a = st_tokenizer_size(a), size_b = st_tokenizer_size(b), n = size_a > size_b ? size_a : size_b;
    for (int32_t id = 0; id < n; id++) {
        const char *bytes_a = "", *bytes_b = "";
        int64_t n_a = 0, n_b = 0;
        int special_a = 0, special_b = 0;
        /* An id without a token, and one whose token stands for nothing, are alike. */
        int has_a = id < size_a && st_tokenizer_bytes(a, id, &bytes_a, &n_a, &special_a, NULL) == SETUN_OK && n_a > 0;
        int has_b = id < size_b && st_tokenizer_bytes(b, id, &bytes_b, &n_b, &special_b, NULL) == SETUN_OK && n_b > 0;
        if (has_a != has_b || (has_a && (n_a != n_b || memcmp(bytes_a, bytes_b, (size_t)n_a) != 0 || special_a != special_b)))
            return st_fail(err, SETUN_BAD_FILE, "%s: another tokenizer: token %d is %s", path, id,
                           !has_a || !has_b ? "not in both" : n_a == n_b && special_a != special_b ? "special in one" : "another one");
    }
    if (st_tokenizer_bos(a) != st_tokenizer_bos(b))
        return st_fail(err, SETUN_BAD_FILE, "%s: another tokenizer: texts begin with token %d, not %d", path, st_tokenizer_bos(b),
                       st_tokenizer_bos(a));
    return SETUN_OK;
}

static int ends(const st_source *s, const st_tokenizer *t, int32_t id)
{
    const int32_t *ids;
    int64_t n = st_tokenizer_ends(t, &ids), k = 0;
    while (k < n && ids[k] != id)
        k++;
    return k < n || st_compare_ends(s, id);
}

static setun_status compare_ends(const st_source *a, const st_tokenizer *ta, const st_source *b, const st_tokenizer *tb,
                                 st_comparison *c, setun_error *err)
{
    int64_t most = c->n_notes + ST_COMPARE_ENDS;
    for (int32_t id = 0; id < st_tokenizer_size(ta); id++) {
        int first = ends(a, ta, id), second = ends(b, tb, id);
        if (first && !second)
            return st_fail(err, SETUN_BAD_FILE, "%s: token %d does not end a text, as it does in %s", b->path, id, a->path);
        if (first == second || c->n_notes == most)
            continue;
        if (!(c->note[c->n_notes++] = st_arena_printf(a->arena, "token %d ends a text: no, yes", id)))
            return st_fail(err, SETUN_NO_MEMORY, "no memory to compare tokenizers");
    }
    return SETUN_OK;
}

/* A directory of weights alone may have no tokenizer.json, a GGUF file no key for one. */
static int has_tokenizer(const st_source *s)
{
    st_str path = { 0 };
    if (s->model)
        return st_gguf_find(&s->model->g, "tokenizer.ggml.model") != NULL;
    st_str_addf(&path, "%s/tokenizer.json", s->path);
    int has = !path.failed && !st_is_absent(path.text);
    st_str_free(&path);
    return has;
}

setun_status st_compare_tokens(const st_source *a, const st_source *b, st_comparison *c, setun_error *err)
{
    st_tokenizer *ta = NULL, *tb = NULL;
    if (!has_tokenizer(a) || !has_tokenizer(b))
        return SETUN_OK;
    setun_status st = st_tokenizer_open(&ta, a->path, err);
    if (st == SETUN_OK)
        st = st_tokenizer_open(&tb, b->path, err);
    if (st == SETUN_OK)
        st = compare_bytes(ta, tb, b->path, err);
    if (st == SETUN_OK)
        st = compare_texts(ta, tb, b->path, err);
    if (st == SETUN_OK)
        st = compare_ends(a, ta, b, tb, c, err);
    st_tokenizer_close(ta);
    st_tokenizer_close(tb);
    return st;
}

/* model/tokenizer.c -- text to ids and back, as tokenizer.json or a GGUF file says.
 *
 *     text -> added tokens cut out -> normalized (normal.c) -> other added tokens cut out
 *          -> pieces (pretok.c) -> merged symbols (bpe.c) -> template around
 *
 * Two kinds of vocabulary are read.  With ByteLevel as pre-tokenizer and decoder, symbols are bytes;
 * otherwise they are characters, and the decoder says how tokens become text (SentencePiece).
 *
 * Not here: chat templates and tokenizer_config.json (template.c).  The settings for truncation and padding are
 * not read either: whoever calls a tokenizer decides those.
 *
 * Everything that could change an id is honoured or refused.  The two large members of the file,
 * model.vocab and model.merges, are walked in place (jscan.c); what is left goes through the JSON
 * library with a null in their places.  A GGUF file's tokenizer comes in the same words
 * (gguf_vocab.c); its vocabulary is walked in place as well. */
#include "model/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "model/bpe.h"
#include "model/gguf_vocab.h"
#include "model/normal.h"
#include "model/pretok.h"
#include "model/words.h"

#define FILE_LIMIT ((int64_t)64 << 20)
#define TEXT_LIMIT ((int64_t)1 << 30)
#define MAX_ADDED 65536
#define MAX_ADDED_BYTES 512
#define MAX_TEMPLATE 64

/* An added token.  Sets are sorted by bytes, so that matching narrows a range byte by byte. */
typedef struct added {
    const char *text;
    int64_t     n;
    int32_t     id;
    int         special;
    int         alone;       /* "single_word": only where no word character stands next to it */
    int         left, right; /* "lstrip", "rstrip": white space before it, behind it, is part of it */
} added;

typedef struct added_set {
    added  *item;
    int64_t n;
    uint8_t first[256]; /* does any begin with this byte? */
} added_set;

struct st_tokenizer {
    st_arena  *arena;
    const char *path;
    st_bpe     bpe;
    st_normal *normal;
    st_pretok *pretok;
    st_table  *names; /* added tokens, as written in the file */
    int32_t    strip; /* spaces that decoding drops at the start of a text */
    added_set  set[2]; /* 0: "normalized" false, matched first; 1: the others */
    int32_t    before[MAX_TEMPLATE], after[MAX_TEMPLATE];
    int64_t    n_before, n_after;
    int32_t    end[ST_GGUF_VOCAB_ENDS];
    int64_t    n_end;
    const char *about;
};

/* Where the two large members come from. */
typedef setun_status fill_fn(void *user, st_tokenizer *t, setun_error *err);

/* ---------------------------------------------------------------- reading */

static setun_status unsupported(const st_tokenizer *t, const char *what, json_t *json,
                                setun_error *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    return st_fail(err, SETUN_UNKNOWN, "%s: %s %s is not supported", t->path, what,
                   type ? type : "without a type");
}

static int is_type(json_t *json, const char *type)
{
    const char *s = json_string_value(json_object_get(json, "type"));
    return s && strcmp(s, type) == 0;
}

static int compare_added(const void *a, const void *b)
{
    const added *x = a, *y = b;
    int64_t n = x->n < y->n ? x->n : y->n;
    int d = memcmp(x->text, y->text, (size_t)n);
    return d ? d : x->n < y->n ? -1 : x->n > y->n;
}

static setun_status normalize_name(const st_tokenizer *t, char **name, int64_t *n, setun_error *err)
{
    st_str held = { 0 };
    const char *text;
    setun_status st = st_normal_apply(t->normal, *name, *n, &held, &text, n, err);
    if (st == SETUN_OK && text != *name && !(*name = st_arena_strdup(t->arena, text)))
        st = st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
    st_str_free(&held);
    return st;
}

static setun_status read_added_token(st_tokenizer *t, json_t *json, setun_error *err)
{
    const char *text = json_string_value(json_object_get(json, "content"));
    json_t *id = json_object_get(json, "id");
    if (!text || !json_is_integer(id) || !text[0] || strlen(text) > MAX_ADDED_BYTES)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: an added token needs an id and a content of 1 to %d bytes", t->path,
                       MAX_ADDED_BYTES);
    static const char *const flags[] = { "single_word", "lstrip", "rstrip", "special", "normalized" };
    for (int i = 0; i < 5; i++) {
        json_t *flag = json_object_get(json, flags[i]);
        if (flag && !json_is_boolean(flag))
            return st_fail(err, SETUN_BAD_FILE, "%s: added token %s: %s is neither true nor false",
                           t->path, text, flags[i]);
    }
    int64_t value = json_integer_value(id), n = (int64_t)strlen(text);
    char *copy = st_arena_strdup(t->arena, text);
    if (!copy)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
    st_bpe *b = &t->bpe;
    char bytes[MAX_ADDED_BYTES];
    int64_t len = b->chars ? n : st_bpe_unmap(text, (size_t)n, bytes), in_vocab = -1;
    if (len > 0)
        (void)st_table_get(b->by_bytes, b->chars ? text : bytes, (size_t)len, &in_vocab);
    if (value >= 0 && value < b->n_tokens && b->token[value].bytes) {
        /* Also an entry of the vocabulary: then it must be this one. */
        int same = in_vocab == value ||
                   (!b->chars && b->token[value].n == n && memcmp(b->token[value].bytes, text, (size_t)n) == 0);
        if (!same || b->token[value].added)
            return st_fail(err, SETUN_BAD_FILE,
                           "%s: added token %s has the id %lld of another token", t->path, text,
                           (long long)value);
        /* The byte-level decoder leaves its text alone; the other one is for all tokens. */
        if (!b->chars) {
            b->token[value].bytes = copy;
            b->token[value].n = (int32_t)n;
        }
    } else {
        if (in_vocab >= 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: token %s has two ids, %lld and %lld", t->path,
                           text, (long long)in_vocab, (long long)value);
        char *decoded = b->chars ? st_arena_strdup(t->arena, text) : copy;
        if (!decoded)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
        ST_TRY(st_bpe_add(b, value, decoded, b->chars ? st_bpe_spell(b, text, (size_t)n, decoded) : n,
                          t->path, err));
    }
    b->token[value].added = 1;
    b->token[value].special = json_is_true(json_object_get(json, "special"));
    if (st_table_put(t->names, copy, (size_t)n, value))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
    int normalized = json_is_true(json_object_get(json, "normalized"));
    if (normalized) /* looked for in normalized text, so as normalized itself */
        ST_TRY(normalize_name(t, &copy, &n, err));
    added_set *set = &t->set[normalized];
    set->item[set->n++] = (added){ .text = copy,
                                   .n = n,
                                   .id = (int32_t)value,
                                   .special = b->token[value].special,
                                   .alone = json_is_true(json_object_get(json, "single_word")),
                                   .left = json_is_true(json_object_get(json, "lstrip")),
                                   .right = json_is_true(json_object_get(json, "rstrip")) };
    set->first[(uint8_t)copy[0]] = 1;
    return SETUN_OK;
}

static setun_status read_added(st_tokenizer *t, json_t *list, setun_error *err)
{
    size_t n = json_array_size(list);
    if ((list && !json_is_array(list) && !json_is_null(list)) || n > MAX_ADDED)
        return st_fail(err, SETUN_BAD_FILE, "%s: added_tokens is not a list of at most %d", t->path,
                       MAX_ADDED);
    if (!(t->names = st_table_new((int64_t)n)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
    for (int i = 0; i < 2; i++)
        if (!(t->set[i].item = st_arena_array(t->arena, (int64_t)n + 1, sizeof(added))))
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
    for (size_t i = 0; i < n; i++)
        ST_TRY(read_added_token(t, json_array_get(list, i), err));
    for (int i = 0; i < 2; i++) {
        qsort(t->set[i].item, (size_t)t->set[i].n, sizeof(added), compare_added);
        for (int64_t k = 1; k < t->set[i].n; k++)
            if (compare_added(&t->set[i].item[k - 1], &t->set[i].item[k]) == 0)
                return st_fail(err, SETUN_BAD_FILE, "%s: added token %s is there twice", t->path,
                               t->set[i].item[k].text);
    }
    return SETUN_OK;
}

/* TemplateProcessing: what stands before and after the text "A". */
static setun_status read_template(st_tokenizer *t, json_t *json, setun_error *err)
{
    json_t *single = json_object_get(json, "single"),
           *specials = json_object_get(json, "special_tokens");
    int seen = 0;
    if (!json_is_array(single) || t->n_before || t->n_after)
        return st_fail(err, SETUN_BAD_FILE, "%s: post_processor has no single template, or two",
                       t->path);
    for (size_t i = 0; i < json_array_size(single); i++) {
        json_t *item = json_array_get(single, i), *sequence = json_object_get(item, "Sequence");
        const char *name =
            json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (sequence && !seen) {
            seen = 1;
            continue;
        }
        json_t *ids = name ? json_object_get(json_object_get(specials, name), "ids") : NULL;
        if (!json_is_array(ids) || json_array_size(ids) == 0)
            return st_fail(err, SETUN_BAD_FILE,
                           "%s: post_processor uses %s, which it does not define", t->path,
                           name ? name : "a token");
        for (size_t k = 0; k < json_array_size(ids); k++) {
            json_t *id = json_array_get(ids, k);
            int64_t v = json_integer_value(id);
            if (!json_is_integer(id) || v < 0 || v >= t->bpe.n_tokens || !t->bpe.token[v].bytes)
                return st_fail(err, SETUN_BAD_FILE,
                               "%s: post_processor token %s has an id that no token has", t->path,
                               name);
            if (t->n_before == MAX_TEMPLATE || t->n_after == MAX_TEMPLATE)
                return st_fail(err, SETUN_BAD_FILE, "%s: post_processor adds more than %d tokens",
                               t->path, MAX_TEMPLATE);
            if (seen)
                t->after[t->n_after++] = (int32_t)v;
            else
                t->before[t->n_before++] = (int32_t)v;
        }
    }
    return seen ? SETUN_OK
                : st_fail(err, SETUN_BAD_FILE, "%s: post_processor leaves out the text", t->path);
}

static setun_status read_post(st_tokenizer *t, json_t *json, int depth, setun_error *err)
{
    if (!json || json_is_null(json) ||
        is_type(json, "ByteLevel")) /* ByteLevel only moves offsets */
        return SETUN_OK;
    if (is_type(json, "TemplateProcessing"))
        return read_template(t, json, err);
    if (!is_type(json, "Sequence") || depth > 4)
        return unsupported(t, "post_processor", json, err);
    json_t *list = json_object_get(json, "processors");
    for (size_t i = 0; i < json_array_size(list); i++)
        ST_TRY(read_post(t, json_array_get(list, i), depth + 1, err));
    return SETUN_OK;
}

/* ByteLevel for bytes.  For characters, some of these in this order, in a Sequence: Replace of
 * U+2581 by a space, ByteFallback, Fuse, Strip of leading spaces. */
static setun_status read_decoder(st_tokenizer *t, json_t *json, int depth, int *last,
                                 setun_error *err)
{
    static const char *const order[] = { "Sequence", "Replace", "ByteFallback", "Fuse", "Strip" };
    const char *path = t->path;
    st_bpe *b = &t->bpe;
    int at = 4;
    while (at >= 0 && !is_type(json, order[at]))
        at--;
    if (at < 0 && is_type(json, "ByteLevel") && !b->chars && *last == 0) {
        *last = 5;
        return st_json_known(json, "add_prefix_space trim_offsets use_regex ", "decoder ByteLevel",
                             path, err);
    }
    /* Strip without Fuse would be for each token. */
    if (at < 0 || depth > 1 || (at > 0 && (!b->chars || at <= *last)) || (at == 4 && *last != 3))
        return unsupported(t, "decoder", json, err);
    if (at > 0)
        *last = at;
    if (at == 0) {
        json_t *list = json_object_get(json, "decoders");
        ST_TRY(st_json_known(json, "decoders ", "decoder Sequence", path, err));
        for (size_t i = 0; i < json_array_size(list); i++)
            ST_TRY(read_decoder(t, json_array_get(list, i), depth + 1, last, err));
    } else if (at == 1) {
        json_t *from = json_object_get(json_object_get(json, "pattern"), "String");
        const char *a = json_string_value(from),
                   *c = json_string_value(json_object_get(json, "content"));
        ST_TRY(st_json_known(json, "pattern content ", "decoder Replace", path, err));
        if (!a || !c || strcmp(a, "\xe2\x96\x81") != 0 || strcmp(c, " ") != 0)
            return st_fail(err, SETUN_UNKNOWN,
                           "%s: decoder Replace of anything but U+2581 by a space is not supported", path);
        b->decode_space = 1;
    } else if (at == 4) {
        const char *c = json_string_value(json_object_get(json, "content"));
        json_t *start = json_object_get(json, "start"), *stop = json_object_get(json, "stop");
        ST_TRY(st_json_known(json, "content start stop ", "decoder Strip", path, err));
        if (!c || strcmp(c, " ") != 0 || !json_is_integer(start) || json_integer_value(start) < 0 ||
            json_integer_value(start) > ST_TOK_MAX_STRIP || !json_is_integer(stop) ||
            json_integer_value(stop) != 0)
            return st_fail(err, SETUN_UNKNOWN,
                           "%s: decoder Strip of anything but up to %d spaces at the start is not supported",
                           path, ST_TOK_MAX_STRIP);
        t->strip = (int32_t)json_integer_value(start);
    } else {
        ST_TRY(st_json_known(json, "", at == 2 ? "decoder ByteFallback" : "decoder Fuse", path, err));
        b->decode_bytes |= at == 2;
    }
    return SETUN_OK;
}

static setun_status check_decoder(st_tokenizer *t, json_t *json, setun_error *err)
{
    int last = 0;
    ST_TRY(read_decoder(t, json, 0, &last, err));
    return last > 0 ? SETUN_OK
                    : st_fail(err, SETUN_UNKNOWN, "%s: a decoder that does nothing is not supported",
                              t->path);
}

/* Is member key absent, null, false, or the empty string? */
static int is_off(json_t *json, const char *key)
{
    json_t *v = json_object_get(json, key);
    return !v || json_is_null(v) || json_is_false(v) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_number(v) && !(json_number_value(v) > 0.0));
}

static setun_status check_model(st_tokenizer *t, json_t *model, setun_error *err)
{
    static const char *const off[] = { "continuing_subword_prefix", "end_of_word_suffix", "dropout" };
    static const char *const known[] = { "type", "vocab", "merges", "ignore_merges", "fuse_unk",
                                         "byte_fallback", "unk_token" };
    const char *key;
    json_t *value;
    /* Old files lack the type; their members show it. */
    if (json_object_get(model, "type") && !is_type(model, "BPE"))
        return unsupported(t, "model", model, err);
    json_object_foreach(model, key, value) {
        int fine = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            fine |= strcmp(key, known[i]) == 0;
        for (size_t i = 0; i < sizeof off / sizeof *off; i++)
            fine |= strcmp(key, off[i]) == 0 && is_off(model, key);
        if (!fine)
            return st_fail(err, SETUN_UNKNOWN, "%s: model.%s with this value is not supported",
                           t->path, key);
    }
    value = json_object_get(model, "unk_token");
    if (value && !json_is_null(value) && !json_is_string(value))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.unk_token is not a string", t->path);
    ST_TRY(st_json_flag(model, "ignore_merges", 0, &t->bpe.ignore_merges, t->path, err));
    ST_TRY(st_json_flag(model, "fuse_unk", 0, &t->bpe.fuse_unk, t->path, err));
    return st_json_flag(model, "byte_fallback", 0, &t->bpe.byte_fallback, t->path, err);
}

typedef struct place {
    size_t begin, end;
} place;

/* Find the values of model.vocab and model.merges in the text. */
static int find_places(const char *text, size_t n, char *scratch, place *vocab, place *merges)
{
    st_jscan j = { text, text + n, scratch, 0 };
    const char *s;
    size_t len;
    if (!st_jscan_take(&j, '{') || st_jscan_peek(&j) == '}')
        return 0;
    do {
        if (!st_jscan_string(&j, &s, &len))
            return 0;
        int is_model = len == 5 && memcmp(s, "model", 5) == 0;
        if (!st_jscan_take(&j, ':'))
            return 0;
        if (!is_model || st_jscan_peek(&j) != '{') {
            if (!st_jscan_skip(&j, 64))
                return 0;
            continue;
        }
        j.p++;
        do {
            if (!st_jscan_string(&j, &s, &len))
                return 0;
            place *at = len == 5 && memcmp(s, "vocab", 5) == 0    ? vocab
                        : len == 6 && memcmp(s, "merges", 6) == 0 ? merges
                                                                  : NULL;
            if (!st_jscan_take(&j, ':'))
                return 0;
            (void)st_jscan_peek(&j);
            size_t begin = (size_t)(j.p - text);
            if (!st_jscan_skip(&j, 64))
                return 0;
            if (at)
                *at = (place){ begin, (size_t)(j.p - text) };
        } while (st_jscan_peek(&j) == ',' && st_jscan_take(&j, ','));
        if (!st_jscan_take(&j, '}'))
            return 0;
    } while (st_jscan_peek(&j) == ',' && st_jscan_take(&j, ','));
    return st_jscan_take(&j, '}');
}

/* The two members' texts in a tokenizer.json. */
typedef struct json_source {
    const char *text;
    place       vocab, merges;
    char       *scratch;
} json_source;

static setun_status fill_from_json(void *user, st_tokenizer *t, setun_error *err)
{
    const json_source *f = user;
    if (f->vocab.end == 0 || f->merges.end == 0)
        return st_fail(err, SETUN_BAD_FILE, "%s: model has no vocab or no merges", t->path);
    st_jscan j = { f->text + f->vocab.begin, f->text + f->vocab.end, f->scratch, 0 };
    ST_TRY(st_bpe_vocab(&t->bpe, &j, t->path, err));
    j = (st_jscan){ f->text + f->merges.begin, f->text + f->merges.end, f->scratch, 0 };
    return st_bpe_merges(&t->bpe, &j, t->path, err);
}

static setun_status read_root(st_tokenizer *t, json_t *root, fill_fn *fill, void *user, setun_error *err)
{
    static const char *const known[] = { "version", "truncation", "padding", "added_tokens", "normalizer",
                                         "pre_tokenizer", "post_processor", "decoder", "model" };
    const char *key;
    json_t *member, *model = json_object_get(root, "model");
    json_object_foreach(root, key, member) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(key, known[i]))
            i++;
        if (i == sizeof known / sizeof *known)
            return st_fail(err, SETUN_UNKNOWN, "%s: the member %s is not known to Setun", t->path, key);
    }
    ST_TRY(st_normal_new(&t->normal, json_object_get(root, "normalizer"), t->path, err));
    ST_TRY(check_model(t, model, err));
    ST_TRY(st_pretok_new(&t->pretok, json_object_get(root, "pre_tokenizer"), t->path, err));
    t->bpe.chars = !st_pretok_is_bytes(t->pretok);
    ST_TRY(check_decoder(t, json_object_get(root, "decoder"), err));
    ST_TRY(fill(user, t, err));
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    ST_TRY(st_bpe_ready(&t->bpe, unk, t->path, err));
    ST_TRY(read_added(t, json_object_get(root, "added_tokens"), err));
    return read_post(t, json_object_get(root, "post_processor"), 0, err);
}

/* The text with null in the places of vocab and merges. */
static json_t *read_rest(const char *text, size_t n, place a, place b, json_error_t *je)
{
    st_str s = { 0 };
    if (b.begin < a.begin) {
        place c = a;
        a = b;
        b = c;
    }
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        place p = i ? b : a;
        if (p.end == 0)
            continue;
        st_str_addn(&s, text + at, p.begin - at);
        st_str_add(&s, "null");
        at = p.end;
    }
    st_str_addn(&s, text + at, n - at);
    json_t *root = s.failed ? NULL : json_loadb(s.text, s.len, JSON_REJECT_DUPLICATES, je);
    st_str_free(&s);
    return root;
}

static setun_status read_text(st_tokenizer *t, const char *text, size_t n, setun_error *err)
{
    place vocab = { 0, 0 }, merges = { 0, 0 };
    json_error_t je = { .text = "" };
    if (st_utf8_valid(text, n) != n)
        return st_fail(err, SETUN_BAD_FILE, "%s: not valid UTF-8 at byte %zu", t->path,
                       st_utf8_valid(text, n));
    char *scratch = malloc(n + 1);
    if (!scratch)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", t->path);
    setun_status st;
    json_t *root = NULL;
    if (!find_places(text, n, scratch, &vocab, &merges))
        st = st_fail(err, SETUN_BAD_FILE, "%s: not valid JSON", t->path);
    else if (!(root = read_rest(text, n, vocab, merges, &je)))
        st = je.text[0] ? st_fail(err, SETUN_BAD_FILE, "%s: not valid JSON: %s", t->path, je.text)
                        : st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", t->path);
    else
        st = read_root(t, root, fill_from_json, &(json_source){ text, vocab, merges, scratch }, err);
    json_decref(root);
    free(scratch);
    return st;
}

static setun_status read_dir(st_tokenizer *t, const char *dir, setun_error *err)
{
    char *text = NULL;
    int64_t n;
    if (!(t->path = st_arena_printf(t->arena, "%s/tokenizer.json", dir)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    if (st_is_absent(t->path))
        return st_fail(err, SETUN_BAD_FILE, "%s has no tokenizer.json", dir);
    setun_status st = st_file_read(t->path, FILE_LIMIT, &text, &n, err);
    if (st == SETUN_OK)
        st = read_text(t, text, (size_t)n, err);
    free(text);
    return st;
}

static setun_status fill_from_gguf(void *user, st_tokenizer *t, setun_error *err)
{
    return st_gguf_vocab_fill(user, &t->bpe, err);
}

static setun_status read_gguf(st_tokenizer *t, const char *path, setun_error *err)
{
    st_gguf g = { 0 };
    st_gguf_vocab v = { 0 };
    st_arena *arena = st_arena_new(); /* what the container needs is not kept */
    if (!arena || !(t->path = st_arena_strdup(t->arena, path))) {
        st_arena_free(arena);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    }
    setun_status st = st_gguf_open(&g, path, ST_I2S_ASK, arena, err);
    if (st == SETUN_OK)
        st = st_gguf_vocab_read(&v, &g, err);
    if (st == SETUN_OK)
        st = read_root(t, v.root, fill_from_gguf, &v, err);
    if (st == SETUN_OK && !(t->about = st_arena_strdup(t->arena, v.about.text)))
        st = st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    memcpy(t->end, v.end, sizeof t->end);
    t->n_end = v.n_end;
    st_gguf_vocab_free(&v);
    st_gguf_close(&g);
    st_arena_free(arena);
    return st;
}

setun_status st_tokenizer_open(st_tokenizer **out, const char *path, setun_error *err)
{
    st_tokenizer *t = calloc(1, sizeof *t);
    setun_status st = t && (t->arena = st_arena_new()) ? SETUN_OK
                                                       : st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    *out = NULL;
    if (st == SETUN_OK)
        st = st_gguf_is(path) ? read_gguf(t, path, err) : read_dir(t, path, err);
    if (st != SETUN_OK) {
        st_tokenizer_close(t);
        return st;
    }
    *out = t;
    return SETUN_OK;
}

void st_tokenizer_close(st_tokenizer *t)
{
    if (!t)
        return;
    st_bpe_free(&t->bpe);
    st_normal_free(t->normal);
    st_pretok_free(t->pretok);
    st_table_free(t->names);
    st_arena_free(t->arena);
    free(t);
}

/* ---------------------------------------------------------------- encoding */

typedef struct encoder {
    const st_tokenizer *t;
    uint32_t            flags;
    st_ids              ids;
    /* Of a text in parts: a byte of it each, whether it is a marker's.  NULL: flags say for all of it. */
    const char         *marker, *text;
    const int32_t      *control;
    int64_t             n_control;
    int                 normalized; /* inside text that is a copy: where it came from is not known */
} encoder;

static setun_status add_piece(void *user, const char *piece, int64_t n, setun_error *err)
{
    encoder *e = user;
    return st_bpe_piece(&e->t->bpe, piece, n, &e->ids, err);
}

/* May a stand for the bytes at text, which spell it? */
static int allowed(const encoder *e, const added *a, const char *text)
{
    int ordinary = !a->special;
    if (!e->marker)
        return ordinary || (e->flags & ST_TOK_SPECIAL);
    for (int64_t i = 0; i < e->n_control; i++)
        ordinary &= e->control[i] != a->id;
    return ordinary || (!e->normalized && !memchr(e->marker + (text - e->text), 0, (size_t)a->n));
}

/* The longest allowed token of a set at the start of text, or NULL.  The set is sorted, so those that
 * share the first k bytes are a range, which shrinks as k grows; the first of a range is its
 * shortest. */
static const added *match_added(const encoder *e, const added_set *set, const char *text, int64_t n)
{
    const added *best = NULL;
    int64_t low = 0, high = set->n;
    for (int64_t k = 0; low < high && k < n; k++) {
        uint8_t c = (uint8_t)text[k];
        int64_t a = low,
                b = high; /* first item whose byte k is >= c; items that end here are less */
        while (a < b) {
            int64_t mid = (a + b) / 2;
            if (set->item[mid].n <= k || (uint8_t)set->item[mid].text[k] < c)
                a = mid + 1;
            else
                b = mid;
        }
        low = a;
        for (b = high; a < b;) {
            int64_t mid = (a + b) / 2;
            if ((uint8_t)set->item[mid].text[k] <= c)
                a = mid + 1;
            else
                b = mid;
        }
        high = a;
        if (low < high && set->item[low].n == k + 1 && allowed(e, &set->item[low], text))
            best = &set->item[low];
    }
    return best;
}

static setun_status encode_part(encoder *e, int set, const char *text, int64_t n, int first,
                                setun_error *err);

/* What lies between the added tokens of one set goes on to the next one; first: 1 nothing stands before
 * the text, 0 a token, -1 text that was encoded before. */
static setun_status cut_added(encoder *e, int set, const char *text, int64_t n, int first,
                              setun_error *err)
{
    const added_set *s = &e->t->set[set];
    int64_t start = 0; /* everything before it is done */
    int64_t space = 0; /* where the last space ends that a token took */
    for (int64_t at = 0; s->n && at < n;) {
        const added *a = s->first[(uint8_t)text[at]]
                             ? match_added(e, s, text + at, n - at)
                             : NULL;
        if (!a) {
            at++;
            continue;
        }
        int64_t begin = at, end = at + a->n;
        at = end;
        if (a->alone && (st_word_before(text, begin) || st_word_after(text, n, end)))
            continue; /* its bytes are text, and no other token is looked for among them */
        if (a->left && begin > start)
            begin = st_space_before(text, start, begin);
        if (begin > start)
            ST_TRY(encode_part(e, set + 1, text + start, begin - start, start == 0 ? first : 0, err));
        ST_TRY(st_ids_add(&e->ids, a->id, err));
        /* Space that is taken is still searched for tokens, as the reference does; it is measured once. */
        if (a->right && end >= space)
            space = st_space_after(text, n, end);
        start = a->right ? space : end;
    }
    return encode_part(e, set + 1, text + start, n - start, start == 0 ? first : 0, err);
}

static setun_status encode_part(encoder *e, int set, const char *text, int64_t n, int first,
                                setun_error *err)
{
    if (n == 0)
        return SETUN_OK;
    if (set == 2)
        return st_pretok_split(e->t->pretok, text, n, first, add_piece, e, err);
    if (set == 0 || st_normal_is_none(e->t->normal))
        return cut_added(e, set, text, n, first, err);
    st_str held = { 0 };
    const char *normal;
    setun_status st = (first < 0 ? st_normal_continue : st_normal_apply)(e->t->normal, text, n, &held, &normal, &n, err);
    e->normalized = 1;
    if (st == SETUN_OK)
        st = cut_added(e, set, normal, n, first, err);
    e->normalized = 0;
    st_str_free(&held);
    return st;
}

static setun_status encode_all(encoder *e, const char *text, int64_t n, setun_error *err)
{
    const st_tokenizer *t = e->t;
    if (n < 0 || n > TEXT_LIMIT)
        return st_fail(err, SETUN_BAD_ARG, "a text of %lld bytes cannot be encoded, at most %lld",
                       (long long)n, (long long)TEXT_LIMIT);
    size_t valid = n ? st_utf8_valid(text, (size_t)n) : 0;
    if (valid != (size_t)n)
        return st_fail(err, SETUN_BAD_ARG, "the text is not valid UTF-8 at byte %zu", valid);
    for (int64_t i = 0; (e->flags & ST_TOK_BOS) && i < t->n_before; i++)
        ST_TRY(st_ids_add(&e->ids, t->before[i], err));
    ST_TRY(encode_part(e, 0, text, n, e->flags & ST_TOK_MIDST ? -1 : 1, err));
    for (int64_t i = 0; (e->flags & ST_TOK_BOS) && !e->marker && i < t->n_after; i++)
        ST_TRY(st_ids_add(&e->ids, t->after[i], err));
    return SETUN_OK;
}

/* Encode, and hand the ids over. */
static setun_status encode(encoder *e, const char *text, int64_t n_bytes, int32_t **ids, int64_t *n,
                           setun_error *err)
{
    *ids = NULL;
    *n = 0;
    setun_status st = encode_all(e, text, n_bytes, err);
    if (st == SETUN_OK && !e->ids.id && !(e->ids.id = malloc(sizeof *e->ids.id)))
        st = st_fail(err, SETUN_NO_MEMORY, "no memory to encode");
    if (st != SETUN_OK) {
        free(e->ids.id);
        return st;
    }
    *ids = e->ids.id;
    *n = e->ids.n;
    return SETUN_OK;
}

setun_status st_tokenizer_encode(const st_tokenizer *t, const char *text, int64_t n_bytes,
                                 uint32_t flags, int32_t **ids, int64_t *n, setun_error *err)
{
    encoder e = { .t = t, .flags = flags };
    return encode(&e, text, n_bytes, ids, n, err);
}

setun_status st_tokenizer_encode_parts(const st_tokenizer *t, const st_tok_part *part, int64_t n_parts,
                                       const int32_t *control, int64_t n_control, uint32_t flags,
                                       int32_t **ids, int64_t *n, setun_error *err)
{
    st_str text = { 0 };
    int64_t total = 0;
    *ids = NULL;
    *n = 0;
    for (int64_t i = 0; i < n_parts; i++)
        if (st_add_i64(total, part[i].n, &total) || total > TEXT_LIMIT)
            return st_fail(err, SETUN_BAD_ARG, "a text of more than %lld bytes cannot be encoded", (long long)TEXT_LIMIT);
    for (int64_t i = 0; i < n_parts; i++)
        st_str_addn(&text, part[i].text, (size_t)part[i].n);
    char *marker = malloc((size_t)total + 1);
    setun_status st = !marker || text.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory to encode") : SETUN_OK;
    for (int64_t i = 0, at = 0; st == SETUN_OK && i < n_parts; at += part[i++].n)
        memset(marker + at, part[i].marker != 0, (size_t)part[i].n);
    encoder e = { .t = t, .flags = flags, .marker = marker, .text = text.text, .control = control,
                  .n_control = n_control };
    if (st == SETUN_OK)
        st = encode(&e, text.text, total, ids, n, err);
    free(marker);
    st_str_free(&text);
    return st;
}

/* ---------------------------------------------------------------- looking up */

int64_t st_tokenizer_size(const st_tokenizer *t)
{
    return t->bpe.n_tokens;
}

setun_status st_tokenizer_bytes(const st_tokenizer *t, int32_t id, const char **bytes, int64_t *n,
                                int *special, setun_error *err)
{
    if (id < 0 || id >= t->bpe.n_tokens || !t->bpe.token[id].bytes)
        return st_fail(err, SETUN_BAD_ARG, "the tokenizer has no token %d", id);
    *bytes = t->bpe.token[id].bytes;
    *n = t->bpe.token[id].n;
    *special = t->bpe.token[id].special;
    return SETUN_OK;
}

int64_t st_tokenizer_ends(const st_tokenizer *t, const int32_t **ids)
{
    *ids = t->end;
    return t->n_end;
}

const char *st_tokenizer_about(const st_tokenizer *t) { return t->about; }

int32_t st_tokenizer_find(const st_tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    int64_t id;
    if (st_table_get(t->names, token, n, &id))
        return (int32_t)id;
    if (t->bpe.chars)
        return st_table_get(t->bpe.by_bytes, token, n, &id) ? (int32_t)id : -1;
    char *bytes = malloc(n + 1);
    if (!bytes)
        return -1;
    int64_t len = st_bpe_unmap(token, n, bytes);
    int32_t found =
        len > 0 && st_table_get(t->bpe.by_bytes, bytes, (size_t)len, &id) ? (int32_t)id : -1;
    free(bytes);
    return found;
}

int32_t st_tokenizer_bos(const st_tokenizer *t)
{
    return t->n_before ? t->before[0] : -1;
}

static setun_status count_piece(void *user, const char *piece, int64_t n, setun_error *err)
{
    int64_t *count = user;
    (void)piece, (void)n, (void)err;
    ++*count;
    return SETUN_OK;
}

/* Pieces are whole characters, so what is half a character is none. */
static setun_status is_piece(const st_tokenizer *t, const st_token *token, int *is, setun_error *err)
{
    int64_t count = 0;
    *is = 0;
    if (st_utf8_valid(token->bytes, (size_t)token->n) != (size_t)token->n)
        return SETUN_OK;
    ST_TRY(st_pretok_split(t->pretok, token->bytes, token->n, 1, count_piece, &count, err));
    *is = count == 1;
    return SETUN_OK;
}

setun_status st_tokenizer_unmade(const st_tokenizer *t, int64_t *id, setun_error *err)
{
    st_bpe merging = t->bpe;
    st_ids made = { 0 };
    setun_status st = SETUN_OK;
    int found = 0;
    merging.ignore_merges = 0;
    for (*id = 0; *id < merging.n_tokens && st == SETUN_OK && !found; ++*id) {
        const st_token *token = &merging.token[*id];
        int64_t own;
        /* As where ignore_merges is asked for: no added token, and of tokens with equal bytes the one that is found. */
        if (token->added || token->n < 2 || !st_table_get(merging.by_bytes, token->bytes, (size_t)token->n, &own) || own != *id)
            continue;
        made.n = 0;
        st = st_bpe_piece(&merging, token->bytes, token->n, &made, err);
        if (st == SETUN_OK && (made.n != 1 || made.id[0] != *id))
            st = is_piece(t, token, &found, err);
    }
    *id = found ? *id - 1 : -1;
    free(made.id);
    return st;
}

/* ---------------------------------------------------------------- streaming */

/* How many bytes does a character that begins with c have, and what may its second byte be?
 * 0 when no character begins with c. */
static int sequence(uint8_t c, uint8_t *low, uint8_t *high)
{
    *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

static char *replacement(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return out + 3;
}

void st_detok_start(st_detok *d, const st_tokenizer *t)
{
    *d = (st_detok){ .drop = (uint8_t)t->strip };
}

/* held is always a proper beginning of one valid character. */
static int64_t push(st_detok *d, const char *bytes, int64_t n, char *out)
{
    char *q = out;
    if (!bytes) {
        if (d->n_held)
            q = replacement(q);
        d->n_held = 0;
        return q - out;
    }
    for (int64_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)bytes[i], low, high;
        if (d->n_held) {
            int want = sequence((uint8_t)d->held[0], &low, &high);
            if (d->n_held > 1) {
                low = 0x80;
                high = 0xbf;
            }
            if (c >= low && c <= high) {
                d->held[d->n_held++] = (char)c;
                if (d->n_held == want) {
                    memcpy(q, d->held, (size_t)want);
                    q += want;
                    d->n_held = 0;
                }
                continue;
            }
            /* The longest invalid part ends before c. */
            q = replacement(q);
            d->n_held = 0;
        }
        int want = sequence(c, &low, &high);
        if (want == 0)
            q = replacement(q);
        else if (want == 1)
            *q++ = (char)c;
        else
            d->held[d->n_held++] = (char)c;
    }
    return q - out;
}

int64_t st_detok_push(st_detok *d, const char *bytes, int64_t n, char *out)
{
    int64_t made = push(d, bytes, n, out), gone = 0;
    while (gone < made && gone < d->drop && out[gone] == ' ')
        gone++;
    if (made > 0)
        d->drop = gone == made ? (uint8_t)(d->drop - gone) : 0;
    memmove(out, out + gone, (size_t)(made - gone));
    return made - gone;
}

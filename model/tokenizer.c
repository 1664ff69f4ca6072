/* model/tokenizer.c -- read a tokenizer from tokenizer.json or a GGUF file.
 *
 * Two kinds of vocabulary are read.  With ByteLevel as pre-tokenizer and decoder, symbols are bytes;
 * otherwise they are characters, and the decoder says how tokens become text (SentencePiece).
 *
 * Not here: encoding (encode.c) and decoding (detok.c), chat templates and tokenizer_config.json (template.c).
 * The settings for truncation and padding are not read either: whoever calls a tokenizer decides those.
 *
 * Everything that could change an id is honoured or refused.  The two large members of the file,
 * model.vocab and model.merges, are walked in place (jscan.c); what is left goes through the JSON
 * library with a null in their places.  A GGUF file's tokenizer comes in the same words
 * (gguf_vocab.c); its vocabulary is walked in place as well. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "model/gguf_vocab.h"
#include "model/normal.h"
#include "model/pretok.h"
#include "model/tokenizer_inside.h"

#define FILE_LIMIT ((int64_t)64 << 20)
#define MAX_ADDED 65536
#define MAX_ADDED_BYTES 512

SETUN_STATIC_ASSERT(ST_TOKENIZER_ENDS == ST_GGUF_VOCAB_ENDS, "a GGUF file's ends are the tokenizer's");

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
    int normalized = json_is_true(json_object_get(json, "normalized")), alone = json_is_true(json_object_get(json, "single_word"));
    if (alone && t->words.n == 0)
        ST_TRY(st_word_chars(&t->words, err));
    if (normalized) /* looked for in normalized text, so as normalized itself */
        ST_TRY(normalize_name(t, &copy, &n, err));
    st_added_set *set = &t->set[normalized];
    set->item[set->n++] = (st_added){ .text = copy,
                                   .n = n,
                                   .id = (int32_t)value,
                                   .special = b->token[value].special,
                                   .alone = alone,
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
        if (!(t->set[i].item = st_arena_array(t->arena, (int64_t)n + 1, sizeof(st_added))))
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokens of %s", t->path);
    for (size_t i = 0; i < n; i++)
        ST_TRY(read_added_token(t, json_array_get(list, i), err));
    for (int i = 0; i < 2; i++) {
        qsort(t->set[i].item, (size_t)t->set[i].n, sizeof(st_added), st_added_compare);
        for (int64_t k = 1; k < t->set[i].n; k++)
            if (st_added_compare(&t->set[i].item[k - 1], &t->set[i].item[k]) == 0)
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
            if (t->n_before == ST_TOKENIZER_AROUND || t->n_after == ST_TOKENIZER_AROUND)
                return st_fail(err, SETUN_BAD_FILE, "%s: post_processor adds more than %d tokens",
                               t->path, ST_TOKENIZER_AROUND);
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

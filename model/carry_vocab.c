/* model/carry_vocab.c -- tokenizer.json and its companions as keys of a GGUF file.
 *
 *     tokenizer.json                         tokenizer.ggml.*
 *     BPE behind ByteLevel                   model gpt2: tokens, merges, pre (the regular expressions by name)
 *     BPE over characters                    model llama: tokens, scores
 *     added tokens                           token_type 3 (special) and 4; 5 fills ids that stand for nothing
 *     TemplateProcessing                     add_bos_token, add_eos_token
 *
 * The file's reader knows by heart what each kind of tokenizer does, so a tokenizer.json fits only if it says just
 * that: its normalizer, pre_tokenizer and template are compared with what the keys will mean, and what has no
 * key is refused, or noted where texts can be given so that it does not matter.
 *
 * Merges are carried as they are; how they become scores is told at scores_of.  Whether both tokenizers do
 * the same is not believed here: recode.c opens and compares them.
 *
 * Not here: the way back (carry_files.c). */
#include "model/carry.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf_vocab.h"
#include "model/json.h"
#include "model/tokenizer.h"

#define KEY "tokenizer.ggml."
#define FILE_LIMIT ((int64_t)128 << 20) /* a vocabulary of 262144 tokens with its merges has some 35 MB */

static setun_status no_memory(const char *path, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer of %s", path);
}

/* A file of a directory as JSON; *root NULL: there is no such file. */
static setun_status read_json(const st_source *s, const char *name, json_t **root, setun_error *err)
{
    st_str path = { 0 };
    *root = NULL;
    st_str_addf(&path, "%s/%s", s->path, name);
    setun_status st = path.failed ? no_memory(s->path, err) : SETUN_OK;
    if (st == SETUN_OK && !st_is_absent(path.text))
        st = st_json_load(path.text, FILE_LIMIT, NULL, root, err);
    st_str_free(&path);
    return st;
}

/* ---------------------------------------------------------------- to GGUF: tokens */

/* A row of the lists that GGUF has: tokens, token_type, scores. */
typedef struct entry {
    const char *text; /* NULL: nothing has this id; belongs to root, or to filler */
    size_t      n;
    int         type; /* ST_TOKEN_... */
    float       score;
} entry;

typedef struct vocab {
    const st_source *s;
    json_t          *root;    /* of tokenizer.json */
    entry           *token;   /* by id: as many as the embedding has rows, as readers size one by the other */
    int64_t          n;
    int              bytes;   /* over bytes; else over characters */
    st_table        *by_text; /* of scores_of */
    st_str           filler;  /* texts of ids that stand for nothing */
} vocab;

static setun_status bad(const vocab *v, const char *what, setun_error *err)
{
    return st_fail(err, SETUN_BAD_FILE, "%s/tokenizer.json: %s", v->s->path, what);
}

/* "<0x0A>": what a byte is called that has no character. */
static int is_byte_name(const char *text, size_t n)
{
    static const char hex[] = "0123456789ABCDEF";
    return n == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>' && memchr(hex, text[3], 16) && memchr(hex, text[4], 16);
}

/* An added token is often an entry of the vocabulary, too.  Then it is put twice, with one text, and the second time
 * settles its type. */
static setun_status put_token(vocab *v, json_int_t id, json_t *text, int type, setun_error *err)
{
    if (id < 0 || id >= v->n || !json_is_string(text))
        return st_fail(err, SETUN_BAD_FILE, "%s/tokenizer.json: token %lld is not one of the embedding's %lld rows", v->s->path,
                       (long long)id, (long long)v->n);
    entry *t = &v->token[id];
    if (t->text && (t->n != json_string_length(text) || memcmp(t->text, json_string_value(text), t->n) != 0))
        return st_fail(err, SETUN_BAD_FILE, "%s/tokenizer.json: token %lld is there twice, with other texts", v->s->path, (long long)id);
    t->text = json_string_value(text);
    t->n = json_string_length(text);
    t->type = type;
    return SETUN_OK;
}

/* The vocabulary first, then the added tokens, whose types count: special ones are found in texts only where
 * somebody asks for them, the others always, which is what types 3 and 4 say. */
static setun_status read_tokens(vocab *v, setun_error *err)
{
    json_t *model = json_object_get(v->root, "model"), *added = json_object_get(v->root, "added_tokens"), *item;
    const char *unk = json_string_value(json_object_get(model, "unk_token")), *text;
    int fallback = json_is_true(json_object_get(model, "byte_fallback"));
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), text, item) {
        size_t n = strlen(text); /* a NUL is refused by the library */
        int type = fallback && is_byte_name(text, n) ? ST_TOKEN_BYTE : unk && !v->bytes && strcmp(text, unk) == 0 ? ST_TOKEN_UNKNOWN : ST_TOKEN_NORMAL;
        json_t *name = json_stringn_nocheck(text, n);
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        setun_status st = name ? put_token(v, id, name, type, err) : no_memory(v->s->path, err);
        json_decref(name);
        ST_TRY(st);
        v->token[id].text = text; /* the key itself lives as long as the object */
    }
    json_array_foreach(added, i, item) {
        json_t *id = json_object_get(item, "id"), *content = json_object_get(item, "content");
        int special = json_is_true(json_object_get(item, "special"));
        int is_unk = unk && !v->bytes && json_is_string(content) && strcmp(json_string_value(content), unk) == 0;
        if (!json_is_integer(id))
            return bad(v, "an added token has no id", err);
        ST_TRY(put_token(v, json_integer_value(id), content, is_unk ? ST_TOKEN_UNKNOWN : special ? ST_TOKEN_CONTROL : ST_TOKEN_USER_DEFINED, err));
    }
    return SETUN_OK;
}

/* Embeddings often have more rows than there are tokens, and lists have no holes.  Ids without a token get a name by
 * which other programs know them, and the type that no text gives.  The names lie in one buffer, which moves while it grows, so
 * that tokens point into it only when it is complete. */
static setun_status fill_gaps(vocab *v, setun_error *err)
{
    for (int64_t id = 0; id < v->n; id++)
        if (!v->token[id].text) {
            size_t at = v->filler.len;
            st_str_addf(&v->filler, "[PAD%lld]", (long long)id);
            v->token[id].n = v->filler.len - at;
            v->token[id].type = ST_TOKEN_UNUSED;
        }
    if (v->filler.failed)
        return no_memory(v->s->path, err);
    const char *at = v->filler.text;
    for (int64_t id = 0; id < v->n; id++)
        if (v->token[id].type == ST_TOKEN_UNUSED) {
            v->token[id].text = at;
            at += v->token[id].n;
        }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- to GGUF: merges and scores */

/* "left right", or ["left", "right"] in newer files.  The first character is never the space between. */
static int split_merge(json_t *item, const char **left, size_t *n_left, const char **right, size_t *n_right)
{
    if (json_is_array(item) && json_array_size(item) == 2) {
        *left = json_string_value(json_array_get(item, 0));
        *right = json_string_value(json_array_get(item, 1));
        *n_left = json_string_length(json_array_get(item, 0));
        *n_right = json_string_length(json_array_get(item, 1));
        return *left && *right ? 0 : -1;
    }
    const char *text = json_string_value(item), *space = text && text[0] ? strchr(text + 1, ' ') : NULL;
    if (!space)
        return -1;
    *left = text;
    *n_left = (size_t)(space - text);
    *right = space + 1;
    *n_right = strlen(space + 1);
    return 0;
}

/* GGUF has one spelling, with a space between: tokens over bytes have none in them, as U+0120 stands for it. */
static setun_status write_merges(const vocab *v, st_gguf_writer *w, setun_error *err)
{
    json_t *merges = json_object_get(json_object_get(v->root, "model"), "merges"), *item;
    st_str bytes = { 0 }, pair = { 0 };
    size_t i, nl, nr;
    const char *l, *r;
    int wrong = 0;
    json_array_foreach(merges, i, item) {
        wrong |= split_merge(item, &l, &nl, &r, &nr) || memchr(l, ' ', nl) || memchr(r, ' ', nr);
        if (wrong)
            break;
        pair.len = 0;
        st_str_addn(&pair, l, nl);
        st_str_add(&pair, " ");
        st_str_addn(&pair, r, nr);
        st_gguf_add_text(&bytes, pair.text, pair.len);
    }
    bytes.failed |= pair.failed;
    if (!wrong)
        st_gguf_write_array(w, KEY "merges", ST_GGUF_STRING, (int64_t)json_array_size(merges), &bytes);
    st_str_free(&bytes);
    st_str_free(&pair);
    return wrong ? bad(v, "a merge is not two tokens without a space", err) : SETUN_OK;
}

/* In how many ways is text two tokens?  Cut between characters, as merging begins with whole ones. */
static int64_t count_splits(const vocab *v, const char *text, size_t n)
{
    int64_t count = 0, id;
    for (size_t cut = 1; cut < n; cut++)
        count += ((unsigned char)text[cut] & 0xc0u) != 0x80u && st_table_get(v->by_text, text, cut, &id) &&
                 st_table_get(v->by_text, text + cut, n - cut, &id);
    return count;
}

/* By scores, any two neighbours that make a token are merged, the best token first; by merges, pairs that
 * are listed, the first first.  The two are the same if every pair that makes a token is listed, and all
 * pairs of one token one behind the other: then a token's score is its place in that order. */
static setun_status scores_of(vocab *v, setun_error *err)
{
    json_t *merges = json_object_get(json_object_get(v->root, "model"), "merges"), *item;
    /* count: the pairs of each token that merges list; last: what the merge before made */
    size_t i, nl, nr;
    const char *l, *r;
    st_str whole = { 0 };
    int64_t *count = calloc((size_t)v->n + 1, sizeof *count), id, last = -1;
    setun_status st = count && (v->by_text = st_table_new(v->n)) ? SETUN_OK : no_memory(v->s->path, err);
    for (id = 0; id < v->n && st == SETUN_OK; id++) {
        v->token[id].score = -(float)json_array_size(merges) - 1.0f;
        if (v->token[id].type != ST_TOKEN_UNUSED && st_table_put(v->by_text, v->token[id].text, v->token[id].n, id))
            st = no_memory(v->s->path, err);
    }
    json_array_foreach(merges, i, item) {
        whole.len = 0;
        if (st == SETUN_OK && split_merge(item, &l, &nl, &r, &nr) == 0) {
            st_str_addn(&whole, l, nl);
            st_str_addn(&whole, r, nr);
        }
        if (st == SETUN_OK && (whole.failed || !whole.len || !st_table_get(v->by_text, whole.text, whole.len, &id)))
            st = bad(v, "a merge does not make a token", err);
        if (st == SETUN_OK && id != last && count[id])
            st = st_fail(err, SETUN_UNKNOWN, "%s/tokenizer.json: merges that make token %lld are not one behind the other, which scores "
                         "cannot say", v->s->path, (long long)id);
        if (st != SETUN_OK)
            break;
        if (id != last) /* exact: there are fewer than 2^24 merges */
            v->token[id].score = -(float)i;
        count[last = id]++;
    }
    for (id = 0; id < v->n && st == SETUN_OK; id++)
        if (v->token[id].type == ST_TOKEN_NORMAL && count_splits(v, v->token[id].text, v->token[id].n) != count[id])
            st = st_fail(err, SETUN_UNKNOWN, "%s/tokenizer.json: token %lld is two others in ways that no merge lists, which scores "
                         "cannot say", v->s->path, (long long)id);
    free(count);
    st_str_free(&whole);
    return st;
}

/* ---------------------------------------------------------------- to GGUF: the other keys */

/* Scores are little-endian bits like all numbers of a file.  Over bytes, merges take their place. */
static void write_lists(const vocab *v, st_gguf_writer *w)
{
    st_str texts = { 0 }, types = { 0 }, scores = { 0 };
    for (int64_t id = 0; id < v->n; id++) {
        uint32_t bits;
        memcpy(&bits, &v->token[id].score, 4);
        st_gguf_add_text(&texts, v->token[id].text, v->token[id].n);
        st_gguf_add_u32(&types, (uint32_t)v->token[id].type);
        st_gguf_add_u32(&scores, bits);
    }
    st_gguf_write_array(w, KEY "tokens", ST_GGUF_STRING, v->n, &texts);
    st_gguf_write_array(w, KEY "token_type", ST_GGUF_I32, v->n, &types);
    if (!v->bytes)
        st_gguf_write_array(w, KEY "scores", ST_GGUF_F32, v->n, &scores);
    st_str_free(&texts);
    st_str_free(&types);
    st_str_free(&scores);
}

/* Configurations name tokens that their vocabulary does not have, such as -1 for none: those have no key. */
static void write_id(const vocab *v, st_gguf_writer *w, const char *key, int64_t id)
{
    if (id >= 0 && id < v->n)
        st_gguf_write_int(w, key, ST_GGUF_U32, id);
}

/* Every id that ends a text, eos_token_id's first: GGUF has three names for them. */
static void write_ends(const vocab *v, st_gguf_writer *w, st_str *notes)
{
    static const char *const names[] = { KEY "eos_token_id", KEY "eot_token_id", KEY "eom_token_id" };
    int64_t id[3], n = 0;
    for (int64_t i = 0; i < v->s->n_config; i++) {
        const st_hparam *h = &v->s->config[i];
        int64_t k = 0;
        if (h->kind != ST_HP_INT || (strncmp(h->key, "eos_token_id", 12) != 0 && strncmp(h->key, "generation.eos_token_id", 23) != 0))
            continue;
        while (k < n && id[k] != h->i)
            k++;
        if (k < n)
            continue;
        if (n < 3)
            id[n++] = h->i;
        else
            st_str_addf(notes, "not carried: token %lld also ends a text, and GGUF has three names for such tokens\n", (long long)h->i);
    }
    for (int64_t k = 0; k < n; k++)
        write_id(v, w, names[k], id[k]);
}

/* What stands around a text, found by encoding an empty one: post-processors say it in several ways, and our own
 * reader has understood them all.  GGUF knows one token in front and one behind, each with its id. */
static setun_status write_around(const vocab *v, st_gguf_writer *w, setun_error *err)
{
    st_tokenizer *t;
    int32_t *ids = NULL;
    int64_t n = 0;
    ST_TRY(st_tokenizer_open(&t, v->s->path, err));
    setun_status st = st_tokenizer_encode(t, "", 0, ST_TOK_BOS, &ids, &n, err);
    /* A token that stands in front in no text may still be named; one behind must be the one that ends a text. */
    const st_hparam *named = st_source_config(v->s, "bos_token_id"), *eos = st_source_config(v->s, "eos_token_id");
    eos = eos ? eos : st_source_config(v->s, "eos_token_id.1");
    int64_t bos = st_tokenizer_bos(t), first = n > 0 && ids[0] == bos, last = n > first;
    if (st == SETUN_OK && (n > first + 1 || (last && (!eos || ids[n - 1] != eos->i))))
        st = bad(v, "what it puts around a text is not one token in front or eos_token_id behind", err);
    if (st == SETUN_OK) {
        st_gguf_write_int(w, KEY "add_bos_token", ST_GGUF_BOOL, first);
        st_gguf_write_int(w, KEY "add_eos_token", ST_GGUF_BOOL, last);
        write_id(v, w, KEY "bos_token_id", first ? bos : named && named->kind == ST_HP_INT ? named->i : -1);
    }
    free(ids);
    st_tokenizer_close(t);
    return st;
}

/* Does a text get a space in front?  Older files of SentencePiece say it as a normalizer, Metaspace does it itself. */
static int begins_with_space(json_t *normalizer)
{
    json_t *item, *list = json_object_get(normalizer, "normalizers");
    const char *type = json_string_value(json_object_get(normalizer, "type"));
    size_t i;
    json_array_foreach(list, i, item)
        if (begins_with_space(item))
            return 1;
    return type && strcmp(type, "Prepend") == 0;
}

/* GGUF has no name for a pre_tokenizer of such stages. */
static setun_status refuse_pre(const vocab *v, const json_t *pre, setun_error *err)
{
    const json_t *list = json_object_get(pre, "pretokenizers");
    st_str stages = { 0 };
    for (size_t i = 0; i < (list ? json_array_size(list) : 1); i++) {
        const char *type = json_string_value(json_object_get(list ? json_array_get(list, i) : pre, "type"));
        st_str_addf(&stages, "%s%.32s", i ? ", " : "", type ? type : "nothing");
    }
    (void)st_fail(err, SETUN_UNKNOWN, "%s/tokenizer.json: GGUF has no name that Setun knows for the pre_tokenizer (%.160s with these settings)",
                  v->s->path, stages.text ? stages.text : "");
    st_str_free(&stages);
    return SETUN_UNKNOWN;
}

/* The name says whether pieces that are tokens are taken as they are, or merged like others.  Where
 * tokenizer.json says the other thing, as Falcon3's may, both are the same if merging any such piece makes just
 * its token: that is tried for every token that there is. */
static setun_status write_pre(const vocab *v, st_gguf_writer *w, setun_error *err)
{
    const json_t *model = json_object_get(v->root, "model"), *pre = json_object_get(v->root, "pre_tokenizer");
    int here = json_is_true(json_object_get(model, "ignore_merges")), there;
    const char *name = st_gguf_vocab_pre(pre, &there);
    st_tokenizer *t;
    int64_t id = -1;
    if (!name)
        return refuse_pre(v, pre, err);
    if (here != there) {
        ST_TRY(st_tokenizer_open(&t, v->s->path, err));
        setun_status st = st_tokenizer_unmade(t, &id, err);
        st_tokenizer_close(t);
        ST_TRY(st);
    }
    if (id >= 0)
        return st_fail(err, SETUN_UNKNOWN, "%s/tokenizer.json: ignore_merges is %s, GGUF's name %s for the pre_tokenizer means the opposite, "
                       "and token %lld, which no merges make, shows it", v->s->path, here ? "true" : "false", name, (long long)id);
    st_gguf_write_text(w, KEY "pre", name, strlen(name));
    return SETUN_OK;
}

/* Which of both algorithms, and what is left open by it. */
static setun_status write_kind(vocab *v, st_gguf_writer *w, setun_error *err)
{
    json_t *pre = json_object_get(v->root, "pre_tokenizer");
    const char *name = v->bytes ? "gpt2" : "llama";
    st_gguf_write_text(w, KEY "model", name, strlen(name));
    if (!v->bytes) {
        const char *type = json_string_value(json_object_get(pre, "type")), *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
        int meta = type && strcmp(type, "Metaspace") == 0 && (!scheme || strcmp(scheme, "never") != 0);
        st_gguf_write_int(w, KEY "add_space_prefix", ST_GGUF_BOOL, meta || begins_with_space(json_object_get(v->root, "normalizer")));
        return scores_of(v, err);
    }
    ST_TRY(write_pre(v, w, err));
    return write_merges(v, w, err);
}

/* One template, or a list of named ones, each under its name; found: there are any. */
static void write_named(const json_t *member, st_gguf_writer *w, int *found)
{
    const json_t *item;
    size_t i;
    *found = json_is_string(member) || json_array_size(member) > 0;
    if (json_is_string(member))
        st_gguf_write_text(w, "tokenizer.chat_template", json_string_value(member), json_string_length(member));
    json_array_foreach(member, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        const json_t *body = json_object_get(item, "template");
        st_str key = { 0 };
        st_str_add(&key, "tokenizer.chat_template");
        if (name && strcmp(name, "default") != 0)
            st_str_addf(&key, ".%s", name);
        if (!key.failed && json_is_string(body))
            st_gguf_write_text(w, key.text, json_string_value(body), json_string_length(body));
        st_str_free(&key);
    }
}

/* In the first place that has some, in the order in which template_file.c looks for them: a conversation with the
 * file is then one with the directory. */
static setun_status write_templates(const st_source *s, st_gguf_writer *w, setun_error *err)
{
    static const char *const files[] = { "chat_template.json", "tokenizer_config.json" };
    st_str path = { 0 };
    char *text = NULL;
    int64_t n = 0;
    int found = 0;
    st_str_addf(&path, "%s/chat_template.jinja", s->path);
    setun_status st = path.failed ? no_memory(s->path, err) : SETUN_OK;
    if (st == SETUN_OK && !st_is_absent(path.text)) {
        st = st_file_read(path.text, FILE_LIMIT, &text, &n, err);
        found = 1;
    }
    st_str_free(&path);
    if (text)
        st_gguf_write_text(w, "tokenizer.chat_template", text, (size_t)n);
    free(text);
    for (int i = 0; i < 2 && st == SETUN_OK && !found; i++) {
        json_t *root;
        st = read_json(s, files[i], &root, err);
        write_named(json_object_get(root, "chat_template"), w, &found);
        json_decref(root);
    }
    return st;
}

/* Everything but the templates is about BPE: other models have other keys, which Setun's reader would refuse.
 * The order of the keys is that of most files, and means nothing. */
static setun_status write_vocab(vocab *v, st_gguf_writer *w, st_str *notes, setun_error *err)
{
    const st_source_tensor *embed = st_source_find(v->s, "model.embed_tokens.weight");
    const char *type = json_string_value(json_object_get(json_object_get(v->root, "model"), "type"));
    const char *decoder = json_string_value(json_object_get(json_object_get(v->root, "decoder"), "type"));
    const st_hparam *pad = st_source_config(v->s, "pad_token_id");
    if (!embed || !type || strcmp(type, "BPE") != 0)
        return bad(v, "the model is not BPE", err);
    v->bytes = decoder && strcmp(decoder, "ByteLevel") == 0; /* the pre_tokenizer may hide it in a sequence; write_pre looks */
    /* Over characters, the normalizer is what add_space_prefix says, and spaces that become U+2581. */
    json_t *normalizer = json_object_get(v->root, "normalizer");
    const char *normal = json_string_value(json_object_get(normalizer, "type"));
    if (v->bytes && normal && strcmp(normal, "NFC") == 0)
        st_str_add(notes, "not carried: the normalizer NFC, for which GGUF has no key: give texts composed\n");
    else if (v->bytes && json_is_object(normalizer))
        return bad(v, "GGUF has no key for its normalizer", err);
    v->n = embed->rows;
    v->token = calloc((size_t)v->n + 1, sizeof *v->token);
    if (!v->token)
        return no_memory(v->s->path, err);
    ST_TRY(read_tokens(v, err));
    ST_TRY(fill_gaps(v, err));
    ST_TRY(write_kind(v, w, err));
    write_lists(v, w);
    ST_TRY(write_around(v, w, err));
    write_ends(v, w, notes);
    if (pad && pad->kind == ST_HP_INT)
        write_id(v, w, KEY "padding_token_id", pad->i);
    for (int64_t id = 0; id < v->n && !v->bytes; id++)
        if (v->token[id].type == ST_TOKEN_UNKNOWN)
            write_id(v, w, KEY "unknown_token_id", id);
    return write_templates(v->s, w, err);
}

setun_status st_carry_vocab_keys(const st_source *s, st_gguf_writer *w, st_str *notes, setun_error *err)
{
    vocab v = { .s = s };
    ST_TRY(read_json(s, "tokenizer.json", &v.root, err));
    setun_status st = SETUN_OK;
    if (v.root)
        st = write_vocab(&v, w, notes, err);
    else
        st_str_add(notes, "not carried: there is no tokenizer.json\n");
    json_decref(v.root);
    free(v.token);
    st_table_free(v.by_text);
    st_str_free(&v.filler);
    return st;
}

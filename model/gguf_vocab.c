/* model/gguf_vocab.c -- the tokenizer of a GGUF file, said in the words of tokenizer.json.
 *
 * The keys tokenizer.ggml.* name one of a few kinds of tokenizer; what each kind does is known to its
 * users by heart.  Here it is written down as the tokenizer.json that does the same, so that one
 * reader and one encoder serve both forms and both give the same ids:
 *
 *     gpt2   byte-level BPE by merges; the key pre names the regular expressions
 *     llama  SentencePiece's BPE over characters by scores, with bytes for what has no token; Gemma's
 *            is the same without the space in front
 *
 * The file's token types decide what is cut out of a text first: user-defined tokens always, control
 * and unknown tokens where special tokens are asked for.  Where several fit, the leftmost one is
 * taken and of those the longest, as tokenizer.json has it.
 *
 * Not here: chat templates, and other kinds (t5, bert, rwkv), which are refused. */
#include "model/gguf_vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define KEY "tokenizer.ggml."
#define SPACE "\xe2\x96\x81"
#define MAX_TEXT ((int64_t)64 << 20) /* bytes of all tokens */
#define MAX_ADDED 65536

/* ---------------------------------------------------------------- what pre stands for */

#define LETTERS_OR "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST_OF "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Each expression cuts the pieces of the one before.  Programs that write files keep inventing names for what is
 * there already, one for each model that they met; a file is read under any of them and written under the first.
 *
 * bos: whether a token is put in front of texts where no key says so. */
typedef struct pre {
    const char *name, *others; /* others: a space behind each */
    const char *regex[4];
    int         ignore_merges, bos;
} pre;

static const pre pres[] = {
    { "llama-bpe", "llama3 llama-v3 falcon3 falcon_e ", { LETTERS_OR "\\p{N}{1,3}" REST_OF }, 1, 1 },
    { "qwen2", "deepseek-r1-qwen megrez ", { LETTERS_OR "\\p{N}" REST_OF }, 0, 0 },
    { "gpt-2", "phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat ",
      { GPT2 }, 0, 0 },
    { "falcon", "", { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, 0, 0 },
    { "default", "", { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, 0, 0 },
};
#define N_PRES ((int)(sizeof pres / sizeof *pres))

/* What text generation stops at, beside the ids that keys name: files often name only one. */
static const char *const ends[] = { "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
                                    "<|eom_id|>", "<EOT>" };

/* Is name one of names, each with a space behind it? */
static int has_name(const char *names, const char *name, size_t n)
{
    for (const char *p = names; *p; p += strcspn(p, " ") + 1)
        if (strcspn(p, " ") == n && memcmp(p, name, n) == 0)
            return 1;
    return 0;
}

static int is_called(const pre *p, const char *name, size_t n)
{
    return (strlen(p->name) == n && memcmp(p->name, name, n) == 0) || has_name(p->others, name, n);
}

/* ---------------------------------------------------------------- single keys */

static setun_status no_memory(const st_gguf_vocab *v, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer of %s", v->g->path);
}

/* "name" is the key's last part in all of these.  NULL: absent. */
static const st_gguf_value *find(const st_gguf_vocab *v, const char *name)
{
    char key[64] = KEY;
    strncat(key, name, sizeof key - sizeof KEY);
    return st_gguf_find(v->g, key);
}

/* Absent keys have the value that the format's own reader takes, which differs by key and by kind of tokenizer. */
static setun_status flag_of(const st_gguf_vocab *v, const char *name, int absent, int *value, setun_error *err)
{
    const st_gguf_value *k = find(v, name);
    int64_t i = absent;
    if (k && (k->type != ST_GGUF_BOOL || st_gguf_int(k, 0, &i)))
        return st_fail(err, SETUN_BAD_FILE, "%s: key " KEY "%s is not a bool", v->g->path, name);
    *value = i != 0;
    return SETUN_OK;
}

/* An id that is there must be a token's, although nothing may ever ask for it: a file that is wrong there is not
 * believed elsewhere. */
static setun_status id_of(const st_gguf_vocab *v, const char *name, int64_t absent, int64_t *id, setun_error *err)
{
    const st_gguf_value *k = find(v, name);
    *id = absent;
    if (k && (k->type == ST_GGUF_ARRAY || st_gguf_int(k, 0, id) || *id < 0 || *id >= v->n))
        return st_fail(err, SETUN_BAD_FILE, "%s: key " KEY "%s is not the id of a token, 0 to %lld", v->g->path, name,
                       (long long)v->n - 1);
    return SETUN_OK;
}

/* Lists of numbers have one for each token; lists of strings are the tokens, and the merges. */
static setun_status list_of(const st_gguf_vocab *v, const char *name, uint32_t element, const st_gguf_value **list,
                            setun_error *err)
{
    const st_gguf_value *k = *list = find(v, name);
    if (!k)
        return st_fail(err, SETUN_BAD_FILE, "%s has no key " KEY "%s", v->g->path, name);
    if (k->type != ST_GGUF_ARRAY || k->element != element)
        return st_fail(err, SETUN_BAD_FILE, "%s: key " KEY "%s is not a list of %s", v->g->path, name,
                       st_gguf_value_name(element));
    if (v->n && k->n != v->n && element != ST_GGUF_STRING)
        return st_fail(err, SETUN_BAD_FILE, "%s: key " KEY "%s has %lld elements for %lld tokens", v->g->path, name,
                       (long long)k->n, (long long)v->n);
    return SETUN_OK;
}

int st_gguf_vocab_type(const st_gguf_vocab *v, int64_t id)
{
    int64_t type = 0;
    return st_gguf_int(v->types, id, &type) || type < ST_TOKEN_NORMAL || type > ST_TOKEN_BYTE ? 0 : (int)type;
}

/* What tokenizer.json calls added tokens: those that a text is cut at. */
static int is_added(int type) { return type == ST_TOKEN_UNKNOWN || type == ST_TOKEN_CONTROL || type == ST_TOKEN_USER_DEFINED; }

/* ---------------------------------------------------------------- the parts of tokenizer.json */

/* All tokens are looked at, so that what is not as it must be is refused before anything is made of it. */
static setun_status read_tokens(st_gguf_vocab *v, int bytes, json_t *added, setun_error *err)
{
    const uint8_t *at = v->tokens->data;
    const char *path = v->g->path;
    for (int64_t id = 0; id < v->n; id++) {
        int64_t n;
        const char *text = st_gguf_next(&at, &n);
        int type = st_gguf_vocab_type(v, id);
        if (!type || (bytes && type == ST_TOKEN_BYTE))
            return st_fail(err, SETUN_BAD_FILE, "%s: token %lld has a type that is not %s", path, (long long)id,
                           type ? "of byte-level BPE" : "from 1 to 6");
        if (st_utf8_valid(text, (size_t)n) != (size_t)n)
            return st_fail(err, SETUN_BAD_FILE, "%s: token %lld is not valid UTF-8", path, (long long)id);
        for (size_t i = 0; i < sizeof ends / sizeof *ends && v->n_end < ST_GGUF_VOCAB_ENDS; i++)
            if (strlen(ends[i]) == (size_t)n && memcmp(ends[i], text, (size_t)n) == 0)
                v->end[v->n_end++] = (int32_t)id;
        if (!is_added(type))
            continue;
        if (n == 0 || memchr(text, 0, (size_t)n))
            return st_fail(err, SETUN_BAD_FILE, "%s: token %lld, to be found in texts, is empty or has a NUL in it", path,
                           (long long)id);
        if (json_array_size(added) == MAX_ADDED)
            return st_fail(err, SETUN_BAD_FILE, "%s: more than %d control and user-defined tokens", path, MAX_ADDED);
        if (json_array_append_new(added, json_pack("{sIss%sbsb}", "id", (json_int_t)id, "content", text, (size_t)n,
                                                   "special", type != ST_TOKEN_USER_DEFINED, "normalized", 0)))
            return no_memory(v, err);
    }
    return SETUN_OK;
}

/* BOS and EOS around a text, as far as the kind or the file wants them. */
static setun_status read_around(st_gguf_vocab *v, int bos, int64_t bos_id, int64_t eos_id, json_t *post, setun_error *err)
{
    int eos;
    ST_TRY(flag_of(v, "add_bos_token", bos, &bos, err));
    ST_TRY(flag_of(v, "add_eos_token", 0, &eos, err));
    ST_TRY(id_of(v, "bos_token_id", bos_id, &bos_id, err));
    ST_TRY(id_of(v, "eos_token_id", eos_id, &eos_id, err));
    int no_bos = bos && (bos_id < 0 || bos_id >= v->n), no_eos = eos && (eos_id < 0 || eos_id >= v->n);
    if (no_bos || no_eos)
        return st_fail(err, SETUN_BAD_FILE, "%s: texts are to have a token %s, but key " KEY "%s is missing", v->g->path,
                       no_bos ? "in front" : "behind", no_bos ? "bos_token_id" : "eos_token_id");
    json_t *single = json_array();
    int bad = !single;
    if (bos)
        bad |= json_array_append_new(single, json_pack("{s{ss}}", "SpecialToken", "id", "bos"));
    bad |= json_array_append_new(single, json_pack("{s{ss}}", "Sequence", "id", "A"));
    if (eos)
        bad |= json_array_append_new(single, json_pack("{s{ss}}", "SpecialToken", "id", "eos"));
    bad |= json_object_set_new(post, "single", single);
    bad |= json_object_set_new(post, "type", json_string("TemplateProcessing"));
    bad |= json_object_set_new(post, "special_tokens",
                               json_pack("{s{s[I]}s{s[I]}}", "bos", "ids", (json_int_t)bos_id, "eos", "ids", (json_int_t)eos_id));
    if (bos)
        st_str_addf(&v->about, "; token %lld in front", (long long)bos_id);
    if (eos)
        st_str_addf(&v->about, "; token %lld behind", (long long)eos_id);
    return bad ? no_memory(v, err) : SETUN_OK;
}

/* Each id once, those found by their names first; eos_id is what the kind means where no key says it. */
static setun_status read_ends(st_gguf_vocab *v, int64_t eos_id, setun_error *err)
{
    static const char *const keys[] = { "eos_token_id", "eot_token_id", "eom_token_id" };
    for (int i = 0; i < 3; i++) {
        int64_t id, k = 0;
        ST_TRY(id_of(v, keys[i], i == 0 ? eos_id : -1, &id, err));
        while (k < v->n_end && v->end[k] != id)
            k++;
        if (id >= 0 && id < v->n && k == v->n_end && k < ST_GGUF_VOCAB_ENDS)
            v->end[v->n_end++] = (int32_t)id;
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the two kinds */

/* The official file of 2B4T, and its like, name no expressions; readers then take their default,
 * which cuts otherwise than the model was trained.  Which ones it needs is known. */
static int is_llama3(const st_gguf_vocab *v)
{
    static const char begin[] = "<|begin_of_text|>";
    const uint8_t *at = v->tokens->data;
    const char *text = "";
    int64_t n = 0;
    if (has_name("bitnet-b1.58 bitnet-25 ", v->g->architecture, strlen(v->g->architecture)))
        return 1;
    for (int64_t id = 0; v->n == 128256 && id <= 128000; id++)
        text = st_gguf_next(&at, &n);
    return n == sizeof begin - 1 && memcmp(text, begin, sizeof begin - 1) == 0;
}

/* Unknown names are refused, not guessed: the wrong expressions give texts that a model was not trained on, and
 * nobody sees why its answers are a little worse. */
static setun_status choose_pre(st_gguf_vocab *v, const pre **chosen, setun_error *err)
{
    const st_gguf_value *k = find(v, "pre");
    int64_t n = 0;
    const char *name = k ? st_gguf_text(k, &n) : NULL;
    if (k && !name)
        return st_fail(err, SETUN_BAD_FILE, "%s: key " KEY "pre is not a string", v->g->path);
    for (int i = 0; i < N_PRES && name; i++)
        if (is_called(&pres[i], name, (size_t)n)) {
            *chosen = &pres[i];
            st_str_addf(&v->about, ", split as %.*s", (int)n, name);
            return SETUN_OK;
        }
    if (!name) {
        int llama3 = is_llama3(v);
        *chosen = &pres[llama3 ? 0 : N_PRES - 1];
        st_str_addf(&v->about, ", split as %s: key " KEY "pre is missing%s", (*chosen)->name,
                    llama3 ? ", and the model is known to need this" : "");
        return SETUN_OK;
    }
    st_str known = { 0 };
    st_str_add_json(&known, name, (size_t)(n < 60 ? n : 60));
    st_str_add(&known, " is not known to Setun; there are ");
    for (int i = 0; i < N_PRES; i++)
        st_str_addf(&known, "%s %s", pres[i].name, pres[i].others);
    if (known.failed) {
        st_str_free(&known);
        return no_memory(v, err);
    }
    (void)st_fail(err, SETUN_UNKNOWN, "%s: " KEY "pre %.*s", v->g->path, (int)known.len - 1, known.text);
    st_str_free(&known);
    return SETUN_UNKNOWN;
}

/* Split for each expression, then ByteLevel without its own; the vocabulary is filled in later. */
static setun_status read_gpt2(st_gguf_vocab *v, json_t *post, setun_error *err)
{
    const pre *p = NULL;
    int prefix;
    json_t *list = json_array();
    st_str_addf(&v->about, "byte-level BPE, %lld tokens", (long long)v->n);
    setun_status st = choose_pre(v, &p, err);
    int bad = !list;
    for (int i = 0; st == SETUN_OK && i < 4 && p->regex[i]; i++)
        bad |= json_array_append_new(list, json_pack("{sss{ss}sssb}", "type", "Split", "pattern", "Regex", p->regex[i],
                                                     "behavior", "Isolated", "invert", 0));
    bad |= json_array_append_new(list, json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                                                 "use_regex", 0));
    bad |= json_object_set_new(v->root, "pre_tokenizer", json_pack("{ssso}", "type", "Sequence", "pretokenizers", list));
    if (st != SETUN_OK)
        return st;
    bad |= json_object_set_new(v->root, "model", json_pack("{sssb}", "type", "BPE", "ignore_merges", p->ignore_merges));
    bad |= json_object_set_new(v->root, "decoder", json_pack("{ss}", "type", "ByteLevel"));
    if (bad)
        return no_memory(v, err);
    /* Some programs put a space in front of a text then, and some do not. */
    ST_TRY(flag_of(v, "add_space_prefix", 0, &prefix, err));
    if (prefix)
        return st_fail(err, SETUN_UNKNOWN, "%s: key " KEY "add_space_prefix with byte-level BPE is not supported", v->g->path);
    ST_TRY(list_of(v, "merges", ST_GGUF_STRING, &v->merges, err));
    ST_TRY(read_around(v, p->bos, -1, -1, post, err));
    return read_ends(v, -1, err);
}

/* The expressions of a pre_tokenizer that is only such, in order, with ByteLevel at the end; -1: it is more. */
static int regexes_of(const json_t *pre_tokenizer, const char *regex[4])
{
    const json_t *list = json_object_get(pre_tokenizer, "pretokenizers");
    int n = 0, done = 0;
    for (size_t i = 0; i < (list ? json_array_size(list) : 1); i++) {
        const json_t *item = list ? json_array_get(list, i) : pre_tokenizer, *own = json_object_get(item, "use_regex");
        const char *type = json_string_value(json_object_get(item, "type")), *how = json_string_value(json_object_get(item, "behavior"));
        const char *pattern = json_string_value(json_object_get(json_object_get(item, "pattern"), "Regex"));
        if (!type || done || n == 4)
            return -1;
        if (strcmp(type, "ByteLevel") == 0 && json_is_false(json_object_get(item, "add_prefix_space"))) { /* absent is true */
            done = 1;
            if (!own || json_is_true(own))
                regex[n++] = GPT2;
        } else if (strcmp(type, "Split") == 0 && pattern && how && strcmp(how, "Isolated") == 0 &&
                   !json_is_true(json_object_get(item, "invert"))) {
            regex[n++] = pattern;
        } else {
            return -1;
        }
    }
    return done ? n : -1;
}

const char *st_gguf_vocab_pre(const json_t *pre_tokenizer, int *ignore_merges)
{
    const char *regex[5] = { NULL };
    int n = regexes_of(pre_tokenizer, regex);
    for (int i = 0; i < N_PRES && n >= 0; i++) {
        int same = 1;
        for (int k = 0; k < 4 && same; k++)
            same = !regex[k] == !pres[i].regex[k] && (!regex[k] || strcmp(regex[k], pres[i].regex[k]) == 0);
        *ignore_merges = pres[i].ignore_merges;
        if (same)
            return pres[i].name;
    }
    return NULL;
}

/* What SentencePiece may do to a text before anything else, and Setun does not. */
static setun_status check_llama(const st_gguf_vocab *v, setun_error *err)
{
    const st_gguf_value *k = find(v, "pre"), *map = find(v, "precompiled_charsmap");
    int64_t n = 0;
    int extra;
    const char *name = k ? st_gguf_text(k, &n) : NULL;
    if (k && (!name || n != 7 || memcmp(name, "default", 7) != 0))
        return st_fail(err, SETUN_UNKNOWN, "%s: key " KEY "pre with model llama is not 'default', and no other is known", v->g->path);
    ST_TRY(flag_of(v, "remove_extra_whitespaces", 0, &extra, err));
    if (extra || (map && map->n > 0))
        return st_fail(err, SETUN_UNKNOWN, "%s: key " KEY "%s with model llama is not supported", v->g->path,
                       extra ? "remove_extra_whitespaces" : "precompiled_charsmap");
    return SETUN_OK;
}

/* The normalizer that makes spaces U+2581, and a decoder that takes it back.  Bytes stand for characters that are no token
 * if the vocabulary has tokens for bytes; else one token does for all of them. */
static setun_status read_llama(st_gguf_vocab *v, json_t *post, setun_error *err)
{
    int prefix, has_bytes = 0;
    int64_t unk, n_unk = 0;
    const char *unknown = NULL;
    st_str_addf(&v->about, "SentencePiece BPE, %lld tokens", (long long)v->n);
    ST_TRY(check_llama(v, err));
    ST_TRY(flag_of(v, "add_space_prefix", 1, &prefix, err));
    ST_TRY(id_of(v, "unknown_token_id", 0, &unk, err));
    ST_TRY(list_of(v, "scores", ST_GGUF_F32, &v->scores, err));
    const uint8_t *at = v->tokens->data;
    for (int64_t id = 0; id < v->n; id++) {
        int64_t n;
        const char *text = st_gguf_next(&at, &n);
        has_bytes |= st_gguf_vocab_type(v, id) == ST_TOKEN_BYTE;
        if (id == unk) {
            unknown = text;
            n_unk = n;
        }
    }
    if (!has_bytes && (!unknown || st_gguf_vocab_type(v, unk) == ST_TOKEN_NORMAL || st_gguf_vocab_type(v, unk) == ST_TOKEN_USER_DEFINED))
        return st_fail(err, SETUN_BAD_FILE, "%s: there are no tokens for bytes, and token %lld is not of type unknown", v->g->path,
                       (long long)unk);
    json_t *front = prefix ? json_pack("[{ssss}]", "type", "Prepend", "prepend", SPACE) : json_array();
    int bad = json_array_append_new(front, json_pack("{sss{ss}ss}", "type", "Replace", "pattern", "String", " ", "content", SPACE));
    bad |= json_object_set_new(v->root, "normalizer", json_pack("{ssso}", "type", "Sequence", "normalizers", front));
    json_t *back = json_pack("[{sss{ss}ss}{ss}{ss}]", "type", "Replace", "pattern", "String", SPACE, "content", " ",
                             "type", "ByteFallback", "type", "Fuse");
    if (prefix)
        bad |= json_array_append_new(back, json_pack("{sssssisi}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    bad |= json_object_set_new(v->root, "decoder", json_pack("{ssso}", "type", "Sequence", "decoders", back));
    json_t *model = json_pack("{sssbsb}", "type", "BPE", "byte_fallback", has_bytes, "fuse_unk", 1);
    /* With bytes nothing is unknown, and the token may be missing. */
    if (!has_bytes)
        bad |= json_object_set_new(model, "unk_token", json_stringn(unknown, (size_t)n_unk));
    bad |= json_object_set_new(v->root, "model", model);
    if (bad)
        return no_memory(v, err);
    st_str_add(&v->about, has_bytes ? ", bytes for other characters" : ", one token for unknown characters");
    st_str_add(&v->about, prefix ? ", a space in front of each stretch of text" : "");
    ST_TRY(read_around(v, 1, 1, 2, post, err));
    return read_ends(v, 2, err);
}

setun_status st_gguf_vocab_read(st_gguf_vocab *v, const st_gguf *g, setun_error *err)
{
    v->g = g;
    const st_gguf_value *model = find(v, "model");
    int64_t n = 0;
    const char *name = model ? st_gguf_text(model, &n) : NULL;
    int bytes = name && n == 4 && memcmp(name, "gpt2", 4) == 0;
    if (!name)
        return st_fail(err, SETUN_BAD_FILE, "%s has no tokenizer: key " KEY "model is %s", g->path, model ? "not a string" : "missing");
    if (!bytes && (n != 5 || memcmp(name, "llama", 5) != 0))
        return st_fail(err, SETUN_UNKNOWN, "%s: the kind of tokenizer that key " KEY "model names is not supported; gpt2 and llama are",
                       g->path);
    ST_TRY(list_of(v, "tokens", ST_GGUF_STRING, &v->tokens, err));
    v->n = v->tokens->n;
    if (v->n == 0 || v->n > ST_BPE_MAX_ID || v->tokens->bytes > MAX_TEXT)
        return st_fail(err, SETUN_BAD_FILE, "%s: key " KEY "tokens has %lld tokens in %lld bytes: not from 1 to %d in %lld", g->path,
                       (long long)v->n, (long long)v->tokens->bytes, ST_BPE_MAX_ID, (long long)MAX_TEXT);
    ST_TRY(list_of(v, "token_type", ST_GGUF_I32, &v->types, err));
    json_t *added = json_array(), *post = json_object();
    v->root = json_pack("{soso}", "added_tokens", added, "post_processor", post); /* takes both, also when it fails */
    if (!v->root)
        return no_memory(v, err);
    ST_TRY(read_tokens(v, bytes, added, err));
    ST_TRY(bytes ? read_gpt2(v, post, err) : read_llama(v, post, err));
    return v->about.failed ? no_memory(v, err) : SETUN_OK;
}

void st_gguf_vocab_free(st_gguf_vocab *v)
{
    json_decref(v->root);
    st_str_free(&v->about);
    memset(v, 0, sizeof *v);
}

/* ---------------------------------------------------------------- the vocabulary */

/* A token that is looked for in texts is written as it stands there, all others in the characters
 * that stand for bytes; where both are alike, merges may have made it. */
static int is_literal(const char *text, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f)
            return 1;
    return 0;
}

/* Scores of tokens that no merge may make are not numbers, which st_bpe_scores understands. */
static setun_status fill_scores(const st_gguf_vocab *v, st_bpe *b, setun_error *err)
{
    float *score = malloc((size_t)v->n * sizeof *score);
    setun_status st = score ? SETUN_OK : no_memory(v, err);
    for (int64_t id = 0; id < v->n && st == SETUN_OK; id++) {
        int type = st_gguf_vocab_type(v, id);
        score[id] = (float)st_gguf_float(v->scores, id);
        if (!isfinite(score[id]))
            st = st_fail(err, SETUN_BAD_FILE, "%s: the score of token %lld is not finite", v->g->path, (long long)id);
        if (type != ST_TOKEN_NORMAL && type != ST_TOKEN_USER_DEFINED) /* what no text is made of */
            score[id] = NAN;
    }
    if (st == SETUN_OK)
        st = st_bpe_scores(b, score, v->g->path, err);
    free(score);
    return st;
}

/* The first character is never the space between: where tokens are not spelled for bytes, one may begin with a space. */
setun_status st_gguf_vocab_merge(const st_gguf_vocab *v, const uint8_t **at, int64_t i, const char **pair, size_t *n, size_t *space,
                                 setun_error *err)
{
    int64_t bytes;
    *n = *space = 0;
    *pair = st_gguf_next(at, &bytes);
    const char *between = bytes > 1 ? memchr(*pair + 1, ' ', (size_t)bytes - 1) : NULL;
    if (!between || st_utf8_valid(*pair, (size_t)bytes) != (size_t)bytes)
        return st_fail(err, SETUN_BAD_FILE, "%s: merge %lld is not two tokens with a space between", v->g->path, (long long)i);
    *n = (size_t)bytes;
    *space = (size_t)(between - *pair);
    return SETUN_OK;
}

setun_status st_gguf_vocab_fill(const st_gguf_vocab *v, st_bpe *b, setun_error *err)
{
    const uint8_t *at = v->tokens->data;
    const char *path = v->g->path;
    int64_t n;
    ST_TRY(st_bpe_begin(b, v->n, v->tokens->bytes, v->merges ? v->merges->n : 2 * v->n, path, err));
    for (int64_t id = 0; id < v->n; id++) {
        const char *text = st_gguf_next(&at, &n);
        int type = st_gguf_vocab_type(v, id), unused = type == ST_TOKEN_UNUSED; /* fills a gap: stands for nothing */
        int literal = unused || n == 0 || (!b->chars && is_added(type) && is_literal(text, n));
        ST_TRY(st_bpe_entry(b, id, text, unused ? 0 : (size_t)n, literal, path, err));
    }
    if (v->scores)
        return fill_scores(v, b, err);
    at = v->merges->data;
    for (int64_t i = 0; i < v->merges->n; i++) {
        const char *pair;
        size_t bytes, space;
        ST_TRY(st_gguf_vocab_merge(v, &at, i, &pair, &bytes, &space, err));
        ST_TRY(st_bpe_merge(b, pair, bytes, space, path, err));
    }
    return SETUN_OK;
}

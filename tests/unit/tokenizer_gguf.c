/* tests/unit/tokenizer_gguf.c -- tokenizers of GGUF files: the ids of the same vocabulary as
 * tokenizer.json, SentencePiece's merging against its definition, and files that lie. */
#include "tests/unit/gguf_files.h"
#include "tests/unit/tokens.h"

#include <jansson.h>
#include <math.h>

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define U2581 "\xe2\x96\x81"
#define KEY "tokenizer.ggml."

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

/* What goes into a file; an int of -1 and a NULL are keys that it does not have. */
typedef struct vocab {
    const char *arch, *model, *pre;
    st_str      tokens, types, scores, merges; /* as they stand in the file */
    uint64_t    n, n_merges;
    int         bos, eos, eot, unk, add_bos, add_eos, prefix, extra;
} vocab;

static vocab new_vocab(const char *model, const char *pre)
{
    return (vocab){ .arch = "llama", .model = model, .pre = pre, .bos = -1, .eos = -1, .eot = -1, .unk = -1,
                    .add_bos = -1, .add_eos = -1, .prefix = -1, .extra = -1 };
}

static void put_string(st_str *s, const char *text, size_t n)
{
    put_le(s, n, 8);
    st_str_addn(s, text, n);
}

static void add_token(vocab *v, const char *text, size_t n, int type, float score)
{
    uint32_t bits;
    memcpy(&bits, &score, 4);
    put_string(&v->tokens, text, n);
    put_le(&v->types, (uint32_t)type, 4);
    put_le(&v->scores, bits, 4);
    v->n++;
}

static void add_merge(vocab *v, const char *text)
{
    put_string(&v->merges, text, strlen(text));
    v->n_merges++;
}

static void file_of(const vocab *v, st_str *file)
{
    static const char *const names[] = { KEY "bos_token_id", KEY "eos_token_id", KEY "eot_token_id", KEY "unknown_token_id" };
    static const char *const flags[] = { KEY "add_bos_token", KEY "add_eos_token", KEY "add_space_prefix",
                                         KEY "remove_extra_whitespaces" };
    const int id[] = { v->bos, v->eos, v->eot, v->unk }, flag[] = { v->add_bos, v->add_eos, v->prefix, v->extra };
    gguf_maker m = { 0 };
    kv_text(&m, "general.architecture", v->arch);
    if (v->model)
        kv_text(&m, KEY "model", v->model);
    if (v->pre)
        kv_text(&m, KEY "pre", v->pre);
    if (v->tokens.len)
        kv_array(&m, KEY "tokens", KV_STRING, v->n, v->tokens.text, v->tokens.len);
    if (v->types.len)
        kv_array(&m, KEY "token_type", KV_I32, v->types.len / 4, v->types.text, v->types.len);
    if (v->scores.len)
        kv_array(&m, KEY "scores", KV_F32, v->scores.len / 4, v->scores.text, v->scores.len);
    if (v->n_merges)
        kv_array(&m, KEY "merges", KV_STRING, v->n_merges, v->merges.text, v->merges.len);
    for (int i = 0; i < 4; i++) {
        if (id[i] >= 0)
            kv_u32(&m, names[i], (uint32_t)id[i]);
        if (flag[i] >= 0)
            kv(&m, flags[i], KV_BOOL, (uint64_t)flag[i], 1);
    }
    gguf_bytes(&m, file);
}

static void free_vocab(vocab *v)
{
    st_str_free(&v->tokens);
    st_str_free(&v->types);
    st_str_free(&v->scores);
    st_str_free(&v->merges);
}

static setun_status try_file(const st_str *file, st_tokenizer **t, setun_error *err)
{
    char *dir = temp_dir(), *path;
    put_file(dir, "vocab.bin", file->text, file->len);
    path = join(dir, "vocab.bin");
    setun_status st = st_tokenizer_open(t, path, err);
    free(path);
    drop_dir(dir);
    return st;
}

static setun_status try_vocab(const vocab *v, st_tokenizer **t, setun_error *err)
{
    st_str file = { 0 };
    file_of(v, &file);
    setun_status st = try_file(&file, t, err);
    st_str_free(&file);
    return st;
}

static st_tokenizer *open_vocab(const vocab *v)
{
    st_tokenizer *t;
    setun_error err = { 0 };
    if (try_vocab(v, &t, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return t;
}

static st_tokenizer *open_json(json_t *root)
{
    char *dir = temp_dir(), *text = json_dumps(root, 0);
    put_text(dir, "tokenizer.json", text);
    st_tokenizer *t = open_model(dir);
    free(text);
    drop_dir(dir);
    return t;
}

static void same_ids(const st_tokenizer *a, const st_tokenizer *b, const char *text, size_t bytes, const char *what)
{
    for (uint32_t flags = 0; flags < 4; flags++) {
        int64_t n, m;
        int32_t *x = encode(a, text, (int64_t)bytes, flags, &n), *y = encode(b, text, (int64_t)bytes, flags, &m);
        if (n != m || memcmp(x, y, (size_t)n * sizeof *x) != 0)
            fail_msg("%s, flags %u: '%.*s' gives other ids", what, flags, (int)bytes, text);
        free(x);
        free(y);
    }
}

/* ---------------------------------------------------------------- bytes */

/* The trained model's tokenizer.json, and merges of digits and signs, so that it shows where they are cut. */
static json_t *load_json(void)
{
    static const char signs[] = "0123456789$+`~";
    json_t *root = json_load_file(MODEL "/tokenizer.json", 0, NULL), *model = json_object_get(root, "model");
    int id = 1024;
    for (const char *a = signs; *a; a++)
        for (const char *b = signs; *b; b++) {
            json_array_append_new(json_object_get(model, "merges"), json_sprintf("%c %c", *a, *b));
            char both[3] = { *a, *b, 0 };
            json_object_set_new(json_object_get(model, "vocab"), both, json_integer(id++));
        }
    return root;
}

/* The same as a vocabulary for a GGUF file. */
static vocab from_json(json_t *root, const char *pre)
{
    vocab v = new_vocab("gpt2", pre);
    json_t *model = json_object_get(root, "model"), *entry;
    const char *by_id[2048] = { 0 }, *text;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), text, entry)
        by_id[json_integer_value(entry)] = text;
    json_array_foreach(json_object_get(root, "added_tokens"), i, entry)
        by_id[json_integer_value(json_object_get(entry, "id"))] = json_string_value(json_object_get(entry, "content"));
    for (i = 0; by_id[i]; i++)
        add_token(&v, by_id[i], strlen(by_id[i]), i >= 1021 && i < 1024 ? CONTROL : NORMAL, 0);
    json_array_foreach(json_object_get(model, "merges"), i, entry)
        add_merge(&v, json_string_value(entry));
    v.bos = 1021;
    v.add_bos = 1;
    return v;
}

#define N_BYTES (1024 + 14 * 14)
#define REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *pre, *arch, *regex[4];
    int         ignore, bos; /* BOS without the key add_bos_token */
} pres[] = {
    { "llama-bpe", "llama", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { "llama3", "llama", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { "llama-v3", "llama", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { "falcon3", "llama", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { "falcon_e", "llama", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { NULL, "bitnet-b1.58", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { NULL, "bitnet-25", { WORDS "|\\p{N}{1,3}" REST }, 1, 1 },
    { "qwen2", "qwen2", { WORDS "|\\p{N}" REST }, 0, 0 },
    { "deepseek-r1-qwen", "qwen2", { WORDS "|\\p{N}" REST }, 0, 0 },
    { "gpt-2", "gpt2", { GPT2 }, 0, 0 },
    { "falcon", "falcon", { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, 0, 0 },
    { "default", "llama", { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, 0, 0 },
    { NULL, "llama", { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, 0, 0 },
};

static void some_text(st_str *s, uint64_t *r)
{
    static const char *const bits[] = { "the ", "And", " 12345678", "\n\n", "'ll", "DON'T", "``$+", "  ", "<|eot_id|>", "\r\n",
                                        "<|begin_of_text|>", "\t", "<|", "caf\xc3\xa9", ".\n", "\xe6\x97\xa5", "\xf0\x9f\x99\x82", "x=1;" };
    st_str_add(s, "");
    for (uint32_t i = next_random(r) % 12; i > 0; i--)
        if (next_random(r) % 4 == 0)
            random_text(s, r, (int)(next_random(r) % 20));
        else
            st_str_add(s, bits[next_random(r) % (sizeof bits / sizeof *bits)]);
}

/* Every pre, against a tokenizer.json with the expressions spelled out here. */
static void test_bytes(void **state)
{
    (void)state;
    uint64_t r = 5;
    for (size_t k = 0; k < sizeof pres / sizeof *pres; k++) {
        json_t *root = load_json(), *list = json_array();
        vocab v = from_json(root, pres[k].pre);
        v.arch = pres[k].arch;
        v.add_bos = k % 2 ? 1 : -1;
        for (int i = 0; i < 4 && pres[k].regex[i]; i++)
            json_array_append_new(list, json_pack("{sss{ss}sssb}", "type", "Split", "pattern", "Regex", pres[k].regex[i],
                                                  "behavior", "Isolated", "invert", 0));
        json_array_append_new(list, json_pack("{sssbsb}", "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 0));
        json_object_set_new(json_object_get(root, "pre_tokenizer"), "pretokenizers", list);
        json_object_set_new(json_object_get(root, "model"), "ignore_merges", json_boolean(pres[k].ignore));
        if (v.add_bos < 0 && !pres[k].bos)
            json_object_set_new(root, "post_processor", json_null());
        st_tokenizer *a = open_vocab(&v), *b = open_json(root);
        assert_int_equal(st_tokenizer_size(a), st_tokenizer_size(b));
        assert_int_equal(st_tokenizer_bos(a), st_tokenizer_bos(b));
        assert_int_equal(st_tokenizer_find(a, "<|eot_id|>"), 1023);
        for (int i = 0; i < 150; i++) {
            st_str s = { 0 };
            some_text(&s, &r);
            same_ids(a, b, s.text, s.len, pres[k].pre ? pres[k].pre : pres[k].arch);
            check_round(a, s.text, (int64_t)s.len, (uint32_t)i & ST_TOK_SPECIAL); /* whole characters, streamed */
            st_str_free(&s);
        }
        const char *about = st_tokenizer_about(a);
        assert_non_null(strstr(about, "1220 tokens"));
        assert_int_equal(strstr(about, "pre is missing") != NULL, pres[k].pre == NULL);
        assert_int_equal(strstr(about, "llama-bpe") != NULL, pres[k].ignore && (!pres[k].pre || k == 0));
        assert_null(st_tokenizer_about(b));
        st_tokenizer_close(a);
        st_tokenizer_close(b);
        json_decref(root);
        free_vocab(&v);
    }
}

/* Whole words that merging cannot make, and the only place where ignore_merges shows. */
static void test_ignore_merges(void **state)
{
    (void)state;
    for (int ignore = 0; ignore < 2; ignore++) {
        json_t *root = load_json();
        vocab v = from_json(root, ignore ? "llama-bpe" : "qwen2");
        add_token(&v, "zqzqz", 5, NORMAL, 0);
        st_tokenizer *t = open_vocab(&v);
        int64_t n;
        int32_t *ids = encode(t, "zqzqz", 5, 0, &n);
        assert_int_equal(n, ignore ? 1 : 5);
        assert_true(!ignore || ids[0] == N_BYTES);
        free(ids);
        st_tokenizer_close(t);
        json_decref(root);
        free_vocab(&v);
    }
}

static int is_end(const st_tokenizer *t, int32_t id)
{
    const int32_t *ids;
    int found = 0;
    for (int64_t i = 0, n = st_tokenizer_ends(t, &ids); i < n; i++)
        found += ids[i] == id;
    return found;
}

/* What the types of tokens do, among bytes. */
static void test_types(void **state)
{
    (void)state;
    json_t *root = load_json();
    vocab v = from_json(root, "llama-bpe");
    add_token(&v, "[PAD1024]", 9, UNUSED, 0);
    add_token(&v, "  ", 2, USER_DEFINED, 0); /* as it stands in a text, not as bytes are spelled */
    add_token(&v, "\xc3\xa9", 2, USER_DEFINED, 0); /* would spell the byte E9 */
    add_token(&v, "<x>", 3, UNKNOWN, 0);
    add_token(&v, "<|im_end|>", 10, CONTROL, 0);
    add_token(&v, "   ", 3, USER_DEFINED, 0);
    v.eos = 1022;
    v.eot = N_BYTES + 3;
    v.add_eos = 1;
    st_tokenizer *t = open_vocab(&v);
    int64_t n;
    int32_t *ids = encode(t, "a  b\xc3\xa9<x>[PAD1024]     ", 23, 0, &n);
    static const int32_t plain[] = { N_BYTES + 1, N_BYTES + 2 };
    for (int k = 0; k < 2; k++) {
        int found = 0;
        for (int64_t i = 0; i < n; i++)
            found += ids[i] == plain[k];
        assert_int_equal(found, k ? 1 : 2);
    }
    for (int64_t i = 0; i < n; i++)
        assert_true(ids[i] != N_BYTES && ids[i] != N_BYTES + 3);
    assert_int_equal(ids[n - 2], N_BYTES + 5); /* the longest first, then the rest */
    assert_int_equal(ids[n - 1], N_BYTES + 1);
    free(ids);
    ids = encode(t, "a<x>", 4, ST_TOK_SPECIAL | ST_TOK_BOS, &n);
    assert_true(n == 4 && ids[0] == 1021 && ids[2] == N_BYTES + 3 && ids[3] == 1022);
    free(ids);
    const char *bytes;
    int special;
    assert_int_equal(st_tokenizer_bytes(t, N_BYTES, &bytes, &n, &special, NULL), SETUN_OK);
    assert_int_equal(n, 0);
    assert_int_equal(st_tokenizer_bytes(t, N_BYTES + 2, &bytes, &n, &special, NULL), SETUN_OK);
    assert_true(n == 2 && memcmp(bytes, "\xc3\xa9", 2) == 0 && !special);
    assert_int_equal(st_tokenizer_bytes(t, N_BYTES + 4, &bytes, &n, &special, NULL), SETUN_OK);
    assert_true(n == 10 && special);
    /* By keys, and by name: <|eot_id|> and <|im_end|>; each once. */
    const int32_t *end;
    assert_int_equal(st_tokenizer_ends(t, &end), 4);
    assert_true(is_end(t, 1022) && is_end(t, 1023) && is_end(t, N_BYTES + 3) && is_end(t, N_BYTES + 4));
    st_tokenizer_close(t);
    json_decref(root);
    free_vocab(&v);
}

/* ---------------------------------------------------------------- characters */

#define MAX_TOKENS 700
#define MAX_LEN 40

typedef struct spelled {
    char  token[MAX_TOKENS][MAX_LEN];
    float score[MAX_TOKENS];
    int   type[MAX_TOKENS];
    int   n, has_bytes, prefix;
} spelled;

static const char *const alphabet[] = { U2581, "a", "b", "c", "d", "<", "\xc3\xa9", "\xe6\x97\xa5", "\n", "\xf0\x9f\x99\x82" };
#define N_ALPHABET ((int)(sizeof alphabet / sizeof *alphabet))

static int find(const spelled *v, const char *text)
{
    for (int i = 0; i < v->n; i++)
        if (v->type[i] != UNUSED && strcmp(v->token[i], text) == 0)
            return i;
    return -1;
}

static void put(spelled *v, const char *text, int type, float score)
{
    assert_true(v->n < MAX_TOKENS && strlen(text) < MAX_LEN);
    strcpy(v->token[v->n], text);
    v->type[v->n] = type;
    v->score[v->n++] = score;
}

/* In how many ways is text two tokens that merge?  The first one's cut goes to *at. */
static int cuts(const spelled *v, const char *text, size_t *at)
{
    int n = 0;
    for (size_t i = 1; i < strlen(text); i++) {
        char left[MAX_LEN] = { 0 };
        memcpy(left, text, i);
        int a = find(v, left), b = find(v, text + i);
        if (a < 0 || b < 0 || v->type[a] != NORMAL || v->type[b] != NORMAL)
            continue;
        if (n++ == 0)
            *at = i;
    }
    return n;
}

/* only: every token can be made in one way only, so that ranks of pairs and scores of tokens say the
 * same; otherwise some characters are no tokens by themselves, and scores are equal here and there. */
static spelled *make(uint64_t *r, int has_bytes, int prefix, int only)
{
    spelled *v = calloc(1, sizeof *v);
    assert_non_null(v);
    v->has_bytes = has_bytes;
    v->prefix = prefix;
    put(v, "<unk>", UNKNOWN, 0);
    put(v, "<s>", CONTROL, 0);
    put(v, "</s>", CONTROL, 0);
    for (int i = 0; has_bytes && i < 256; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        put(v, name, BYTE, 0);
    }
    put(v, "bc", UNUSED, 100); /* none of these is made from text, high as their scores are */
    put(v, "bc", UNUSED, 100);
    put(v, "ab", CONTROL, 100);
    int first = v->n, k = 0;
    for (int i = 0; i < N_ALPHABET; i++)
        if (only || i < 4)
            put(v, alphabet[i], NORMAL, -1000);
    for (int tries = 0; tries < 1500 && v->n < first + 250; tries++) {
        int a = first + (int)(next_random(r) % (uint32_t)(v->n - first));
        int b = first + (int)(next_random(r) % (uint32_t)(v->n - first));
        char text[2 * MAX_LEN];
        const char *loose = alphabet[next_random(r) % (uint32_t)N_ALPHABET];
        uint32_t kind = only ? 0 : next_random(r) % 4;
        (void)snprintf(text, sizeof text, "%s%s", kind == 1 ? loose : v->token[a], kind == 2 ? loose : v->token[b]);
        if (strlen(text) > 16 || find(v, text) >= 0)
            continue;
        put(v, text, NORMAL, only ? (float)-++k : (float)-(int)(next_random(r) % 40));
        size_t at;
        int good = 1;
        for (int i = first; only && good && i < v->n; i++)
            good = !strstr(v->token[i], text) || cuts(v, v->token[i], &at) <= 1;
        v->n -= !good;
    }
    return v;
}

static vocab vocab_of(const spelled *s)
{
    vocab v = new_vocab("llama", "default");
    for (int i = 0; i < s->n; i++)
        add_token(&v, s->token[i], strlen(s->token[i]), s->type[i], s->score[i]);
    v.prefix = s->prefix ? -1 : 0; /* true when absent */
    return v;
}

static json_t *json_of(const spelled *v)
{
    json_t *tokens = json_object(), *merges = json_array(), *added = json_array();
    for (int i = 0; i < v->n; i++) {
        size_t at = 0;
        if (v->type[i] != UNUSED)
            json_object_set_new(tokens, v->token[i], json_integer(i));
        if (v->type[i] == NORMAL && cuts(v, v->token[i], &at) == 1) /* scores fall with ids */
            json_array_append_new(merges, json_sprintf("%.*s %s", (int)at, v->token[i], v->token[i] + at));
    }
    for (int i = 0; i < v->n; i++)
        if (v->type[i] == CONTROL || v->type[i] == UNKNOWN)
            json_array_append_new(added, json_pack("{sisssbsb}", "id", i, "content", v->token[i], "normalized", 0, "special",
                                                   1));
    json_t *front = json_pack("[{sss{ss}ss}]", "type", "Replace", "pattern", "String", " ", "content", U2581);
    json_t *back = json_pack("[{sss{ss}ss}{ss}{ss}]", "type", "Replace", "pattern", "String", U2581, "content", " ", "type",
                             "ByteFallback", "type", "Fuse");
    if (v->prefix) {
        json_array_insert_new(front, 0, json_pack("{ssss}", "type", "Prepend", "prepend", U2581));
        json_array_append_new(back, json_pack("{sssssisi}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    }
    json_t *post = json_pack("{sss[{s{ss}}{s{ss}}]s{s{s[i]}}}", "type", "TemplateProcessing", "single", "SpecialToken", "id",
                             "<s>", "Sequence", "id", "A", "special_tokens", "<s>", "ids", 1);
    return json_pack("{sos{ssso}sos{ssso}s{sssssbsbsoso}}", "added_tokens", added, "normalizer", "type", "Sequence",
                     "normalizers", front, "post_processor", post, "decoder", "type", "Sequence", "decoders", back, "model", "type",
                     "BPE", "unk_token", "<unk>", "fuse_unk", 1, "byte_fallback", v->has_bytes, "vocab", tokens, "merges", merges);
}

static void spaced_text(st_str *s, uint64_t *r, int chars)
{
    static const char *const rare[] = { "x", "\xc3\xb1", "\t", "   ", "<0x41>", "<s>", "ab" };
    st_str_add(s, "");
    for (int i = 0; i < chars; i++) {
        uint32_t k = next_random(r) % 40;
        st_str_add(s, k < 7 ? rare[k] : k < 14 ? " " : alphabet[1 + k % (N_ALPHABET - 1)]);
    }
}

static void test_characters(void **state)
{
    (void)state;
    uint64_t r = 13;
    for (int kind = 0; kind < 8; kind++) {
        spelled *s = make(&r, kind & 1, kind >> 1 & 1, 1);
        vocab v = vocab_of(s);
        json_t *root = json_of(s);
        assert_non_null(root);
        st_tokenizer *a = open_vocab(&v), *b = open_json(root);
        for (int round = 0; round < 60; round++) {
            st_str text = { 0 };
            spaced_text(&text, &r, round < 50 ? round : 300);
            same_ids(a, b, text.text, text.len, "characters");
            if (s->has_bytes)
                check_round(a, text.text, (int64_t)text.len, 0);
            st_str_free(&text);
        }
        st_tokenizer_close(a);
        st_tokenizer_close(b);
        json_decref(root);
        free_vocab(&v);
        free(s);
    }
}

/* The definition: strings, and the neighbours whose union is the token of highest score, leftmost. */
static int naive(const spelled *v, const char *text, int *id)
{
    static char part[2000][MAX_LEN + 40];
    int n = 0, m = 0, was_unknown = 0;
    st_str s = { 0 };
    st_str_add(&s, v->prefix && text[0] ? U2581 : "");
    for (const char *p = text; *p; p++)
        st_str_addn(&s, *p == ' ' ? U2581 : p, *p == ' ' ? 3 : 1);
    for (size_t at = 0, len; at < s.len; at += len, n++) {
        for (len = 1; ((uint8_t)s.text[at + len] & 0xc0) == 0x80; len++) {
        }
        memset(part[n], 0, sizeof part[n]);
        memcpy(part[n], s.text + at, len);
    }
    st_str_free(&s);
    for (;;) {
        int best = -1;
        float most = 0;
        for (int i = 0; i + 1 < n; i++) {
            char both[2 * MAX_LEN];
            (void)snprintf(both, sizeof both, "%s%s", part[i], part[i + 1]);
            int token = find(v, both);
            if (token < 0 || v->type[token] != NORMAL || (best >= 0 && v->score[token] <= most))
                continue;
            best = i;
            most = v->score[token];
        }
        if (best < 0)
            break;
        size_t len = strlen(part[best]);
        memmove(part[best] + len, part[best + 1], strlen(part[best + 1]) + 1);
        memmove(part + best + 1, part + best + 2, (size_t)(n - best - 2) * sizeof *part);
        n--;
    }
    for (int i = 0; i < n; i++) {
        int token = find(v, part[i]), unknown = token < 0 && !v->has_bytes;
        if (token >= 0)
            id[m++] = token;
        for (const char *p = part[i]; token < 0 && v->has_bytes && *p; p++)
            id[m++] = 3 + (uint8_t)*p;
        if (unknown && !was_unknown)
            id[m++] = 0;
        was_unknown = unknown;
    }
    return m;
}

static void test_scores(void **state)
{
    (void)state;
    uint64_t r = 19;
    static int want[8000];
    for (int kind = 0; kind < 16; kind++) {
        spelled *s = make(&r, kind & 1, kind >> 1 & 1, 0);
        vocab v = vocab_of(s);
        st_tokenizer *t = open_vocab(&v);
        for (int round = 0; round < 60; round++) {
            st_str text = { 0 };
            int64_t got;
            spaced_text(&text, &r, round < 50 ? round : 150);
            int n = naive(s, text.text, want);
            int32_t *ids = encode(t, text.text, (int64_t)text.len, 0, &got);
            int same = got == n;
            for (int i = 0; same && i < n; i++)
                same = ids[i] == want[i];
            if (!same)
                fail_msg("kind %d, round %d: '%s' gives %lld tokens, not %d, or others", kind, round, text.text, (long long)got, n);
            free(ids);
            if (s->has_bytes)
                check_round(t, text.text, (int64_t)text.len, 0);
            st_str_free(&text);
        }
        st_tokenizer_close(t);
        free_vocab(&v);
        free(s);
    }
}

/* A space in front of the text and behind each token that is cut out; none for Gemma. */
static void test_prefix(void **state)
{
    (void)state;
    for (int prefix = 0; prefix < 2; prefix++) {
        uint64_t r = 3;
        spelled *s = make(&r, 1, prefix, 1);
        put(s, "ab</s>", USER_DEFINED, 5);
        vocab v = vocab_of(s);
        int64_t n, one;
        st_tokenizer *t = open_vocab(&v);
        int32_t *alone = encode(t, "c", 1, 0, &one), *ids = encode(t, "c<s>c", 5, ST_TOK_SPECIAL | ST_TOK_BOS, &n);
        assert_int_equal(n, 2 * one + 2);
        assert_int_equal(ids[0], 1); /* bos 1 and its use are what llama means without keys */
        assert_int_equal(ids[1 + one], 1);
        assert_memory_equal(ids + 1, alone, (size_t)one * sizeof *ids);
        assert_memory_equal(ids + 2 + one, alone, (size_t)one * sizeof *ids);
        const char *first;
        int special;
        int64_t len;
        assert_int_equal(st_tokenizer_bytes(t, ids[1], &first, &len, &special, NULL), SETUN_OK);
        assert_int_equal(first[0] == ' ', prefix);
        free(ids);
        free(alone);
        ids = encode(t, "ab</s>", 6, 0, &n); /* a user-defined token is cut out always, the longest one */
        assert_true(n == 1 && ids[0] == s->n - 1);
        free(ids);
        ids = encode(t, "", 0, 0, &n);
        assert_int_equal(n, 0);
        free(ids);
        assert_true(is_end(t, 2) && !is_end(t, 1));
        st_detok d;
        st_detok_start(&d, t);
        assert_int_equal(d.drop, prefix);
        st_tokenizer_close(t);
        free_vocab(&v);
        free(s);
    }
}

/* A megabyte is one piece: nothing takes its square. */
static void test_long(void **state)
{
    (void)state;
    static const char *const kinds[] = { "a", " ", "ab ", "\xe6\x97\xa5", "x", "\xf0\x9f\x99\x82" };
    uint64_t r = 31;
    spelled *s = make(&r, 1, 1, 0);
    vocab v = vocab_of(s);
    st_tokenizer *t = open_vocab(&v);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        st_str text = { 0 };
        while (text.len < 1000000)
            st_str_add(&text, kinds[k]);
        check_round(t, text.text, (int64_t)text.len, 0);
        st_str_free(&text);
    }
    st_tokenizer_close(t);
    free_vocab(&v);
    free(s);
}

/* ---------------------------------------------------------------- refused */

static void refused(vocab *v, const char *says)
{
    st_tokenizer *t;
    setun_error err = { 0 };
    setun_status st = try_vocab(v, &t, &err);
    if (st >= 0 || !strstr(err.text, says) || !strstr(err.text, "vocab.bin") || strpbrk(err.text, "\n\x1b"))
        fail_msg("wanted '%s': %d '%s'", says, st, err.text);
    assert_null(t);
    free_vocab(v);
}

static vocab good(int chars)
{
    if (chars) {
        uint64_t r = 1;
        spelled *s = make(&r, 1, 1, 1);
        vocab v = vocab_of(s);
        free(s);
        return v;
    }
    json_t *root = load_json();
    vocab v = from_json(root, "llama-bpe");
    json_decref(root);
    return v;
}

static void test_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 31; i++) {
        vocab v = good(i >= 19);
        const char *says = "";
        switch (i) {
        case 0: v.model = NULL, says = "has no tokenizer"; break;
        case 1: v.model = "bert", says = "gpt2 and llama are"; break;
        case 2: v.pre = "new-\x1b[31mpre", says = "llama-bpe llama3"; break;
        case 3: v.pre = "", says = "is not known"; break;
        case 4: v.pre = "llama-bpe ", says = "is not known"; break;
        case 5: st_str_free(&v.types), says = "has no key " KEY "token_type"; break;
        case 6: put_le(&v.types, 1, 4), says = "1221 elements for 1220 tokens"; break;
        case 7: v.types.text[40] = 7, says = "token 10 has a type that is not from 1 to 6"; break;
        case 8: v.types.text[40] = 0, says = "token 10 has a type"; break;
        case 9: v.types.text[40] = BYTE, says = "token 10 has a type that is not of byte-level BPE"; break;
        case 10: v.n_merges = 0, says = "has no key " KEY "merges"; break;
        case 11: add_merge(&v, "q"), says = "is not two tokens"; break;
        case 12: add_merge(&v, " q"), says = "is not two tokens"; break;
        case 13: add_merge(&v, "q\x1b[0m qq"), says = "not made of tokens"; break;
        case 14: add_merge(&v, "h e"), says = "is there twice"; break;
        case 15: v.bos = N_BYTES, says = KEY "bos_token_id is not the id of a token, 0 to 1219"; break;
        case 16: v.bos = -1, says = KEY "bos_token_id is missing"; break;
        case 17: v.prefix = 1, says = "add_space_prefix"; break;
        case 18: v.add_eos = 1, says = KEY "eos_token_id is missing"; break;
        case 19: v.pre = "llama-bpe", says = "with model llama"; break;
        case 20: v.extra = 1, says = "remove_extra_whitespaces"; break;
        case 21: st_str_free(&v.scores), says = "has no key " KEY "scores"; break;
        case 22: memcpy(v.scores.text + 4 * 300, "\0\0\xc0\x7f", 4), says = "score of token 300"; break;
        case 23: memcpy(v.scores.text + 4 * 300, "\0\0\x80\x7f", 4), says = "score of token 300"; break;
        case 24: v.tokens.text[11] = '\xff', says = "token 0 is not valid UTF-8"; break;
        case 25: v.types.text[4 * 0x41 + 12] = NORMAL, v.types.text[4] = 9, says = "token 1 has a type"; break;
        case 26: v.tokens.text[8] = 0, says = "empty or has a NUL"; break;
        case 27: add_token(&v, "a", 1, NORMAL, 0), says = "are the same token"; break;
        case 28: v.tokens.text[3 * 8 + 12 + 8 + 3] = 'F', says = "same token"; break; /* <0x00> becomes <0xF0> */
        case 29: v.unk = 5000, says = "unknown_token_id"; break;
        default: {
            char longest[300];
            memset(longest, 'a', sizeof longest);
            add_token(&v, longest, sizeof longest, NORMAL, 0);
            says = "300 bytes";
        }
        }
        refused(&v, says);
    }
    /* Without tokens for bytes, one must stand for what is unknown and for nothing else. */
    vocab v = new_vocab("llama", NULL);
    add_token(&v, "a", 1, NORMAL, 0);
    refused(&v, "token 0 is not of type unknown");
}

/* Cut short and changed by chance: an error or a tokenizer that encodes, never more. */
static void test_hostile(void **state)
{
    (void)state;
    for (int chars = 0; chars < 2; chars++) {
        vocab v = good(chars);
        st_str file = { 0 };
        uint64_t r = 77;
        st_tokenizer *t;
        setun_error err;
        file_of(&v, &file);
        for (size_t n = 0; n < file.len; n += 1 + file.len / 150) {
            st_str part = { .text = file.text, .len = n };
            assert_true(try_file(&part, &t, &err) < 0);
        }
        for (int i = 0; i < 500; i++) {
            size_t at = i % 3 ? next_random(&r) % file.len : next_random(&r) % 600;
            char old = file.text[at];
            file.text[at] = (char)(i % 2 ? old ^ 1 << next_random(&r) % 8 : (int)next_random(&r));
            if (try_file(&file, &t, &err) == SETUN_OK) {
                int32_t *ids = NULL;
                int64_t n;
                (void)st_tokenizer_encode(t, "the a<s>b \xc3\xa9\n\n 12", 17, 3, &ids, &n, &err);
                free(ids);
            }
            st_tokenizer_close(t);
            file.text[at] = old;
        }
        st_str_free(&file);
        free_vocab(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),  cmocka_unit_test(test_ignore_merges), cmocka_unit_test(test_types),
        cmocka_unit_test(test_characters), cmocka_unit_test(test_scores),    cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_long),   cmocka_unit_test(test_refused),       cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

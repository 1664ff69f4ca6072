/* model/synth_tok.c -- a byte-level BPE vocabulary out of nothing, in the shape of LLaMA-3's.
 *
 * 256 bytes, then common words of English with all their beginnings, then words of letters, each
 * put together from two earlier tokens, then specials.  As in LLaMA-3 the merges are all splits of
 * every token into two tokens, about two for each, so that loading and encoding cost what they cost
 * with a real vocabulary of that size.  It has learnt nothing: apart from the common ones its words
 * are chance. */
#include "model/synth_tok.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/table.h"

#define WORD 18 /* longest token in bytes; real ones of LLaMA-3 are 6.5 on average */

/* Each with a space in front, too. */
static const char *const words[] = {
    "the",   "of",    "and",   "to",    "in",    "is",    "that", "for",   "was",  "as",
    "with",  "be",    "by",    "on",    "not",   "he",    "his",  "but",   "at",   "are",
    "this",  "have",  "had",   "from",  "or",    "which", "one",  "you",   "were", "all",
    "her",   "she",   "there", "would", "their", "we",    "him",  "been",  "has",  "when",
    "who",   "will",  "no",    "more",  "if",    "out",   "so",   "up",    "said", "what",
    "its",   "about", "than",  "into",  "them",  "can",   "only", "other", "time", "new",
    "some",  "could", "these", "two",   "may",   "first", "then", "do",    "any",  "like",
    "my",    "now",   "over",  "such",  "our",   "man",   "me",   "even",  "most", "made",
    "after", "also",  "ing",   "er",    "ed",    "es",    "ly",   "tion",  "ment", "ness",
    "able",  "est",   "ive",   "al",    "en",    "re",    "un",   "con",   "com",  "pro",
};

typedef struct vocab {
    char    (*text)[WORD];
    uint8_t  *len;
    int64_t   n;
    st_table *find;
} vocab;

setun_status st_synth_ids_of(st_synth_ids *ids, int64_t n, int64_t bos, setun_error *err)
{
    if (n < ST_SYNTH_MIN_VOCAB || n > 4000000)
        return st_fail(err, SETUN_BAD_ARG, "a vocabulary of %lld is not from %d to 4000000",
                       (long long)n, ST_SYNTH_MIN_VOCAB);
    int near_end = bos >= 256 && bos <= n - 3 && n - bos <= 1024;
    int64_t first = near_end ? bos : n - 3;
    int many = n - first >= 16; /* 2B4T and LLaMA-3: eot is the tenth */
    *ids = (st_synth_ids){ n, first, first, first + 1, many ? first + 9 : first + 2 };
    return SETUN_OK;
}

/* The order of bytes in GPT-2's vocabulary and its descendants: printable ones first. */
static int is_printable(int b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

static void add_byte(st_str *out, int byte)
{
    int u = byte;
    if (!is_printable(byte)) {
        u = 0x100;
        for (int b = 0; b < byte; b++)
            u += !is_printable(b);
    }
    if (u == '"' || u == '\\')
        st_str_add(out, "\\");
    if (u < 0x80)
        st_str_addf(out, "%c", u);
    else
        st_str_addf(out, "%c%c", 0xc0 | u >> 6, 0x80 | (u & 63));
}

static void add_word(st_str *out, const vocab *v, int64_t id)
{
    for (int i = 0; i < v->len[id]; i++)
        add_byte(out, (uint8_t)v->text[id][i]);
}

static int add_token(vocab *v, const char *text, int n)
{
    int64_t old;
    if (st_table_get(v->find, text, (size_t)n, &old))
        return 0;
    memcpy(v->text[v->n], text, (size_t)n);
    v->len[v->n] = (uint8_t)n;
    if (st_table_put(v->find, v->text[v->n], (size_t)n, v->n))
        return -1;
    v->n++;
    return 1;
}

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static int is_letters(const vocab *v, int64_t id)
{
    for (int i = 0; i < v->len[id]; i++) {
        char c = v->text[id][i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z' && i == 0) || (c == ' ' && i == 0)))
            return 0;
    }
    return 1;
}

/* Common words and all their beginnings, so that merging letter by letter finds them. */
static setun_status common_words(vocab *v, int64_t want, setun_error *err)
{
    for (size_t i = 0; i < 2 * (sizeof words / sizeof *words); i++) {
        char text[WORD] = " ";
        (void)strncpy(text + 1, words[i / 2], WORD - 2);
        const char *word = text + i % 2;
        for (int n = 2; n <= (int)strlen(word) && v->n < want; n++)
            if (add_token(v, word, n) < 0)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for a vocabulary");
    }
    return SETUN_OK;
}

/* Words grow from earlier words, mostly from short ones; a space may only come first. */
static setun_status make_words(vocab *v, int64_t want, setun_error *err)
{
    static const char common[] = " etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCMFWYPVBGKJQXZ";
    int64_t n_start = sizeof common - 1, tries = 0;
    uint64_t state = 1958;
    for (int pass = 0; pass < 2; pass++)
        for (int b = 0; b < 256; b++) {
            char c = (char)b;
            if (is_printable(b) != pass && add_token(v, &c, 1) < 0)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for a vocabulary");
        }
    ST_TRY(common_words(v, want, err));
    while (v->n < want && tries++ < 200 * want + 100000) {
        int64_t part[2];
        char text[2 * WORD];
        int n = 0;
        for (int k = 0; k < 2; k++) {
            uint64_t pick =
                (uint64_t)next(&state) * next(&state) >> 32; /* small more often than large */
            int64_t at = (int64_t)((pick * (uint64_t)(v->n - 256 + n_start)) >> 32);
            if (at < n_start) {
                char c = common[at];
                (void)st_table_get(v->find, &c, 1, &part[k]);
            } else {
                part[k] = 256 + at - n_start;
            }
            memcpy(text + n, v->text[part[k]], v->len[part[k]]);
            n += v->len[part[k]];
        }
        char second = v->text[part[1]][0];
        if (n > WORD - 2 || second == ' ' || (second >= 'A' && second <= 'Z' && text[0] != ' ') ||
            !is_letters(v, part[0]) || (text[0] == ' ' && v->len[part[0]] > 1 && second <= 'Z'))
            continue;
        if (add_token(v, text, n) < 0)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for a vocabulary");
    }
    return v->n == want
               ? SETUN_OK
               : st_fail(err, SETUN_FAILED, "no %lld words could be made up", (long long)want);
}

/* All splits of a token into two, by rank of the left part, then the right. */
static int add_merges(const vocab *v, int64_t id, int first, st_str *out)
{
    int64_t left[WORD], right[WORD];
    int n = 0;
    for (int cut = 1; cut < v->len[id]; cut++) {
        int64_t l, r;
        if (!st_table_get(v->find, v->text[id], (size_t)cut, &l) ||
            !st_table_get(v->find, v->text[id] + cut, (size_t)(v->len[id] - cut), &r))
            continue;
        int at = n++;
        for (; at > 0 && (left[at - 1] > l || (left[at - 1] == l && right[at - 1] > r)); at--) {
            left[at] = left[at - 1];
            right[at] = right[at - 1];
        }
        left[at] = l;
        right[at] = r;
    }
    for (int i = 0; i < n; i++) {
        st_str_add(out, first && i == 0 ? "\n      \"" : ",\n      \"");
        add_word(out, v, left[i]);
        st_str_add(out, " ");
        add_word(out, v, right[i]);
        st_str_add(out, "\"");
    }
    return n;
}

/* Names of LLaMA-3; ids that have none are numbered, in its order. */
static void special_name(const st_synth_ids *ids, int64_t id, char name[64])
{
    int64_t at = id - ids->first_special;
    int many = ids->eot - ids->first_special == 9;
    const char *known = id == ids->bos    ? "begin_of_text"
                        : id == ids->eos  ? "end_of_text"
                        : id == ids->eot  ? "eot_id"
                        : many && at == 6 ? "start_header_id"
                        : many && at == 7 ? "end_header_id"
                                          : NULL;
    int64_t before = 0; /* how many named ones come first */
    for (int64_t i = 0; i < at; i++)
        before += i < 2 || i == ids->eot - ids->first_special || (many && (i == 6 || i == 7));
    st_str s = { 0 };
    if (known)
        st_str_addf(&s, "<|%s|>", known);
    else
        st_str_addf(&s, "<|reserved_special_token_%lld|>", (long long)(at - before));
    (void)strncpy(name, s.text ? s.text : "", 63);
    name[63] = '\0';
    st_str_free(&s);
}

static void add_head(const st_synth_ids *ids, st_str *out)
{
    st_str_add(
        out,
        "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    for (int64_t id = ids->first_special; id < ids->vocab; id++) {
        char name[64];
        special_name(ids, id, name);
        st_str_addf(
            out,
            "%s\n    {\"id\": %lld, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
            "\"rstrip\": false, \"normalized\": false, \"special\": true}",
            id == ids->first_special ? "" : ",", (long long)id, name);
    }
    st_str_add(
        out,
        "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
        "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
        "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
        "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": false},\n"
        "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}]},\n");
    st_str_addf(
        out,
        "  \"post_processor\": {\"type\": \"TemplateProcessing\",\n"
        "    \"single\": [{\"SpecialToken\": {\"id\": \"<|begin_of_text|>\", \"type_id\": 0}}, "
        "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],\n    \"pair\": [],\n"
        "    \"special_tokens\": {\"<|begin_of_text|>\": {\"id\": \"<|begin_of_text|>\", \"ids\": [%lld], "
        "\"tokens\": [\"<|begin_of_text|>\"]}}},\n",
        (long long)ids->bos);
    st_str_add(
        out,
        "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
        "\"use_regex\": true},\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
        "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
        "    \"byte_fallback\": false,\n    \"ignore_merges\": true,\n    \"vocab\": {");
}

setun_status st_synth_tokenizer(const st_synth_ids *ids, st_str *out, setun_error *err)
{
    int64_t n = ids->first_special;
    vocab v = { calloc((size_t)n, WORD), calloc((size_t)n, 1), 0, st_table_new(n) };
    setun_status st = v.text && v.len && v.find
                          ? make_words(&v, n, err)
                          : st_fail(err, SETUN_NO_MEMORY, "no memory for a vocabulary");
    if (st == SETUN_OK) {
        add_head(ids, out);
        for (int64_t id = 0; id < n; id++) {
            st_str_add(out, id ? ",\n      \"" : "\n      \"");
            add_word(out, &v, id);
            st_str_addf(out, "\": %lld", (long long)id);
        }
        st_str_add(out, "\n    },\n    \"merges\": [");
        int made = 0;
        for (int64_t id = 256; id < n; id++)
            made |= add_merges(&v, id, !made, out) > 0;
        st_str_add(out, "\n    ]\n  }\n}\n");
        if (out->failed)
            st = st_fail(err, SETUN_NO_MEMORY, "no memory for a vocabulary");
    }
    free(v.text);
    free(v.len);
    st_table_free(v.find);
    return st;
}

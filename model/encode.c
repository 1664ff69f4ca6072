/* model/encode.c -- a text becomes ids, and what is asked about a tokenizer.
 *
 *     text -> added tokens cut out -> normalized (rules.c) -> other added tokens cut out
 *          -> pieces (pieces.c) -> merged symbols (bpe.c) -> template around
 *
 * Nothing here knows what the tokenizer was read from, and nothing but a C library is needed. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/tokenizer_inside.h"

#define TEXT_LIMIT ((int64_t)1 << 30)

int st_added_compare(const void *a, const void *b)
{
    const st_added *x = a, *y = b;
    int64_t n = x->n < y->n ? x->n : y->n;
    int d = memcmp(x->text, y->text, (size_t)n);
    return d ? d : x->n < y->n ? -1 : x->n > y->n;
}

void st_tokenizer_close(st_tokenizer *t)
{
    if (!t)
        return;
    st_bpe_free(&t->bpe);
    st_chars_free(&t->words);
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
static int allowed(const encoder *e, const st_added *a, const char *text)
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
static const st_added *match_added(const encoder *e, const st_added_set *set, const char *text, int64_t n)
{
    const st_added *best = NULL;
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
    const st_added_set *s = &e->t->set[set];
    int64_t start = 0; /* everything before it is done */
    int64_t space = 0; /* where the last space ends that a token took */
    for (int64_t at = 0; s->n && at < n;) {
        const st_added *a = s->first[(uint8_t)text[at]]
                             ? match_added(e, s, text + at, n - at)
                             : NULL;
        if (!a) {
            at++;
            continue;
        }
        int64_t begin = at, end = at + a->n;
        at = end;
        if (a->alone && (st_word_before(&e->t->words, text, begin) || st_word_after(&e->t->words, text, n, end)))
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

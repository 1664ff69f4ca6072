/* model/dialog.c -- conversations: messages become prompts, and a session is fed only what is new.
 *
 *     messages -> template -> pieces: markers and texts -> ids -> what the session lacks is fed
 *
 * Text that was fed once is not encoded again together with what follows, because the model chose the tokens
 * of its answers itself, and others may spell the same text.  So a chat keeps the text behind the session's
 * tokens, and the places in it where a prompt or an answer ended: its cuts.  A new prompt goes on from
 * the last cut up to which it is equal, byte by byte, markers told from texts.  If the template shows earlier
 * answers otherwise than they were made (Qwen3 drops thoughts), or messages were edited, that is an earlier
 * cut, and the rest is fed again: never more than what changed, never something else than the template says. */
#include "model/dialog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"

/* A rendered conversation: its text, and of each byte whether it is a marker's. */
typedef struct rendered {
    st_str  text, marker;
    int64_t last;            /* the message whose place is wanted */
    size_t  begin, end;      /* where it came to lie; end 0: nowhere */
} rendered;

typedef struct cut {
    size_t  bytes;
    int64_t ids;
} cut;

struct st_dialog {
    st_dialog_host  host;
    st_message     *message; /* texts are malloc'ed */
    int64_t         n, cap;
    /* What the session was fed, or is to be fed next: */
    rendered        seen;
    cut            *cut;
    int64_t         n_cut, cap_cut;
    int32_t        *id;
    int64_t         n_id, cap_id;
    int64_t         n_prompt; /* ids of the last prompt; an answer stands behind them */
    st_dialog_stats stats;
};

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a conversation"); }

/* Room for more items in a growing array. */
static setun_status grow(void *array, int64_t *cap, int64_t n, int64_t more, size_t size, setun_error *err)
{
    void **at = array, *p;
    int64_t want = *cap ? *cap : 64;
    while (want < n + more)
        want *= 2;
    if (want == *cap)
        return SETUN_OK;
    if (!(p = realloc(*at, (size_t)want * size)))
        return no_memory(err);
    *at = p;
    *cap = want;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- messages */

setun_status st_dialog_new(st_dialog **out, const st_dialog_host *host, setun_error *err)
{
    st_dialog *c = calloc(1, sizeof *c);
    *out = c;
    if (!c)
        return no_memory(err);
    c->host = *host;
    return SETUN_OK;
}

void st_dialog_free(st_dialog *c)
{
    if (!c)
        return;
    (void)st_dialog_remove(c, 0, c->n, NULL);
    st_str_free(&c->seen.text);
    st_str_free(&c->seen.marker);
    free(c->message);
    free(c->cut);
    free(c->id);
    free(c);
}

int64_t st_dialog_count(const st_dialog *c) { return c->n; }
const st_message *st_dialog_messages(const st_dialog *c) { return c->message; }
st_dialog_stats st_dialog_get_stats(const st_dialog *c) { return c->stats; }

setun_status st_dialog_insert(st_dialog *c, int64_t i, const char *role, const char *text, size_t n, setun_error *err)
{
    const char *known = st_message_role(role);
    if (!known)
        return st_fail(err, SETUN_BAD_ARG, "the role '%s' is not known; system, user and assistant are", role);
    if (i < 0 || i > c->n)
        return st_fail(err, SETUN_BAD_ARG, "place %" PRId64 " of %" PRId64 " messages", i, c->n);
    if (n > ST_DIALOG_TEXT)
        return st_fail(err, SETUN_BAD_ARG, "a message of %zu bytes; at most %zu are taken", n, ST_DIALOG_TEXT);
    size_t good = st_utf8_valid(text, n), zero = strnlen(text, n);
    if (good != n || zero != n)
        return st_fail(err, SETUN_BAD_ARG, "the message is not text at byte %zu: %s", good < zero ? good : zero,
                       good < zero ? "not valid UTF-8" : "a zero byte");
    ST_TRY(grow(&c->message, &c->cap, c->n, 1, sizeof *c->message, err));
    char *copy = malloc(n + 1);
    if (!copy)
        return no_memory(err);
    memcpy(copy, text, n);
    copy[n] = 0;
    memmove(c->message + i + 1, c->message + i, (size_t)(c->n - i) * sizeof *c->message);
    c->message[i] = (st_message){known, copy, (int64_t)n};
    c->n++;
    return SETUN_OK;
}

setun_status st_dialog_remove(st_dialog *c, int64_t i, int64_t n, setun_error *err)
{
    if (i < 0 || n < 0 || i > c->n || n > c->n - i)
        return st_fail(err, SETUN_BAD_ARG, "messages %" PRId64 " to %" PRId64 " of %" PRId64, i, i + n, c->n);
    for (int64_t k = i; k < i + n; k++)
        free((char *)(uintptr_t)c->message[k].text); /* ours since insert */
    if (c->n > i + n)
        memmove(c->message + i, c->message + i + n, (size_t)(c->n - i - n) * sizeof *c->message);
    c->n -= n;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- rendering */

static setun_status add_piece(void *user, int64_t i, const char *text, int64_t n, setun_error *err)
{
    rendered *r = user;
    size_t had = r->text.len;
    if ((size_t)n > ST_DIALOG_TEXT || had + (size_t)n > ST_DIALOG_TEXT)
        return st_fail(err, SETUN_BAD_ARG, "the conversation has more than %zu bytes", ST_DIALOG_TEXT);
    st_str_addn(&r->text, text, (size_t)n);
    for (int64_t k = 0; k < n; k++)
        st_str_addn(&r->marker, i < 0 ? "\1" : "\0", 1);
    if (i >= 0 && i == r->last) {
        r->begin = r->end ? r->begin : had;
        r->end = r->text.len;
    }
    return r->text.failed || r->marker.failed ? no_memory(err) : SETUN_OK;
}

static void free_rendered(rendered *r)
{
    st_str_free(&r->text);
    st_str_free(&r->marker);
}

static int64_t has_system(const st_dialog *c) { return c->n && strcmp(c->message[0].role, "system") == 0; }

/* Without the oldest `without` messages, a system message apart.  Free r after a failure, too. */
static setun_status render(const st_dialog *c, int64_t without, int prompt, rendered *r, setun_error *err)
{
    int64_t first = has_system(c);
    st_message *rest = without ? calloc((size_t)c->n, sizeof *rest) : NULL;
    *r = (rendered){.last = c->n - without - 1};
    if (without && !rest)
        return no_memory(err);
    if (without) {
        memcpy(rest, c->message, (size_t)first * sizeof *rest);
        memcpy(rest + first, c->message + first + without, (size_t)(c->n - first - without) * sizeof *rest);
    }
    const st_message *list = without ? rest : c->message;
    const st_dialog_host *h = &c->host;
    setun_status s = st_message_check(list, c->n - without, "the conversation", err);
    if (s == SETUN_OK && h->add_bos && h->bos)
        s = add_piece(r, -1, h->bos, (int64_t)strlen(h->bos), err);
    if (s == SETUN_OK)
        s = h->render(h->user, list, c->n - without, prompt, add_piece, r, err);
    free(rest);
    return s;
}

/* Is the conversation up to byte n of a also the beginning of b? */
static int is_prefix(const rendered *a, size_t n, const rendered *b)
{
    return n <= a->text.len && n <= b->text.len &&
           (n == 0 || (memcmp(a->text.text, b->text.text, n) == 0 && memcmp(a->marker.text, b->marker.text, n) == 0));
}

/* Ids of the text from byte `from` on. */
static setun_status encode(const st_dialog *c, const rendered *r, size_t from, int32_t **ids, int64_t *n, setun_error *err)
{
    const char *bos = c->host.bos ? c->host.bos : "";
    size_t n_bos = strlen(bos), len = r->text.len, n_part = 0;
    /* One is enough: some templates write it in front, and the tokenizer puts one there, too. */
    int has_bos = n_bos && n_bos <= len && memcmp(r->text.text, bos, n_bos) == 0 && !memchr(r->marker.text, 0, n_bos);
    for (size_t i = from; i < len; i++)
        n_part += i == from || r->marker.text[i] != r->marker.text[i - 1];
    st_tok_part *part = calloc(n_part + 1, sizeof *part);
    if (!part)
        return no_memory(err);
    for (size_t i = from, k = 0; i < len; k++) {
        size_t j = i;
        while (j < len && r->marker.text[j] == r->marker.text[i])
            j++;
        part[k] = (st_tok_part){r->text.text + i, (int64_t)(j - i), r->marker.text[i]};
        i = j;
    }
    setun_status s = st_tokenizer_encode_parts(c->host.tokenizer, part, (int64_t)n_part, c->host.control, c->host.n_control,
                                               from ? ST_TOK_MIDST : has_bos ? 0 : ST_TOK_BOS, ids, n, err);
    free(part);
    return s;
}

/* ---------------------------------------------------------------- feeding */

static setun_status add_cut(st_dialog *c, size_t bytes, setun_error *err)
{
    ST_TRY(grow(&c->cut, &c->cap_cut, c->n_cut, 1, sizeof *c->cut, err));
    c->cut[c->n_cut++] = (cut){bytes, c->n_id};
    return SETUN_OK;
}

/* c->id[0 .. keep) and then ids[0 .. n) are the prompt r: hand to the session what it lacks of that. */
static setun_status feed(st_dialog *c, rendered *r, int64_t n_cut, const int32_t *ids, int64_t n, int64_t room, int32_t want,
                         const float **logits, setun_error *err)
{
    int64_t keep = n_cut ? c->cut[n_cut - 1].ids : 0, total = keep + n, have = c->host.position(c->host.user);
    if (total < 1)
        return st_fail(err, SETUN_BAD_ARG, "the conversation is empty, and its template adds nothing");
    if (room < 0 || total > c->host.n_ctx - (room < c->host.n_ctx ? room : c->host.n_ctx))
        return st_fail(err, SETUN_FULL, "the conversation has %" PRId64 " tokens, and the context of %" PRId64 " no room for %" PRId64
                       " more", total, c->host.n_ctx, room);
    ST_TRY(grow(&c->id, &c->cap_id, keep, n, sizeof *c->id, err));
    /* Equal tokens at equal places are equal in the session. */
    int64_t same = keep < have ? keep : have;
    while (same >= keep && same < total && same < have && same < c->n_id && c->id[same] == ids[same - keep])
        same++;
    if (same == total)
        same--; /* the last one gives the logits */
    memcpy(c->id + keep, ids, (size_t)n * sizeof *ids);
    c->n_id = c->n_prompt = total;
    c->n_cut = n_cut;
    rendered old = c->seen;
    c->seen = *r;
    *r = old;
    ST_TRY(c->host.rewind(c->host.user, same, err));
    ST_TRY(c->host.feed(c->host.user, c->id + same, total - same, want, logits, err));
    c->stats.prompt = total;
    c->stats.reused = same;
    c->stats.all_fed += total - same;
    return add_cut(c, c->seen.text.len, err);
}

static setun_status attempt(st_dialog *c, int64_t without, int64_t room, int32_t want, const float **logits, setun_error *err)
{
    rendered r;
    int32_t *ids = NULL;
    int64_t n = 0, n_cut = c->n_cut;
    setun_status s = render(c, without, 1, &r, err);
    if (s == SETUN_OK) {
        while (n_cut && !is_prefix(&c->seen, c->cut[n_cut - 1].bytes, &r))
            n_cut--;
        s = encode(c, &r, n_cut ? c->cut[n_cut - 1].bytes : 0, &ids, &n, err);
    }
    if (s == SETUN_OK)
        s = feed(c, &r, n_cut, ids, n, room, want, logits, err);
    free(ids);
    free_rendered(&r);
    return s;
}

setun_status st_dialog_feed(st_dialog *c, int64_t room, int32_t want, const float **logits, setun_error *err)
{
    if (!c->host.position)
        return st_fail(err, SETUN_BAD_ARG, "this conversation was made without a session");
    if (!c->n || strcmp(c->message[c->n - 1].role, "user"))
        return st_fail(err, SETUN_BAD_ARG, "the last message is not the user's, so there is nothing to answer");
    int64_t first = has_system(c), gone = 0, half = c->host.n_ctx / 2;
    setun_status s = attempt(c, 0, room, want, logits, err);
    /* Half, because every time that something is left out all the rest is fed again. */
    while (s == SETUN_FULL && c->host.forget && first + gone + 1 < c->n) {
        gone += 2;
        s = attempt(c, gone, first + gone + 1 < c->n && half > room ? half : room, want, logits, err);
    }
    if (s == SETUN_OK) {
        ST_TRY(st_dialog_remove(c, first, gone, err));
        c->stats.forgotten = gone;
    }
    return s;
}

/* ---------------------------------------------------------------- answers */

static setun_status text_of(const st_dialog *c, const int32_t *ids, int64_t n, st_str *text, setun_error *err)
{
    st_detok d = {{0}, 0, 0};
    for (int64_t i = 0; i <= n; i++) {
        const char *bytes = NULL;
        int64_t len = 0;
        int special = 0;
        if (i < n)
            ST_TRY(st_tokenizer_bytes(c->host.tokenizer, ids[i], &bytes, &len, &special, err));
        if (special || (i < n && len == 0))
            continue;
        char *out = malloc((size_t)(4 * (len + 8)));
        if (!out)
            return no_memory(err);
        st_str_addn(text, out, (size_t)st_detok_push(&d, bytes, len, out));
        free(out);
    }
    return text->failed ? no_memory(err) : SETUN_OK;
}

setun_status st_dialog_answer(st_dialog *c, const int32_t *ids, int64_t n, setun_error *err)
{
    int64_t fed = c->host.position ? c->host.position(c->host.user) - c->n_prompt : -1;
    st_str text = {0};
    rendered r = {.end = 0};
    if (n < 0 || !c->n_cut || c->n_id != c->n_prompt || fed < 0 || fed > n || fed < n - 1)
        return st_fail(err, SETUN_BAD_ARG, "an answer of %" PRId64 " tokens, but %" PRId64 " were fed since the prompt", n, fed);
    setun_status s = text_of(c, ids, n, &text, err);
    if (s == SETUN_OK)
        s = grow(&c->id, &c->cap_id, c->n_id, n, sizeof *c->id, err);
    if (s == SETUN_OK)
        s = st_dialog_insert(c, c->n, "assistant", text.text ? text.text : "", text.len, err);
    st_str_free(&text);
    if (s != SETUN_OK)
        return s;
    if (n)
        memcpy(c->id + c->n_id, ids, (size_t)n * sizeof *ids);
    c->n_id += n;
    /* What the session remembers of it holds for later prompts if they will show it in the same place. */
    s = render(c, 0, 0, &r, err);
    if (s == SETUN_OK && r.end && is_prefix(&c->seen, c->seen.text.len, &r) && r.begin == c->seen.text.len) {
        rendered old = c->seen;
        c->seen = r;
        r = old;
        s = add_cut(c, c->seen.end, err);
    }
    free_rendered(&r);
    return s;
}

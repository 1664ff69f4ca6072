/* model/turns.c -- render conversations from a table, and tables as bytes.
 *
 *     magic "STTURNS1", name, why, bos (texts), add_bos u32, control and stop (lists of u32),
 *     then for each state its trimming (u32), and for each edge that there can be, in the order of the states, 0, or 1 and a text */
#include "model/turns.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define MAGIC "STTURNS1"

static const uint8_t ways[ST_N_TURNS] = { /* a bit for each state that may follow */
    [ST_TURN_START] = 1 << ST_TURN_SYSTEM | 1 << ST_TURN_FIRST,
    [ST_TURN_SYSTEM] = 1 << ST_TURN_AFTER,
    [ST_TURN_FIRST] = 1 << ST_TURN_ANSWER | 1 << ST_TURN_PROMPT,
    [ST_TURN_AFTER] = 1 << ST_TURN_ANSWER | 1 << ST_TURN_PROMPT,
    [ST_TURN_USER] = 1 << ST_TURN_ANSWER | 1 << ST_TURN_PROMPT,
    [ST_TURN_ANSWER] = 1 << ST_TURN_USER | 1 << ST_TURN_END,
};

int st_turns_is_edge(int a, int b) { return ways[a] >> b & 1; }

static setun_status go(const st_turns *t, int from, int to, st_turns_add *add, void *user, setun_error *err)
{
    const char *marker = t->edge[from][to];
    if (!marker && to == ST_TURN_SYSTEM)
        return st_fail(err, SETUN_BAD_ARG, "the template %s has no system prompt", t->name);
    if (!marker)
        return st_fail(err, SETUN_BAD_ARG, "the template %s does not say how a conversation goes on here", t->name);
    return *marker ? add(user, -1, marker, (int64_t)strlen(marker), err) : SETUN_OK;
}

setun_status st_turns_render(const st_turns *t, const st_message *list, int64_t n, int prompt, st_turns_add *add, void *user,
                             setun_error *err)
{
    int at = ST_TURN_START;
    for (int64_t i = 0; i < n; i++) {
        char c = list[i].role[0];
        int next = c == 's' ? ST_TURN_SYSTEM : c == 'a' ? ST_TURN_ANSWER : at == ST_TURN_START ? ST_TURN_FIRST
                   : at == ST_TURN_SYSTEM ? ST_TURN_AFTER : ST_TURN_USER;
        int64_t begin = 0, end = list[i].n;
        ST_TRY(go(t, at, next, add, user, err));
        st_message_trim(list[i].text, &begin, &end, t->trim[next] & ST_TRIM_LEFT, t->trim[next] & ST_TRIM_RIGHT);
        if (begin < end)
            ST_TRY(add(user, i, list[i].text + begin, end - begin, err));
        at = next;
    }
    return go(t, at, prompt ? ST_TURN_PROMPT : ST_TURN_END, add, user, err);
}

void st_turns_free(st_turns *t)
{
    if (!t)
        return;
    for (int i = 0; i < ST_N_TURNS * ST_N_TURNS; i++)
        free(t->edge[i / ST_N_TURNS][i % ST_N_TURNS]);
    free(t->name);
    free(t->why);
    free(t->bos);
    free(t);
}

/* ---------------------------------------------------------------- as bytes */

static void put_string(st_str *out, const char *s) { st_put_text(out, s, (int64_t)strlen(s)); }

static void put_ids(st_str *out, const int32_t *id, int64_t n)
{
    st_put_u32(out, (uint32_t)n);
    for (int64_t i = 0; i < n; i++)
        st_put_u32(out, (uint32_t)id[i]);
}

void st_turns_put(const st_turns *t, st_str *out)
{
    st_str_addn(out, MAGIC, 8);
    put_string(out, t->name);
    put_string(out, t->why);
    put_string(out, t->bos);
    st_put_u32(out, (uint32_t)t->add_bos);
    put_ids(out, t->control, t->n_control);
    put_ids(out, t->stop, t->n_stop);
    for (int a = 0; a < ST_N_TURNS; a++) {
        st_put_u32(out, t->trim[a]);
        for (int b = 0; b < ST_N_TURNS; b++) {
            if (!st_turns_is_edge(a, b))
                continue;
            st_put_u32(out, t->edge[a][b] != NULL);
            if (t->edge[a][b])
                put_string(out, t->edge[a][b]);
        }
    }
}

/* UTF-8 without zero bytes, as a string of its own. */
static setun_status take_string(char **s, st_bytes *in, setun_error *err)
{
    int64_t n;
    const char *text = st_take_text(in, &n);
    in->bad |= !text || memchr(text, 0, (size_t)n) || st_utf8_valid(text, (size_t)n) != (size_t)n;
    *s = in->bad ? strdup("") : strndup(text, (size_t)n);
    return *s ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
}

static void take_ids(int32_t *id, int64_t *n, st_bytes *in)
{
    *n = st_take_up_to(in, ST_TURNS_TOKENS);
    for (int64_t i = 0; i < *n; i++)
        id[i] = (int32_t)st_take_up_to(in, INT32_MAX);
}

static setun_status load(st_turns *t, st_bytes *in, const char *name, setun_error *err)
{
    const char *magic = st_take_bytes(in, 8);
    if (!magic || memcmp(magic, MAGIC, 8) != 0)
        return st_fail(err, SETUN_BAD_FILE, "%s: there is no chat template where one should be", name);
    ST_TRY(take_string(&t->name, in, err));
    ST_TRY(take_string(&t->why, in, err));
    ST_TRY(take_string(&t->bos, in, err));
    t->add_bos = (int)st_take_up_to(in, 1);
    take_ids(t->control, &t->n_control, in);
    take_ids(t->stop, &t->n_stop, in);
    for (int a = 0; a < ST_N_TURNS; a++) {
        t->trim[a] = (uint8_t)st_take_up_to(in, ST_TRIM_LEFT | ST_TRIM_RIGHT);
        for (int b = 0; b < ST_N_TURNS; b++)
            if (st_turns_is_edge(a, b) && st_take_up_to(in, 1))
                ST_TRY(take_string(&t->edge[a][b], in, err));
    }
    /* These may be printed; markers go to the tokenizer alone. */
    in->bad |= !st_text_plain(t->name, strlen(t->name)) || !st_text_plain(t->why, strlen(t->why)) || in->at != in->end;
    return in->bad ? st_fail(err, SETUN_BAD_FILE, "%s: the chat template is damaged", name) : SETUN_OK;
}

setun_status st_turns_load(st_turns **out, const void *bytes, int64_t n, const char *name, setun_error *err)
{
    st_bytes in = {bytes, (const uint8_t *)bytes + n, 0};
    st_turns *t = calloc(1, sizeof *t);
    *out = NULL;
    setun_status s = t ? load(t, &in, name, err) : st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
    if (s != SETUN_OK) {
        st_turns_free(t);
        return s;
    }
    *out = t;
    return SETUN_OK;
}

setun_status st_turns_check(const st_turns *t, int64_t n_vocab, const char *name, setun_error *err)
{
    int good = 1;
    for (int64_t i = 0; i < t->n_control; i++)
        good &= t->control[i] < n_vocab;
    for (int64_t i = 0; i < t->n_stop; i++)
        good &= t->stop[i] < n_vocab;
    return good ? SETUN_OK : st_fail(err, SETUN_BAD_FILE, "%s: the chat template has tokens outside the vocabulary", name);
}

/* runtime/export_text.c -- a model's tokenizer and chat template as bytes.
 *
 * A template is a function in Lua, and a bundle has no Lua.  So the function is asked: conversations in which every pair of
 * neighbours occurs are rendered, and what it writes between two messages becomes an edge of a table (model/turns.h).
 * Then table and function render many more conversations, with texts that are made to tell them apart.  Where
 * they differ in one byte, or in what is a marker, the bundle gets no template, but a sentence. */
#include "runtime/export_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define DATE "26 Jul 2024" /* as runtime/chat.c where nobody gives one */
#define MOST_MESSAGES 7    /* of a conversation that is tried: a system message and three turns */

setun_status st_export_tokenizer(const setun_model *m, st_str *out, setun_error *err)
{
    return st_tokenizer_save(m->vocab.tokenizer, out, err);
}

/* ---------------------------------------------------------------- what a template writes */

typedef struct piece {
    int64_t     i; /* of a message; -1: a marker */
    const char *s; /* of a message: a part of it */
    int64_t     n;
} piece;

/* Of one conversation: pieces, with neighbouring markers joined. */
typedef struct writing {
    st_arena *arena;
    piece     p[4 * MOST_MESSAGES + 8];
    int       n;
    st_str    text, marker; /* all bytes, and of each whether it is a marker's */
} writing;

static setun_status add(void *user, int64_t i, const char *text, int64_t n, setun_error *err)
{
    writing *w = user;
    char *s = (char *)(uintptr_t)text;
    piece *last = w->n ? &w->p[w->n - 1] : NULL;
    st_str_addn(&w->text, text, (size_t)n);
    for (int64_t k = 0; k < n; k++)
        st_str_add(&w->marker, i < 0 ? "m" : "t");
    if (i < 0 && last && last->i < 0) {
        last->s = s = st_arena_printf(w->arena, "%s%.*s", last->s, (int)n, text);
        last->n += n;
    } else if (w->n < (int)(sizeof w->p / sizeof *w->p)) {
        if (i < 0)
            s = st_arena_strndup(w->arena, text, (size_t)n);
        w->p[w->n++] = (piece){i, s, n};
    } else {
        return st_fail(err, SETUN_UNKNOWN, "it writes too many pieces");
    }
    return s && !w->text.failed && !w->marker.failed ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
}

static void free_writing(writing *w)
{
    st_str_free(&w->text);
    st_str_free(&w->marker);
}

/* turns NULL: as the script does. */
static setun_status write_chat(const st_format *f, const st_turns *turns, const st_message *list, int64_t n, int prompt, writing *w,
                               setun_error *err)
{
    const st_chat chat = {list, n, prompt, -1, f->file.bos, f->file.eos, DATE};
    *w = (writing){.arena = f->arena};
    return turns ? st_turns_render(turns, list, n, prompt, add, w, err) : st_script_template_render(f->script, &chat, add, w, err);
}

/* Message k says text[(k + from) % n_text]. */
static int64_t make_chat(st_message *list, int system, int64_t n, const char *const *text, int64_t n_text, int64_t from)
{
    for (int64_t k = 0; k < n + system; k++) {
        const char *says = text[(k + from) % n_text];
        list[k] = (st_message){st_message_role(k < system ? "system" : (k - system) % 2 ? "assistant" : "user"), says, (int64_t)strlen(says)};
    }
    return n + system;
}

/* ---------------------------------------------------------------- the table */

static setun_status set_edge(st_turns *t, int a, int b, const char *marker, setun_error *err)
{
    if (t->edge[a][b]) /* seen before; if it is another one now, the comparison finds that out */
        return SETUN_OK;
    t->edge[a][b] = strdup(marker);
    return t->edge[a][b] ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
}

/* Edges and trimming of one conversation, whose texts have white space at both ends. */
static setun_status learn(const st_format *f, st_turns *t, int system, int64_t n_turns, int prompt, setun_error *err)
{
    static const char *const texts[] = {" \tone\n ", " \ttwo\n ", " \tthree\n "};
    st_message list[MOST_MESSAGES];
    writing w;
    int at = ST_TURN_START, k = 0;
    int64_t n = make_chat(list, system, n_turns, texts, 3, 0);
    setun_status s = write_chat(f, NULL, list, n, prompt, &w, err);
    for (int64_t i = 0; s == SETUN_OK && i <= n; i++) {
        int to = i == n ? prompt ? ST_TURN_PROMPT : ST_TURN_END : i < system ? ST_TURN_SYSTEM : (i - system) % 2 ? ST_TURN_ANSWER
                 : i == 0 ? ST_TURN_FIRST : i == system ? ST_TURN_AFTER : ST_TURN_USER;
        int marked = k < w.n && w.p[k].i < 0;
        s = set_edge(t, at, to, marked ? w.p[k].s : "", err);
        k += marked;
        if (s == SETUN_OK && i < n) {
            if (k == w.n || w.p[k].i != i)
                s = st_fail(err, SETUN_UNKNOWN, "it does not write every message once and in order");
            else
                t->trim[to] = (uint8_t)((w.p[k].s > list[i].text ? ST_TRIM_LEFT : 0) |
                                        (w.p[k].s + w.p[k].n < list[i].text + list[i].n ? ST_TRIM_RIGHT : 0));
            k++;
        }
        at = to;
    }
    if (s == SETUN_OK && k != w.n)
        s = st_fail(err, SETUN_UNKNOWN, "it writes a message twice");
    free_writing(&w);
    return s;
}

/* Do both render a conversation alike?  SETUN_UNKNOWN: no. */
static setun_status compare(const st_format *f, const st_turns *t, const st_message *list, int64_t n, int prompt, setun_error *err)
{
    writing a, b = {.arena = NULL};
    setun_status s = write_chat(f, NULL, list, n, prompt, &a, err);
    if (s == SETUN_OK)
        s = write_chat(f, t, list, n, prompt, &b, err);
    if (s == SETUN_OK && (a.text.len != b.text.len || (a.text.len && (memcmp(a.text.text, b.text.text, a.text.len) ||
                                                                      memcmp(a.marker.text, b.marker.text, a.text.len)))))
        s = st_fail(err, SETUN_UNKNOWN, "what it writes around a message depends on more than who speaks");
    free_writing(&a);
    free_writing(&b);
    return s;
}

/* Texts that templates are known to treat in their own ways, and all that counts as white space somewhere. */
static const char *const tries[] = {
    "one", "", "  two  words ", "\n\nlines\n\n", " ", "\xc2\xa0no break\xe2\x80\x83", "\034file\037", "<think>\nhm\n</think>\n\nanswer",
    "\xe3\x80\x80wide\xe2\x80\xa8", "</think>", "<|im_end|>", "\xc2\x85next\xc2\x85", "\t\r\n", "\n</think>\nx", "\xe2\x80\x8bzero\xe2\x80\x8b",
    "a: b\n\nUser: c", "<think>", "{{ x }}", "\xe1\xa0\x8ey\xe1\xa0\x8e", "\xe2\x81\x9fz\xe1\x9a\x80", "\v\fpage\f\v",
};
#define N_TRIES ((int64_t)(sizeof tries / sizeof *tries))

/* system 0 or 1: conversations with one; prompt: those that end with a question, else with an answer. */
static setun_status verify(const st_format *f, const st_turns *t, int system, int prompt, setun_error *err)
{
    st_message list[MOST_MESSAGES];
    for (int64_t n = prompt ? 1 : 2; n + system <= MOST_MESSAGES; n += 2)
        for (int64_t from = 0; from < N_TRIES; from++)
            ST_TRY(compare(f, t, list, make_chat(list, system, n, tries, N_TRIES, from), prompt, err));
    return SETUN_OK;
}

/* Without this edge no session remembers an answer, and nothing else changes. */
static void forget_end(st_turns *t)
{
    free(t->edge[ST_TURN_ANSWER][ST_TURN_END]);
    t->edge[ST_TURN_ANSWER][ST_TURN_END] = NULL;
}

static void forget_system(st_turns *t)
{
    char **gone[] = {&t->edge[ST_TURN_START][ST_TURN_SYSTEM], &t->edge[ST_TURN_SYSTEM][ST_TURN_AFTER],
                     &t->edge[ST_TURN_AFTER][ST_TURN_ANSWER], &t->edge[ST_TURN_AFTER][ST_TURN_PROMPT]};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        free(*gone[i]);
        *gone[i] = NULL;
    }
}

setun_status st_export_turns(const st_format *f, st_turns *t, setun_error *err)
{
    setun_error ignored;
    /* The last questions and the last answers of three turns, then the same with a system message. */
    for (int64_t n = 1; n <= 5; n += 2)
        ST_TRY(learn(f, t, 0, n, 1, err));
    int ends = learn(f, t, 0, 4, 0, &ignored) == SETUN_OK;
    int system = 1;
    for (int64_t n = 1; system && n <= 3; n += 2)
        system = learn(f, t, 1, n, 1, &ignored) == SETUN_OK;
    if (!system)
        forget_system(t); /* a template may refuse one, as Gemma's does */
    for (int with = 0; with <= system; with++) {
        ST_TRY(verify(f, t, with, 1, err));
        ends = ends && verify(f, t, with, 0, &ignored) == SETUN_OK;
    }
    if (!ends)
        forget_end(t);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the block */

static setun_status set_string(char **s, const char *value, setun_error *err)
{
    free(*s);
    *s = strdup(value ? value : "");
    return *s ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
}

static setun_status fill(st_turns *t, const st_format *f, setun_error *err)
{
    ST_TRY(set_string(&t->name, f->t->name, err));
    ST_TRY(set_string(&t->bos, f->file.bos, err));
    t->add_bos = f->add_bos;
    memcpy(t->control, f->control, sizeof t->control);
    memcpy(t->stop, f->stop, sizeof t->stop);
    t->n_control = f->n_control;
    t->n_stop = f->n_stop;
    setun_status s = st_export_turns(f, t, err);
    if (s != SETUN_OK && s != SETUN_NO_MEMORY && err)
        st_wrap(err, "the chat template %s cannot be in a bundle", f->t->name);
    return s;
}

setun_status st_export_template(const setun_model *m, const char *template_name, st_str *out, char *why, size_t n, setun_error *err)
{
    SETUN_STATIC_ASSERT((int)ST_TURNS_TOKENS == (int)ST_FORMAT_TOKENS, "a table has room for a format's tokens");
    st_format f = {0};
    setun_error reason = {0};
    st_turns *t = calloc(1, sizeof *t);
    setun_status s = t ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
    for (char **at = t ? &t->name : NULL; s == SETUN_OK && at && at <= &t->why; at++)
        s = set_string(at, "", err);
    if (s == SETUN_OK)
        s = set_string(&t->bos, "", err);
    if (s == SETUN_OK) {
        setun_status open = st_format_open(&f, m, template_name, &reason);
        if (open == SETUN_OK)
            open = fill(t, &f, &reason);
        if (open == SETUN_NO_MEMORY || (open != SETUN_OK && template_name)) {
            s = st_fail(err, open, "%s", reason.text); /* what was asked for by name is not left out */
        } else if (open != SETUN_OK) {
            s = set_string(&t->why, st_text_plain(reason.text, strlen(reason.text)) ? reason.text : "the template cannot be read", err);
        }
    }
    st_format_close(&f);
    if (s == SETUN_OK && *t->why) {
        /* No half of a table. */
        for (int i = 0; i < ST_N_TURNS * ST_N_TURNS; i++) {
            free(t->edge[i / ST_N_TURNS][i % ST_N_TURNS]);
            t->edge[i / ST_N_TURNS][i % ST_N_TURNS] = NULL;
        }
    }
    if (s == SETUN_OK && why && n)
        (void)snprintf(why, n, "%s", t->why);
    if (s == SETUN_OK)
        st_turns_put(t, out);
    st_turns_free(t);
    return s == SETUN_OK && out->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template") : s;
}

/* runtime/chat.c -- conversations of the public interface: model/dialog.h with a model's template and a session. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/dialog.h"
#include "model/history.h"
#include "runtime/format.h"

#define DATE "26 Jul 2024"

struct setun_chat {
    const setun_model *m;
    setun_session     *s;
    st_format          format;
    setun_chat_options o;
    char              *date;
    st_dialog         *dialog;
};

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a conversation"); }

/* ---------------------------------------------------------------- what a dialog needs */

static setun_status render(void *user, const st_message *list, int64_t n, int prompt, st_dialog_add *add, void *to, setun_error *err)
{
    const setun_chat *c = user;
    const st_chat chat = {list, n, prompt, c->o.think == SETUN_THINK_DEFAULT ? -1 : c->o.think == SETUN_THINK_ON, c->format.file.bos,
                          c->format.file.eos, c->date};
    return st_script_template_render(c->format.script, &chat, add, to, err);
}

static int64_t position(void *user) { return setun_session_position(((const setun_chat *)user)->s); }

static setun_status rewind_to(void *user, int64_t at, setun_error *err)
{
    return setun_session_rewind(((const setun_chat *)user)->s, at, err);
}

static setun_status feed(void *user, const int32_t *ids, int64_t n, int32_t want, const float **logits, setun_error *err)
{
    return setun_session_feed(((const setun_chat *)user)->s, ids, n, want, logits, err);
}

static setun_status start(setun_chat *c, setun_error *err)
{
    const st_format *f = &c->format;
    const st_dialog_host host = {c, c->m->vocab.tokenizer, c->m->n_ctx, f->file.bos, f->add_bos, c->o.forget, f->control, f->n_control,
                                 render, c->s ? position : NULL, rewind_to, feed};
    return st_dialog_new(&c->dialog, &host, err);
}

/* ---------------------------------------------------------------- life */

setun_status setun_chat_new(setun_chat **out, const setun_model *m, setun_session *s, const setun_chat_options *o, setun_error *err)
{
    setun_chat *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return no_memory(err);
    c->m = m;
    c->s = s;
    c->o.size = (uint32_t)sizeof c->o;
    if (o)
        memcpy(&c->o, o, o->size < sizeof c->o ? o->size : sizeof c->o);
    setun_status status = st_format_open(&c->format, m, c->o.template_name, err);
    c->date = strdup(c->o.date ? c->o.date : DATE);
    if (status == SETUN_OK && !c->date)
        status = no_memory(err);
    if (status == SETUN_OK && (c->o.think < SETUN_THINK_DEFAULT || c->o.think > SETUN_THINK_ON))
        status = st_fail(err, SETUN_BAD_ARG, "think is %d; 0 to 2 are known", c->o.think);
    if (status == SETUN_OK && c->o.think && !c->format.t->thinks)
        status = st_fail(err, SETUN_BAD_ARG, "the chat template %s cannot tell a model to think or not to", c->format.t->name);
    size_t n = strlen(c->date ? c->date : "");
    if (status == SETUN_OK && (n > 100 || st_utf8_valid(c->date, n) != n))
        status = st_fail(err, SETUN_BAD_ARG, "a date of more than 100 bytes, or not UTF-8");
    if (status == SETUN_OK)
        status = start(c, err);
    if (status != SETUN_OK) {
        setun_chat_free(c);
        return status;
    }
    *out = c;
    return SETUN_OK;
}

void setun_chat_free(setun_chat *c)
{
    if (!c)
        return;
    st_dialog_free(c->dialog);
    st_format_close(&c->format);
    free(c->date);
    free(c);
}

const char *setun_chat_template(const setun_chat *c) { return c->format.t->name; }
const char *setun_chat_evidence(const setun_chat *c) { return c->format.evidence; }

/* ---------------------------------------------------------------- messages */

int64_t setun_chat_count(const setun_chat *c) { return st_dialog_count(c->dialog); }

setun_status setun_chat_get(const setun_chat *c, int64_t i, setun_message *m, setun_error *err)
{
    int64_t n = st_dialog_count(c->dialog);
    if (i < 0 || i >= n)
        return st_fail(err, SETUN_BAD_ARG, "message %" PRId64 " of %" PRId64, i, n);
    const st_message *from = st_dialog_messages(c->dialog) + i;
    setun_message all = {m->size, 0, from->role, from->text, (size_t)from->n};
    memcpy(m, &all, m->size < sizeof all ? m->size : sizeof all);
    return SETUN_OK;
}

setun_status setun_chat_insert(setun_chat *c, int64_t i, const char *role, const char *text, size_t n, setun_error *err)
{
    return st_dialog_insert(c->dialog, i, role, text, n, err);
}

setun_status setun_chat_remove(setun_chat *c, int64_t i, int64_t n, setun_error *err)
{
    return st_dialog_remove(c->dialog, i, n, err);
}

setun_status setun_chat_feed(setun_chat *c, int64_t room, int32_t want, const float **logits, setun_error *err)
{
    return st_dialog_feed(c->dialog, room, want, logits, err);
}

int32_t setun_chat_is_end(const setun_chat *c, int32_t token)
{
    for (int64_t i = 0; i < c->format.n_stop; i++)
        if (c->format.stop[i] == token)
            return 1;
    return setun_model_is_end(c->m, token);
}

setun_status setun_chat_answer(setun_chat *c, const int32_t *ids, int64_t n, setun_error *err)
{
    return st_dialog_answer(c->dialog, ids, n, err);
}

void setun_chat_get_stats(const setun_chat *c, setun_chat_stats *s)
{
    const st_dialog_stats st = st_dialog_get_stats(c->dialog);
    const setun_chat_stats all = {s->size, 0, st.prompt, st.reused, st.forgotten, st.all_fed};
    memcpy(s, &all, s->size < sizeof all ? s->size : sizeof all);
}

/* ---------------------------------------------------------------- files */

setun_status setun_chat_save(const setun_chat *c, const char *path, setun_error *err)
{
    return st_history_write(path, st_dialog_messages(c->dialog), st_dialog_count(c->dialog), err);
}

setun_status setun_chat_load(setun_chat *c, const char *path, setun_error *err)
{
    const st_message *list = NULL;
    int64_t n = 0, had = setun_chat_count(c);
    st_arena *arena = st_arena_new();
    setun_status s = arena ? st_history_read(path, arena, &list, &n, err) : no_memory(err);
    for (int64_t i = 0; s == SETUN_OK && i < n; i++)
        s = setun_chat_insert(c, setun_chat_count(c), list[i].role, list[i].text, (size_t)list[i].n, err);
    /* The new ones stand behind the old ones until all of them are there. */
    if (s == SETUN_OK)
        s = setun_chat_remove(c, 0, had, err);
    else
        (void)setun_chat_remove(c, had, setun_chat_count(c) - had, NULL);
    st_arena_free(arena);
    return s;
}

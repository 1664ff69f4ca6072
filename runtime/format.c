/* runtime/format.c -- from the text of a chat template to one that can be run, and its tokens.
 *
 * Not here: conversations (chat.c).  What decides is the text, never the name of the model; the one exception
 * is a template that repairs a known mistake for an architecture, and says so. */
#include "runtime/format.h"

#include <string.h>

#include "base/error.h"

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template"); }

static int has_mark(const st_template *t, const char *mark)
{
    for (int64_t i = 0; i < t->n_mark; i++)
        if (strcmp(t->mark[i], mark) == 0)
            return 1;
    return 0;
}

static setun_status choose(st_format *f, const setun_model *m, const char *name, setun_error *err)
{
    setun_status found = st_template_open(&f->file, m->path, f->arena, err);
    /* A template that is chosen by name makes up for one that cannot be read. */
    if (found < 0 && !(name && found != SETUN_NO_MEMORY))
        return found;
    setun_status s = st_script_template_find(f->script, name, st_weights_architecture(m->weights), f->file.mark,
                                             f->file.n_mark, &f->t, err);
    if (s != SETUN_OK) {
        if (s == SETUN_UNKNOWN && !name)
            st_wrap(err, found == SETUN_DECLINED ? "%s: the model's files have no chat template" : "%s",
                    found == SETUN_DECLINED ? m->path : f->file.from);
        return s;
    }
    f->evidence = name               ? st_arena_strdup(f->arena, "asked for")
                  : *f->t->repairs   ? st_arena_printf(f->arena, "%s was not used: %s", f->file.from, f->t->repairs)
                                     : st_arena_printf(f->arena, "the %lld marks of %s", (long long)f->file.n_mark, f->file.from);
    return f->evidence ? SETUN_OK : no_memory(err);
}

/* A special token that the template writes must be one token to the vocabulary, and nothing that is typed. */
static setun_status take_tokens(st_format *f, const st_tokenizer *t, setun_error *err)
{
    for (int i = 0; f->t->token[i]; i++) {
        const char *text = f->t->token[i];
        const st_tok_part part = {text, (int64_t)strlen(text), 1};
        int32_t id = st_tokenizer_find(t, text), *ids = NULL;
        int64_t n = 0;
        if (id >= 0)
            ST_TRY(st_tokenizer_encode_parts(t, &part, 1, NULL, 0, 0, &ids, &n, err));
        int good = id >= 0 && n == 1 && ids[0] == id && f->n_control < ST_FORMAT_TOKENS;
        setun_free(ids);
        if (!good)
            return st_fail(err, SETUN_UNKNOWN, "the chat template %s needs the special token %s, which the vocabulary does not have",
                           f->t->name, text);
        f->control[f->n_control++] = id;
    }
    for (int i = 0; f->t->stop[i]; i++) {
        int32_t id = st_tokenizer_find(t, f->t->stop[i]);
        if (id >= 0 && f->n_stop < ST_FORMAT_TOKENS)
            f->stop[f->n_stop++] = id;
        if (id >= 0 && f->n_control < ST_FORMAT_TOKENS)
            f->control[f->n_control++] = id;
    }
    return SETUN_OK;
}

/* The text of a token that is known by its id. */
static setun_status name_of(const st_format *f, const st_tokenizer *t, int64_t id, const char **out, setun_error *err)
{
    const char *bytes;
    int64_t n;
    int special;
    if (*out || id < 0 || id >= st_tokenizer_size(t) || st_tokenizer_bytes(t, (int32_t)id, &bytes, &n, &special, NULL) != SETUN_OK)
        return SETUN_OK;
    *out = st_arena_strndup(f->arena, bytes, (size_t)n);
    return *out ? SETUN_OK : no_memory(err);
}

setun_status st_format_open(st_format *f, const setun_model *m, const char *name, setun_error *err)
{
    const st_tokenizer *t = m->vocab.tokenizer;
    if (!(f->arena = st_arena_new()))
        return no_memory(err);
    ST_TRY(st_registry_new(&f->registry, err));
    ST_TRY(st_script_open(&f->script, m->engine->scripts, f->registry, f->arena, NULL, err));
    ST_TRY(choose(f, m, name, err));
    ST_TRY(take_tokens(f, t, err));
    int32_t bos = st_tokenizer_bos(t);
    ST_TRY(name_of(f, t, f->file.bos_id >= 0 ? f->file.bos_id : bos, &f->file.bos, err));
    ST_TRY(name_of(f, t, f->file.eos_id >= 0 ? f->file.eos_id : m->n_end ? m->end[0] : -1, &f->file.eos, err));
    f->add_bos = bos < 0 && !*f->t->repairs && has_mark(&f->file, "{bos_token}") && f->file.bos;
    return SETUN_OK;
}

void st_format_close(st_format *f)
{
    st_script_close(f->script);
    st_registry_free(f->registry);
    st_arena_free(f->arena);
}

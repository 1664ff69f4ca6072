/* runtime/console.c -- a Lua console with a model beside it.
 *
 * Not here: what Lua sees (scripts/bind_console.c), what tensors are (inspect.c).  A tensor that Lua holds may be of a
 * model that was replaced; each remembers in which model's time it was made, and is refused in another. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/inspect.h"
#include "runtime/model.h"
#include "scripts/host.h"

struct setun_console {
    st_arena          *arena;
    st_registry       *registry;
    st_script         *script;
    st_console         calls;
    const setun_model *m;
    const int32_t     *tokens;
    int64_t            n_tokens;
    int64_t            time;     /* raised when the model is another */
    setun_write_fn    *write;
    int              (*stop)(void *user);
    void              *user;
};

/* What Lua holds in place of a tensor. */
typedef struct dated {
    const setun_console *c;
    setun_tensor        *t;
    int64_t              time;
} dated;

static setun_status in_time(const dated *d, setun_error *err)
{
    return d->time == d->c->time ? SETUN_OK : st_fail(err, SETUN_BAD_ARG, "the tensor is of a model that was replaced; ask tensor() again");
}

static setun_status get(void *user, const char *name, setun_tensor **t, setun_error *err)
{
    setun_console *c = user;
    *t = NULL;
    if (!c->m)
        return st_fail(err, SETUN_BAD_ARG, "there is no model");
    dated *d = malloc(sizeof *d);
    if (!d)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a tensor");
    d->c = c;
    d->time = c->time;
    setun_status s = setun_tensor_get(&d->t, c->m, name, c->tokens, c->n_tokens, err);
    if (s != SETUN_OK)
        free(d);
    else
        *t = (setun_tensor *)(void *)d;
    return s;
}

static const dated *of(const setun_tensor *t) { return (const dated *)(const void *)t; }

static void drop(setun_tensor *t)
{
    dated *d = (dated *)(void *)t;
    setun_tensor_free(d->t);
    free(d);
}

static int stops(void *user)
{
    const setun_console *c = user;
    return c->stop && c->stop(c->user);
}

static setun_status about(void *user, const setun_tensor *t, setun_tensor_info *info, setun_error *err)
{
    ST_TRY(in_time(of(t), err));
    return setun_tensor_about(of(t)->t, info, stops, user, err);
}

static setun_status at(const setun_tensor *t, const int64_t *index, int32_t n, double *value, setun_error *err)
{
    ST_TRY(in_time(of(t), err));
    return setun_tensor_at(of(t)->t, index, n, value, err);
}

static setun_status print(const setun_tensor *t, const char *slice, setun_write_fn *write, void *user, setun_error *err)
{
    ST_TRY(in_time(of(t), err));
    return setun_tensor_print(of(t)->t, slice, write, user, err);
}

static void on_print(void *user, const char *text)
{
    const setun_console *c = user;
    (void)c->write(c->user, text, strlen(text));
    (void)c->write(c->user, "\n", 1);
}

static setun_status open_console(setun_console *c, setun_error *err)
{
    char modules[4096], scripts[4096];
    c->arena = st_arena_new();
    if (!c->arena)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a console");
    ST_TRY(st_install_dirs(modules, scripts, sizeof modules, err));
    ST_TRY(st_registry_new(&c->registry, err));
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        ST_TRY(st_registry_add(c->registry, *op, "built-in", err));
    ST_TRY(st_script_open(&c->script, scripts, c->registry, c->arena, NULL, err));
    st_script_on_print(c->script, on_print, c);
    c->calls = (st_console){c, stops, get, drop, about, at, print};
    return st_script_console(c->script, &c->calls, err);
}

setun_status setun_console_new(setun_console **out, setun_write_fn *write, int (*stop)(void *user), void *user, setun_error *err)
{
    setun_console *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a console");
    c->write = write;
    c->stop = stop;
    c->user = user;
    setun_status s = open_console(c, err);
    if (s != SETUN_OK) {
        setun_console_free(c);
        return s;
    }
    *out = c;
    return SETUN_OK;
}

void setun_console_free(setun_console *c)
{
    if (!c)
        return;
    st_script_close(c->script);
    st_registry_free(c->registry);
    st_arena_free(c->arena);
    free(c);
}

void setun_console_use(setun_console *c, const setun_model *m, const int32_t *tokens, int64_t n_tokens)
{
    c->time += c->m != m;
    c->m = m;
    c->tokens = tokens;
    c->n_tokens = n_tokens;
}

setun_status setun_console_run(setun_console *c, const char *text, setun_error *err)
{
    return st_script_eval(c->script, text, err);
}

/* tests/abi/future.c -- a plugin from a time when every table has grown.
 *
 * Each struct here begins with today's and goes on with fields that today's host does not know.  It
 * must load, and be used as far as it is known. */
#include <string.h>

#include "setun/backend.h"
#include "setun/plugin.h"

typedef struct future_plugin {
    setun_plugin now;
    void       (*dream)(void);
} future_plugin;

typedef struct future_op {
    setun_op    now;
    const char *poem;
    int64_t     more[8];
} future_op;

typedef struct future_ops {
    setun_ops_v1 now;
    const void  *more[3];
} future_ops;

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    (void)err;
    *self = (void *)(uintptr_t)host;
    /* A service that only a later host offers: today's says so, and life goes on. */
    return SETUN_HAS(setun_host, host, service) && host->service(host->context, "setun.telepathy/3")
               ? SETUN_FAILED
               : SETUN_OK;
}

static void fini(void *self)
{
    const setun_host *host = self;
    host->log(host->context, 1, "the future is over");
}

static setun_status infer(setun_args *a, setun_error *err)
{
    return setun_infer_same(a, err);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    (void)err;
    memcpy(a->out[0].data, a->in[0].data, (size_t)setun_view_bytes(&a->in[0]));
    return SETUN_OK;
}

static const void *extension(void *self, const char *id)
{
    static const setun_port in[] = { { "x", "f32", 0, 0 } }, out[] = { { "y", "f32", 0, 0 } };
    static const char *const cases[] = { "x:f32[3]", NULL };
    static const future_op op = {
        .now = { .size = sizeof op,
                 .version = 1,
                 .name = "future_copy",
                 .doc = "y = x",
                 .in = in,
                 .out = out,
                 .n_in = 1,
                 .n_out = 1,
                 .infer = infer,
                 .eval = eval,
                 .cases = cases },
        .poem = "not read by anyone today",
    };
    static const setun_op *const list[] = { &op.now };
    static const future_ops ops = { { sizeof ops, 1, list }, { NULL, NULL, NULL } };
    (void)self;
    return strcmp(id, SETUN_EXT_OPS) ? NULL : &ops;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const future_plugin plugin = {
        { sizeof plugin, SETUN_ABI, "org.setun.test.future", "2099", "", init, fini, extension },
        NULL,
    };
    (void)host_abi;
    return &plugin.now;
}

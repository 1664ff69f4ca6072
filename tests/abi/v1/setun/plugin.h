/* setun/plugin.h -- how a shared object becomes part of Setun.
 *
 * One exported symbol, setun_plugin_entry.  The host hands over a table; the plugin resolves nothing
 * from the process.  The structs here are frozen at SETUN_ABI 1: growth happens in extensions, which
 * are tables asked for by name ("setun.backend/1").  First field of every table is its size, set with
 * sizeof; read later fields only through SETUN_HAS; never compare sizes for equality.
 * Whoever allocated frees.  Strings are UTF-8 and stay valid until fini.
 * Thread tags: [load] one thread while loading, [owner] the thread that owns the object, [any]. */
#ifndef SETUN_PLUGIN_H
#define SETUN_PLUGIN_H

#include "setun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SETUN_ABI 1u /* raised only when an old plugin can no longer be used; plan for never */

typedef struct setun_host {
    uint32_t    size, abi;
    const char *version;  /* of the host, for people; never compared */
    const char *build;    /* compiler, flags, sanitizer */
    void       *context;  /* first argument of the functions below */
    void       (*log)(void *context, int32_t level, const char *text); /* [any]; 0 warn, 1 info, 2 debug */
    const void *(*service)(void *context, const char *id);             /* [load]; NULL: not offered */
} setun_host;

typedef struct setun_plugin {
    uint32_t    size, abi;
    const char *id;       /* "org.example.cuda": unique, never reused */
    const char *version;  /* for people; never compared */
    const char *build;    /* compiler, flags, sanitizer: refusals and bug reports quote it */
    setun_status (*init)(const setun_host *host, void **self, setun_error *err); /* [load] may be called again */
    void         (*fini)(void *self);                                            /* [load] no call in flight */
    const void  *(*extension)(void *self, const char *id);                       /* [any] NULL: not offered */
} setun_plugin;

/* The one exported symbol.  Returns NULL if this host cannot be served.  Must be cheap and touch
 * nothing. */
SETUN_EXPORT const setun_plugin *setun_plugin_entry(uint32_t host_abi);
typedef const setun_plugin *setun_plugin_entry_fn(uint32_t host_abi);

/* Extension "setun.ops/1": operators, identical in form to the built-in ones (setun/op.h). */
#define SETUN_EXT_OPS "setun.ops/1"
struct setun_op;
typedef struct setun_ops_v1 {
    uint32_t size, n;
    const struct setun_op *const *op;
} setun_ops_v1;

#ifdef __cplusplus
}
#endif
#endif

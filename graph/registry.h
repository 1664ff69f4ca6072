/* graph/registry.h -- operator name -> descriptor, from ops/, plugins and Lua: one door for all. */
#ifndef ST_REGISTRY_H
#define ST_REGISTRY_H

#include "base/arena.h"
#include "setun/op.h"

typedef struct st_registry st_registry;

setun_status    st_registry_new(st_registry **r, setun_error *err);
void            st_registry_free(st_registry *r);
/* Checks the descriptor (names, required callbacks, cases, schema sizes) and keeps the pointer;
 * origin ("built-in", a file name) is copied and quoted when a second one has the same name. */
setun_status    st_registry_add(st_registry *r, const setun_op *op, const char *origin, setun_error *err);
const setun_op *st_registry_find(const st_registry *r, const char *name); /* NULL when absent */
int64_t         st_registry_count(const st_registry *r);
const setun_op *st_registry_at(const st_registry *r, int64_t i);
const char     *st_registry_origin(const st_registry *r, int64_t i);

/* Written by the build from the list of files in ops/; NULL-terminated. */
extern const setun_op *const st_builtin_ops[];

/* A case in text ("x:f32[n3,256] w:f32[256] eps=0.001") made concrete: args with views of run-time
 * sizes (data allocated from the arena, 64-byte aligned, inputs filled from seed by op->fill after
 * the default fill, outputs inferred and zeroed), and the shapes to compile for (symbolic dims kept).
 * Arrays come from the arena. */
typedef struct st_case {
    setun_args run;    /* concrete, with data */
    setun_args shape;  /* as compiled; data NULL */
    int64_t    size[SETUN_N_SYMBOLS]; /* values of the symbols; 0 when unused */
} st_case;
/* Arrays of a case have this many bytes behind them, of no particular value. */
#define ST_CASE_SLACK 64
setun_status st_case_make(const setun_op *op, const char *text, uint64_t seed, st_arena *arena, st_case *c,
                          setun_error *err);
/* The same from shapes that a graph already has: run-time dims given, data made up. */
setun_status st_case_from_shape(const setun_args *shape, const int64_t size[SETUN_N_SYMBOLS], uint64_t seed,
                                st_arena *arena, st_case *c, setun_error *err);
/* Only the text: in[] and attr[] of shape as compiled, no infer, no data. */
setun_status st_case_parse(const setun_op *op, const char *text, st_arena *arena, setun_args *shape,
                           int64_t size[SETUN_N_SYMBOLS], setun_error *err);
/* Default contents of a concrete view: the same for the same seed everywhere, finite, with zeros of
 * both signs, denormals and a few large values; T2 padding has code 1.  [any] */
void st_case_fill(const setun_view *v, uint64_t seed);

#endif

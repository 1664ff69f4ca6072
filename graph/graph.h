/* graph/graph.h -- the model as data: nodes and values in flat arrays, joined by ids.
 *
 * A graph is built once, by a script or by the text parser, checked, rewritten by fusion rules, and
 * then only read.  Ids are indices; nothing is ever removed (rewriting makes a new graph).
 * No Lua, no LLVM, no files.  One thread while building; [any] afterwards. */
#ifndef ST_GRAPH_H
#define ST_GRAPH_H

#include "base/arena.h"
#include "base/str.h"
#include "setun/op.h"

typedef uint32_t st_value_id; /* index into values */
typedef uint32_t st_node_id;  /* index into nodes */
#define ST_NO_ID UINT32_MAX

typedef enum st_value_kind {
    ST_INPUT, /* given for each run: tokens, positions, outputs */
    ST_CONST, /* data known at load: weights, tables; view.data may be NULL in a parsed graph */
    ST_STATE, /* kept by the session from run to run: KV caches */
    ST_TEMP   /* made by a node */
} st_value_kind;

typedef struct st_value {
    const char   *name;  /* unique and not empty for input, const and state; may be "" for temp */
    st_value_kind kind;
    setun_view    view;  /* dim[0] may be symbolic */
    st_node_id    node;  /* maker of a temp, else ST_NO_ID */
    uint32_t      port;  /* which output of it */
    st_value_id   root;  /* whose memory it uses: itself, or what an in-place output shares */
    st_value_id   latest; /* of a root: the newest value in its memory; older ones are gone */
} st_value;

typedef struct st_node {
    const setun_op *op;
    st_value_id    *in, *out; /* op->n_in, op->n_out of them */
    setun_value    *attr;     /* op->n_attr of them; strings belong to the arena */
    const char     *where;    /* "bitnet_b158.lua:12", or "" */
    const char     *scope;    /* "blk.0", or "" */
} st_node;

typedef struct st_output {
    const char *name;
    st_value_id value;
} st_output;

typedef struct st_graph {
    st_arena  *arena; /* owns everything; not the graph's to free */
    st_value  *value;
    st_node   *node;
    st_output *output;
    uint32_t   n_value, n_node, n_output, cap_value, cap_node, cap_output;
    uint32_t  *slot;     /* hash index of names: value id + 1, 0 is empty */
    uint32_t   n_slot, n_named; /* a power of two; how many are taken */
} st_graph;

/* Limits that no model comes near; they bound what hostile text and scripts can ask for. */
#define ST_MAX_VALUES  (1u << 16)
#define ST_MAX_OUTPUTS 256u
#define ST_MAX_PORTS   16u  /* inputs, and outputs, of one operator */
#define ST_MAX_ATTRS   32u
#define ST_MAX_NAME    1024 /* bytes of a name, where or scope */

/* All return SETUN_OK or fail with a sentence; where and scope are copied. */
setun_status st_graph_new(st_graph **g, st_arena *arena, setun_error *err);
setun_status st_graph_add_value(st_graph *g, const char *name, st_value_kind kind, const setun_view *view,
                                st_value_id *id, setun_error *err); /* INPUT, CONST or STATE */
/* Runs op->infer at once, so that a message names the line that made the node:
 * "bitnet_b158.lua:13: ternary_matmul blk.0.attn_output: ...".  attr NULL: all defaults.  out gets
 * op->n_out ids. */
setun_status st_graph_add_node(st_graph *g, const setun_op *op, const st_value_id *in, const setun_value *attr,
                               const char *where, const char *scope, st_value_id *out, setun_error *err);
setun_status st_graph_add_output(st_graph *g, const char *name, st_value_id v, setun_error *err);
st_value_id  st_graph_find(const st_graph *g, const char *name); /* ST_NO_ID when absent */

/* A copy with symbolic sizes replaced (size < 0 keeps the symbol), inferred anew.  Ids stay. */
setun_status st_graph_bind(const st_graph *g, const int64_t size[SETUN_N_SYMBOLS], st_arena *arena,
                           st_graph **out, setun_error *err);

/* A value can be updated in place only if it is a state or a temporary, and then it and all earlier
 * values in its memory are gone: using one is refused when the node is added.  So every read means
 * the newest contents, and an order of nodes that respects ids is right. */

/* Run op->infer on prepared args whose in[] and attr[] are set (graph/infer.c); checks the result. */
setun_status st_infer(setun_args *a, setun_error *err);
/* Args of a node with views filled in; arrays come from the arena. */
setun_status st_node_args(const st_graph *g, st_node_id n, st_arena *arena, setun_args *a, setun_error *err);

/* Known type, rank, sizes whose bytes fit 62 bits; symbols only in dim[0], and only if allowed. */
setun_status st_view_check(const setun_view *v, int symbols, setun_error *err);
/* Replace a symbolic dim[0] by size[-dim - 1] where that is not negative. */
void         st_view_bind(setun_view *v, const int64_t size[SETUN_N_SYMBOLS]);
int          st_view_same(const setun_view *a, const setun_view *b); /* type and sizes */
/* Put "where: op in scope: " in front of a message. */
void         st_node_wrap(setun_error *err, const setun_op *op, const char *where, const char *scope);

/* Every invariant; callable between any two stages.  The sentence names the node or value. */
setun_status st_graph_verify(const st_graph *g, setun_error *err);

/* Text form, both ways; printing what was parsed gives the same bytes.  Constants print without
 * their data.  parse looks operators up in the registry.  name is for messages. */
struct st_registry;
void         st_graph_print(const st_graph *g, st_str *out);
void         st_graph_dot(const st_graph *g, st_str *out);
/* One page with foldable layers; ns: nanoseconds per node, or NULL. */
void         st_graph_html(const st_graph *g, const char *title, const double *ns, st_str *out);
setun_status st_graph_parse(const char *text, const char *name, const struct st_registry *r, st_arena *arena,
                            st_graph **out, setun_error *err);

/* Names for dtypes in all text forms: "f32", "t2"; dim text: "n", "m" or a number. */
const char *st_dtype_name(uint32_t dtype);
uint32_t    st_dtype_find(const char *name, size_t n); /* 0: unknown */
void        st_view_print(const setun_view *v, st_str *out); /* f32[n,2560] */
/* Parses "f32[n,2560]"; returns the first character after it, or NULL. */
const char *st_view_parse(const char *text, setun_view *v);
/* The same with "f32[n3,2560]": symbols carry a run-time size.  NULL also when two sizes of one
 * symbol differ; size[] starts at -1 and keeps what earlier views said. */
const char *st_view_parse_sized(const char *text, setun_view *v, int64_t size[SETUN_N_SYMBOLS]);

/* A value as an argument: %12, a bare name, or "a quoted \"name\"". */
void        st_value_print(const st_graph *g, st_value_id v, st_str *out);
/* name=value, floats with the fewest digits that read back the same bits. */
void        st_attr_print(const setun_attr *a, const setun_value *v, st_str *out);
int         st_attr_same(const setun_attr *a, const setun_value *x, const setun_value *y);
/* Parses what follows the '='; returns the first character after it, or NULL with err filled. */
const char *st_attr_parse(const setun_attr *a, const char *text, st_arena *arena, setun_value *v,
                          setun_error *err);

#endif

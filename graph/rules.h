/* graph/rules.h -- rewriting: common nodes once, then fusions, each a row with its test case. */
#ifndef ST_RULES_H
#define ST_RULES_H

#include "graph/graph.h"
#include "graph/registry.h"

struct st_rewrite; /* a graph being rewritten (graph/rules.c) */

/* One rule, for `setun dump`, docs and tests. */
typedef struct st_rule {
    const char *name;
    const char *pattern; /* "rmsnorm -> quantize_i8", for people */
    const char *before, *after; /* graph texts: applying the rules to before gives after */
    /* Replace node n and one of its producers if the pattern ends at n, or SETUN_DECLINED.  NULL:
     * the rule is part of copying a graph (common nodes, dead nodes, constants). */
    setun_status (*apply)(struct st_rewrite *r, st_node_id n);
} st_rule;
extern const st_rule st_rules[]; /* ends with a NULL name */

/* A new graph that computes the same bits with fewer nodes; unused nodes are dropped.
 * Nodes whose inputs are all constants with data are evaluated now (op->eval). */
setun_status st_graph_simplify(const st_graph *g, const st_registry *r, st_arena *arena, st_graph **out,
                               setun_error *err);

#endif

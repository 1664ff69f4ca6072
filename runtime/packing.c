/* runtime/packing.c -- see packing.h.
 *
 *     ternary_matmul(q, scale, sum, w t2, ws)  ->  packed_matmul(q, scale, sum, w u8, ws) {packing, columns, group, inside}
 *
 * Codes are unpacked from the built-in form, packed into the declared one, and counted where they do not come
 * back; rows are shared among threads.  Scales go where the packing has a place for them, rounded to its type, and
 * what is multiplied is what was stored.  So a packing that changes no weight and no scale gives the same bits.
 *
 * With --from-floats digits and scales are made anew (runtime/requantise.c), and products of floats are packed, too:
 *
 *     matmul(x, w)  ->  packed_matmul(quantize_i8(x), w u8, ws)
 *
 * but for those that are outputs, or whose matrix is used otherwise, as a tied embedding is.
 *
 * All of it is kept in a cache file (model/pack.c), each matrix as bytes, scales and what was lost; a model that finds it
 * reads no other form of a matrix.  The file's identity is everything that decides its bytes, so it is complete or of no use. */
#include "runtime/packing.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/str.h"
#include "runtime/requantise.h"
#include "setun/packing.h"

enum { Q, SCALE, SUM, W, WS };

/* What the cache remembers of a matrix beside bytes and scales. */
typedef struct counted {
    int64_t changed, scales_changed;
    double  error, square;
} counted;

/* ---------------------------------------------------------------- which */

setun_status st_packing_find(st_script *script, st_arena *arena, const char *option, const char **out_file,
                             const st_script_packing **p, setun_error *err)
{
    const char *end = strstr(option, ".lua:"), *name = end ? end + 5 : NULL;
    const char *file = end ? st_arena_strndup(arena, option, (size_t)(end + 4 - option)) : option;
    if (!file)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a file's name");
    if (out_file)
        *out_file = file;
    const st_script_packing *before = st_script_packings(script);
    ST_TRY(st_script_ops(script, file, err));
    const st_script_packing *found = NULL;
    int64_t n = 0;
    for (const st_script_packing *i = st_script_packings(script); i != before; i = i->next, n++)
        if (!name || strcmp(i->name, name) == 0)
            found = i;
    if (n == 0)
        return st_fail(err, SETUN_BAD_SCRIPT, "%s declares no packing (setun.packing)", file);
    if (!found)
        return st_fail(err, SETUN_UNKNOWN, "%s declares no packing named '%s'", file, name);
    if (!name && n > 1)
        return st_fail(err, SETUN_BAD_ARG, "%s declares %" PRId64 " packings; say which, such as --packing %s:%s",
                       file, n, file, found->name);
    *p = found;
    return SETUN_OK;
}

setun_status st_packing_choose(setun_model *m, st_script *script, const st_script_packing *from_script,
                               const st_script_packing **p, setun_error *err)
{
    *p = from_script;
    return m->engine->o.packing ? st_packing_find(script, m->arena, m->engine->o.packing, NULL, p, err) : SETUN_OK;
}

/* ---------------------------------------------------------------- one matrix */

#define ROWS_AT_ONCE 16

typedef struct repack {
    const setun_packing *p;
    const setun_view    *w, *ws;     /* as they are */
    int64_t  rows, columns, group, row_bytes;
    int      across;                 /* w is the transpose */
    uint8_t *out;
    float   *scale;                  /* what is multiplied, as ws is shaped; NULL: inside, or ws itself */
    st_requantise *from;             /* floats, if codes and scales are made of those: ws is what it fills */
    atomic_llong next, changed, scales_changed;
    atomic_int   no_memory;
} repack;

/* The scales of row r, rounded into their places; those that units do not keep as they are go to scale, too. */
static int64_t put_scales(const repack *j, int64_t r, uint8_t *row)
{
    const setun_packing *p = j->p;
    const float *ws = j->ws->data;
    int64_t n = j->group ? j->ws->dim[1] : 1, units = (j->columns + p->digits - 1) / p->digits, changed = 0;
    int one = j->ws->rank == 1 && j->ws->dim[0] == 1;
    for (int64_t g = 0; g < n; g++) {
        float s = ws[one ? 0 : r * n + g], kept = s;
        if (p->row_scale) {
            setun_packing_put_scale(row, p->row_scale, s);
            kept = setun_packing_get_scale(row, p->row_scale);
        }
        int64_t first = j->group ? g * j->group / p->digits : 0, end = j->group ? (g + 1) * j->group / p->digits : units;
        for (int64_t u = first; p->scale && u < end && u < units; u++) {
            uint8_t *at = row + setun_packing_unit_at(p, u) + p->scale_at;
            setun_packing_put_scale(at, p->scale, s);
            kept = setun_packing_get_scale(at, p->scale);
        }
        changed += setun_f32_bits(kept) != setun_f32_bits(s);
        if (j->scale && (!one || r == 0))
            j->scale[one ? 0 : r * n + g] = kept;
    }
    return one && r > 0 ? 0 : changed;
}

/* Row r of the weights. */
static void unpack(const repack *j, int64_t r, int8_t *w)
{
    int64_t row_bytes = setun_row_bytes(SETUN_T2, j->w->dim[1]);
    const uint8_t *codes = j->w->data;
    for (int64_t c = 0; c < j->columns; c++)
        w[c] = (int8_t)(j->across ? setun_get_t2(codes + c * row_bytes, r) : setun_get_t2(codes + r * row_bytes, c));
}

static void pack_some(void *arg, int32_t worker)
{
    repack *j = arg;
    int8_t *w = malloc((size_t)j->columns);
    float *x = j->from && w ? malloc((size_t)j->columns * sizeof *x) : NULL;
    setun_packing_plan plan;
    (void)worker;
    if (j->from && !x) {
        free(w);
        w = NULL;
    }
    if (!w)
        atomic_store(&j->no_memory, 1);
    setun_packing_make_plan(j->p, &plan);
    for (int64_t r0; w && (r0 = atomic_fetch_add(&j->next, ROWS_AT_ONCE)) < j->rows;)
        for (int64_t r = r0; r < r0 + ROWS_AT_ONCE && r < j->rows; r++) {
            uint8_t *row = j->out + r * j->row_bytes;
            int64_t changed = 0;
            memset(row, 0, (size_t)j->row_bytes); /* bits of no field */
            if (j->from)
                st_requantise_row(j->from, r, x, w);
            else
                unpack(j, r, w);
            for (int64_t u = 0, c = 0; c < j->columns; u++, c += j->p->digits)
                changed += setun_packing_pack_unit(j->p, &plan, w + c, j->columns - c, row + setun_packing_unit_at(j->p, u));
            atomic_fetch_add(&j->changed, changed);
            atomic_fetch_add(&j->scales_changed, put_scales(j, r, row));
            if (j->from)
                st_requantise_measure(j->from, r, x, w, row, changed != 0);
        }
    free(x);
    free(w);
}

/* ---------------------------------------------------------------- the graph */

typedef struct rewrite {
    setun_model             *m;
    st_script               *script;
    const st_script_packing *declared;
    setun_packing            p;
    const setun_op          *op;
    st_pool                 *pool;
    st_graph                *h;
    st_value_id             *map; /* value of the old graph -> of the new */
    st_value_id            (*rounded)[3]; /* value of the old graph -> quantize_i8 of it in the new, 0: none yet */
    const setun_op          *quantize;
} rewrite;

/* Why scales of groups or rows do not fit a packing, in one sentence. */
static setun_status check_scales(const rewrite *r, int64_t group, const char *name, setun_error *err)
{
    const setun_packing *p = &r->p;
    if (group % p->digits)
        return st_fail(err, SETUN_BAD_SHAPE,
                       "%s: packing %s cannot hold %s, where %" PRId64 " weights share a scale: a group must be whole "
                       "units, and a unit is %u weights", r->declared->where, r->declared->name, name, group, p->digits);
    if (group && p->row_scale)
        return st_fail(err, SETUN_BAD_SHAPE,
                       "%s: packing %s has a scale for each row, but %s has one for every %" PRId64 " weights: put the "
                       "scale into the unit, or leave it out", r->declared->where, r->declared->name, name, group);
    return SETUN_OK;
}

/* What a constant that is made of `name` is called; NULL: no memory. */
static const char *const_name(const rewrite *r, const char *name)
{
    /* Two products may share a matrix: each has its own copy, and names must differ. */
    const char *full = st_arena_printf(r->m->arena, "%s%s", name, ST_PACKED_NAME);
    for (int i = 2; full && st_graph_find(r->h, full) != ST_NO_ID; i++)
        full = st_arena_printf(r->m->arena, "%s%s.%d", name, ST_PACKED_NAME, i);
    return full;
}

/* Rows into their places, by all threads, or by this one where a script is asked. */
static setun_status pack_rows(const rewrite *r, repack *j, const char *name, setun_error *err)
{
    if (j->from && j->from->rule->quantise.kind == ST_RULE_SCRIPT)
        pack_some(j, 0);
    else
        st_pool_run(r->pool, pack_some, j);
    return j->no_memory ? st_fail(err, SETUN_NO_MEMORY, "no memory to pack %s", name) : SETUN_OK;
}

enum { CODE, SCALES, COUNTED, N_KEPT };

/* What is kept of a matrix, under which names; dtype U8 or F32. */
typedef struct kept {
    const char         *name[N_KEPT];
    int64_t             rows[N_KEPT], columns[N_KEPT];
    int                 n;      /* COUNTED + 1, or 1 where nobody will look for more than the bytes */
    const st_pack_slot *code;   /* filled in by find and make */
    counted             sum;
} kept;

/* All of a matrix from the cache: 1.  scale->data becomes what is there, unless it is known already. */
static int find(const rewrite *r, const repack *j, kept *k, setun_view *scale)
{
    const st_pack_slot *s[N_KEPT];
    for (int i = 0; i < N_KEPT; i++) {
        s[i] = st_pack_find(r->m->pack, k->name[i], i == SCALES ? SETUN_F32 : SETUN_U8, k->rows[i], k->columns[i]);
        if (!s[i])
            return 0;
    }
    memcpy(&k->sum, s[COUNTED]->data, sizeof k->sum);
    /* A checksum does not say that somebody meant well. */
    if (k->sum.changed < 0 || k->sum.changed > j->rows * j->columns || k->sum.scales_changed < 0 ||
        k->sum.scales_changed > setun_count(j->ws) || !(k->sum.error >= 0) || !(k->sum.square >= 0))
        return 0;
    k->code = s[CODE];
    if (!scale->data)
        scale->data = s[SCALES]->data;
    return 1;
}

static setun_status keep(const rewrite *r, const kept *k, int i, const void *data, setun_error *err)
{
    const st_pack_slot *slot;
    uint8_t *room;
    ST_TRY(st_pack_room(r->m->pack, k->name[i], i == SCALES ? SETUN_F32 : SETUN_U8, k->rows[i], k->columns[i], &room, err));
    memcpy(room, data, (size_t)(k->rows[i] * k->columns[i]) * (i == SCALES ? sizeof(float) : 1));
    return st_pack_put(r->m->pack, 0.0f, 0, &slot, err);
}

/* All of a matrix anew.  Scales, which are in the arena, are copied for the next start alone. */
static setun_status make(const rewrite *r, repack *j, kept *k, const char *name, setun_view *scale, setun_error *err)
{
    setun_status s = j->from ? st_requantise_open(j->from, err) : SETUN_OK;
    if (s == SETUN_OK && !scale->data) {
        scale->data = j->from ? j->from->scale.data : st_arena_alloc(r->m->arena, setun_view_bytes(scale));
        j->scale = j->from ? NULL : scale->data;
        s = scale->data ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for scales of %s", name);
    }
    if (s == SETUN_OK)
        s = st_pack_room(r->m->pack, k->name[CODE], SETUN_U8, j->rows, j->row_bytes, &j->out, err);
    if (s == SETUN_OK)
        s = pack_rows(r, j, name, err);
    if (j->from) { /* what went wrong first is told */
        setun_error why;
        setun_status closed = st_requantise_close(j->from, s == SETUN_OK ? err : &why);
        s = s == SETUN_OK ? closed : s;
        k->sum.error = j->from->error;
        k->sum.square = j->from->square;
    }
    k->sum.changed = j->changed;
    k->sum.scales_changed = j->scales_changed;
    if (s == SETUN_OK)
        s = st_pack_put(r->m->pack, 0.0f, 0, &k->code, err);
    if (s == SETUN_OK && k->n == N_KEPT)
        s = keep(r, k, SCALES, scale->data, err);
    return s == SETUN_OK && k->n == N_KEPT ? keep(r, k, COUNTED, &k->sum, err) : s;
}

/* Matrix w with the scales of j, packed: the two constants that take their places. */
static setun_status pack_with(rewrite *r, repack *j, const char *name, const char *scale_name, int *inside, st_value_id id[2],
                              setun_error *err)
{
    static const _Alignas(64) float one = 1.0f;
    st_packed *sum = &r->m->packed;
    j->row_bytes = setun_packing_row_bytes(&r->p, j->columns);
    *inside = j->group && r->p.scale;
    ST_TRY(check_scales(r, j->group, name, err));
    setun_view packed = {NULL, SETUN_U8, 2, {j->rows, j->row_bytes, 1, 1}}, scale = *j->ws;
    scale.data = NULL;
    if (*inside)
        scale = (setun_view){(void *)(uintptr_t)&one, SETUN_F32, 1, {1, 1, 1, 1}};
    kept k = {.name = {const_name(r, name), const_name(r, scale_name)}, .n = st_cache_dir(r->m->engine->cache) ? N_KEPT : 1};
    k.rows[CODE] = j->rows;
    k.columns[CODE] = j->row_bytes;
    k.rows[SCALES] = scale.dim[0];
    k.columns[SCALES] = scale.rank == 2 ? scale.dim[1] : 1;
    k.rows[COUNTED] = 1;
    k.columns[COUNTED] = (int64_t)sizeof(counted);
    k.name[COUNTED] = k.name[CODE] ? st_arena_printf(r->m->arena, "%s (counted)", k.name[CODE]) : NULL;
    if (!k.name[SCALES] || !k.name[COUNTED])
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a name");
    if (!find(r, j, &k, &scale))
        ST_TRY(make(r, j, &k, name, &scale, err));
    packed.data = k.code->data;
    sum->n_matrix++;
    sum->bytes += k.code->bytes;
    sum->weights += j->rows * j->columns;
    sum->changed += k.sum.changed;
    sum->scales += setun_count(j->ws);
    sum->scales_changed += k.sum.scales_changed;
    if (j->from) {
        j->from->error = k.sum.error;
        j->from->square = k.sum.square;
        st_requantise_count(j->from);
    }
    ST_TRY(st_graph_add_value(r->h, k.name[CODE], ST_CONST, &packed, &id[0], err));
    return st_graph_add_value(r->h, k.name[SCALES], ST_CONST, &scale, &id[1], err);
}

/* Matrix w, with its scales or of floats, as codes or from floats; group becomes that of the new scales. */
static setun_status pack_matrix(rewrite *r, const st_value *w, const st_value *ws, int across, int64_t *group, int *inside,
                                st_value_id id[2], setun_error *err)
{
    const char *scale_name = ws ? ws->name : st_arena_printf(r->m->arena, "%s.scale", w->name);
    repack j = {.p = &r->p, .w = &w->view, .ws = ws ? &ws->view : NULL, .across = across, .group = *group};
    st_requantise q = {.m = r->m, .script = r->script, .rule = r->declared, .p = &r->p, .name = w->name, .w = &w->view, .ws = j.ws,
                       .group = *group, .across = across};
    j.rows = w->view.dim[across];
    j.columns = w->view.dim[!across];
    if (!scale_name)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a name");
    if (r->m->packed.from_floats) {
        st_requantise_shape(&q);
        j.from = &q;
        j.ws = &q.scale;
        j.group = *group = q.scale.rank == 2 ? q.each : 0;
    }
    return pack_with(r, &j, w->name, scale_name, inside, id, err);
}

static setun_status want_const(const st_node *n, const st_value *w, const st_value *ws, setun_error *err)
{
    if (w->kind == ST_CONST && w->view.data && (!ws || (ws->kind == ST_CONST && ws->view.data)))
        return SETUN_OK;
    return st_fail(err, SETUN_BAD_SCRIPT, "%s: %s of %s is not a constant, and cannot be packed", n->where, n->op->name, w->name);
}

/* The product n, on the packed matrix. */
static setun_status replace(rewrite *r, const st_graph *g, const st_node *n, int across, st_value_id *out, setun_error *err)
{
    const st_value *w = &g->value[n->in[W]], *ws = &g->value[n->in[WS]];
    st_value_id in[5], id[2];
    int inside;
    int64_t group = across ? 0 : n->attr[0].i;
    ST_TRY(want_const(n, w, ws, err));
    ST_TRY(pack_matrix(r, w, ws, across, &group, &inside, id, err));
    for (int i = 0; i < 5; i++)
        in[i] = i < W ? r->map[n->in[i]] : id[i - W];
    const setun_value attr[4] = {{.s = r->declared->text}, {.i = w->view.dim[!across]}, {.i = group}, {.i = inside}};
    return st_graph_add_node(r->h, r->op, in, attr, n->where, n->scope, out, err);
}

/* Is n a product of floats with a matrix that is there for this alone, and not what the model gives out? */
static int is_dense(const st_graph *g, const st_node *n)
{
    if (strcmp(n->op->name, "matmul") || g->value[n->in[1]].kind != ST_CONST || !g->value[n->in[1]].view.data)
        return 0;
    for (uint32_t i = 0; i < g->n_output; i++)
        if (g->output[i].value == n->out[0])
            return 0;
    for (uint32_t i = 0; i < g->n_node; i++)
        for (uint32_t k = 0; k < g->node[i].op->n_in; k++)
            if (g->node[i].in[k] == n->in[1] && strcmp(g->node[i].op->name, "matmul"))
                return 0;
    return 1;
}

/* The product of floats n, on the packed matrix: its rows are rounded to 8 bits first, once for all products with them. */
static setun_status replace_dense(rewrite *r, const st_graph *g, const st_node *n, st_value_id *out, setun_error *err)
{
    const st_value *w = &g->value[n->in[1]];
    st_value_id id[2], *q = r->rounded[n->in[0]], in[5];
    int inside;
    int64_t group = 0;
    ST_TRY(want_const(n, w, NULL, err));
    if (!q[0] && !q[SUM]) /* three values, of which one at most is the first of the graph */
        ST_TRY(st_graph_add_node(r->h, r->quantize, &r->map[n->in[0]], NULL, n->where, n->scope, q, err));
    ST_TRY(pack_matrix(r, w, NULL, 0, &group, &inside, id, err));
    for (int i = 0; i < 5; i++)
        in[i] = i < W ? q[i] : id[i - W];
    const setun_value attr[4] = {{.s = r->declared->text}, {.i = w->view.dim[1]}, {.i = group}, {.i = inside}};
    r->m->packed.n_dense++;
    return st_graph_add_node(r->h, r->op, in, attr, n->where, n->scope, out, err);
}

/* What becomes of node n. */
enum { COPIED, PACKED, PACKED_ACROSS, PACKED_DENSE };
static int fate(const setun_model *m, const st_graph *g, const st_node *n)
{
    if (strcmp(n->op->name, "ternary_matmul") == 0)
        return PACKED;
    if (strcmp(n->op->name, "ternary_matmul_t") == 0)
        return PACKED_ACROSS;
    return m->packed.from_floats && is_dense(g, n) ? PACKED_DENSE : COPIED;
}

static setun_status copy_node(rewrite *r, const st_graph *g, const st_node *n, setun_error *err)
{
    st_value_id in[ST_MAX_PORTS], out[ST_MAX_PORTS];
    int is = fate(r->m, g, n);
    if (strcmp(n->op->name, "ternary_matmul_f32") == 0)
        return st_fail(err, SETUN_UNKNOWN,
                       "%s: %s has no activations in 8 bits, so declared packings such as %s are not for it; --quantizer int8 would "
                       "round them", n->where, g->value[n->in[1]].name, r->declared->name);
    if (is == PACKED || is == PACKED_ACROSS) {
        ST_TRY(replace(r, g, n, is == PACKED_ACROSS, out, err));
    } else if (is == PACKED_DENSE) {
        ST_TRY(replace_dense(r, g, n, out, err));
    } else {
        for (uint32_t i = 0; i < n->op->n_in; i++)
            in[i] = r->map[n->in[i]];
        ST_TRY(st_graph_add_node(r->h, n->op, in, n->attr, n->where, n->scope, out, err));
    }
    for (uint32_t o = 0; o < n->op->n_out; o++)
        r->map[n->out[o]] = out[o];
    return SETUN_OK;
}

static setun_status copy_graph(rewrite *r, const st_graph *g, setun_error *err)
{
    ST_TRY(st_graph_new(&r->h, r->m->arena, err));
    r->map = st_arena_array(r->m->arena, (int64_t)g->n_value + 1, (int64_t)sizeof *r->map);
    r->rounded = st_arena_array(r->m->arena, (int64_t)g->n_value + 1, (int64_t)sizeof *r->rounded);
    if (!r->map || !r->rounded)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a graph");
    for (st_value_id v = 0; v < g->n_value; v++) {
        const st_value *x = &g->value[v];
        if (x->kind != ST_TEMP)
            ST_TRY(st_graph_add_value(r->h, x->name, x->kind, &x->view, &r->map[v], err));
        else if (x->port == 0)
            ST_TRY(copy_node(r, g, &g->node[x->node], err));
    }
    for (uint32_t i = 0; i < g->n_output; i++)
        ST_TRY(st_graph_add_output(r->h, g->output[i].name, r->map[g->output[i].value], err));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the cache */

/* The declaration as far as it decides bytes: not how kernels take them apart, which is behind a '!' in a part. */
static void add_declaration(const rewrite *r, st_str *s)
{
    const st_script_packing *p = r->declared;
    const setun_model *m = r->m;
    for (const char *c = p->text, *steps; *c; c = steps + strcspn(steps, ";")) {
        steps = strstr(c, " !");
        steps = steps ? steps : c + strlen(c);
        st_str_addn(s, c, (size_t)(steps - c));
    }
    st_str_addf(s, "\nfrom floats %d, rule %d, per %d\n", m->packed.from_floats, p->quantise.kind, p->quantise.per);
    if (!m->packed.from_floats || p->quantise.kind != ST_RULE_SCRIPT)
        return;
    /* A function may use whatever its file has, and a model script's whatever the script was told. */
    for (const st_script_file *f = st_script_files(r->script); f; f = f->next)
        st_str_addf(s, "file %016" PRIx64 "\n", f->hash);
    st_str_addf(s, "context %" PRId64 ", kv %s, quantizer %s\n", m->n_ctx, m->engine->o.kv, m->quantizer.name);
}

/* Matrix by matrix: its line in the identity, and what it can take with all that is kept of it. */
static setun_status add_matrices(const rewrite *r, const st_graph *g, st_str *s, int64_t *capacity, setun_error *err)
{
    for (st_node_id i = 0; i < g->n_node; i++) {
        const st_node *n = &g->node[i];
        int is = fate(r->m, g, n), across = is == PACKED_ACROSS;
        if (is == COPIED)
            continue;
        const st_value *w = &g->value[n->in[is == PACKED_DENSE ? 1 : W]], *ws = is == PACKED_DENSE ? NULL : &g->value[n->in[WS]];
        int64_t rows = w->view.dim[across], columns = w->view.dim[!across], group = is == PACKED ? n->attr[0].i : 0, each, bytes;
        if (w->kind != ST_CONST || (ws && ws->kind != ST_CONST))
            continue; /* refused where it is packed */
        st_str_addf(s, "%s, %s: %" PRId64 " x %" PRId64 ", across %d, group %" PRId64 ", scales %" PRId64 "\n", w->name, ws ? ws->name : "none",
                    rows, columns, across, group, ws ? setun_count(&ws->view) : 0);
        /* A row's units, a scale for each or for each of its groups; padding, and scales of the matrix, within 64 * 3 and the rest. */
        each = (columns + r->p.digits - 1) / r->p.digits + (group ? (columns + group - 1) / group : 1);
        if (st_add_i64(setun_packing_row_bytes(&r->p, columns), each * (int64_t)sizeof(float), &bytes) || st_mul_i64(rows, bytes, &bytes) ||
            st_add_i64(bytes, 4 * 64 + (int64_t)sizeof(counted), &bytes) || st_add_i64(*capacity, bytes, capacity))
            return st_fail(err, SETUN_BAD_SHAPE, "%s is too large for the packing %s", w->name, r->declared->name);
    }
    return SETUN_OK;
}

/* Where packed matrices will be.  One file for each packing's name, so that a declaration that is being written does not fill the
 * disk; and for each set of matrices, which options may decide. */
static setun_status open_pack(const rewrite *r, const st_graph *g, setun_error *err)
{
    setun_model *m = r->m;
    st_str identity = {0}, matrices = {0};
    int64_t capacity = 0;
    st_str_add(&matrices, "matrices\n");
    setun_status s = add_matrices(r, g, &matrices, &capacity, err);
    uint64_t key = st_hash(st_weights_paths(m->weights), r->declared->name, strlen(r->declared->name) + 1);
    key = st_hash(key, m->packed.from_floats ? "f" : "c", 1);
    key = st_hash(key, matrices.text, matrices.len);
    st_str_addf(&identity, "setun packing 1\n%s", st_weights_identity(m->weights));
    add_declaration(r, &identity);
    st_str_addn(&identity, matrices.text, matrices.len);
    if (s == SETUN_OK && (identity.failed || matrices.failed))
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for a packing");
    if (s == SETUN_OK)
        s = st_pack_open(&m->pack, st_cache_dir(m->engine->cache), key, identity.text, capacity, &m->engine->log, err);
    st_str_free(&identity);
    st_str_free(&matrices);
    return s;
}

/* What was lost, if anything, at the level of a warning: nobody should learn it from worse answers. */
static void report(const setun_model *m)
{
    const st_packed *s = &m->packed;
    if (s->from_floats) {
        st_logf(&m->engine->log, s->error > 0 || s->n_dense ? ST_LOG_WARN : ST_LOG_INFO,
                "packing %s: %.4g bits per weight, %" PRId64 " matrices from floats, relative error (root mean square) %.6g%s", s->name, s->bits,
                s->n_matrix, st_requantise_error(s), s->n_dense ? "; activations that were floats are rounded to 8 bits" : "");
        return;
    }
    int lossy = s->changed || s->scales_changed;
    st_logf(&m->engine->log, lossy ? ST_LOG_WARN : ST_LOG_INFO,
            "packing %s: %.4g bits per weight, %" PRId64 " matrices; %" PRId64 " of %" PRId64 " weights (%.2f %%) and %" PRId64 " of %" PRId64
            " scales are changed by it", s->name, s->bits, s->n_matrix, s->changed, s->weights,
            100.0 * (double)s->changed / (double)s->weights, s->scales_changed, s->scales);
}

setun_status st_packing_apply(setun_model *m, st_script *script, const st_script_packing *p, setun_error *err)
{
    const st_registry *registry = m->engine->registry;
    rewrite r = {.m = m, .script = script, .declared = p, .op = st_registry_find(registry, "packed_matmul"),
                 .quantize = st_registry_find(registry, "quantize_i8")};
    m->packed.from_floats = m->engine->o.from_floats != 0;
    if (m->packed.from_floats && p->quantise.kind == ST_RULE_NONE)
        return st_fail(err, SETUN_UNKNOWN, "%s: packing %s does not say how floats get into it: add quantise = \"absmean\", \"absmax\" or a "
                       "function, or leave --from-floats out", p->where, p->name);
    ST_TRY(setun_packing_read(&r.p, p->text, err));
    m->packed.name = p->name;
    m->packed.bits = setun_packing_bits(&r.p);
    ST_TRY(st_pool_new(&r.pool, m->engine->o.n_threads, 1, err));
    setun_status s = open_pack(&r, m->graph, err);
    if (s == SETUN_OK)
        s = copy_graph(&r, m->graph, err);
    st_pool_free(r.pool);
    if (s == SETUN_OK && !m->packed.n_matrix)
        s = st_fail(err, SETUN_UNKNOWN, "%s: the model has no ternary matrix that could be in the packing %s%s", m->path, p->name,
                    m->packed.from_floats || p->quantise.kind == ST_RULE_NONE ? "" : " (with --from-floats its float matrices could)");
    if (s == SETUN_OK)
        s = st_pack_finish(m->pack, err);
    if (s != SETUN_OK)
        return s;
    m->graph = r.h;
    report(m);
    return st_graph_verify(m->graph, err);
}

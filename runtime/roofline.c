/* runtime/roofline.c -- a roofline in text: time, bytes and operations of every group of equal steps, the
 * limit that binds it, and one sentence that says why it is not faster.
 *
 * Every limit alone would need some time; the longest of these times is the floor:
 *
 *     memory   bytes / read limit                int8     integer multiply-adds / their peak
 *     float    float operations / their peak     barrier  steps * one barrier
 *
 * all with as many threads as have work.  share = floor / time.  The sentence is chosen by numbers alone,
 * in the order of the rules below: nothing here knows an operator's name.  Temporaries count as bytes of
 * memory only where a step's do not fit into the second-level caches together. */
#include "runtime/roofline.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/session.h"

/* ---------------------------------------------------------------- rules */

#define REACHED 0.90   /* from this share on a limit explains the time */
#define ABOVE 1.05     /* beyond it, the bytes did not come from memory or the operations were not done */
#define UNEVEN 0.95    /* threads that have less than this share of the longest one's units */
#define HALF 0.5
#define NOTABLE 0.15   /* a part of the time that is worth a word */

typedef struct times {
    double memory, integer, floating, barrier;
} times;

static double over(double work, double rate)
{
    return rate > 0 ? work / rate : 0;
}

/* The measured row for the most threads that are not more than n. */
static const setun_limit *row_for(const setun_limits *l, int32_t n)
{
    const setun_limit *best = l->n_at > 0 ? &l->at[0] : NULL;
    for (int32_t i = 0; i < l->n_at; i++)
        if (l->at[i].n_threads <= n)
            best = &l->at[i];
    return best;
}

static const char *size_text(double bytes, char *text, size_t n)
{
    if (bytes >= 1e6)
        (void)snprintf(text, n, "%.1f MB", 1e-6 * bytes);
    else if (bytes >= 1e3)
        (void)snprintf(text, n, "%.1f KB", 1e-3 * bytes);
    else
        (void)snprintf(text, n, "%.0f bytes", bytes);
    return text;
}

/* A limit is reached, or more than reached. */
static int say_reached(const st_roof_work *w, const setun_limits *l, st_roof *r)
{
    int memory = strcmp(r->limit, "memory") == 0;
    if (r->share < REACHED || strcmp(r->limit, "barrier") == 0)
        return 0;
    if (r->share <= ABOVE)
        (void)snprintf(r->why, sizeof r->why, "at %.0f %% of the %s limit", 100 * r->share, memory ? "read" : r->limit);
    else if (memory && w->run_stored <= (double)l->all_cache_bytes)
        (void)snprintf(r->why, sizeof r->why, "%.1f GB/s, above the read limit: all that a run reads fits into caches",
                       over(r->bytes, w->ns));
    else if (memory)
        (void)snprintf(r->why, sizeof r->why, "%.1f GB/s, above the read limit, which must have been lower when it was measured",
                       over(r->bytes, w->ns));
    else
        (void)snprintf(r->why, sizeof r->why, "%.0f %% of the %s limit, counted dense: fewer operations do the same",
                       100 * r->share, r->limit);
    return 1;
}

/* Threads without work, with less of it than others, or waiting for other reasons. */
static int say_threads(const st_roof_work *w, double barrier, st_roof *r)
{
    int64_t n = w->n_thread, units = (int64_t)(w->units + 0.5), most = (units + n - 1) / n, least = units / n;
    if (n < 2)
        return 0;
    if (units == 1)
        (void)snprintf(r->why, sizeof r->why, "too little work for %" PRId64 " threads: it is one unit", n);
    else if (units > 0 && units < n)
        (void)snprintf(r->why, sizeof r->why, "too little work for %" PRId64 " threads: it is %" PRId64 " units", n, units);
    else if (units > 0 && (double)units < UNEVEN * (double)(n * most))
        (void)snprintf(r->why, sizeof r->why, "too little work for %" PRId64 " threads: %" PRId64 " units on %" PRId64
                       " threads, %" PRId64 ":%" PRId64, n, units, n, most, least);
    else if (barrier > NOTABLE * w->ns)
        (void)snprintf(r->why, sizeof r->why, "waits at barriers: %.0f ns of the %.0f ns of a step", barrier / w->steps,
                       w->ns / w->steps);
    else if (w->wait_ns > NOTABLE * w->ns * (double)n)
        (void)snprintf(r->why, sizeof r->why, "threads wait for the last of them for %.0f %% of the time",
                       100 * w->wait_ns / (w->ns * (double)n));
    else
        return 0;
    return 1;
}

static void say_rest(const st_roof_work *w, const times *t, st_roof *r)
{
    char text[32], shares[96];
    double sum = t->memory + t->integer + t->floating, others = sum - r->floor_ns;
    (void)snprintf(shares, sizeof shares, "read %.0f %%, int8 %.0f %%, float %.0f %%", 100 * t->memory / w->ns,
                   100 * t->integer / w->ns, 100 * t->floating / w->ns);
    if (w->rows > 0)
        (void)snprintf(r->why, sizeof r->why, "gathers %.0f rows of %s, at %.0f %% of the read limit", w->rows / w->steps,
                       size_text(w->row_bytes, text, sizeof text), 100 * t->memory / w->ns);
    else if (sum >= REACHED * w->ns && others >= NOTABLE * w->ns)
        (void)snprintf(r->why, sizeof r->why, "its limits add up, so they do not overlap: %s", shares);
    else
        (void)snprintf(r->why, sizeof r->why, "%s (%s); the rest is not counted: other instructions, or other programs",
                       r->share >= HALF ? "near its limit" : "far from every limit", shares);
}

/* The longest of the four, and its name. */
static void bind(const times *t, double ns, st_roof *r)
{
    const double value[4] = {t->memory, t->integer, t->floating, t->barrier};
    static const char *const name[4] = {"memory", "int8", "float", "barrier"};
    r->limit = "unknown";
    for (int i = 0; i < 4; i++)
        if (value[i] > r->floor_ns) {
            r->floor_ns = value[i];
            r->limit = name[i];
        }
    r->share = over(r->floor_ns, ns);
}

void st_roof_judge(const st_roof_work *w, const setun_limits *l, st_roof *out)
{
    times t = {0, 0, 0, 0};
    int32_t n = !w->has_kernel ? 1 : w->units >= 1 && w->units < w->n_thread ? (int32_t)w->units : w->n_thread;
    const setun_limit *at = l ? row_for(l, n) : NULL;
    memset(out, 0, sizeof *out);
    out->limit = "unknown";
    out->bytes = w->stored + (l && l->cache_bytes > 0 && w->temp > w->steps * (double)l->cache_bytes ? w->temp : 0);
    if (!(w->ns > 0) || !(w->steps > 0)) {
        (void)snprintf(out->why, sizeof out->why, "its time was not taken");
        return;
    }
    if (at) {
        t.memory = over(out->bytes, at->read_gb_s);
        t.integer = over(w->int_ops, at->int8_gmac_s);
        t.floating = over(w->float_ops, at->float_gmac_s);
        t.barrier = w->n_thread > 1 ? w->steps * row_for(l, w->n_thread)->barrier_ns : 0;
        bind(&t, w->ns, out);
    }
    if (!w->has_kernel) {
        out->limit = "serial";
        (void)snprintf(out->why, sizeof out->why, "runs on one thread through eval, because it has no kernel");
        return;
    }
    if (n == 1 && w->n_thread > 1)
        out->limit = "serial";
    if (say_reached(w, l, out) || say_threads(w, t.barrier, out))
        return;
    if (at)
        say_rest(w, &t, out);
    else
        (void)snprintf(out->why, sizeof out->why, "the machine's limits were not measured");
}

/* ---------------------------------------------------------------- groups */

typedef struct group {
    const setun_op *op;
    setun_view      shape, of; /* first output; the constant or cache with most bytes (rank 0: none) */
    const char     *how;
    st_roof_work    w;
    st_roof         roof;
} group;

static int by_time(const void *a, const void *b)
{
    double x = ((const group *)a)->w.ns, y = ((const group *)b)->w.ns;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The largest of a node's inputs that are not temporaries. */
static setun_view main_operand(const st_graph *g, const st_node *n)
{
    setun_view best = {0};
    double most = 0;
    for (uint32_t i = 0; i < n->op->n_in; i++) {
        const st_value *v = &g->value[n->in[i]], *root = &g->value[v->root];
        double bytes = setun_cost_view(&v->view);
        if (st_class_of(root) != SETUN_CLASS_TEMP && bytes > most) {
            most = bytes;
            best = v->view;
        }
    }
    return best;
}

/* Steps with the same operator and shapes, in one run: times over the timed runs, work over the counted ones. */
static uint32_t collect(const setun_session *s, int which, group *g)
{
    const st_program *p = s->program[which];
    const st_runner *r = &s->run[which];
    double timed = r->n_timed ? (double)r->n_timed : 1, counted = r->n_counted ? (double)r->n_counted : 1;
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_run_step; i++) {
        const st_step *step = &p->plan->step[r->of[i]];
        const st_node *node = &p->graph->node[step->node];
        const st_tally *t = &r->tally[i];
        setun_view shape = p->graph->value[node->out[0]].view, of = main_operand(p->graph, node);
        uint32_t j = 0;
        while (j < n && (g[j].op != node->op || memcmp(g[j].shape.dim, shape.dim, sizeof shape.dim) ||
                         memcmp(g[j].of.dim, of.dim, sizeof of.dim)))
            j++;
        if (j == n) {
            int code = p->kernel[step->node] && s->m->backend[step->backend]->backend_info.wants_code;
            int waits = SETUN_HAS(setun_backend_v1, st_session_api(s, step->backend), program_waits);
            g[n++] = (group){.op = node->op, .shape = shape, .of = of, .how = !code ? "eval" : p->kernel[step->node]->interpreted ? "interpreter" : st_engine_isa(s->m->engine),
                             .w = {.n_thread = s->m->engine->o.n_threads, .has_kernel = code, .wait_ns = waits ? 0 : -1}};
        }
        st_roof_work *w = &g[j].w;
        w->steps += 1;
        w->ns += (double)r->ns[i] / timed;
        w->wait_ns += w->wait_ns < 0 ? 0 : (double)r->waits[i] / timed;
        w->stored += t->stored / counted;
        w->temp += t->temp / counted;
        w->int_ops += t->int_ops / counted;
        w->float_ops += t->float_ops / counted;
        w->rows += t->rows / counted;
        w->row_bytes += t->row_bytes / counted;
        w->units += t->units / counted;
    }
    double stored = 0;
    for (uint32_t j = 0; j < n; j++)
        stored += g[j].w.stored;
    for (uint32_t j = 0; j < n; j++) {
        g[j].w.run_stored = stored;
        g[j].w.units /= g[j].w.steps;
        g[j].w.row_bytes = over(g[j].w.row_bytes, g[j].w.rows);
    }
    return n;
}

static void print_shape(const group *g, st_str *t)
{
    st_view_print(&g->shape, t);
    if (g->of.dtype) {
        st_str_add(t, " of ");
        st_view_print(&g->of, t);
    }
}

static void print_text(const group *g, uint32_t n, double sum, double floor, st_str *t)
{
    st_str_addf(t, "%-21s %5s %9s %6s %8s %8s %9s %9s  %-7s %5s  %s\n", "operator", "steps", "us", "time", "MB read", "cached",
                "MMAC", "Mflop", "limit", "of it", "why it is not faster; output, runs as");
    for (uint32_t i = 0; i < n; i++) {
        const st_roof_work *w = &g[i].w;
        st_str_addf(t, "%-21s %5.0f %9.1f %5.1f%% %8.3f %8.3f %9.3f %9.3f  %-7s %4.0f%%  %s; ", g[i].op->name, w->steps, 1e-3 * w->ns,
                    100 * over(w->ns, sum), 1e-6 * g[i].roof.bytes, 1e-6 * (w->stored + w->temp - g[i].roof.bytes), 1e-6 * w->int_ops, 1e-6 * w->float_ops, g[i].roof.limit,
                    100 * g[i].roof.share, g[i].roof.why);
        print_shape(&g[i], t);
        st_str_addf(t, ", %s\n", g[i].how);
    }
    st_str_addf(t, "%-21s %5s %9.1f\n", "sum", "", 1e-3 * sum);
    if (floor > 0)
        st_str_addf(t, "%-21s %5s %9.1f %5.1f%%\n", "each at its limit", "", 1e-3 * floor, 100 * over(floor, sum));
}

static void print_json(const group *g, uint32_t n, double sum, double floor, st_str *t)
{
    st_str_addf(t, "{\"us\": %.6g, \"floor_us\": %.6g, \"rows\": [", 1e-3 * sum, 1e-3 * floor);
    for (uint32_t i = 0; i < n; i++) {
        const st_roof_work *w = &g[i].w;
        st_str_addf(t, "%s\n      {\"op\": \"%s\", \"shape\": \"", i ? "," : "", g[i].op->name);
        print_shape(&g[i], t);
        st_str_addf(t, "\", \"runs_as\": \"%s\", \"steps\": %.0f, \"us\": %.6g, \"share_of_time\": %.4f, \"bytes\": %.6g, "
                       "\"temporary_bytes\": %.6g, \"int_ops\": %.6g, \"float_ops\": %.6g, \"units\": %.6g, \"rows\": %.6g, "
                       "\"limit\": \"%s\", \"share_of_limit\": %.4f, \"why\": \"%s\"}", g[i].how, w->steps, 1e-3 * w->ns,
                    over(w->ns, sum), g[i].roof.bytes, w->temp, w->int_ops, w->float_ops, w->units, w->rows, g[i].roof.limit,
                    g[i].roof.share, g[i].roof.why);
    }
    st_str_add(t, "]}");
}

setun_status setun_session_roofline(const setun_session *s, int32_t decode, const setun_limits *l, int32_t json,
                                    setun_write_fn *out, void *user, setun_error *err)
{
    int which = decode ? ST_ONE : ST_MANY, top = decode ? ST_TOP : ST_MANY_TOP;
    if (s->run[top].n_timed > s->run[which].n_timed)
        which = top;
    const st_runner *r = &s->run[which];
    if (!r->tally || !r->n_timed || !r->n_counted)
        return st_fail(err, SETUN_BAD_ARG, "%s was not both timed and counted: it needs two runs", decode ? "decode" : "prefill");
    group *g = calloc((size_t)r->n_run_step + 1, sizeof *g);
    st_str t = {0};
    double sum = 0, floor = 0;
    if (!g)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a roofline");
    uint32_t n = collect(s, which, g);
    for (uint32_t i = 0; i < n; i++) {
        st_roof_judge(&g[i].w, l, &g[i].roof);
        sum += g[i].w.ns;
        floor += g[i].roof.floor_ns < g[i].w.ns ? g[i].roof.floor_ns : g[i].w.ns;
    }
    qsort(g, n, sizeof *g, by_time);
    if (json)
        print_json(g, n, sum, floor, &t);
    else
        print_text(g, n, sum, floor, &t);
    setun_status status = t.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for a roofline")
                        : out(user, t.text ? t.text : "", t.len)
                        ? st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text") : SETUN_OK;
    st_str_free(&t);
    free(g);
    return status;
}

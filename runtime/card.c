/* runtime/card.c -- setun card: the page that a new packing needs to be believed.
 *
 *     what it is        its file, word for word
 *     picture, tests    runtime/check_packing.c
 *     in a model        are the logits' bits those of the built-in form?  If not: how far away are they?
 *     speed             one token times a matrix, in a cache and from memory, beside the built-in kernel
 *
 * The two kernels take turns, on one thread, and medians of five turns are told, and between which bounds the ratio
 * of neighbouring turns was: what else the machine does shows there.  Activations and weights are made up: no kernel's time depends on them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/html.h"
#include "graph/registry.h"
#include "runtime/divergence.h"
#include "runtime/packing.h"
#include "runtime/requantise.h"
#include "setun/packing.h"

#define FILE_LIMIT ((int64_t)1 << 20)
#define TOKENS 48        /* whose logits are compared */
#define COLUMNS 2560     /* of the matrix of the measurement; whole blocks of the built-in form */
#define ROWS_IN_CACHE 1024
#define ROWS_IN_MEMORY 98304 /* 63 MB in the built-in form */
#define TURNS 5
#define TURN_NS 4000000  /* at least, of each kernel in a turn */

/* What is written, as a page or as Markdown. */
typedef struct page {
    st_str out;
    int    html;
} page;

typedef struct card {
    const setun_card_options *o;
    st_arena    *arena;
    page         p;
    const st_script_packing *declared;
    setun_packing            form;
    const char  *file; /* without a packing's name */
} card;

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a card"); }

/* ---------------------------------------------------------------- pieces of a page */

static void add_text(page *p, const char *text)
{
    if (p->html)
        st_html_text(&p->out, text, SIZE_MAX);
    else
        st_str_add(&p->out, text);
}

static void add_heading(page *p, const char *title)
{
    st_str_addf(&p->out, p->html ? "<h2>%s</h2>\n" : "\n## %s\n\n", title);
}

static void add_paragraph(page *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_paragraph(page *p, const char *fmt, ...)
{
    st_str s = {0};
    va_list ap;
    va_start(ap, fmt);
    st_str_vaddf(&s, fmt, ap);
    va_end(ap);
    st_str_add(&p->out, p->html ? "<p>" : "");
    add_text(p, s.text ? s.text : "");
    st_str_add(&p->out, p->html ? "</p>\n" : "\n\n");
    p->out.failed |= s.failed;
    st_str_free(&s);
}

/* Lines as they are.  Markdown's fence must be longer than any row of backquotes in them. */
static void add_listing(page *p, const char *kind, const char *text)
{
    size_t most = 2, n = 0;
    for (const char *c = text; *c; c++) {
        n = *c == '`' ? n + 1 : 0;
        most = n > most ? n : most;
    }
    for (size_t i = 0; i <= most && !p->html; i++)
        st_str_add(&p->out, "`");
    st_str_addf(&p->out, p->html ? "<pre class=\"%s\">" : "%s\n", kind);
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        st_str one = {0};
        st_str_addn(&one, line, len);
        add_text(p, one.text ? one.text : "");
        st_str_add(&p->out, "\n");
        p->out.failed |= one.failed;
        st_str_free(&one);
        line += len + (line[len] == '\n');
    }
    for (size_t i = 0; i <= most && !p->html; i++)
        st_str_add(&p->out, "`");
    st_str_add(&p->out, p->html ? "</pre>\n" : "\n");
}

/* A row of a table whose first cell is text and whose others are short; first: the head. */
static void add_row(page *p, int first, const char *const *cell, int n)
{
    st_str_add(&p->out, p->html ? "<tr>" : "|");
    for (int i = 0; i < n; i++) {
        st_str_add(&p->out, p->html ? (first ? "<th>" : "<td>") : " ");
        add_text(p, cell[i]);
        st_str_add(&p->out, p->html ? (first ? "</th>" : "</td>") : " |");
    }
    st_str_add(&p->out, p->html ? "</tr>\n" : "\n");
    for (int i = 0; i < n && first && !p->html; i++)
        st_str_add(&p->out, i ? "--:|" : "|---|");
    st_str_add(&p->out, first && !p->html ? "\n" : "");
}

static setun_status say(const card *c, const char *what, setun_error *err)
{
    return c->o->progress && c->o->progress(c->o->user, what) ? st_fail(err, SETUN_CANCELLED, "cancelled; nothing was written") : SETUN_OK;
}

/* ---------------------------------------------------------------- what it is, and whether it is that */

static setun_status find(card *c, setun_error *err)
{
    char modules[4096], scripts[4096];
    st_registry *registry = NULL;
    st_script *script = NULL;
    ST_TRY(st_install_dirs(modules, scripts, sizeof scripts, err));
    setun_status st = st_registry_new(&registry, err);
    if (st == SETUN_OK)
        st = st_script_open(&script, scripts, registry, c->arena, NULL, err);
    if (st == SETUN_OK)
        st = st_packing_find(script, c->arena, c->o->packing, &c->file, &c->declared, err);
    if (st == SETUN_OK)
        st = setun_packing_read(&c->form, c->declared->text, err);
    st_script_close(script);
    st_registry_free(registry);
    return st;
}

static setun_status define(card *c, setun_error *err)
{
    char *text;
    int64_t n;
    ST_TRY(st_file_read(c->file, FILE_LIMIT, &text, &n, err));
    if (*c->declared->doc)
        add_paragraph(&c->p, "%s.", c->declared->doc);
    add_paragraph(&c->p, "%u weights in %u bytes: %.4f bits per weight%s.", c->form.digits, c->form.bytes, setun_packing_bits(&c->form),
                  c->form.row_scale ? ", and a scale for each row" : "");
    add_heading(&c->p, "Definition");
    add_listing(&c->p, "lua", text);
    free(text);
    return SETUN_OK;
}

static int keep(void *user, const char *text, size_t n)
{
    st_str *s = user;
    st_str_addn(s, text, n);
    return s->failed;
}

static setun_status test(card *c, int64_t *failed, setun_error *err)
{
    st_str s = {0};
    ST_TRY(say(c, "tests", err));
    setun_status st = setun_check(&c->file, 1, c->declared->name, c->o->run, failed, keep, &s, err);
    add_heading(&c->p, "Picture and tests");
    add_paragraph(&c->p, "Each byte of a unit from its highest bit down, as the columns whose digits it holds; then rows of 21 lengths and seeds, packed "
                         "and unpacked, and the kernels for one token, some and many against a scalar definition, bit for bit.");
    if (st == SETUN_OK)
        add_listing(&c->p, "text", s.text ? s.text : "");
    if (*failed)
        add_paragraph(&c->p, "%" PRId64 " tests FAILED.", *failed);
    else
        add_paragraph(&c->p, "No test failed.");
    st_str_free(&s);
    return st;
}

/* ---------------------------------------------------------------- in a model */

/* Rows of logits behind tokens of no meaning, malloc'ed. */
typedef struct sight {
    float    *logits;
    int64_t   n_vocab;
    uint64_t  hash;
    st_packed packed;
} sight;

static setun_status look(const setun_model *m, sight *s, setun_error *err)
{
    setun_session *session = NULL;
    const float *rows;
    int32_t id[TOKENS];
    s->n_vocab = m->n_vocab;
    s->packed = m->packed;
    s->packed.name = NULL; /* it lives as long as the model */
    for (int64_t i = 0; i < TOKENS; i++)
        id[i] = (int32_t)((i * 7919 + 17) % m->n_vocab);
    ST_TRY(setun_session_new(&session, m, err));
    setun_status st = setun_session_feed(session, id, TOKENS, SETUN_LOGITS_ALL, &rows, err);
    if (st == SETUN_OK && !(s->logits = malloc((size_t)(TOKENS * s->n_vocab) * sizeof *rows)))
        st = no_memory(err);
    if (st == SETUN_OK) {
        memcpy(s->logits, rows, (size_t)(TOKENS * s->n_vocab) * sizeof *rows);
        s->hash = setun_hash(0, rows, TOKENS * s->n_vocab);
    }
    setun_session_free(session);
    return st;
}

static setun_status load_and_look(const card *c, const char *packing, sight *s, setun_error *err)
{
    setun_options o = *c->o->run;
    setun_model *m = NULL;
    o.packing = packing;
    o.from_floats = packing && o.from_floats;
    o.n_outputs = TOKENS;
    ST_TRY(say(c, packing ? "the model in this packing" : "the model in the built-in form", err));
    setun_status st = setun_model_load(&m, c->o->model, &o, err);
    if (st == SETUN_OK)
        st = look(m, s, err);
    setun_model_free(m);
    return st;
}

static void compare(card *c, const sight *own, const sight *built_in)
{
    const st_packed *k = &own->packed;
    add_paragraph(&c->p, "%s: %" PRId64 " matrices, %" PRId64 " weights, %.4f bits each with what fills up the rows. %" PRId64 " weights (%.2f %%) "
                         "and %" PRId64 " of %" PRId64 " scales are changed by this packing.", c->o->model, k->n_matrix, k->weights,
                  8.0 * (double)k->bytes / (double)k->weights, k->changed, 100.0 * (double)k->changed / (double)k->weights,
                  k->scales_changed, k->scales);
    if (k->from_floats)
        add_paragraph(&c->p, "The weights were quantised again by the rule of this packing: the relative error (root mean square) is %.6g.",
                      st_requantise_error(k));
    if (own->hash == built_in->hash) {
        add_paragraph(&c->p, "Exact: the logits behind %d tokens have the same bits as in the built-in form, hash %016" PRIx64 ".", TOKENS, own->hash);
        return;
    }
    double kl = 0, log_p;
    int same, agree = 0;
    for (int64_t i = 0; i < TOKENS; i++) {
        kl += st_divergence(built_in->logits + i * own->n_vocab, own->logits + i * own->n_vocab, own->n_vocab, &log_p, &same);
        agree += same;
    }
    add_paragraph(&c->p, "Not exact: the logits behind %d tokens have the hash %016" PRIx64 ", and %016" PRIx64 " in the built-in form. Their mean "
                         "Kullback-Leibler divergence is %.4g, and the most probable token is the same for %d of them. The tokens are of no "
                         "meaning; setun lab measures perplexity and divergence on a text.", TOKENS, own->hash, built_in->hash,
                  kl / TOKENS, agree);
}

static setun_status in_model(card *c, setun_error *err)
{
    sight own = {0}, built_in = {0};
    add_heading(&c->p, "In a model");
    if (!c->o->model) {
        add_paragraph(&c->p, "No model was given, so nothing is said about what this packing does to one.");
        return SETUN_OK;
    }
    setun_status st = load_and_look(c, NULL, &built_in, err);
    if (st == SETUN_OK)
        st = load_and_look(c, c->o->packing, &own, err);
    if (st == SETUN_OK)
        compare(c, &own, &built_in);
    free(own.logits);
    free(built_in.logits);
    return st;
}

/* ---------------------------------------------------------------- speed */

typedef struct racer {
    st_case    k;
    setun_code code;
    int64_t    bytes, calls; /* of the weights; in one turn */
    double     ns[TURNS];    /* of one call, turn by turn */
} racer;

/* A matrix of one operator, and its kernel.  SETUN_DECLINED: there is no compiled one. */
static setun_status make_racer(racer *r, st_kernels *kernels, const char *op, const char *text, setun_error *err)
{
    const st_kernel *kernel;
    const setun_op *found = st_registry_find(kernels->engine->registry, op);
    ST_TRY(st_case_make(found, text, 1, kernels->arena, &r->k, err));
    r->bytes = setun_view_bytes(&r->k.run.in[3]);
    setun_status st = kernels->engine->compiles ? st_kernels_get(kernels, &r->k.shape, &kernel, err) : SETUN_DECLINED;
    if (st == SETUN_OK && kernel->interpreted)
        st = SETUN_DECLINED;
    if (st == SETUN_OK)
        r->code = kernel->code;
    return st;
}

static setun_status turn(racer *r, int64_t calls, double *ns, setun_error *err)
{
    int64_t start = st_now_ns();
    for (int64_t i = 0; i < calls; i++)
        ST_TRY(st_kernel_launch(&r->code, &r->k.run, 1, err));
    *ns = (double)(st_now_ns() - start) / (double)calls;
    return SETUN_OK;
}

static setun_status race(racer *r, setun_error *err)
{
    double ns;
    for (int i = 0; i < 2; i++) { /* the first call meets cold caches; the second says how many make a turn */
        ST_TRY(turn(&r[i], 1, &ns, err));
        ST_TRY(turn(&r[i], 1, &ns, err));
        r[i].calls = 1 + (int64_t)(TURN_NS / (ns + 1));
    }
    for (int t = 0; t < TURNS; t++)
        for (int i = 0; i < 2; i++)
            ST_TRY(turn(&r[i], r[i].calls, &r[i].ns[t], err));
    return SETUN_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* x[t] / y[t] of all turns, in order: what slows down one turn of both is no difference between them. */
static void in_order(const double *x, const double *y, double *out)
{
    for (int t = 0; t < TURNS; t++)
        out[t] = x[t] / (y ? y[t] : 1);
    qsort(out, TURNS, sizeof *out, by_value);
}

static void add_result(page *p, const char *where, const char *name, const racer *r, const racer *built_in, int64_t rows)
{
    char text[5][64];
    double ns[TURNS], speed[TURNS];
    in_order(r->ns, NULL, ns);
    in_order(built_in->ns, r->ns, speed);
    (void)snprintf(text[0], sizeof text[0], "%.2f MB", 1e-6 * (double)r->bytes);
    (void)snprintf(text[1], sizeof text[1], "%.2f", (double)r->bytes / ns[TURNS / 2]);
    (void)snprintf(text[2], sizeof text[2], "%.1f", (double)(rows * COLUMNS) / ns[TURNS / 2]);
    (void)snprintf(text[3], sizeof text[3], "%.2f", speed[TURNS / 2]);
    (void)snprintf(text[4], sizeof text[4], "%.2f to %.2f", speed[0], speed[TURNS - 1]);
    const char *const cell[] = {where, name, text[0], text[1], text[2], text[3], text[4]};
    add_row(p, 0, cell, 7);
}

static setun_status race_at(card *c, st_kernels *kernels, const char *where, int64_t rows, setun_error *err)
{
    racer r[2];
    char mine[512 + SETUN_PACKING_TEXT], theirs[256];
    memset(r, 0, sizeof r);
    (void)snprintf(mine, sizeof mine, "q:i8[1,%d] scale:f32[1] sum:i32[1] w:u8[%" PRId64 ",%" PRId64 "] ws:f32[1] columns=%d packing=\"%s\"", COLUMNS,
                   rows, setun_packing_row_bytes(&c->form, COLUMNS), COLUMNS, c->declared->text);
    (void)snprintf(theirs, sizeof theirs, "q:i8[1,%d] scale:f32[1] sum:i32[1] w:t2[%" PRId64 ",%d] ws:f32[1]", COLUMNS, rows, COLUMNS);
    ST_TRY(say(c, where, err));
    ST_TRY(make_racer(&r[0], kernels, "packed_matmul", mine, err));
    ST_TRY(make_racer(&r[1], kernels, "ternary_matmul", theirs, err));
    ST_TRY(race(r, err));
    add_result(&c->p, where, c->declared->name, &r[0], &r[1], rows);
    add_result(&c->p, where, "built in", &r[1], &r[1], rows);
    return SETUN_OK;
}

static setun_status race_all(card *c, st_engine *e, setun_error *err)
{
    static const char *const head[] = {"weights", "packing", "bytes", "GB/s", "10^9 weights/s", "times the built-in speed", "least to most"};
    st_kernels *kernels;
    ST_TRY(st_kernels_new(&kernels, e, c->arena, err));
    add_heading(&c->p, "Speed on this machine");
    if (!e->compiles) {
        add_paragraph(&c->p, "Not measured: kernels are not compiled here, and how fast they are interpreted says nothing.");
        return SETUN_OK;
    }
    add_paragraph(&c->p, "One token times a matrix of %d columns, on one thread of %s with %s. The two kernels take turns; medians of %d.",
                  COLUMNS, e->cpu.name, st_engine_isa(e), TURNS);
    st_str_add(&c->p.out, c->p.html ? "<table>\n" : "");
    add_row(&c->p, 1, head, 7);
    ST_TRY(race_at(c, kernels, "in a cache", ROWS_IN_CACHE, err));
    ST_TRY(race_at(c, kernels, "from memory", ROWS_IN_MEMORY, err));
    st_str_add(&c->p.out, c->p.html ? "</table>\n" : "\n");
    int64_t least = setun_packing_row_bytes(&c->form, COLUMNS) * ROWS_IN_MEMORY;
    if (e->cpu.l3_bytes > least)
        add_paragraph(&c->p, "The third-level cache of this machine has %.0f MB, so \"from memory\" may be from there: other programs share it.",
                      1e-6 * (double)e->cpu.l3_bytes);
    return SETUN_OK;
}

static setun_status measure(card *c, setun_error *err)
{
    st_engine *e;
    ST_TRY(st_engine_open(&e, c->o->run, err));
    setun_status st = race_all(c, e, err);
    st_engine_close(e);
    return st == SETUN_DECLINED ? st_fail(err, SETUN_UNKNOWN, "the kernels of %s were not compiled, so their speed cannot be told", c->declared->name) : st;
}

/* ---------------------------------------------------------------- the whole */

static void begin_page(card *c)
{
    static const char style[] =
        "pre{background:#f6f6f6;border:1px solid #ddd;padding:8px;overflow-x:auto}table{border-collapse:collapse}\n"
        "td,th{border:1px solid #ccc;padding:3px 8px;text-align:right}\n"
        "td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}\n";
    const char *name = c->declared->name;
    if (!c->p.html) {
        st_str_addf(&c->p.out, "# %s\n\n", name);
        return;
    }
    st_html_begin(&c->p.out, name, style);
}

static setun_status write_all(card *c, int64_t *failed, setun_error *err)
{
    ST_TRY(find(c, err));
    begin_page(c);
    ST_TRY(define(c, err));
    ST_TRY(test(c, failed, err));
    ST_TRY(in_model(c, err));
    ST_TRY(measure(c, err));
    add_paragraph(&c->p, "Made by setun card %s, Setun %s.", c->o->packing, SETUN_VERSION);
    st_str_add(&c->p.out, c->p.html ? "</body></html>\n" : "");
    return c->p.out.failed ? no_memory(err) : SETUN_OK;
}

setun_status setun_card(const setun_card_options *o, int64_t *failed, setun_write_fn *write, void *user, setun_error *err)
{
    card c = {.o = o, .p = {.html = o->html}};
    *failed = 0;
    if (!(c.arena = st_arena_new()))
        return no_memory(err);
    setun_status st = write_all(&c, failed, err);
    if (st == SETUN_OK && o->out)
        st = st_file_write(o->out, c.p.out.text, (int64_t)c.p.out.len, 0, err);
    else if (st == SETUN_OK && write(user, c.p.out.text, c.p.out.len))
        st = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    st_str_free(&c.p.out);
    st_arena_free(c.arena);
    return st;
}

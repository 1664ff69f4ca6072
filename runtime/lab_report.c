/* runtime/lab_report.c -- what an experiment has found: a table, and a page of HTML with drawings.
 *
 * The page is well-formed XML and needs nothing but a browser: no scripts, nothing from elsewhere.  A drawing is
 * one <svg>; its axes are chosen so that every number is inside.  What was not measured is not drawn:
 *
 *     bits against perplexity      errors of layers, log scale        speeds, with least and most
 *       |      x base3               |     ___----  q8                  base3  ======|-
 *       | x base                     |__---                             base   =======|--
 *       +---------                   +---------- */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/html.h"
#include "runtime/lab.h"

#define WIDTH 860
#define HEIGHT 340
#define LEFT 90    /* of the area where numbers are drawn */
#define RIGHT 560  /* names stand behind it */
#define TOP 20
#define BOTTOM 290
#define ROW 18     /* of bars, and of names */
#define MOST_SHOWN 30 /* characters of a name in a drawing; of those that are not ASCII half as many, because they may be wider */

static const char *const colours[] = {"#1f5fa8", "#d9822b", "#2e8b57", "#b03060", "#6a4fa3", "#8a6d3b", "#008b8b", "#555555"};
#define N_COLOURS ((int32_t)(sizeof colours / sizeof colours[0]))

/* Columns of the table: whose value, shown as value * times with so many digits behind the point, or below 0
 * that many that count. */
static const struct column {
    int         measure;
    const char *value, *title;
    double      times;
    int         digits;
} columns[] = {
    {ST_LAB_SIZE, "bits_per_weight", "bits/weight", 1, 4},
    {ST_LAB_SIZE, "bytes_per_token", "MB/token", 1e-6, 3},
    {ST_LAB_SIZE, "weights_changed", "changed", 1, 0},
    {ST_LAB_SIZE, "weights_error", "error %", 100, 2},
    {ST_LAB_PERPLEXITY, "ppl", "perplexity", 1, 5},
    {ST_LAB_PERPLEXITY, "error", "+/-", 1, 4},
    {ST_LAB_KL, "kl", "KL", 1, -4},
    {ST_LAB_KL, "same_top", "same top %", 100, 2},
    {ST_LAB_LAYERS, "worst_layer", "worst layer", 1, -3},
    {ST_LAB_LAYERS, "logits", "logits", 1, -3},
    {ST_LAB_SPEED, "prefill_tokens_s", "prefill/s", 1, 1},
    {ST_LAB_SPEED, "prefill_ratio", "to base", 1, 2},
    {ST_LAB_SPEED, "decode_tokens_s", "decode/s", 1, 1},
    {ST_LAB_SPEED, "decode_ratio", "to base", 1, 2},
};
#define N_COLUMNS (sizeof columns / sizeof columns[0])

static int get(const st_lab_run *r, int32_t variant, int measure, const char *name, double *x)
{
    return st_lab_result_get(st_lab_at(r, variant, measure), name, x);
}

static const char *name_of(const st_lab_run *r, int32_t variant) { return r->l->x->variant[variant].name; }

static const char *colour_of(int32_t variant) { return colours[variant % N_COLOURS]; }

/* ---------------------------------------------------------------- the table */

static int is_column(const st_lab_run *r, const struct column *c) { return (int)(r->l->x->measure >> c->measure & 1); }

/* "-": not measured, or of what compares with the base, the base itself. */
static void cell(const st_lab_run *r, int32_t variant, const struct column *c, char *text, size_t cap)
{
    double x;
    if (!get(r, variant, c->measure, c->value, &x))
        (void)snprintf(text, cap, "-");
    else if (c->digits < 0)
        (void)snprintf(text, cap, "%.*g", -c->digits, c->times * x);
    else
        (void)snprintf(text, cap, "%.*f", c->digits, c->times * x);
}

void st_lab_table(const st_lab_run *r, st_str *out)
{
    int width = 8;
    for (int32_t i = 0; i < r->l->x->n_variant; i++)
        if ((int)strlen(name_of(r, i)) > width)
            width = (int)strlen(name_of(r, i));
    st_str_addf(out, "%-*s", width, "variant");
    for (size_t k = 0; k < N_COLUMNS; k++)
        if (is_column(r, &columns[k]))
            st_str_addf(out, "  %11s", columns[k].title);
    st_str_add(out, "\n");
    for (int32_t i = 0; i < r->l->x->n_variant; i++) {
        st_str_addf(out, "%-*s", width, name_of(r, i));
        for (size_t k = 0; k < N_COLUMNS; k++) {
            char text[40];
            if (!is_column(r, &columns[k]))
                continue;
            cell(r, i, &columns[k], text, sizeof text);
            st_str_addf(out, "  %11s", text);
        }
        st_str_add(out, "\n");
    }
}

static void add_table(const st_lab_run *r, st_str *out)
{
    st_str_add(out, "<table>\n<tr><th>variant</th>");
    for (size_t k = 0; k < N_COLUMNS; k++)
        if (is_column(r, &columns[k]))
            st_str_addf(out, "<th>%s</th>", columns[k].title);
    for (int32_t i = 0; i < r->l->x->n_variant; i++) {
        st_str_add(out, "</tr>\n<tr><td>");
        st_html_text(out, name_of(r, i), 100);
        st_str_add(out, i == r->l->x->base ? " (base)</td>" : "</td>");
        for (size_t k = 0; k < N_COLUMNS; k++) {
            char text[40];
            if (!is_column(r, &columns[k]))
                continue;
            cell(r, i, &columns[k], text, sizeof text);
            st_str_addf(out, "<td>%s</td>", text);
        }
    }
    st_str_add(out, "</tr>\n</table>\n");
}

/* ---------------------------------------------------------------- axes */

/* Numbers from low to high on the page's from..to, with a line every step. */
typedef struct axis {
    double low, high, step;
    int    from, to;
} axis;

/* The smallest of 1, 2, 5, 10, 20 ... with which at most `most` lines are drawn. */
static double step_for(double range, int most)
{
    static const double next[] = {2, 2.5, 2};
    double step = 1e-12;
    for (int i = 0; i < 90 && range / step > most; i++)
        step *= next[i % 3];
    return step;
}

static axis axis_for(double low, double high, int from, int to)
{
    double room = high > low ? 0.08 * (high - low) : high != 0 ? 0.08 * fabs(high) : 1;
    axis a = {low - room, high + room, 0, from, to};
    a.step = step_for(a.high - a.low, 6);
    return a;
}

static double place(const axis *a, double x)
{
    return a->from + (a->to - a->from) * ((x - a->low) / (a->high - a->low));
}

static void add_line(st_str *out, const char *class, double x1, double y1, double x2, double y2)
{
    st_str_addf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", class, x1, y1, x2, y2);
}

static void add_text(st_str *out, const char *anchor, double x, double y, const char *text)
{
    size_t most = MOST_SHOWN;
    for (const char *c = text; *c; c++)
        most = (unsigned char)*c < 0x80 ? most : MOST_SHOWN / 2;
    st_str_addf(out, "<text text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">", anchor, x, y);
    st_html_text(out, text, most);
    st_str_add(out, "</text>\n");
}

/* Lines across, each with its number; log: numbers are powers of ten, and the lowest line is that of zeros. */
static void add_axis(st_str *out, const axis *a, int across, int log)
{
    char text[32];
    for (double k = ceil(a->low / a->step); k * a->step <= a->high; k += 1) {
        double at = place(a, k * a->step);
        (void)snprintf(text, sizeof text, log ? "1e%.0f" : "%.6g", k * a->step == 0 ? 0.0 : k * a->step);
        if (log && k * a->step <= a->low)
            (void)snprintf(text, sizeof text, "0");
        add_line(out, "grid", across ? LEFT : at, across ? at : TOP, across ? RIGHT : at, across ? at : BOTTOM);
        add_text(out, across ? "end" : "middle", across ? LEFT - 8 : at, across ? at + 4 : BOTTOM + 16, text);
    }
}

static void begin_drawing(st_str *out, const char *title, int height)
{
    st_str_addf(out, "<h2>%s</h2>\n", title);
    st_html_drawing(out, title, WIDTH, height);
}

/* Which colour is whose, of all that are drawn. */
static void add_names(const st_lab_run *r, int measure, st_str *out)
{
    int y = TOP;
    for (int32_t i = 0; i < r->l->x->n_variant; i++) {
        if (!st_lab_at(r, i, measure)->n)
            continue;
        st_str_addf(out, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"4\" fill=\"%s\"/>", RIGHT + 14, y + 8, colour_of(i));
        add_text(out, "start", RIGHT + 34, y + 14, name_of(r, i));
        y += ROW;
    }
}

/* Tall enough for all names. */
static int height_for(const st_lab_run *r)
{
    int names = TOP + ROW * (r->l->x->n_variant + 1);
    return names > HEIGHT ? names : HEIGHT;
}

/* ---------------------------------------------------------------- drawings */

/* Perplexity over bits per weight, with its standard error.  Rings of several sizes: equal ones show, too. */
static void draw_quality(const st_lab_run *r, st_str *out)
{
    double bits, ppl, error, low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int32_t i = 0; i < r->l->x->n_variant; i++)
        if (get(r, i, ST_LAB_SIZE, "bits_per_weight", &bits) && get(r, i, ST_LAB_PERPLEXITY, "ppl", &ppl) &&
            get(r, i, ST_LAB_PERPLEXITY, "error", &error)) {
            low[0] = fmin(low[0], bits);
            high[0] = fmax(high[0], bits);
            low[1] = fmin(low[1], ppl - error);
            high[1] = fmax(high[1], ppl + error);
        }
    if (!(low[0] <= high[0]))
        return;
    axis x = axis_for(low[0], high[0], LEFT, RIGHT), y = axis_for(low[1], high[1], BOTTOM, TOP);
    begin_drawing(out, "Bits per weight and perplexity", height_for(r));
    add_axis(out, &x, 0, 0);
    add_axis(out, &y, 1, 0);
    add_text(out, "middle", (LEFT + RIGHT) / 2, BOTTOM + 36, "bits per ternary weight");
    add_text(out, "end", LEFT - 8, TOP - 8, "perplexity");
    for (int32_t i = 0; i < r->l->x->n_variant; i++)
        if (get(r, i, ST_LAB_SIZE, "bits_per_weight", &bits) && get(r, i, ST_LAB_PERPLEXITY, "ppl", &ppl) &&
            get(r, i, ST_LAB_PERPLEXITY, "error", &error)) {
            st_str_addf(out, "<g class=\"point\" stroke=\"%s\"><title>", colour_of(i));
            st_html_text(out, name_of(r, i), 100);
            st_str_addf(out, ": %.4f bits, perplexity %.5f +/- %.4f</title>", bits, ppl, error);
            add_line(out, "error", place(&x, bits), place(&y, ppl - error), place(&x, bits), place(&y, ppl + error));
            st_str_addf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"/></g>\n", place(&x, bits), place(&y, ppl), 4 + 2 * (i % 4));
        }
    add_names(r, ST_LAB_PERPLEXITY, out);
    st_str_add(out, "</svg>\n");
}

/* Errors over many powers of ten; those that are 0 have no place there and lie on the lowest line, drawn for them. */
static void draw_layers(const st_lab_run *r, st_str *out)
{
    double low = INFINITY, high = -INFINITY;
    int64_t most = 0;
    for (int32_t i = 0; i < r->l->x->n_variant; i++) {
        const st_lab_result *row = st_lab_at(r, i, ST_LAB_LAYERS);
        most = row->n_layer > most ? row->n_layer : most;
        for (int64_t k = 0; k < row->n_layer; k++)
            if (row->layer[k] > 0) {
                low = fmin(low, log10(row->layer[k]));
                high = fmax(high, log10(row->layer[k]));
            }
    }
    if (!most)
        return;
    low = low > high ? -1 : floor(low) - 1; /* the line of zeros is a power of ten below the others */
    high = high < low ? 0 : ceil(high);
    axis x = {-0.5, (double)most - 0.5, step_for((double)most, 12), LEFT, RIGHT}, y = {low, high, step_for(high - low, 8), BOTTOM, TOP};
    x.step = fmax(x.step, 1);
    y.step = fmax(ceil(y.step), 1);
    y.low = y.step * floor(low / y.step); /* so that a line is drawn there */
    begin_drawing(out, "Error of what leaves each layer, against the base", height_for(r));
    add_axis(out, &x, 0, 0);
    add_axis(out, &y, 1, 1);
    add_text(out, "middle", (LEFT + RIGHT) / 2, BOTTOM + 36, "layer");
    for (int32_t i = 0; i < r->l->x->n_variant; i++) {
        const st_lab_result *row = st_lab_at(r, i, ST_LAB_LAYERS);
        if (!row->n_layer)
            continue;
        st_str_addf(out, "<g class=\"layers\"><title>");
        st_html_text(out, name_of(r, i), 100);
        st_str_addf(out, "</title><polyline stroke=\"%s\" points=\"", colour_of(i));
        for (int64_t k = 0; k < row->n_layer; k++)
            st_str_addf(out, "%s%.1f,%.1f", k ? " " : "", place(&x, (double)k), place(&y, row->layer[k] > 0 ? log10(row->layer[k]) : y.low));
        st_str_add(out, "\"/></g>\n");
    }
    add_names(r, ST_LAB_LAYERS, out);
    st_str_add(out, "</svg>\n");
}

/* A bar for each variant, to its median, with a line from least to most. */
static void draw_speed(const st_lab_run *r, const char *what, const char *title, st_str *out)
{
    char name[3][32];
    double speed, least, most, high = 0;
    int32_t n = r->l->x->n_variant;
    (void)snprintf(name[0], sizeof name[0], "%s_tokens_s", what);
    (void)snprintf(name[1], sizeof name[1], "%s_least", what);
    (void)snprintf(name[2], sizeof name[2], "%s_most", what);
    for (int32_t i = 0; i < n; i++)
        if (get(r, i, ST_LAB_SPEED, name[2], &most))
            high = fmax(high, most);
    if (!(high > 0))
        return;
    const axis x = {0, high, 1, 260, 700};
    begin_drawing(out, title, TOP + ROW * n + 8);
    for (int32_t i = 0; i < n; i++) {
        double top = TOP + (double)ROW * i;
        char text[48];
        if (!get(r, i, ST_LAB_SPEED, name[0], &speed) || !get(r, i, ST_LAB_SPEED, name[1], &least) || !get(r, i, ST_LAB_SPEED, name[2], &most))
            continue;
        add_text(out, "end", 250, top + 12, name_of(r, i));
        st_str_addf(out, "<rect class=\"bar\" x=\"260\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>", top, place(&x, speed) - 260,
                    ROW - 5, colour_of(i));
        add_line(out, "error", place(&x, least), top + 6, place(&x, most), top + 6);
        (void)snprintf(text, sizeof text, "%.1f", speed);
        add_text(out, "start", 710, top + 12, text);
    }
    st_str_add(out, "</svg>\n");
}

/* ---------------------------------------------------------------- the page */

static void add_fact(st_str *out, const char *name, const char *value)
{
    st_str_addf(out, "%s ", name);
    st_html_text(out, value ? value : "none", 400);
    st_str_add(out, "<br/>\n");
}

static void add_conditions(const st_lab_run *r, st_str *out)
{
    const st_script_lab *x = r->l->x;
    double tokens, window, threads;
    st_str_add(out, "<p>");
    add_fact(out, "Experiment:", r->l->file);
    add_fact(out, "Model:", x->model);
    add_fact(out, "Text:", x->text);
    if (get(r, x->base, ST_LAB_PERPLEXITY, "tokens", &tokens) && get(r, x->base, ST_LAB_PERPLEXITY, "window", &window))
        st_str_addf(out, "Perplexity: %.0f tokens in windows of %.0f, convention %s.<br/>\n", tokens, window,
                    x->convention ? x->convention : "disjoint");
    if (x->measure >> ST_LAB_LAYERS & 1)
        st_str_addf(out, "Layers: the first %" PRId64 " tokens; the difference to the base as a share of the longer of the two.<br/>\n", x->tokens);
    if (get(r, x->base, ST_LAB_SPEED, "threads", &threads))
        st_str_addf(out, "Speeds: %.0f threads, %" PRId64 " tokens of prefill, then %" PRId64 " of decoding; medians of %" PRId64
                    " runs, with least and most. Variants took turns; ratios are of neighbouring turns.<br/>\n",
                    threads, x->prefill, x->decode, x->runs);
    st_str_addf(out, "Setun %s. All numbers but speeds are the same in every run.</p>\n", SETUN_VERSION);
}

void st_lab_html(const st_lab_run *r, st_str *out)
{
    static const char style[] =
        "table{display:block;overflow-x:auto;border-collapse:collapse;white-space:nowrap}td,th{border:1px solid #ccc;padding:3px 6px;text-align:right}\n"
        "td:first-child,th:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:8em}\n"
        ".grid{stroke:#e2e2e2}.error{stroke:#222}.point .error{stroke:inherit}circle{fill:none;stroke-width:2}\n"
        ".bar{fill-opacity:.5}polyline{fill:none;stroke-width:2}\n";
    st_html_begin(out, r->l->file, style);
    add_conditions(r, out);
    add_table(r, out);
    draw_quality(r, out);
    draw_layers(r, out);
    draw_speed(r, "prefill", "Prefill, tokens per second", out);
    draw_speed(r, "decode", "Decoding, tokens per second", out);
    st_str_add(out, "</body></html>\n");
}

/* runtime/tracediff.c -- setun tracediff: two traces, or a trace and another implementation's NumPy files.
 *
 * Tensors are compared in the order in which the first trace made them, so the first that differs is where the two
 * part: what comes behind it differs because of it, or does not matter.  A map says which file of the other side
 * holds what, a line each; '*' stands for the same digits on both sides:
 *
 *     # ours               theirs
 *     token_embd           embed_tokens
 *     blk.*.attn_q         layers.*.self_attn.q_proj.npy */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/table.h"
#include "model/npy.h"
#include "model/trace_index.h"
#include "setun/setun.h"

#define MAP_LIMIT (1 << 20)
#define MOST_STARS 8

/* What one pair of tensors came to. */
typedef struct row {
    const char *name, *other; /* in both; NULL: there is none */
    const st_trace_tensor *a; /* NULL: only in the second */
    int     differs, shapes, types; /* in anything; in sizes (then no value was compared); in element type */
    int64_t count, values, nan, first; /* elements; those that differ; of these, NaN on one side only; the first one */
    double  x, y, max_abs, max_rel, rms, cosine;
    char    text_a[48], text_b[48]; /* "f4[5,256]" */
} row;

/* A line of the map. */
typedef struct rule {
    const char *from, *to;
    int64_t     line, used;
} rule;

typedef struct pair {
    const setun_tracediff_options *o;
    st_arena      *arena;
    st_trace_index a, b;
    int            b_is_trace;
    rule          *rule;
    int64_t        n_rule;
    row           *row;
    int64_t        n, compared, differ, skipped;
} pair;

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory to compare traces"); }

/* ---------------------------------------------------------------- the map */

static setun_status read_line(pair *p, char *line, int64_t number, setun_error *err)
{
    static const char space[] = " \t\r";
    char *rest = line + strspn(line, space), *word[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3 && *rest && *rest != '#'; i++) {
        word[i] = rest;
        rest += strcspn(rest, space);
        if (*rest)
            *rest++ = 0;
        rest += strspn(rest, space);
    }
    if (!word[0])
        return SETUN_OK;
    if (!word[1] || word[2])
        return st_fail(err, SETUN_BAD_FILE, "%s, line %" PRId64 ": a line has two words, a tensor's name and the other's file", p->o->map, number);
    int stars[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        for (const char *c = word[i]; *c; c++)
            stars[i] += *c == '*';
    if (stars[0] > MOST_STARS)
        return st_fail(err, SETUN_BAD_FILE, "%s, line %" PRId64 ": more than %d stars", p->o->map, number, MOST_STARS);
    if (stars[0] != stars[1])
        return st_fail(err, SETUN_BAD_FILE, "%s, line %" PRId64 ": %d stars on the left, %d on the right", p->o->map, number, stars[0], stars[1]);
    p->rule[p->n_rule++] = (rule){word[0], word[1], number, 0};
    return SETUN_OK;
}

static setun_status read_map(pair *p, setun_error *err)
{
    char *text;
    int64_t bytes, lines = 1;
    if (!p->o->map)
        return SETUN_OK;
    ST_TRY(st_file_read(p->o->map, MAP_LIMIT, &text, &bytes, err));
    int plain = st_text_plain(text, (size_t)bytes);
    char *kept = st_arena_strndup(p->arena, text, (size_t)bytes);
    free(text);
    if (!kept)
        return no_memory(err);
    if (!plain)
        return st_fail(err, SETUN_BAD_FILE, "%s: not a plain text in UTF-8", p->o->map);
    for (const char *c = kept; *c; c++)
        lines += *c == '\n';
    p->rule = st_arena_array(p->arena, lines, sizeof *p->rule);
    if (!p->rule)
        return no_memory(err);
    int64_t number = 1;
    for (char *line = kept; line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = 0;
        ST_TRY(read_line(p, line, number, err));
        line = end;
    }
    return p->n_rule ? SETUN_OK : st_fail(err, SETUN_BAD_FILE, "%s: there is no line in it", p->o->map);
}

/* What the rule makes of a name, in the arena; NULL: it is not for it. */
static const char *apply(const rule *r, const char *name, st_arena *arena)
{
    const char *digits[MOST_STARS]; /* as many as read_line has let through */
    size_t n_digit[MOST_STARS];
    int n = 0, k = 0;
    for (const char *f = r->from; *f; f++) {
        if (*f != '*') {
            if (*f != *name++)
                return NULL;
            continue;
        }
        n_digit[n] = strspn(name, "0123456789");
        if (!n_digit[n])
            return NULL;
        digits[n] = name;
        name += n_digit[n++];
    }
    if (*name)
        return NULL;
    st_str s = {0};
    for (const char *t = r->to; *t; t++) {
        if (*t == '*') {
            st_str_addn(&s, digits[k], n_digit[k]);
            k++;
        } else {
            st_str_addn(&s, t, 1);
        }
    }
    const char *made = s.failed ? NULL : st_arena_strndup(arena, s.text ? s.text : "", s.len);
    st_str_free(&s);
    return made;
}

/* ---------------------------------------------------------------- one pair */

static void describe(const st_npy *a, char *text, size_t cap)
{
    size_t n = (size_t)snprintf(text, cap, "%c%" PRIu32 "[", a->kind, a->width);
    for (uint32_t i = 0; i < a->rank && n < cap; i++)
        n += (size_t)snprintf(text + n, cap - n, "%s%" PRId64, i ? "," : "", a->dim[i]);
    if (n < cap)
        (void)snprintf(text + n, cap - n, "]");
}

/* Sides of 1 say nothing: other implementations have one for the batch. */
static int same_shape(const st_npy *a, const st_npy *b)
{
    uint32_t i = 0, k = 0;
    for (;; i++, k++) {
        while (i < a->rank && a->dim[i] == 1)
            i++;
        while (k < b->rank && b->dim[k] == 1)
            k++;
        if (i == a->rank || k == b->rank)
            return i == a->rank && k == b->rank;
        if (a->dim[i] != b->dim[k])
            return 0;
    }
}

static double largest_of(const st_npy *a)
{
    double most = 0;
    for (int64_t i = 0; i < a->count; i++) {
        double x = fabs(st_npy_at(a, i));
        most = x > most && isfinite(x) ? x : most;
    }
    return most;
}

/* All elements.  A NaN against a number always differs; in the sums are finite numbers only. */
static void compare_values(const pair *p, const st_npy *a, const st_npy *b, row *r)
{
    int bits = p->o->tolerance <= 0 && a->kind == b->kind && a->width == b->width && a->order == b->order;
    double allowed = p->o->tolerance > 0 ? p->o->tolerance * largest_of(a) : 0, square = 0, xy = 0, xx = 0, yy = 0;
    int64_t finite = 0;
    for (int64_t i = 0; i < a->count; i++) {
        double x = st_npy_at(a, i), y = st_npy_at(b, i);
        int one_nan = isnan(x) != 0 ? !isnan(y) : isnan(y) != 0;
        double by = x == y || (isnan(x) && isnan(y)) ? 0 : one_nan ? 0 : fabs(x - y), most = fmax(fabs(x), fabs(y));
        int differs = bits ? memcmp(a->data + i * a->width, b->data + i * b->width, a->width) != 0 : one_nan || by > allowed;
        if (differs && r->values++ == 0) {
            r->first = i;
            r->x = x;
            r->y = y;
        }
        r->nan += one_nan;
        r->max_abs = by > r->max_abs ? by : r->max_abs;
        if (by > 0)
            r->max_rel = fmax(r->max_rel, isinf(most) ? INFINITY : by / most);
        if (!isfinite(x) || !isfinite(y))
            continue;
        finite++;
        square += by * by;
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    r->rms = finite ? sqrt(square / (double)finite) : 0;
    r->cosine = xx > 0 && yy > 0 ? xy / (sqrt(xx) * sqrt(yy)) : xx == yy ? 1 : 0;
}

/* The index is only believed where the file agrees. */
static setun_status check_index(const st_trace_tensor *t, const st_npy *a, const char *path, setun_error *err)
{
    int same = t->rank == a->rank;
    for (uint32_t i = 0; i < t->rank && same; i++)
        same = t->dim[i] == a->dim[i];
    return same ? SETUN_OK : st_fail(err, SETUN_BAD_FILE, "%s has another shape than " ST_TRACE_INDEX " says", path);
}

/* For how much a type that is another counts, the tolerance says: with one, values alone do. */
static setun_status compare_files(const pair *p, const char *file_a, const char *file_b, row *r, setun_error *err)
{
    st_npy a, b;
    ST_TRY(st_npy_open(&a, file_a, err));
    setun_status st = check_index(r->a, &a, file_a, err);
    if (st == SETUN_OK)
        st = st_npy_open(&b, file_b, err);
    if (st != SETUN_OK) {
        st_npy_close(&a);
        return st;
    }
    describe(&a, r->text_a, sizeof r->text_a);
    describe(&b, r->text_b, sizeof r->text_b);
    r->count = a.count;
    r->types = a.kind != b.kind || a.width != b.width;
    r->shapes = !same_shape(&a, &b);
    int equal = !r->shapes && !r->types && a.order == b.order && (!a.count || memcmp(a.data, b.data, (size_t)a.count * a.width) == 0);
    r->cosine = 1;
    if (!equal && !r->shapes)
        compare_values(p, &a, &b, r);
    r->differs = r->shapes || r->values || (r->types && p->o->tolerance <= 0);
    st_npy_close(&b);
    st_npy_close(&a);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- which pairs */

static const char *path_of(const pair *p, const char *dir, const char *name)
{
    size_t n = strlen(name);
    int has_end = n > 4 && strcmp(name + n - 4, ".npy") == 0;
    return st_arena_printf(p->arena, "%s/%s%s", dir, name, has_end ? "" : ".npy");
}

/* The name on the other side; "" if the map has none. */
static const char *other_name(pair *p, const char *name)
{
    for (int64_t i = 0; i < p->n_rule; i++) {
        const char *to = apply(&p->rule[i], name, p->arena);
        if (to) {
            p->rule[i].used++;
            return to;
        }
    }
    return p->n_rule ? "" : name;
}

static row *add_row(pair *p, const st_trace_tensor *a, const char *name, const char *other)
{
    row *r = &p->row[p->n++];
    *r = (row){.name = name, .other = other, .a = a};
    return r;
}

static setun_status compare_tensor(pair *p, const st_trace_tensor *t, setun_error *err)
{
    const char *other = other_name(p, t->name);
    if (!*other) {
        p->skipped++;
        return SETUN_OK;
    }
    const char *file_a = path_of(p, p->o->a, t->name), *file_b = path_of(p, p->o->b, other);
    if (!file_a || !file_b)
        return no_memory(err);
    if (!st_is_absent(file_b)) {
        row *r = add_row(p, t, t->name, other);
        p->compared++;
        return compare_files(p, file_a, file_b, r, err);
    }
    if (p->n_rule)
        return st_fail(err, SETUN_BAD_ARG, "%s says that %s is %s, and there is no such file", p->o->map, t->name, file_b);
    if (p->b_is_trace && !p->o->common)
        add_row(p, t, t->name, NULL)->differs = 1;
    else
        p->skipped++;
    return SETUN_OK;
}

/* Names that only the second trace has. */
static setun_status list_others(pair *p, setun_error *err)
{
    st_table *names = st_table_new(p->a.n);
    int64_t at;
    int bad = !names;
    for (int64_t i = 0; i < p->a.n && !bad; i++)
        bad = st_table_put(names, p->a.tensor[i].name, strlen(p->a.tensor[i].name), i) != 0;
    for (int64_t i = 0; i < p->b.n && !bad; i++)
        if (!st_table_get(names, p->b.tensor[i].name, strlen(p->b.tensor[i].name), &at))
            add_row(p, NULL, p->b.tensor[i].name, p->b.tensor[i].name)->differs = 1;
    st_table_free(names);
    return bad ? no_memory(err) : SETUN_OK;
}

static setun_status compare_all(pair *p, setun_error *err)
{
    const setun_tracediff_options *o = p->o;
    p->row = st_arena_array(p->arena, p->a.n + p->b.n + 1, sizeof *p->row);
    if (!p->row)
        return no_memory(err);
    for (int64_t i = 0; i < p->a.n; i++) {
        if (o->progress && o->progress(o->user, i, p->a.n))
            return st_fail(err, SETUN_CANCELLED, "cancelled");
        ST_TRY(compare_tensor(p, &p->a.tensor[i], err));
    }
    for (int64_t i = 0; i < p->n_rule; i++)
        if (!p->rule[i].used)
            return st_fail(err, SETUN_BAD_ARG, "%s, line %" PRId64 ": %s has no tensor of that name", o->map, p->rule[i].line, o->a);
    if (!p->compared)
        return st_fail(err, SETUN_BAD_ARG, "%s and %s have no tensor in common", o->a, o->b);
    if (p->b_is_trace && !p->n_rule && !o->common)
        ST_TRY(list_others(p, err));
    for (int64_t i = 0; i < p->n; i++)
        p->differ += p->row[i].differs;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- text */

/* "[2,17]": where the first difference is, in the sizes of the first trace. */
static void add_place(st_str *s, const row *r)
{
    int64_t place[SETUN_MAX_RANK], at = r->first;
    for (uint32_t i = r->a->rank; i-- > 0;) {
        int64_t d = r->a->dim[i] > 0 ? r->a->dim[i] : 1;
        place[i] = at % d;
        at /= d;
    }
    st_str_add(s, "[");
    for (uint32_t i = 0; i < r->a->rank; i++)
        st_str_addf(s, "%s%" PRId64, i ? "," : "", place[i]);
    st_str_add(s, "]");
}

static void add_row_text(st_str *s, const row *r)
{
    st_str_addf(s, "%s: ", r->name);
    if (!r->a || !r->other) {
        st_str_addf(s, "only in the %s trace\n", r->a ? "first" : "second");
        return;
    }
    if (r->shapes) {
        st_str_addf(s, "%s in the first, %s in the second\n", r->text_a, r->text_b);
        return;
    }
    if (r->types)
        st_str_addf(s, "%s and %s, ", r->text_a, r->text_b);
    if (!r->values) {
        st_str_add(s, "all values equal\n");
        return;
    }
    st_str_addf(s, "%" PRId64 " of %" PRId64 " differ, by at most %.3g (%.3g of their size), rms %.3g, cosine %.9g; first ", r->values, r->count,
                r->max_abs, r->max_rel, r->rms, r->cosine);
    add_place(s, r);
    st_str_addf(s, ": %.9g, %.9g", r->x, r->y);
    if (r->nan)
        st_str_addf(s, "; %" PRId64 " NaN in one only", r->nan);
    st_str_add(s, "\n");
}

static void add_text(st_str *s, const pair *p)
{
    const row *first = NULL;
    for (int64_t i = 0; i < p->n && !first; i++)
        first = p->row[i].differs ? &p->row[i] : NULL;
    if (first && first->a) {
        st_str_addf(s, "the first that differs is %s, made by %s, step %" PRId64, first->name, first->a->op, first->a->step);
        st_str_addf(s, "%s%s%s\n", first->a->where[0] ? " (" : "", first->a->where, first->a->where[0] ? ")" : "");
    }
    for (int64_t i = 0; i < p->n; i++)
        if (p->row[i].differs)
            add_row_text(s, &p->row[i]);
    st_str_addf(s, "%" PRId64 " tensors compared: ", p->compared);
    if (p->differ)
        st_str_addf(s, "%" PRId64 " differ", p->differ);
    else if (p->o->tolerance > 0)
        st_str_addf(s, "none differs by more than %g of its largest number", p->o->tolerance);
    else
        st_str_add(s, "all equal, bit for bit");
    if (p->skipped)
        st_str_addf(s, "; %" PRId64 " of the first have no counterpart", p->skipped);
    st_str_add(s, "\n");
}

static void add_json_row(st_str *s, const row *r)
{
    st_str_add(s, "{\"name\": ");
    st_str_add_json(s, r->name, strlen(r->name));
    st_str_addf(s, ", \"differs\": %s", r->differs ? "true" : "false");
    if (!r->a || !r->other) {
        st_str_addf(s, ", \"only_in\": \"%s\"}", r->a ? "first" : "second");
        return;
    }
    st_str_add(s, ", \"other\": ");
    st_str_add_json(s, r->other, strlen(r->other));
    st_str_addf(s, ", \"step\": %" PRId64 ", \"types\": [\"%s\", \"%s\"], \"types_differ\": %s, \"shapes_differ\": %s, \"values\": %" PRId64
                ", \"differ\": %" PRId64 ", \"nan\": %" PRId64, r->a->step, r->text_a, r->text_b, r->types ? "true" : "false",
                r->shapes ? "true" : "false", r->count, r->values, r->nan);
    st_str_add_json_number(s, "max_abs", r->max_abs);
    st_str_add_json_number(s, "max_rel", r->max_rel);
    st_str_add_json_number(s, "rms", r->rms);
    st_str_add_json_number(s, "cosine", r->cosine);
    if (r->values) {
        st_str_add(s, ", \"first\": ");
        add_place(s, r);
        st_str_add_json_number(s, "a", r->x);
        st_str_add_json_number(s, "b", r->y);
    }
    st_str_add(s, "}");
}

static void add_json(st_str *s, const pair *p)
{
    const row *first = NULL;
    for (int64_t i = 0; i < p->n && !first; i++)
        first = p->row[i].differs ? &p->row[i] : NULL;
    st_str_addf(s, "{\"equal\": %s, \"compared\": %" PRId64 ", \"differ\": %" PRId64 ", \"without_counterpart\": %" PRId64 ", \"first\": ",
                p->differ ? "false" : "true", p->compared, p->differ, p->skipped);
    if (first)
        st_str_add_json(s, first->name, strlen(first->name));
    else
        st_str_add(s, "null");
    st_str_add(s, ",\n \"tensors\": [");
    for (int64_t i = 0; i < p->n; i++) {
        st_str_add(s, i ? ",\n  " : "\n  ");
        add_json_row(s, &p->row[i]);
    }
    st_str_add(s, "]}\n");
}

/* ---------------------------------------------------------------- the whole */

static setun_status open_both(pair *p, setun_error *err)
{
    const char *a = st_arena_printf(p->arena, "%s/%s", p->o->a, ST_TRACE_INDEX);
    const char *b = st_arena_printf(p->arena, "%s/%s", p->o->b, ST_TRACE_INDEX);
    if (!a || !b)
        return no_memory(err);
    if (st_is_absent(a))
        return st_fail(err, SETUN_BAD_ARG, "%s is not a trace: there is no %s in it", p->o->a, ST_TRACE_INDEX);
    ST_TRY(st_trace_index_open(&p->a, a, p->arena, err));
    if (!st_is_dir(p->o->b))
        return st_fail(err, SETUN_BAD_ARG, "%s is not a directory", p->o->b);
    p->b_is_trace = !st_is_absent(b);
    if (p->b_is_trace)
        ST_TRY(st_trace_index_open(&p->b, b, p->arena, err));
    if (p->b_is_trace && (p->a.n_token != p->b.n_token || memcmp(p->a.token, p->b.token, (size_t)p->a.n_token * sizeof *p->a.token)))
        return st_fail(err, SETUN_BAD_ARG, "%s and %s are of other tokens, so nothing about them can be compared", p->o->a, p->o->b);
    return read_map(p, err);
}

setun_status setun_tracediff(const setun_tracediff_options *o, int32_t *differs, setun_write_fn *out, void *user, setun_error *err)
{
    pair p = {.o = o};
    st_str text = {0};
    if (!o->a || !o->b || !(o->tolerance >= 0 && o->tolerance < INFINITY))
        return st_fail(err, SETUN_BAD_ARG, "two traces and a tolerance of 0 or more are needed");
    p.arena = st_arena_new();
    setun_status st = p.arena ? open_both(&p, err) : no_memory(err);
    if (st == SETUN_OK)
        st = compare_all(&p, err);
    if (st == SETUN_OK) {
        if (o->json)
            add_json(&text, &p);
        else
            add_text(&text, &p);
        *differs = p.differ != 0;
        st = text.failed ? no_memory(err)
             : out(user, text.text, text.len) ? st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text") : SETUN_OK;
    }
    st_str_free(&text);
    st_arena_free(p.arena);
    return st;
}

/* runtime/print_tensor.c -- tensors as NumPy prints them.
 *
 * The rules are those of numpy.array2string of NumPy 2 with its defaults, for arrays of float32 or of integers: more than 1000
 * numbers are cut to three at each end of each dimension; floats have the fewest digits that read back the same, at most
 * 8 behind the point; all numbers that are shown share one format, which has an exponent if one is 1e8 or more, one
 * is below 1e-4, or the largest is more than 1000 times the smallest; lines have at most 75 characters.
 *
 *     [[ 0.5        -0.25        1.        ]          points in one column: the parts before and behind
 *      [ 0.33333334  0.          2.        ]]         it are filled up with spaces */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "runtime/inspect.h"
#include "setun/op_help.h"

#define THRESHOLD 1000
#define EDGE 3
#define WIDTH 75
#define MOST_DIGITS 8 /* behind the point */

/* A part of a tensor: numbers of the dimensions that are left. */
typedef struct part {
    const setun_tensor *t;
    int64_t  first[SETUN_MAX_RANK]; /* of each dimension of the tensor */
    int64_t  n[SETUN_MAX_RANK];     /* of each dimension that is left */
    uint32_t of[SETUN_MAX_RANK];    /* which dimension of the tensor that is */
    uint32_t rank;
    int      cut;                   /* the middle is left out */
} part;

typedef struct format {
    int    integers, exponent, left, right, digits; /* digits: behind the point, with an exponent */
    double least, most;                             /* magnitudes that are not 0 */
    int    odd;                                     /* NaN or infinities, and how long the longest is */
} format;

/* ---------------------------------------------------------------- one number */

/* The fewest significant digits that read back the same 32-bit float: "d.ddde-XX"; returns how many. */
static int shortest(double x, char *out, size_t cap)
{
    int k = 0;
    do
        (void)snprintf(out, cap, "%.*e", k++, x);
    while (k < 9 && setun_f32_bits(strtof(out, NULL)) != setun_f32_bits((float)x));
    return k;
}

/* Without an exponent: "-12.5", "3."; zeros at the end are left out, the point is not. */
static void positional(double x, char *out, size_t cap)
{
    char e[40];
    int n = shortest(x, e, sizeof e), behind = n - 1 - atoi(strchr(e, 'e') + 1);
    behind = behind < 0 ? 0 : behind > MOST_DIGITS ? MOST_DIGITS : behind;
    (void)snprintf(out, cap, "%.*f", behind, behind ? x : strtod(e, NULL));
    size_t len = strlen(out);
    if (!behind) {
        out[len] = '.';
        out[len + 1] = 0;
        return;
    }
    while (out[len - 1] == '0')
        out[--len] = 0;
}

/* With an exponent: the digits behind the point are those that are needed, or filled up with zeros to `digits`. */
static int scientific(double x, int digits, char *out, size_t cap)
{
    char e[40];
    int n = shortest(x, e, sizeof e) - 1;
    const char *exponent = strchr(e, 'e'), *point = strchr(e, '.');
    size_t whole = (size_t)((point ? point : exponent) - e);
    (void)snprintf(out, cap, "%.*s.%.*s%.*s%s", (int)whole, e, n, point ? point + 1 : "", digits > n ? digits - n : 0, "00000000", exponent);
    return n;
}

static void one(const format *f, double x, char *out, size_t cap)
{
    char s[64];
    if (f->integers) {
        (void)snprintf(out, cap, "%*.0f", f->left, x);
        return;
    }
    if (!isfinite(x)) {
        (void)snprintf(out, cap, "%*s", f->left + 1 + f->right, isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    if (f->exponent)
        (void)scientific(x, f->digits, s, sizeof s);
    else
        positional(x, s, sizeof s);
    int before = (int)strcspn(s, "."), behind = (int)strlen(s) - before - 1;
    size_t n = 0;
    for (int i = before; i < f->left && n + 1 < cap; i++)
        out[n++] = ' ';
    for (const char *p = s; *p && n + 1 < cap; p++)
        out[n++] = *p;
    for (int i = behind; i < f->right && n + 1 < cap; i++)
        out[n++] = ' ';
    out[n] = 0;
}

/* ---------------------------------------------------------------- all that are shown */

static double value_at(const part *p, const int64_t *index)
{
    const setun_view *v = &p->t->view;
    int64_t at[SETUN_MAX_RANK], row = 0;
    memcpy(at, p->first, sizeof at);
    for (uint32_t d = 0; d < p->rank; d++)
        at[p->of[d]] += index[d];
    for (uint32_t d = 0; d + 1 < v->rank; d++)
        row = row * v->dim[d] + at[d];
    return st_tensor_value(p->t, row, v->rank ? at[v->rank - 1] : 0);
}

/* The next index of a dimension of n that is shown. */
static int64_t next_shown(const part *p, int64_t i, int64_t n)
{
    return p->cut && n > 2 * EDGE && i == EDGE - 1 ? n - EDGE : i + 1;
}

/* pass 0: magnitudes; pass 1: widths, which need to know whether there is an exponent. */
static void measure(const part *p, uint32_t d, int64_t *index, format *f, int pass)
{
    char s[64];
    if (d < p->rank) {
        for (index[d] = 0; index[d] < p->n[d]; index[d] = next_shown(p, index[d], p->n[d]))
            measure(p, d + 1, index, f, pass);
        return;
    }
    double x = value_at(p, index), size = fabs(x);
    if (pass == 0) {
        int odd = isnan(x) ? 3 : isinf(x) ? (x < 0 ? 4 : 3) : 0;
        f->odd = odd > f->odd ? odd : f->odd;
        if (odd || size == 0)
            return;
        f->most = size > f->most ? size : f->most;
        f->least = f->least == 0 || size < f->least ? size : f->least;
        return;
    }
    if (!isfinite(x))
        return;
    if (f->integers)
        (void)snprintf(s, sizeof s, "%.0f", x);
    else if (f->exponent) {
        int n = scientific(x, 0, s, sizeof s);
        f->digits = n > f->digits ? n : f->digits;
    } else
        positional(x, s, sizeof s);
    int before = (int)strcspn(s, "."), behind = f->integers ? 0 : (int)strlen(s) - before - 1;
    f->left = before > f->left ? before : f->left;
    f->right = behind > f->right ? behind : f->right;
}

static void choose_format(const part *p, format *f)
{
    int64_t index[SETUN_MAX_RANK] = {0};
    uint32_t type = p->t->view.dtype;
    f->integers = type == SETUN_I8 || type == SETUN_U8 || type == SETUN_I16 || type == SETUN_I32 || type == SETUN_I64;
    measure(p, 0, index, f, 0);
    f->exponent = f->most > 0 && (f->most >= 1e8 || (float)f->least < 1e-4f || (float)f->most / (float)f->least > 1000.0f);
    measure(p, 0, index, f, 1);
    if (f->exponent)
        f->right = f->digits + 4; /* "e-05"; 32-bit floats have no longer ones */
    if (f->odd && f->left < f->odd - (f->right + 1))
        f->left = f->odd - (f->right + 1);
}

/* ---------------------------------------------------------------- lines */

typedef struct printer {
    const part *p;
    format      f;
    st_str     *out;
    size_t      line; /* where the line begins in out */
} printer;

/* A word behind the others of its line, or on the next line if it would be too long. */
static void add_word(printer *pr, const char *word, uint32_t depth, int first)
{
    size_t used = pr->out->len - pr->line;
    if (!first && used + 1 + strlen(word) > (size_t)WIDTH - depth) {
        while (pr->out->len && pr->out->text[pr->out->len - 1] == ' ') /* what the last word was filled up with */
            pr->out->text[--pr->out->len] = 0;
        st_str_addf(pr->out, "\n%*s", (int)depth, "");
        pr->line = pr->out->len - depth;
    } else if (!first) {
        st_str_add(pr->out, " ");
    }
    st_str_add(pr->out, word);
}

static void print_dim(printer *pr, uint32_t d, int64_t *index)
{
    const part *p = pr->p;
    char word[64];
    if (p->rank == 0) {
        one(&pr->f, value_at(p, index), word, sizeof word);
        st_str_add(pr->out, word);
        return;
    }
    int last = d + 1 == p->rank;
    st_str_add(pr->out, "[");
    for (int64_t i = 0; i < p->n[d];) {
        index[d] = i;
        if (last) {
            one(&pr->f, value_at(p, index), word, sizeof word);
            add_word(pr, word, d + 1, i == 0);
        } else {
            print_dim(pr, d + 1, index);
        }
        int64_t next = next_shown(p, i, p->n[d]);
        int gap = next > i + 1;
        for (int k = 0; !last && k < (gap ? 2 : next < p->n[d]); k++) { /* a line, or an empty one between planes, and the next */
            for (uint32_t e = d + 1; e < p->rank; e++)
                st_str_add(pr->out, "\n");
            pr->line = pr->out->len;
            st_str_addf(pr->out, "%*s%s", (int)d + 1, "", gap && k == 0 ? "..." : "");
        }
        if (last && gap)
            add_word(pr, "...", d + 1, 0);
        i = next;
    }
    st_str_add(pr->out, "]");
}

/* ---------------------------------------------------------------- slices */

static const char *skip(const char *s) { return s + strspn(s, " \t"); }

/* A number, or none: then *out stays. */
static const char *read_index(const char *s, int64_t n, int64_t *out)
{
    char *end;
    s = skip(s);
    if (!strchr("-0123456789", *s) || !*s)
        return s;
    long long v = strtoll(s, &end, 10);
    *out = v < 0 ? v + n : v;
    return skip(end);
}

static setun_status read_slice(part *p, const char *slice, setun_error *err)
{
    const setun_view *v = &p->t->view;
    const char *s = slice ? skip(slice) : "";
    int open = *s == '[';
    s += open;
    for (uint32_t d = 0; d < v->rank; d++) {
        int64_t first = INT64_MIN, end = v->dim[d];
        s = skip(s);
        int one_only = *s && !strchr(":,]", *s);
        s = read_index(s, v->dim[d], &first);
        if (*s == ':') {
            one_only = 0;
            s = read_index(s + 1, v->dim[d], &end);
        }
        if (first == INT64_MIN && one_only)
            return st_fail(err, SETUN_BAD_ARG, "'%.60s' is not a slice such as [0:2, :, 5]", slice);
        first = first == INT64_MIN ? 0 : first;
        end = one_only ? first + 1 : end;
        if (first < 0 || end > v->dim[d] || first >= end)
            return st_fail(err, SETUN_BAD_ARG, "'%.60s': dimension %u has %" PRId64 " numbers", slice, d, v->dim[d]);
        p->first[d] = first;
        if (!one_only) {
            p->of[p->rank] = d;
            p->n[p->rank++] = end - first;
        }
        if (*s && *s != ']' && (*s != ',' || d + 1 == v->rank))
            break;
        s += *s == ',';
    }
    s = skip(s);
    int closed = *s == ']';
    s = skip(s + closed);
    return *s || open != closed ? st_fail(err, SETUN_BAD_ARG, "'%.60s' is not a slice of %u dimensions, such as [0:2, :, 5]", slice, v->rank) : SETUN_OK;
}

setun_status setun_tensor_print(const setun_tensor *t, const char *slice, setun_write_fn *write, void *user, setun_error *err)
{
    part p = {.t = t};
    st_str s = {0};
    printer pr = {.p = &p, .out = &s};
    int64_t index[SETUN_MAX_RANK] = {0}, count = 1;
    if (setun_count(&t->view) == 0)
        return st_fail(err, SETUN_BAD_SHAPE, "the tensor has no numbers");
    ST_TRY(read_slice(&p, slice, err));
    for (uint32_t d = 0; d < p.rank; d++)
        count *= p.n[d];
    p.cut = count > THRESHOLD;
    choose_format(&p, &pr.f);
    print_dim(&pr, 0, index);
    st_str_add(&s, "\n");
    setun_status st = s.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory to print a tensor") : SETUN_OK;
    if (st == SETUN_OK && write(user, s.text, s.len))
        st = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    st_str_free(&s);
    return st;
}

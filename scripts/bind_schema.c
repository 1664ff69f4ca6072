/* scripts/bind_schema.c -- what the schema of a scripted operator says without Lua: types, shapes, cost.
 *
 *     "f32[n,d]"                  letters stand for sizes; equal letters for equal sizes, in all inputs
 *     "f32[...]"                  any rank;  an output only where the script's infer says its sizes
 *     "f32[1] or f32[r]"          one of several
 *     "like x", "i8 like x"       an output with the shape of an input
 *
 * A cost is a sum of products of numbers, letters and #x, the elements of input x: "2*n*r*k + #w".  The account of a
 * step that has run (counted) may also ask what inputs hold: "sum(count)*k".  Both are
 * texts and no functions, because they are asked for when the script is long closed.  For the same reason only
 * an infer of the script's own (bind_op.c) makes an operator that needs its script for shapes. */
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "scripts/bind.h"

#define MAX_LETTERS 26

typedef struct st_script_port port_type;

/* ---------------------------------------------------------------- types */

static const char *parse_dims(const char *p, st_script_form *t)
{
    if (strncmp(p, "[...]", 5) == 0) {
        t->any = 1;
        return p + 5;
    }
    if (*p++ != '[')
        return NULL;
    while (*p != ']') {
        int64_t d = 0;
        if (t->rank == SETUN_MAX_RANK || (t->rank && *p++ != ','))
            return NULL;
        if (*p >= 'a' && *p <= 'z') {
            d = -1 - (*p++ - 'a');
        } else {
            if (*p < '0' || *p > '9')
                return NULL;
            while (*p >= '0' && *p <= '9' && d < INT32_MAX)
                d = 10 * d + (*p++ - '0');
        }
        t->dim[t->rank++] = d;
    }
    return p + 1;
}

int st_bind_parse_type(const char *text, port_type *t, const setun_port *in, uint32_t n_in)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    memset(t, 0, sizeof *t);
    t->text = text;
    for (;;) {
        st_script_form *f = &t->form[t->n_form];
        if (t->n_form == ST_SCRIPT_FORMS || (t->n_form && in))
            return 0;
        if (strncmp(text, "like ", 5) != 0) {
            f->dtype = st_dtype_find(text, strspn(text, name));
            if (!f->dtype)
                return 0;
            text += strspn(text, name);
            text += *text == ' ';
        }
        t->n_form++;
        if (strncmp(text, "like ", 5) == 0 && in) {
            for (uint32_t i = 0; i < n_in; i++)
                if (strcmp(text + 5, in[i].name) == 0)
                    t->like = 1 + (int32_t)i;
            return t->like != 0;
        }
        text = parse_dims(text, f);
        if (!text || *text == 0)
            return text != NULL;
        if (strncmp(text, " or ", 4) != 0)
            return 0;
        text += 4;
    }
}

/* ---------------------------------------------------------------- shapes */

/* Sizes that the letters stand for. */
typedef struct letters {
    int64_t size[MAX_LETTERS];
    uint8_t bound[MAX_LETTERS];
} letters;

/* Does the view have this form?  Then its letters are bound. */
static int fits(const setun_view *v, const st_script_form *t, letters *l)
{
    letters with = *l;
    int good = v->dtype == t->dtype && (t->any || v->rank == t->rank);
    for (uint32_t d = 0; good && !t->any && d < t->rank; d++) {
        int64_t want = t->dim[d], i = -1 - want;
        if (want >= 0) {
            good = want == v->dim[d];
            continue;
        }
        good = !with.bound[i] || with.size[i] == v->dim[d];
        with.bound[i] = 1;
        with.size[i] = v->dim[d];
    }
    if (good)
        *l = with;
    return good;
}

static setun_status match(const setun_args *a, uint32_t i, const port_type *t, letters *l, setun_error *err)
{
    const setun_view *v = &a->in[i];
    setun_text text;
    int known = 0;
    for (uint32_t f = 0; f < t->n_form; f++)
        known |= v->dtype == t->form[f].dtype;
    if (!known)
        return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s, wants %s", a->op->in[i].name, setun_view_text(v, &text), t->text);
    for (uint32_t d = 1; d < v->rank; d++)
        if (v->dim[d] < 1)
            return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s; dimension %u must be at least 1", a->op->in[i].name,
                              setun_view_text(v, &text), d);
    for (uint32_t f = 0; f < t->n_form; f++)
        if (fits(v, &t->form[f], l))
            return SETUN_OK;
    return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s, which does not fit %s of %s", a->op->in[i].name,
                      setun_view_text(v, &text), t->text, a->op->name);
}

static setun_status make_output(setun_args *a, uint32_t o, const port_type *t, const letters *l, setun_error *err)
{
    const st_script_form *f = &t->form[0];
    setun_view *v = &a->out[o];
    if (t->like) {
        *v = a->in[t->like - 1];
        v->data = NULL;
        v->dtype = f->dtype ? f->dtype : v->dtype;
        return SETUN_OK;
    }
    v->dtype = f->dtype;
    v->rank = f->rank;
    for (uint32_t d = 0; d < SETUN_MAX_RANK; d++) {
        int64_t i = d < f->rank && f->dim[d] < 0 ? -1 - f->dim[d] : -1;
        if (i >= 0 && !l->bound[i])
            return setun_fail(err, SETUN_BAD_SHAPE, "output %s is %s, and no input says what %c is here", a->op->out[o].name,
                              t->text, (int)('a' + i));
        v->dim[d] = d >= f->rank ? 1 : i >= 0 ? l->size[i] : f->dim[d];
    }
    return SETUN_OK;
}

setun_status st_bind_infer_schema(setun_args *a, const st_script_op *so, setun_error *err)
{
    letters l;
    memset(&l, 0, sizeof l);
    for (uint32_t i = 0; i < a->n_in; i++) {
        ST_TRY(match(a, i, &so->in[i], &l, err));
        for (uint32_t d = 0; so->by_element && d < SETUN_MAX_RANK; d++)
            if (a->in[i].rank != a->in[0].rank || a->in[i].dim[d] != a->in[0].dim[d])
                return setun_fail(err, SETUN_BAD_SHAPE, "%s and %s have different shapes, but eval takes one "
                                  "element of each", a->op->in[0].name, a->op->in[i].name);
    }
    for (uint32_t o = 0; o < a->n_out; o++)
        ST_TRY(make_output(a, o, &so->out[o], &l, err));
    return SETUN_OK;
}

int st_bind_knows_letter(const st_script_op *so, int64_t dim)
{
    for (uint32_t i = 0; i < so->op.n_in; i++)
        for (uint32_t f = 0; f < so->in[i].n_form; f++)
            for (uint32_t e = 0; e < so->in[i].form[f].rank; e++)
                if (so->in[i].form[f].dim[e] == dim)
                    return 1;
    return 0;
}

/* ---------------------------------------------------------------- cost */

/* What a factor may ask of an input.  What it holds is known only once the step has run.  Elements that are not above 0
 * add nothing to a sum, as a list's length of -1 lists nothing; so NaN adds nothing either. */
enum { ELEMENTS, ROW_BYTES, SUM, LARGEST, POSITIVE };
static const char *const asks[] = { "#", "row_bytes(", "sum(", "largest(", "positive(" };

static int is_summable(const port_type *t)
{
    int good = 1;
    for (uint32_t f = 0; f < t->n_form; f++)
        good &= t->form[f].dtype == SETUN_I32 || t->form[f].dtype == SETUN_F32;
    return good;
}

/* #x, row_bytes(w), and with data sum(count), largest(count) and positive(gate).  -1: it asks nothing of an input. */
static int parse_ask(const char **p, const st_script_op *so, int with_data, st_script_term *t)
{
    uint32_t ask = 0;
    while (ask < SETUN_LEN(asks) && strncmp(*p, asks[ask], strlen(asks[ask])) != 0)
        ask++;
    if (ask == SETUN_LEN(asks))
        return -1;
    const char *name = *p + strlen(asks[ask]);
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    for (uint32_t i = 0; i < so->op.n_in; i++)
        if (strlen(so->op.in[i].name) == n && strncmp(so->op.in[i].name, name, n) == 0) {
            t->what[t->n++] = (uint16_t)(MAX_LETTERS + ask * ST_MAX_PORTS + i);
            *p = name + n + (ask != ELEMENTS);
            return (ask == ELEMENTS || name[n] == ')') && (ask < SUM || (with_data && is_summable(&so->in[i])));
        }
    return 0;
}

/* One factor from *p on, multiplied into t; 0: there is none. */
static int parse_factor(const char **p, const st_script_op *so, int with_data, st_script_term *t)
{
    size_t n = strspn(*p, "0123456789.");
    int64_t dim = -1 - (**p - 'a');
    char word[64];
    double x;
    if (n) {
        (void)snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : 0, *p);
        *p += n;
        if (st_parse_f64(word, &x))
            return 0;
        t->factor *= x;
        return 1;
    }
    if (t->n == SETUN_LEN(t->what))
        return 0;
    int asked = parse_ask(p, so, with_data, t);
    if (asked >= 0)
        return asked;
    if (**p < 'a' || **p > 'z' || !st_bind_knows_letter(so, dim))
        return 0;
    t->what[t->n++] = (uint16_t)(-1 - dim);
    ++*p;
    return 1;
}

int st_bind_parse_cost(const char *text, const st_script_op *so, int with_data, st_script_sum *sum)
{
    const char *p = text;
    memset(sum, 0, sizeof *sum);
    for (;;) {
        if (sum->n == SETUN_LEN(sum->term))
            return 0;
        st_script_term *t = &sum->term[sum->n++];
        t->factor = 1;
        do {
            p += strspn(p, " *");
            if (!parse_factor(&p, so, with_data, t))
                return 0;
            p += strspn(p, " ");
        } while (*p == '*');
        if (*p == 0)
            return 1;
        if (*p++ != '+')
            return 0;
    }
}

static double ask_input(const setun_view *v, uint32_t ask)
{
    double sum = 0, largest = 0, positive = 0;
    if (ask == ELEMENTS)
        return setun_cost_count(v);
    if (ask == ROW_BYTES)
        return (double)setun_row_bytes(v->dtype, v->rank && v->dim[v->rank - 1] > 0 ? v->dim[v->rank - 1] : 1);
    for (int64_t i = 0, n = setun_count(v); i < n; i++) {
        double x = v->dtype == SETUN_I32 ? ((const int32_t *)v->data)[i] : (double)((const float *)v->data)[i];
        sum += x > 0 ? x : 0;
        largest = x > largest ? x : largest;
        positive += x > 0;
    }
    return ask == SUM ? sum : ask == LARGEST ? largest : positive;
}

/* A size that is known only at run time counts as 1, as setun_cost_count has it. */
static double add_up(const setun_args *a, const letters *l, const st_script_sum *sum)
{
    double all = 0;
    for (uint32_t i = 0; i < sum->n; i++) {
        const st_script_term *t = &sum->term[i];
        double x = t->factor;
        for (uint32_t j = 0; j < t->n; j++) {
            uint32_t what = t->what[j], port = what - MAX_LETTERS;
            int64_t size = what < MAX_LETTERS ? l->size[what] : 0;
            if (what >= MAX_LETTERS)
                x *= ask_input(&a->in[port % ST_MAX_PORTS], port / ST_MAX_PORTS);
            else
                x *= size > 0 ? (double)size : 1;
        }
        all += x;
    }
    return all;
}

void st_bind_cost(const setun_args *a, setun_cost *c)
{
    const st_script_op *so = (const st_script_op *)(const void *)a->op;
    letters l;
    memset(&l, 0, sizeof l);
    for (uint32_t i = 0; i < a->n_in; i++)
        (void)match(a, i, &so->in[i], &l, NULL); /* they have been inferred: all fit */
    setun_cost_map(a, 0, c);
    c->int_ops = add_up(a, &l, &so->cost[ST_COST_INT]);
    c->float_ops = add_up(a, &l, &so->cost[ST_COST_FLOAT]);
    if (so->cost[ST_COST_BYTES].n)
        c->bytes = add_up(a, &l, &so->cost[ST_COST_BYTES]);
}

/* Numbers that are left out are those of cost, and no rows were picked. */
void st_bind_counted(const setun_args *a, setun_counted *c)
{
    const st_script_op *so = (const st_script_op *)(const void *)a->op;
    double *const to[ST_N_COUNTED] = { &c->int_ops, &c->float_ops, &c->bytes, &c->rows, &c->row_bytes };
    setun_cost whole;
    letters l;
    memset(&l, 0, sizeof l);
    st_bind_cost(a, &whole);
    c->int_ops = whole.int_ops;
    c->float_ops = whole.float_ops;
    c->bytes = whole.bytes;
    for (uint32_t i = 0; i < a->n_in; i++)
        (void)match(a, i, &so->in[i], &l, NULL);
    for (uint32_t i = 0; i < ST_N_COUNTED; i++)
        if (so->counted[i].n)
            *to[i] = add_up(a, &l, &so->counted[i]);
}

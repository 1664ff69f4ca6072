/* model/pattern.c -- run the program of a regular expression.
 *
 * Ways to match are tried in the order in which the expression lists them, and the first that works is the answer, as in
 * Perl and in the libraries that tokenizers were written for.  Where there is another way, its place in program and text
 * is kept on a stack.  A repeated set of characters is one such entry however long it is.
 *
 * Programs may come from strangers, and so do texts.  Every instruction and every character that is looked at is a
 * step, and steps are counted; the stack has a limit.  Neither ever changes an answer: both are an error. */
#include "model/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define MOST_STACK (1 << 20)
#define MOST_DEEP 32 /* LOOK and ATOM inside each other */

/* Go on with instruction pc at byte `at`; then, if at > low, at the character before, and so on. */
typedef struct st_pback {
    int32_t pc;
    int64_t at, low;
} back;

static int push(st_pattern_run *r, int32_t pc, int64_t at, int64_t low)
{
    if (r->n_stack == r->cap_stack) {
        int64_t cap = r->cap_stack ? 2 * r->cap_stack : 64;
        back *more = cap > MOST_STACK ? NULL : realloc(r->stack, (size_t)cap * sizeof *more);
        if (!more)
            return -1;
        r->stack = more;
        r->cap_stack = cap;
    }
    r->stack[r->n_stack++] = (back){pc, at, low};
    return 0;
}

/* Where the characters of the set end that begin at `at`, at most `most` of them; *least: where the first `min` of them
 * end, or -1 when there are fewer. */
static int64_t repeat(const st_pattern *p, st_pattern_run *r, const st_pinst *i, const char *text, int64_t n, int64_t at, int64_t *least)
{
    int64_t count = 0;
    uint32_t c;
    *least = i->b == 0 ? at : -1;
    while (at < n && (i->c < 0 || count < i->c)) {
        int64_t bytes = st_char_at(text, at, &c);
        if (!st_chars_has(&p->set[i->a], c))
            break;
        at += bytes;
        if (++count == i->b)
            *least = at;
    }
    r->steps -= count;
    return at;
}

/* From instruction pc at byte `at`, up to the MATCH that belongs to it.  1: *end is where; 0: no way; -1: too much. */
static int run(const st_pattern *p, st_pattern_run *r, const char *text, int64_t n, int32_t pc, int64_t at, int deep, int64_t *end)
{
    const int64_t base = r->n_stack;
    for (;;) {
        const st_pinst *i = &p->code[pc];
        int64_t least, far;
        uint32_t c;
        int fits = 0, got;
        if (--r->steps < 0 || deep > MOST_DEEP)
            return -1;
        switch (i->op) {
        case ST_P_CHAR:
            fits = at < n && (far = st_char_at(text, at, &c), st_chars_has(&p->set[i->a], c));
            if (fits) {
                at += far;
                pc++;
            }
            break;
        case ST_P_SPLIT:
            if (push(r, pc + i->b, at, at))
                return -1;
            pc += i->a;
            fits = 1;
            break;
        case ST_P_JUMP:
            pc += i->a;
            fits = 1;
            break;
        case ST_P_REPEAT: case ST_P_HOLD:
            far = repeat(p, r, i, text, n, at, &least);
            fits = least >= 0;
            pc++;
            if (fits && i->op == ST_P_REPEAT && far > least && push(r, pc, st_char_before(text, far), least))
                return -1;
            at = far;
            break;
        case ST_P_LOOK: case ST_P_ATOM:
            got = run(p, r, text, n, pc + 1, at, deep + 1, &far);
            if (got < 0)
                return -1;
            fits = i->op == ST_P_LOOK && i->b ? !got : got;
            if (fits && i->op == ST_P_ATOM)
                at = far;
            pc += i->a;
            break;
        default: /* ST_P_MATCH */
            *end = at;
            r->n_stack = base;
            return 1;
        }
        if (fits)
            continue;
        if (r->n_stack == base)
            return 0;
        back *b = &r->stack[r->n_stack - 1];
        pc = b->pc;
        at = b->at;
        if (at > b->low)
            b->at = st_char_before(text, at);
        else
            r->n_stack--;
    }
}

int st_pattern_match(const st_pattern *p, st_pattern_run *r, const char *text, int64_t n, int64_t from, int64_t span[2])
{
    for (int64_t at = from;;) {
        uint32_t c;
        r->n_stack = 0;
        int got = run(p, r, text, n, 0, at, 0, &span[1]);
        span[0] = at;
        if (got || at >= n)
            return got;
        at += st_char_at(text, at, &c);
    }
}

void st_pattern_free(st_pattern *p)
{
    for (int64_t i = 0; p && i < p->n_set; i++)
        st_chars_free(&p->set[i]);
    if (p) {
        free(p->set);
        free(p->code);
    }
    free(p);
}

/* ---------------------------------------------------------------- as bytes */

void st_pattern_put(const st_pattern *p, st_str *out)
{
    st_put_u32(out, (uint32_t)p->n_set);
    for (int64_t i = 0; i < p->n_set; i++)
        st_chars_put(&p->set[i], out);
    st_put_u32(out, (uint32_t)p->n_code);
    for (int64_t i = 0; i < p->n_code; i++) {
        const int32_t x[4] = {p->code[i].op, p->code[i].a, p->code[i].b, p->code[i].c};
        for (int k = 0; k < 4; k++)
            st_put_u32(out, (uint32_t)x[k]);
    }
}

/* Can every instruction go on where it says?  Whether it comes to an end is for the steps to tell. */
static int is_sound(const st_pattern *p)
{
    int good = p->n_code > 0 && p->code[p->n_code - 1].op == ST_P_MATCH;
    for (int64_t k = 0; good && k < p->n_code; k++) {
        const st_pinst *i = &p->code[k];
        int jumps = i->op == ST_P_SPLIT || i->op == ST_P_JUMP || i->op == ST_P_LOOK || i->op == ST_P_ATOM;
        int sets = i->op == ST_P_CHAR || i->op == ST_P_REPEAT || i->op == ST_P_HOLD;
        good = i->op >= 0 && i->op < ST_P_KINDS && (!sets || (i->a >= 0 && i->a < p->n_set)) &&
               (!jumps || (k + i->a >= 0 && k + i->a < p->n_code)) &&
               (i->op != ST_P_SPLIT || (k + i->b >= 0 && k + i->b < p->n_code)) &&
               (i->op != ST_P_REPEAT || (i->b >= 0 && (i->c < 0 || i->c >= i->b))) &&
               (i->op != ST_P_HOLD || (i->b >= 0 && (i->c < 0 || i->c >= i->b)));
    }
    return good;
}

setun_status st_pattern_take(st_pattern **out, st_bytes *in, setun_error *err)
{
    *out = NULL;
    uint32_t n_set = st_take_up_to(in, ST_PATTERN_SETS);
    st_pattern *p = calloc(1, sizeof *p);
    if (!p || !(p->set = calloc((size_t)n_set + 1, sizeof *p->set))) {
        free(p);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    }
    p->n_set = n_set;
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; s == SETUN_OK && i < n_set && !in->bad; i++)
        s = st_chars_take(&p->set[i], in, err);
    uint32_t n = st_take_up_to(in, ST_PATTERN_CODE);
    if (s == SETUN_OK && !(p->code = calloc((size_t)n + 1, sizeof *p->code)))
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    for (uint32_t i = 0; s == SETUN_OK && i < n; i++) {
        int32_t x[4];
        for (int k = 0; k < 4; k++)
            x[k] = (int32_t)st_take_u32(in);
        p->code[p->n_code++] = (st_pinst){x[0], x[1], x[2], x[3]};
    }
    in->bad |= s == SETUN_OK && !is_sound(p);
    if (s != SETUN_OK || in->bad) {
        st_pattern_free(p);
        return s;
    }
    *out = p;
    return SETUN_OK;
}

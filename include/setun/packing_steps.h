/* setun/packing_steps.h -- a decoding that somebody wrote by hand, as a list of steps on bytes.
 *
 * Included by setun/packing.h, whose parts may have one instead of what is derived from their declaration.  Step 0 is the
 * code; each other makes a byte of earlier ones.  Comparisons take bytes as -128 to 127 and make 255 or 0.
 *
 *     k9      the number 9             +a.b  -a.b  &a.b  |a.b  ^a.b      of steps a and b
 *     <a.3    step a shifted up        >a.3  shifted down                ga.b  a > b       =a.b  equal
 *     ?m.a.b  a where the bits of m are 1, b where they are 0
 *     t0011..(32 hexadecimal digits).a       the byte at a & 15 of 16
 *
 * As a word of a part's text: an exclamation mark, the steps with commas, a colon, and the steps that are the digits:
 *
 *     !k8,g0.1,k17,g0.3,+2.4,k0,-6.5:7       how many of 8 and 17 the code is above
 *
 * A digit is its level less the smallest one.  Whoever reads such a text runs it for all codes that packing writes, so no
 * kernel is made of one that is wrong (setun_packing_check_steps). */
#ifndef SETUN_PACKING_STEPS_H
#define SETUN_PACKING_STEPS_H

#include <string.h>

#include "setun/op.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SETUN_PACKING_STEPS 64

typedef struct setun_packing_step {
    char    op;       /* as in the text */
    uint8_t a, b, c;  /* earlier steps; of k and shifts b is the number */
    uint8_t table[16];
} setun_packing_step;

typedef struct setun_packing_steps {
    uint32_t           n; /* with the code; 0: the decoding is derived */
    setun_packing_step step[SETUN_PACKING_STEPS];
    uint8_t            most[SETUN_PACKING_STEPS]; /* the largest that it is, for any code */
    uint8_t            digit[8];
} setun_packing_steps;

/* Is b no step, but a number? */
static inline int setun_packing_b_is_number(const setun_packing_step *t)
{
    return t->op == 'k' || t->op == '<' || t->op == '>';
}

/* All steps for one code. */
static inline void setun_packing_run(const setun_packing_steps *s, uint32_t code, uint8_t *v)
{
    v[0] = (uint8_t)code;
    for (uint32_t i = 1; i < s->n; i++) {
        const setun_packing_step *t = &s->step[i];
        uint32_t a = v[t->a], b = v[setun_packing_b_is_number(t) ? 0 : t->b], r = 0;
        switch (t->op) {
        case 'k': r = t->b; break;
        case '+': r = a + b; break;
        case '-': r = a - b; break;
        case '&': r = a & b; break;
        case '|': r = a | b; break;
        case '^': r = a ^ b; break;
        case '<': r = a << t->b; break;
        case '>': r = a >> t->b; break;
        case 'g': r = (int8_t)a > (int8_t)b ? 255 : 0; break;
        case '=': r = a == b ? 255 : 0; break;
        case '?': r = (a & b) | (~a & v[t->c]); break;
        case 't': r = t->table[a & 15]; break;
        default: break;
        }
        v[i] = (uint8_t)r;
    }
}

/* A number up to `most` at *p, which moves behind it; -1: there is none. */
static inline int32_t setun_packing_step_number(const char **p, int32_t most)
{
    int32_t n = -1;
    for (; **p >= '0' && **p <= '9' && n <= most; ++*p)
        n = 10 * (n < 0 ? 0 : n) + (**p - '0');
    return n <= most ? n : -1;
}

static inline int setun_packing_step_sign(const char **p, char sign)
{
    if (**p != sign)
        return 0;
    ++*p;
    return 1;
}

/* One step, numbered `at`; 0: it is none. */
static inline int setun_packing_read_step(setun_packing_step *t, const char **p, int32_t at)
{
    static const char ops[] = "k+-&|^<>g=?t";
    int32_t n[3] = {0, 0, 0}, count = 0, want;
    t->op = **p;
    if (!t->op || !strchr(ops, t->op))
        return 0;
    ++*p;
    for (int i = 0; t->op == 't' && i < 32; i++, ++*p) {
        int d = **p >= '0' && **p <= '9' ? **p - '0' : **p >= 'a' && **p <= 'f' ? **p - 'a' + 10 : -1;
        if (d < 0)
            return 0;
        t->table[i / 2] = (uint8_t)(t->table[i / 2] << 4 | d);
    }
    if (t->op == 't' && !setun_packing_step_sign(p, '.'))
        return 0;
    want = t->op == 'k' || t->op == 't' ? 1 : t->op == '?' ? 3 : 2;
    for (; count < want; count++) {
        int shift = (t->op == '<' || t->op == '>') && count == 1;
        if (count && !setun_packing_step_sign(p, '.'))
            return 0;
        n[count] = setun_packing_step_number(p, t->op == 'k' ? 255 : shift ? 7 : at - 1);
        if (n[count] < 0)
            return 0;
    }
    t->a = (uint8_t)(t->op == 'k' ? 0 : n[0]);
    t->b = (uint8_t)(t->op == 'k' ? n[0] : n[1]);
    t->c = (uint8_t)n[2];
    return 1;
}

/* The steps and digits of a text; 0: it is none, and *p is where that shows.  width: bits of a code. */
static inline int setun_packing_read_steps(setun_packing_steps *s, const char **p, uint32_t digits, uint32_t width)
{
    uint8_t v[SETUN_PACKING_STEPS];
    memset(s, 0, sizeof *s);
    for (s->n = 1; **p != ':'; s->n++) {
        if (s->n == SETUN_PACKING_STEPS || (s->n > 1 && !setun_packing_step_sign(p, ',')))
            return 0;
        if (!setun_packing_read_step(&s->step[s->n], p, (int32_t)s->n))
            return 0;
    }
    for (uint32_t i = 0; i < digits; i++) {
        ++*p; /* the colon, or a point */
        int32_t n = setun_packing_step_number(p, (int32_t)s->n - 1);
        if (n < 0 || (i + 1 < digits && **p != '.'))
            return 0;
        s->digit[i] = (uint8_t)n;
    }
    for (uint32_t c = 0; c < 1u << width; c++) {
        setun_packing_run(s, c, v);
        for (uint32_t i = 0; i < s->n; i++)
            s->most[i] = v[i] > s->most[i] ? v[i] : s->most[i];
    }
    return 1;
}

#ifdef __cplusplus
}
#endif

#endif

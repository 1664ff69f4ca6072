/* model/pattern.h -- regular expressions of tokenizers without a library for them: a small program, and what runs it.
 *
 * A program is made by model/pattern_read.c, which needs PCRE2, and is matched by model/pattern.c, which needs nothing.
 * It means what PCRE2 means by the expression it was made from, character by character: the sets in it were made
 * by asking PCRE2 about every character there is. */
#ifndef ST_MODEL_PATTERN_H
#define ST_MODEL_PATTERN_H

#include "model/chars.h"

#define ST_PATTERN_CODE 16384 /* instructions of a program */
#define ST_PATTERN_SETS 1024

/* An instruction; jumps are relative to its own place.
 *
 *   CHAR   a            one character of set a
 *   SPLIT  a b          go on at a; if that fails, at b
 *   JUMP   a
 *   REPEAT a b c        b to c characters of set a, as many as there are; c < 0: any number; gives back one by one
 *   HOLD   a b c        the same, and gives back none
 *   LOOK   a b          what is between here and a matches behind this place (b = 1: does not); go on at a
 *   ATOM   a            the first way to match what is between here and a; go on at a
 *   MATCH               the end of a program, and of what stands between LOOK or ATOM and their a */
enum { ST_P_CHAR, ST_P_SPLIT, ST_P_JUMP, ST_P_REPEAT, ST_P_HOLD, ST_P_LOOK, ST_P_ATOM, ST_P_MATCH, ST_P_KINDS };

typedef struct st_pinst {
    int32_t op, a, b, c;
} st_pinst;

typedef struct st_pattern {
    st_chars *set;
    st_pinst *code;
    int64_t   n_set, n_code;
} st_pattern;

void         st_pattern_free(st_pattern *p); /* and the struct itself; NULL is allowed */
void         st_pattern_put(const st_pattern *p, st_str *out);
/* NULL when it fails, and also when the bytes are no program: then in->bad. */
setun_status st_pattern_take(st_pattern **p, st_bytes *in, setun_error *err);

/* What matching needs besides; zero-initialise but for steps, free stack when done. */
typedef struct st_pattern_run {
    int64_t          steps; /* how many more may be taken; < 0: they did not suffice */
    struct st_pback *stack;
    int64_t          n_stack, cap_stack;
} st_pattern_run;
#define ST_PATTERN_STEPS(bytes) ((INT64_C(1) << 26) + 4096 * (bytes)) /* enough for a text of so many bytes */

/* The first match at from or behind it, in text, which is valid UTF-8.  1: it is span[0] to span[1]; 0: there is none;
 * -1: it took too many steps, or too much memory.  [any] */
int st_pattern_match(const st_pattern *p, st_pattern_run *run, const char *text, int64_t n, int64_t from, int64_t span[2]);

#endif

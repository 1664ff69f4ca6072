/* model/pieces.c -- cut a text into pieces, stage by stage, and pre-tokenizers as bytes.
 *
 * Stages after ByteLevel see the characters that stand for bytes, as they would elsewhere; what comes out in the end
 * is bytes again. */
#include "model/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/bpe.h"
#include "model/pattern.h"

void st_pretok_free(st_pretok *p)
{
    for (int i = 0; p && i < p->n_stages; i++) {
        if (p->stage[i].pattern)
            p->matcher->free(p->stage[i].pattern);
        free(p->stage[i].source);
    }
    free(p);
}

int st_pretok_is_bytes(const st_pretok *p) { return p->bytes; }

/* ---------------------------------------------------------------- cutting */

typedef struct cutter {
    const st_pretok *p;
    void            *state;                /* the matcher's */
    st_str           held[ST_STAGES + 1]; /* what a rewriting stage made of its piece */
    int              first;
    st_piece_fn      piece;
    void            *user;
    setun_error     *err;
} cutter;

static setun_status pass(cutter *c, int at_stage, const char *text, int64_t n);

/* Joins the matches and gaps of a piece as the behavior says: a part is held back until it is known
 * that the next does not belong to it.  The rules are those of splitting on a delimiter; a match
 * is the delimiter, or, inverted, a gap is. */
typedef struct joiner {
    cutter *c;
    int     stage, was_match;
    int64_t begin, end; /* held back; empty at first */
} joiner;

static setun_status join(joiner *j, const char *text, int64_t begin, int64_t end, int is_match)
{
    const st_stage *s = &j->c->p->stage[j->stage];
    int was = j->was_match, joins = 0;
    if (begin == end)
        return SETUN_OK;
    is_match ^= s->invert;
    if (s->behavior == ST_MERGED_WITH_PREVIOUS)
        joins = is_match && !was;
    else if (s->behavior == ST_MERGED_WITH_NEXT)
        joins = !is_match && was;
    else if (s->behavior == ST_CONTIGUOUS)
        joins = is_match == was;
    j->was_match = is_match;
    if (s->behavior == ST_REMOVED && is_match)
        return SETUN_OK;
    if (j->begin < j->end && joins) {
        j->end = end;
        return SETUN_OK;
    }
    int64_t from = j->begin, n = j->end - j->begin;
    j->begin = begin;
    j->end = end;
    return pass(j->c, j->stage + 1, text + from, n);
}

static setun_status cut(cutter *c, int at_stage, const char *text, int64_t n)
{
    joiner j = { c, at_stage, 0, 0, 0 };
    for (int64_t at = 0; at < n;) {
        int64_t span[2];
        int got = c->p->matcher->match(c->state, at_stage, text, n, at, span, c->err);
        if (got == 0) {
            ST_TRY(join(&j, text, at, n, 0));
            break;
        }
        if (got < 0)
            return got;
        int64_t begin = span[0], end = span[1];
        if (begin < at || end <= begin || end > n)
            return st_fail(c->err, SETUN_UNKNOWN,
                           "the pre-tokenizer's regex matches the empty text");
        ST_TRY(join(&j, text, at, begin, 0));
        ST_TRY(join(&j, text, begin, end, 1));
        at = end;
    }
    return pass(c, at_stage + 1, text + j.begin, j.end - j.begin);
}

/* Stages that change their piece.  A buffer for each stage: the piece of one is done with, in all
 * later stages, before its next one is made. */
static setun_status rewrite(cutter *c, int at_stage, const char *text, int64_t n)
{
    const st_stage *s = &c->p->stage[at_stage];
    st_str *out = &c->held[at_stage];
    int midst = c->first < 0; /* only the first piece goes on from a text */
    out->len = 0;
    if (midst && s->kind != ST_MAP)
        c->first = 0;
    if (s->kind == ST_PREFIX) {
        if (text[0] == ' ' || midst)
            return pass(c, at_stage + 1, text, n);
        st_str_add(out, " ");
        st_str_addn(out, text, (size_t)n);
    } else if (s->kind == ST_METASPACE) {
        size_t len = strlen(s->space);
        int has = text[0] == ' ' || ((size_t)n >= len && memcmp(text, s->space, len) == 0);
        if (!has && !midst && (s->prepend == ST_ALWAYS || (s->prepend == ST_FIRST && c->first)))
            st_str_add(out, s->space);
        for (int64_t i = 0; i < n; i++)
            st_str_addn(out, text[i] == ' ' ? s->space : text + i, text[i] == ' ' ? len : 1);
    } else {
        char two[2];
        for (int64_t i = 0; i < n; i++)
            st_str_addn(out, two, (size_t)st_bpe_map(text + i, 1, two));
    }
    if (out->failed)
        return st_fail(c->err, SETUN_NO_MEMORY, "no memory to split the text");
    return pass(c, at_stage + 1, out->text, (int64_t)out->len);
}

static setun_status pass(cutter *c, int at_stage, const char *text, int64_t n)
{
    if (n == 0)
        return SETUN_OK;
    if (at_stage < c->p->n_stages)
        return c->p->stage[at_stage].kind == ST_CUT ? cut(c, at_stage, text, n)
                                                 : rewrite(c, at_stage, text, n);
    if (!c->p->mapped)
        return c->piece(c->user, text, n, c->err);
    st_str *out = &c->held[ST_STAGES];
    out->len = 0;
    st_str_addn(out, text, (size_t)n);
    if (out->failed)
        return st_fail(c->err, SETUN_NO_MEMORY, "no memory to split the text");
    return c->piece(c->user, out->text, st_bpe_unmap(text, (size_t)n, out->text), c->err);
}

setun_status st_pretok_split(const st_pretok *p, const char *text, int64_t n, int first,
                             st_piece_fn piece, void *user, setun_error *err)
{
    if (p->n_stages == 0)
        return n ? piece(user, text, n, err) : SETUN_OK;
    cutter c = { .p = p, .first = first, .piece = piece, .user = user, .err = err };
    setun_status st = p->matcher->begin(p, n, &c.state, err);
    if (st == SETUN_OK)
        st = pass(&c, 0, text, n);
    p->matcher->end(c.state);
    for (int i = 0; i <= ST_STAGES; i++)
        st_str_free(&c.held[i]);
    return st;
}

/* ---------------------------------------------------------------- programs instead of PCRE2 */

typedef struct running {
    const st_pretok *p;
    st_pattern_run   run;
} running;

static setun_status begin_programs(const st_pretok *p, int64_t n, void **state, setun_error *err)
{
    running *r = calloc(1, sizeof *r);
    *state = r;
    if (!r)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to split the text");
    *r = (running){ p, { .steps = ST_PATTERN_STEPS(n) } };
    return SETUN_OK;
}

static void end_programs(void *state)
{
    running *r = state;
    if (r)
        free(r->run.stack);
    free(r);
}

static int match_program(void *state, int stage, const char *text, int64_t n, int64_t from, int64_t span[2], setun_error *err)
{
    running *r = state;
    int got = st_pattern_match(r->p->stage[stage].pattern, &r->run, text, n, from, span);
    return got >= 0 ? got : st_fail(err, SETUN_FULL, "the pre-tokenizer's regex gave up on the text: too much backtracking");
}

static void free_program(void *pattern) { st_pattern_free(pattern); }

static const st_matcher programs = { begin_programs, end_programs, match_program, free_program };

/* ---------------------------------------------------------------- as bytes */

setun_status st_pretok_take(st_pretok **out, st_bytes *in, setun_error *err)
{
    st_pretok *p = calloc(1, sizeof *p);
    *out = p;
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    p->matcher = &programs;
    p->bytes = (int)st_take_up_to(in, 1);
    p->mapped = (int)st_take_up_to(in, 1);
    int n = (int)st_take_up_to(in, ST_STAGES), map_at = -1;
    for (int i = 0; i < n && !in->bad; i++) {
        st_stage *s = &p->stage[p->n_stages++];
        int64_t n_space;
        s->kind = (int)st_take_up_to(in, ST_N_STAGES - 1);
        s->behavior = (int)st_take_up_to(in, ST_N_BEHAVIORS - 1);
        s->invert = (int)st_take_up_to(in, 1);
        s->prepend = (int)st_take_up_to(in, ST_N_PREPENDS - 1);
        const char *space = st_take_text(in, &n_space);
        in->bad |= n_space > 4 || (s->kind == ST_METASPACE && (n_space == 0 || st_utf8_valid(space, (size_t)n_space) != (size_t)n_space));
        if (!in->bad && n_space)
            memcpy(s->space, space, (size_t)n_space);
        /* Later stages see the map's characters, and only those can be bytes again. */
        if (s->kind == ST_MAP)
            in->bad |= map_at >= 0, map_at = i;
        in->bad |= map_at >= 0 && i > map_at && s->kind != ST_CUT;
        if (s->kind == ST_CUT && !in->bad) {
            st_pattern *made;
            ST_TRY(st_pattern_take(&made, in, err));
            s->pattern = made;
        }
    }
    in->bad |= p->mapped != (map_at >= 0) || (p->mapped && !p->bytes);
    return SETUN_OK;
}

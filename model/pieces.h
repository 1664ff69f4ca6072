/* model/pieces.h -- what a pre-tokenizer is, and cutting texts with it.
 *
 * A pre-tokenizer is a list of stages.  A stage cuts every piece of the one before into matches and the gaps
 * between them, and joins or drops them as its behavior says; or it rewrites the piece.  Where the matches
 * are is asked of a matcher: PCRE2 (pretok.c, which also reads stages from JSON), or a program that was made
 * of the expression (pattern.c), for which nothing but a C library has to be there. */
#ifndef ST_MODEL_PIECES_H
#define ST_MODEL_PIECES_H

#include "model/chars.h"
#include "setun/types.h"

#define ST_STAGES 16

enum { ST_ISOLATED, ST_REMOVED, ST_MERGED_WITH_PREVIOUS, ST_MERGED_WITH_NEXT, ST_CONTIGUOUS, ST_N_BEHAVIORS };

/* PREFIX puts a space before a piece that has none; METASPACE writes a character for each space and may put
 * one in front; MAP writes bytes as characters (only if a stage follows that sees them). */
enum { ST_CUT, ST_PREFIX, ST_METASPACE, ST_MAP, ST_N_STAGES };
enum { ST_NEVER, ST_FIRST, ST_ALWAYS, ST_N_PREPENDS };

typedef struct st_stage {
    int   kind, behavior, invert, prepend;
    int   literal;   /* source is a text and no expression */
    char *source;    /* what is cut at, as PCRE2 is given it; malloc'ed, NULL if it was read from bytes */
    void *pattern;   /* the matcher's */
    char  space[5];
} st_stage;

typedef struct st_pretok st_pretok;

typedef struct st_matcher {
    /* What the matches of one text share, which has n bytes. */
    setun_status (*begin)(const st_pretok *p, int64_t n, void **state, setun_error *err);
    void         (*end)(void *state);
    /* The first match at from or behind it.  1: there is one; 0: none; < 0: it gave up, with this status. */
    int          (*match)(void *state, int stage, const char *text, int64_t n, int64_t from, int64_t span[2], setun_error *err);
    void         (*free)(void *pattern);
} st_matcher;

struct st_pretok {
    int               n_stages, bytes, mapped; /* bytes: there is a ByteLevel in it */
    st_stage          stage[ST_STAGES];
    const st_matcher *matcher;
    const char       *path; /* only while it is read */
};

void st_pretok_free(st_pretok *p);
int  st_pretok_is_bytes(const st_pretok *p);

/* Calls piece for each piece in order; text is valid UTF-8, and so are the pieces unless they are
 * bytes.  first: 1 nothing stands before this text, 0 a token, -1 text that it goes on from.  Stops at the first failure.  [any] */
typedef setun_status (*st_piece_fn)(void *user, const char *piece, int64_t n, setun_error *err);
setun_status st_pretok_split(const st_pretok *p, const char *text, int64_t n, int first,
                             st_piece_fn piece, void *user, setun_error *err);

/* What st_pretok_put (pretok.h) wrote.  Fails with SETUN_NO_MEMORY, or sets in->bad.  *p is there also then, for st_pretok_free. */
setun_status st_pretok_take(st_pretok **p, st_bytes *in, setun_error *err);

#endif

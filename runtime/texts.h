/* runtime/texts.h -- several texts in one run of a session: see texts.c. */
#ifndef ST_RUNTIME_TEXTS_H
#define ST_RUNTIME_TEXTS_H

#include "runtime/session.h"

/* A text's rows of the run: first .. first + n - 1. */
typedef struct st_text {
    const int32_t *token;
    int64_t        n, first;
} st_text;

/* Feed all of them; together at most n_batch tokens, the longest at [0].  The rows of s->outputs, n_out of them, give
 * *state, rows of the output "embedding".  SETUN_DECLINED: this model's texts have to be fed one by one; nothing was
 * done.  What the session held is lost. */
setun_status st_texts_run(setun_session *s, const st_text *text, int64_t n_text, int64_t n_out, const float **state,
                          setun_error *err);

#endif

/* runtime/embed.c -- one vector for a text: states of its tokens, pooled and divided by their length.
 *
 * Not here: what the states are, which the graph's output "embedding" says.  The states have the same
 * bits however a text is cut into chunks; here everything is done in double, token after token and column
 * after column, and rounded once at the end, so the vectors have the same bits everywhere, too. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/texts.h"

#define MOST_TEXTS 64 /* in one run */

int64_t setun_model_n_embedding(const setun_model *m) { return m->n_embedding; }
int32_t setun_model_pooling(const setun_model *m) { return m->pooling.kind; }
int32_t setun_model_has_logits(const setun_model *m) { return m->has_logits; }

void setun_embedding_init(setun_embedding *e)
{
    memset(e, 0, sizeof *e);
    e->size = (uint32_t)sizeof *e;
}

/* What is asked for, with nothing left open. */
static setun_status decide(const setun_model *m, const setun_embedding *asked, setun_embedding *e, setun_error *err)
{
    setun_embedding_init(e);
    if (asked)
        memcpy(e, asked, asked->size < sizeof *e ? asked->size : sizeof *e);
    if (!m->n_embedding)
        return st_fail(err, SETUN_BAD_ARG, "%s makes no embeddings: %s gives logits alone", m->path, m->script);
    if (e->pool < SETUN_POOL_MODEL || e->pool > SETUN_POOL_CLS || e->norm < SETUN_NORM_MODEL || e->norm > SETUN_NORM_RAW)
        return st_fail(err, SETUN_BAD_ARG, "pool is %d and norm %d; 0 to 3 and 0 to 2 are known", e->pool, e->norm);
    if (e->dim < 0 || e->dim > m->n_embedding)
        return st_fail(err, SETUN_BAD_ARG, "%d columns wanted of a vector of %" PRId64, e->dim, m->n_embedding);
    if (!e->pool)
        e->pool = m->pooling.kind;
    if (!e->pool)
        return st_fail(err, SETUN_BAD_ARG, "%s does not say how tokens become one vector (it has no modules.json); choose last, mean "
                       "or cls", m->path);
    if (!e->norm)
        e->norm = m->pooling.raw ? SETUN_NORM_RAW : SETUN_NORM_ONE;
    if (!e->dim)
        e->dim = (int32_t)m->n_embedding;
    return SETUN_OK;
}

static void add_rows(double *sum, const float *row, int64_t n, int64_t columns)
{
    for (int64_t t = 0; t < n; t++, row += columns)
        for (int64_t i = 0; i < columns; i++)
            sum[i] += (double)row[i];
}

/* Feed a text and sum the states that count. */
static setun_status read_text(setun_session *s, const int32_t *tokens, int64_t n, const setun_embedding *e, double *sum,
                              setun_error *err)
{
    const setun_model *m = s->m;
    int mean = e->pool == SETUN_POOL_MEAN;
    int64_t most = mean && m->n_outputs < m->n_batch ? m->n_outputs : m->n_batch;
    memset(sum, 0, (size_t)m->n_embedding * sizeof *sum);
    for (int64_t done = 0; done < n;) {
        int64_t chunk = n - done < most ? n - done : most;
        int64_t wanted = e->pool == SETUN_POOL_CLS ? 0 : n - 1; /* the only one, unless all are */
        int64_t first = mean || wanted < done || wanted >= done + chunk ? 0 : wanted - done;
        int64_t n_out = mean ? chunk : wanted >= done && wanted < done + chunk;
        const float *logits;
        if (s->progress && s->progress(s->progress_user, done, n))
            return st_fail(err, SETUN_CANCELLED, "cancelled");
        /* The program for one token always makes its row of results. */
        int which = chunk == 1 && n_out == 1 ? ST_ONE : ST_MANY;
        ST_TRY(st_session_chunk(s, tokens + done, chunk, first, n_out, which, &logits, err));
        const float *row = (const float *)(const void *)(s->temp_host + s->run[which].at[1]);
        add_rows(sum, row, n_out, m->n_embedding);
        done += chunk;
    }
    return SETUN_OK;
}

/* The vector of a text from the sum of n states. */
static setun_status write_vector(const setun_model *m, double *v, int64_t n, const setun_embedding *e, float *out, setun_error *err)
{
    double square = 0;
    for (int32_t i = 0; i < e->dim; i++) {
        v[i] /= (double)n;
        square += v[i] * v[i];
    }
    if (!isfinite(square))
        return st_fail(err, SETUN_FAILED, "%s: the states are not numbers: its weights may be damaged", m->path);
    /* No vector that training has seen is shorter than this; one of zeros stays what it is. */
    double length = e->norm == SETUN_NORM_RAW ? 1 : fmax(sqrt(square), 1e-12);
    for (int32_t i = 0; i < e->dim; i++)
        out[i] = (float)(v[i] / length);
    return SETUN_OK;
}

/* Texts i .. *end - 1, as many as go into one run, at the same time.  SETUN_DECLINED: one by one. */
static setun_status read_group(setun_session *s, const int32_t *const *tokens, const int64_t *n, int64_t i, int64_t *end,
                               int64_t n_text, const setun_embedding *e, double *sum, float *out, setun_error *err)
{
    const setun_model *m = s->m;
    st_text text[MOST_TEXTS];
    int64_t which[MOST_TEXTS], total = 0, count = 0, longest = 0, n_out = 0, columns = m->n_embedding;
    int mean = e->pool == SETUN_POOL_MEAN;
    const float *state;
    for (*end = i; *end < n_text && count < MOST_TEXTS && total + n[*end] <= m->n_batch &&
                   (mean ? total + n[*end] : count + 1) <= m->n_outputs; (*end)++, count++) {
        which[count] = *end;
        total += n[*end];
        longest = n[*end] > n[which[longest]] ? count : longest;
    }
    if (count < 2)
        return SETUN_DECLINED;
    which[longest] = i;
    which[0] = i + longest;
    total = 0;
    for (int64_t k = 0; k < count; k++) {
        text[k] = (st_text){tokens[which[k]], n[which[k]], total};
        for (int64_t t = 0; t < (mean ? text[k].n : 1); t++)
            s->outputs[n_out++] = (int32_t)(total + (mean ? t : e->pool == SETUN_POOL_CLS ? 0 : text[k].n - 1));
        total += text[k].n;
    }
    if (s->progress && s->progress(s->progress_user, 0, total))
        return st_fail(err, SETUN_CANCELLED, "cancelled");
    ST_TRY(st_texts_run(s, text, count, n_out, &state, err));
    for (int64_t k = 0; k < count; k++) {
        int64_t rows = mean ? text[k].n : 1;
        memset(sum, 0, (size_t)columns * sizeof *sum);
        add_rows(sum, state, rows, columns);
        state += rows * columns;
        ST_TRY(write_vector(m, sum, rows, e, out + which[k] * e->dim, err));
    }
    return SETUN_OK;
}

setun_status setun_session_embed(setun_session *s, const int32_t *const *tokens, const int64_t *n, int64_t n_text,
                                 const setun_embedding *asked, float *out, setun_error *err)
{
    setun_embedding e;
    ST_TRY(decide(s->m, asked, &e, err));
    s->position = 0;
    for (int64_t i = 0; i < n_text; i++) {
        setun_status status = st_session_check(s, tokens[i], n[i], err);
        if (status != SETUN_OK) {
            if (n_text > 1)
                st_wrap(err, "text %" PRId64, i + 1);
            return status;
        }
    }
    double *sum = malloc((size_t)s->m->n_embedding * sizeof *sum);
    setun_status status = sum ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a vector");
    for (int64_t i = 0, end; i < n_text && status == SETUN_OK; i = end) {
        status = read_group(s, tokens, n, i, &end, n_text, &e, sum, out, err);
        if (status != SETUN_DECLINED)
            continue;
        end = i + 1;
        s->position = 0;
        status = read_text(s, tokens[i], n[i], &e, sum, err);
        if (status == SETUN_OK)
            status = write_vector(s->m, sum, e.pool == SETUN_POOL_MEAN ? n[i] : 1, &e, out + i * e.dim, err);
    }
    s->position = 0;
    free(sum);
    return status;
}

double setun_cosine(const float *a, const float *b, int64_t n)
{
    double dot = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? dot / (sqrt(aa) * sqrt(bb)) : 0;
}

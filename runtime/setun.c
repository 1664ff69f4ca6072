/* runtime/setun.c -- the parts of the public API that are not load or session: options, vocabulary,
 * small questions about a model. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "model/synth.h"
#include "runtime/model.h"

const char *setun_version(void) { return SETUN_VERSION; }

void setun_options_init(setun_options *o)
{
    memset(o, 0, sizeof *o);
    o->size = (uint32_t)sizeof *o;
}

void setun_free(void *p) { free(p); }

int64_t setun_model_n_ctx(const setun_model *m) { return m->n_ctx; }
int64_t setun_model_n_batch(const setun_model *m) { return m->n_batch; }
int64_t setun_model_n_outputs(const setun_model *m) { return m->n_outputs; }
int64_t setun_model_n_vocab(const setun_model *m) { return m->n_vocab; }
const setun_vocab *setun_model_vocab(const setun_model *m) { return &m->vocab; }

int32_t setun_model_is_end(const setun_model *m, int32_t token)
{
    for (int32_t i = 0; i < m->n_end; i++)
        if (m->end[i] == token)
            return 1;
    return 0;
}

void setun_model_get_stats(const setun_model *m, setun_model_stats *s)
{
    uint32_t size = s->size;
    setun_model_stats all = m->stats;
    all.resident_bytes = st_memory_now();
    all.resident_peak_bytes = st_memory_peak();
    all.resident_file_bytes = st_memory_files();
    memcpy(s, &all, size < sizeof all ? size : sizeof all);
    s->size = size;
}

uint64_t setun_hash(uint64_t h, const float *values, int64_t n) { return st_hash_floats(h, values, n); }

/* ---------------------------------------------------------------- vocabulary */

setun_status setun_vocab_open(setun_vocab **v, const char *path, setun_error *err)
{
    *v = calloc(1, sizeof **v);
    if (!*v)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a vocabulary");
    setun_status s = st_tokenizer_open(&(*v)->tokenizer, path, err);
    if (s != SETUN_OK) {
        free(*v);
        *v = NULL;
    }
    return s;
}

void setun_vocab_free(setun_vocab *v)
{
    if (!v)
        return;
    st_tokenizer_close(v->tokenizer);
    free(v);
}

int64_t setun_vocab_size(const setun_vocab *v) { return st_tokenizer_size(v->tokenizer); }
int32_t setun_vocab_bos(const setun_vocab *v) { return st_tokenizer_bos(v->tokenizer); }
const char *setun_vocab_about(const setun_vocab *v) { return st_tokenizer_about(v->tokenizer); }

SETUN_STATIC_ASSERT(SETUN_ENCODE_BOS == ST_TOK_BOS && SETUN_ENCODE_SPECIAL == ST_TOK_SPECIAL, "one set of flags");

setun_status setun_vocab_encode(const setun_vocab *v, const char *text, size_t n_bytes, uint32_t flags, int32_t **ids,
                                int64_t *n, setun_error *err)
{
    return st_tokenizer_encode(v->tokenizer, text, (int64_t)n_bytes, flags, ids, n, err);
}

setun_status setun_vocab_piece(const setun_vocab *v, int32_t id, int32_t special, const char **bytes, size_t *n,
                               setun_error *err)
{
    int is_special = 0;
    int64_t count = 0;
    ST_TRY(st_tokenizer_bytes(v->tokenizer, id, bytes, &count, &is_special, err));
    *n = is_special && !special ? 0 : (size_t)count;
    return SETUN_OK;
}

SETUN_STATIC_ASSERT(sizeof(setun_stream) == sizeof(st_detok), "one streaming state");

void setun_stream_start(setun_stream *s, const setun_vocab *v)
{
    st_detok d;
    st_detok_start(&d, v->tokenizer);
    memcpy(s, &d, sizeof d);
}

size_t setun_stream_push(setun_stream *s, const char *bytes, size_t n, char *out)
{
    st_detok d;
    memcpy(&d, s, sizeof d);
    int64_t m = st_detok_push(&d, n ? bytes : NULL, (int64_t)n, out);
    memcpy(s, &d, sizeof d);
    return (size_t)m;
}

/* ---------------------------------------------------------------- synthetic models */

setun_status setun_synth(const setun_synth_options *o, setun_error *err)
{
    st_synth s = {.like = o->like, .config = o->config, .out = o->out, .seed = o->seed, .zero_share = o->zero_share,
                  .float_master = o->float_master, .shard_bytes = o->shard_bytes, .progress = o->progress, .user = o->user,
                  .relu_density = o->relu_density,
                  .down_density = SETUN_HAS(setun_synth_options, o, down_density) ? o->down_density : 0};
    return st_synth_write(&s, err);
}

const char *setun_synth_names(void) { return st_synth_names(); }

/* model/gguf_model.h -- a GGUF file as the model that it holds: the keys of a config.json, the names
 * of a Hugging Face checkpoint, and per tensor how its rows are to be read.
 *
 * The tables can be read in both directions: from a file to a model here, and from a model to a file
 * by whoever writes one.  Not here: the container (gguf.c), element types (gguf_types.c), rows in the
 * layout that Setun computes with (gguf_source.c). */
#ifndef ST_MODEL_GGUF_MODEL_H
#define ST_MODEL_GGUF_MODEL_H

#include "model/config.h"
#include "model/gguf_types.h"
#include "model/weights.h"

/* ---------------------------------------------------------------- tables */

/* Families of architectures, as bits of `in` below. */
enum {
    ST_GGUF_2B4T = 1, ST_GGUF_1BITLLM = 2, ST_GGUF_LLAMA = 4, ST_GGUF_QWEN2 = 8, ST_GGUF_QWEN3 = 16, ST_GGUF_GEMMA3 = 32,
    ST_GGUF_BITNET = ST_GGUF_2B4T | ST_GGUF_1BITLLM, ST_GGUF_ALL = 63
};

typedef struct st_gguf_arch {
    const char *name;       /* general.architecture, and the prefix of its keys */
    const char *class_name; /* architectures[0] of config.json */
    const char *model_type, *activation;
    uint32_t    in;         /* one bit */
} st_gguf_arch;

/* What a key's value must be. */
enum {
    ST_KEY_COUNT,    /* a whole number from 1 on; as an array, the same one for every layer */
    ST_KEY_POSITIVE, /* a number above 0 */
    ST_KEY_SIZE,     /* a whole number that must agree with what else says it */
    ST_KEY_ONLY,     /* nothing but `only`, which is what its absence means */
    ST_KEY_RECORD,   /* anything: it changes nothing that is computed */
    ST_KEY_OWN       /* has rules of its own in gguf_model.c */
};

typedef struct st_gguf_key {
    const char *suffix; /* behind the architecture's name and a dot */
    const char *config; /* config.json's key for the same value; NULL: it has none, or several */
    uint32_t    type;   /* that writers give it */
    int         kind;
    uint32_t    in, needed; /* families that may, and that must have it */
    double      only;
    const char *reason;
} st_gguf_key;

/* Sizes that shapes are made of. */
enum { ST_SIZE_NONE, ST_SIZE_HIDDEN, ST_SIZE_FFN, ST_SIZE_QUERY, ST_SIZE_KV, ST_SIZE_HEAD, ST_SIZE_VOCAB, ST_SIZES };
enum { ST_NAME_MATRIX, ST_NAME_LINEAR, ST_NAME_VECTOR, ST_NAME_NORM /* gain; gemma3's files have it with 1 added */ };

enum { ST_NAME_NEEDED, ST_NAME_OPTIONAL, ST_NAME_TOGETHER };

typedef struct st_gguf_name {
    const char *gguf, *hf; /* "%d" stands for the layer in both */
    uint32_t    in;
    int         kind, rows, cols;
    int         optional; /* ST_NAME_TOGETHER: all of these rows, or none */
} st_gguf_name;

const st_gguf_arch *st_gguf_archs(int64_t *n);
const st_gguf_key  *st_gguf_keys(int64_t *n);
const st_gguf_name *st_gguf_names(int64_t *n);
const char *st_gguf_pooling(int64_t type); /* the name, as in pooling.h, of a pooling_type; NULL: none, or not known */

/* Does text have the form of pattern?  *layer is the number at its %d, -1: it has none. */
int   st_gguf_name_matches(const char *pattern, const char *text, int64_t *layer);
char *st_gguf_name_of(st_arena *arena, const char *pattern, int64_t layer); /* NULL: no memory */

/* ---------------------------------------------------------------- a file */

typedef struct st_gguf_source {
    const st_gguf_tensor *t, *factor; /* factor: "X.scale" beside "X.weight", or NULL */
    const st_gguf_name   *name;
    int64_t               heads;      /* > 0: each head's rows are interleaved, and are put in order */
} st_gguf_source;

typedef struct st_gguf_model {
    st_gguf             g;
    st_arena           *arena; /* not owned */
    const st_gguf_arch *arch;
    st_config           config;
    int64_t             size[ST_SIZES], layers, heads, kv_heads;
    st_tensor          *tensor; /* by Hugging Face's names; dtype 0 in a view: not to be used in place */
    st_gguf_source     *source; /* beside each of them */
    int64_t             n_tensors;
    st_table           *by_name;
    int                 inner_norms; /* each linear layer normalises its input: BitNet's text embedding models */
    int                 activations; /* ST_ACTIVATIONS_ASK: no linear layer is stored as ternary */
    const char        **line;   /* what was decided, and from which evidence; "repaired: ..." among them */
    int64_t             n_lines, cap_lines;
} st_gguf_model;

/* Opens path and refuses, by name, what is missing, unknown or contradicts itself.  Zero-initialise
 * *m; after a failure, too, call st_gguf_model_close.  After success every tensor has a type that
 * can be computed with, and the shape that the keys say. */
setun_status st_gguf_model_open(st_gguf_model *m, const char *path, const st_weights_choice *choice, st_arena *arena,
                                setun_error *err);
void         st_gguf_model_close(st_gguf_model *m);

/* One more key of the configuration; key NULL: no memory. */
setun_status st_gguf_model_put(st_gguf_model *m, const char *key, st_hparam value, setun_error *err);

/* ---------------------------------------------------------------- rotated matrices (gguf_rotation.c) */

#define ST_ROTATION_PREFIX "prism.hadamard."
int          st_gguf_rotation_knows(const char *key);
int64_t      st_gguf_rotation_count(const st_gguf *g); /* of keys that it adds to the configuration, at most */
setun_status st_gguf_rotation_take(st_gguf_model *m, setun_error *err);
struct st_gguf_writer;
void         st_gguf_rotation_put(struct st_gguf_writer *w, const st_hparam *config, int64_t n); /* a directory's, into a file */

/* ---------------------------------------------------------------- rows (gguf_source.c) */

/* Is tensor i ternary: by its type, or because the linear layers of the architecture are?  An embedding or a
 * head is only where activations stay floats: no program quantises them in front of a head. */
int st_gguf_source_is_ternary(const st_gguf_model *m, int64_t i);

/* Codes of tensor i as T2, rows in Hugging Face's order, and its scales, which scale has room for
 * (st_gguf_source_scales for each row): one for every *group weights of a row, 0: one for each row,
 * ST_GROUP_TENSOR: the one in scale[0] for all.  The coarsest group that says the same. */
#define ST_GROUP_TENSOR (-1)
int64_t      st_gguf_source_scales(const st_gguf_model *m, int64_t i);
setun_status st_gguf_source_ternary(const st_gguf_model *m, int64_t i, uint8_t *t2, float *scale, int32_t *group,
                                    setun_error *err);

/* Where tensor i has row r. */
int64_t      st_gguf_source_at(const st_gguf_model *m, int64_t i, int64_t r);

/* The element type that a tensor's bytes have as they lie, on this host; 0: none. */
uint32_t st_gguf_dtype(const st_gguf_tensor *t);

/* Rows from first on as floats, or, with raw != 0, as the elements or blocks that they are; in order. */
setun_status st_gguf_source_rows(const st_gguf_model *m, int64_t i, int64_t first, int64_t n, int raw, void *to,
                                 setun_error *err);

/* What angle i of n is divided by in Llama 3's scaling, which GGUF files have as a tensor; all that are
 * known have these two factors. */
#define ST_DIVISORS    "rope_freqs.weight"
#define ST_LLAMA3_LOW  1
#define ST_LLAMA3_HIGH 4
double st_llama3_divisor(double theta, int64_t i, int64_t n, double factor, double context);

#endif

/* setun/setun.h -- the embedding API: load a model, run sessions, look inside.
 *
 * A model is immutable after loading and may be shared by threads [any]; a session belongs to one
 * thread at a time [owner].  Functions that can fail return a status and fill err (may be NULL) with
 * one sentence.  Structs that the caller fills start with `size`: set it with the matching
 * _init function, which also sets the defaults, or where there is none with sizeof.  Strings are
 * UTF-8 and borrowed. */
#ifndef SETUN_SETUN_H
#define SETUN_SETUN_H

#include "setun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct setun_model   setun_model;
typedef struct setun_session setun_session;
typedef struct setun_vocab   setun_vocab;
typedef struct setun_sampler setun_sampler;

SETUN_EXPORT const char *setun_version(void); /* "0.1.0" */

/* Text goes out through one of these; return nonzero to stop (SETUN_CANCELLED). */
typedef int setun_write_fn(void *user, const char *text, size_t n);

/* ---------------------------------------------------------------- options */

typedef struct setun_options {
    uint32_t    size;
    int32_t     n_threads;    /* 0: one per core */
    const char *backend;      /* NULL: "cpu" */
    const char *plugins;      /* colon-separated shared objects; NULL: none */
    const char *script;       /* architecture script; NULL: found by the model's architecture */
    const char *cpu_features; /* "-avx512f,+avx2": what generated code may use; NULL: all of the host */
    const char *kv;           /* "f32", "f16" (default), "bf16" */
    const char *cache_dir;    /* for kernels and packed weights; NULL: no cache */
    int32_t     interpret;    /* 1: interpret kernels instead of compiling them (very slow) */
    int32_t     full_head;    /* 1: do without the screened head, and compute all logits always */
    int64_t     n_ctx;        /* positions a session holds; 0: the model's own limit, at most 4096 */
    int64_t     n_batch;      /* most tokens in one step of prefill; 0: 512 */
    int64_t     n_outputs;    /* most rows of logits at once; 0: 1 */
    void      (*log)(void *user, int32_t level, const char *text); /* 0 warning, 1 info, 2 debug; from any
                                                                    * thread that uses the model */
    void       *log_user;
    int32_t     log_level;    /* highest level wanted */
    int32_t     tune;         /* SETUN_TUNE_...: candidates of a kernel give the same bits at different speed */
    const char *down;         /* which ternary matrices are kept transposed, so that the weights of a zero input need
                               * not be read: "auto" (default; behind a rectified gate), "channel" (any gate), "row" (none) */
    /* What a GGUF file does not always say.  NULL: what it says, or a refusal that names the option. */
    const char *i2s_layout;   /* how I2_S lies in it: "x86", "arm", "rows4" */
    const char *activations;  /* of ternary layers in TQ1_0 and TQ2_0: "int8" or "float" */
    const char *packing;      /* a Lua file that declares how ternary weights lie in memory, or FILE.lua:NAME; NULL: as the
                               * model script says, or the built-in form */
    const char *target;       /* kernels for another machine, "aarch64", with cpu_features on top of the oldest CPU; here
                               * they are interpreted.  NULL: for this machine */
    const char *kernels;      /* a directory of setun_model_compile for this machine, used instead of compiling; NULL: none */
    int32_t     vlen;         /* with target "riscv64": bits of a vector register, 128 (also 0) or 256 */
    int32_t     from_floats;  /* 1: matrices get into the packing from floats, by the rule that it declares (quantise) */
    const char *quantizer;    /* how activations are rounded before they meet ternary weights: NAME or NAME=VALUE of
                               * scripts/quantizers, or FILE.lua[=VALUE]; NULL: as the model was trained */
} setun_options;
#define SETUN_TUNE_ONCE  0   /* measure at the first load of a large model, and keep the choice in cache_dir */
#define SETUN_TUNE_NEVER 1   /* defaults */
#define SETUN_TUNE_AGAIN 2   /* measure now */
#define SETUN_TUNE_FORCE 100 /* plus i: candidate i of everything, for tests */
SETUN_EXPORT void setun_options_init(setun_options *o);

/* ---------------------------------------------------------------- model */

/* path: a Hugging Face directory, or a GGUF file (of a split one, the first part).  [any] */
SETUN_EXPORT setun_status setun_model_load(setun_model **m, const char *path, const setun_options *o, setun_error *err);
SETUN_EXPORT void setun_model_free(setun_model *m); /* after its sessions; NULL is allowed */

SETUN_EXPORT int64_t setun_model_n_ctx(const setun_model *m);
SETUN_EXPORT int64_t setun_model_n_batch(const setun_model *m);
SETUN_EXPORT int64_t setun_model_n_outputs(const setun_model *m);
SETUN_EXPORT int64_t setun_model_n_vocab(const setun_model *m); /* columns of the logits, if it has any: ids it takes */
SETUN_EXPORT int32_t setun_model_has_logits(const setun_model *m); /* 0: it makes embeddings alone */
SETUN_EXPORT const setun_vocab *setun_model_vocab(const setun_model *m); /* lives as long as the model */
SETUN_EXPORT int32_t setun_model_is_end(const setun_model *m, int32_t token); /* ends a text or a turn */

/* What was decided and from what evidence; what is exact and what is approximate. */
SETUN_EXPORT setun_status setun_model_info(const setun_model *m, int32_t json, setun_write_fn *out, void *user, setun_error *err);

/* What a model file holds, without loading it: metadata, tensors, which types its numbers stand for and
 * why.  SETUN_DECLINED: path is not a GGUF file, which its first bytes say and not its name.  [any] */
typedef struct setun_file_options {
    uint32_t    size;
    int32_t     json;
    int32_t     values;     /* 1: decode every tensor, and say what is in it */
    const char *i2s_layout; /* as in setun_options */
    const char *activations;
} setun_file_options;
SETUN_EXPORT setun_status setun_file_info(const char *path, const setun_file_options *o, setun_write_fn *out, void *user,
                                          setun_error *err);

/* Which candidates of kernels were chosen by measurement and what that gains, a line each. */
SETUN_EXPORT setun_status setun_model_tuned(const setun_model *m, setun_write_fn *out, void *user, setun_error *err);

/* Every stage in its own input syntax: "graph", "graph=script", "plan", "kir", "llvm", "asm"; or drawn: "graph=dot" for
 * Graphviz, "graph=html" as a page, "graph=html+time" with the time that each node takes in decoding.  kernel: part of
 * a kernel's name, or NULL for all. */
SETUN_EXPORT setun_status setun_model_dump(const setun_model *m, const char *what, const char *kernel,
                                           setun_write_fn *out, void *user, setun_error *err);

/* The kernel of one operator for the shapes of a case: what is "kir", "llvm" or "asm".  file: a Lua file that defines
 * it, or NULL for a built-in one; name: which, NULL for the only one of the file; text: as in its cases, NULL for the
 * first of them.  A kernel that a script made names the script's lines. */
SETUN_EXPORT setun_status setun_op_dump(const char *file, const char *name, const char *text, const char *what,
                                        const setun_options *o, setun_write_fn *out, void *user, setun_error *err);

typedef struct setun_model_stats {
    uint32_t size;
    int32_t  n_kernels, n_compiled, n_cached, n_threads;
    int64_t  load_ns, weights_ns, kernels_ns;  /* wall time: all, reading and packing, kernels */
    int64_t  weight_bytes;   /* read for one token of decode, head included */
    int64_t  ternary_weights;
    double   int_ops_token;  /* integer multiply-adds per token, dense */
    double   float_ops_token;
    int64_t  kv_bytes, temp_bytes; /* of one session */
    int64_t  resident_bytes, resident_peak_bytes; /* of the process, now */
    char     isa[32];        /* "avx512-vnni" ... "interpreter", "eval" */
    char     backend[32];
    int64_t  top_bytes;      /* read for one token by SETUN_LOGITS_TOP, and head_row_bytes for each row */
    int64_t  head_row_bytes; /* that survives; both 0 without a screened head */
    int64_t  ternary_bytes, head_bytes; /* in memory: packed matrices; short rows of the screened head */
    int64_t  resident_file_bytes; /* the part of resident_bytes that is pages of files */
    /* Parts of load_ns, which is all of setun_model_load; weights_ns is files_ns + pack_ns + graph_ns: */
    int64_t  engine_ns;      /* plugins, operators, the code generator's library */
    int64_t  files_ns;       /* opening and checking the files */
    int64_t  pack_ns;        /* making packed weights, or finding and mapping them */
    int64_t  graph_ns;       /* running the script */
    int64_t  tokenizer_ns;
    int64_t  tune_ns;        /* of kernels_ns: trying kernels against each other; 0: none were */
    char     quantizer[64];  /* of activations, "topk=0.5"; "": the model's own */
} setun_model_stats;
SETUN_EXPORT void setun_model_get_stats(const setun_model *m, setun_model_stats *s);

/* ---------------------------------------------------------------- session */

SETUN_EXPORT setun_status setun_session_new(setun_session **s, const setun_model *m, setun_error *err);
SETUN_EXPORT void setun_session_free(setun_session *s);

#define SETUN_LOGITS_NONE 0
#define SETUN_LOGITS_LAST 1
#define SETUN_LOGITS_ALL  2 /* needs n <= n_outputs and n <= n_batch */
#define SETUN_LOGITS_TOP  3 /* the largest ones of the last token: see setun_session_top */
#define SETUN_MAX_TOP   256

/* Feed n tokens at the current position.  *logits (NULL is allowed with NONE) gets rows of n_vocab
 * floats that belong to the session and are valid until its next call.  After SETUN_FULL (no room),
 * SETUN_BAD_ARG (a token outside the vocabulary) or SETUN_CANCELLED nothing has changed.  [owner] */
SETUN_EXPORT setun_status setun_session_feed(setun_session *s, const int32_t *tokens, int64_t n, int32_t want,
                                             const float **logits, setun_error *err);
/* With SETUN_LOGITS_TOP a part of the head is read only, and *logits is NULL; the largest logits, their
 * bits and their order, are those of the full head.  Where that is not possible (logits that are not
 * finite, too many survivors, no screened head) *logits is the full row, as with SETUN_LOGITS_LAST. */
typedef struct setun_top {
    uint32_t       size;
    int32_t        n;         /* how many; 0 before the first feed with SETUN_LOGITS_TOP */
    const int32_t *id;        /* largest first, of equals the lower id; valid until the next feed */
    const float   *logit;
    int64_t        survivors; /* rows of the head that were computed exactly; -1: all of them */
} setun_top;
SETUN_EXPORT void setun_session_top(const setun_session *s, setun_top *top);
/* How many: 1 to SETUN_MAX_TOP (and at most n_vocab); 64 at first. */
SETUN_EXPORT setun_status setun_session_set_top(setun_session *s, int32_t n, setun_error *err);
/* What else can be asked of SETUN_LOGITS_TOP, from now on; setun_session_set_top asks for n only. */
typedef struct setun_screen {
    uint32_t size;
    int32_t  n;      /* how many; 1 with one of the following */
    float    temp;   /* > 0: the row with the largest logit / temp + setun_gumbel(key[0], key[1], row) of
                      * numerics.h instead, of equals the lower id */
    float    below;  /* < 0: the largest and all that are at most this far below it, if they are at most
                      * SETUN_MAX_TOP */
    uint32_t key[2];
} setun_screen;
SETUN_EXPORT setun_status setun_session_set_screen(setun_session *s, const setun_screen *screen, setun_error *err);
SETUN_EXPORT int64_t setun_session_position(const setun_session *s);
/* Forget everything from position p on (0 <= p <= position). */
SETUN_EXPORT setun_status setun_session_rewind(setun_session *s, int64_t p, setun_error *err);
/* Asked between chunks of a long feed; nonzero cancels it. */
SETUN_EXPORT void setun_session_on_progress(setun_session *s, int (*fn)(void *user, int64_t done, int64_t total), void *user);

/* ---------------------------------------------------------------- measuring */

/* What memory is for.  The first five are also what a token reads from memory. */
#define SETUN_CLASS_TERNARY 0 /* packed ternary matrices */
#define SETUN_CLASS_HEAD    1 /* the screened head's 8-bit rows and their bounds */
#define SETUN_CLASS_ROWS16  2 /* stored 16-bit matrices: embedding, head */
#define SETUN_CLASS_OTHER   3 /* all other constants: norms, scales, tables, 32-bit matrices */
#define SETUN_CLASS_KV      4 /* keys and values */
#define SETUN_CLASS_TEMP    5 /* what steps hand to steps */
#define SETUN_CLASS_CODE    6 /* files of machine code: the program, its libraries, LLVM */
#define SETUN_CLASS_REST    7 /* everything else: heap, stacks, compiled kernels */
#define SETUN_N_CLASS       8
SETUN_EXPORT const char *setun_class_name(int32_t c); /* "ternary", ...; NULL outside */

/* The process's memory now.  Resident bytes are counted page by page where Setun knows the addresses and
 * taken from the system's list of mappings otherwise; REST is what is left of resident_bytes. */
typedef struct setun_memory {
    uint32_t size, reserved;
    int64_t  resident_bytes;           /* the sum of resident[] */
    int64_t  held[SETUN_N_CLASS];      /* bytes that exist, touched or not; CODE and REST: 0 */
    int64_t  resident[SETUN_N_CLASS];
} setun_memory;
SETUN_EXPORT setun_status setun_session_memory(const setun_session *s, setun_memory *m, setun_error *err);

/* What the next feeds note down, from zero; 0 ends it.  Times come from three runs of four, so that
 * counting does not disturb them, if both are wanted.  SETUN_UNKNOWN: the backend cannot show its steps. */
#define SETUN_NOTE_TIME    1u /* of each step, with a barrier behind it */
#define SETUN_NOTE_WORK    2u /* bytes and operations */
#define SETUN_NOTE_DENSITY 4u /* zeros among gates and int8 activations */
SETUN_EXPORT setun_status setun_session_note(setun_session *s, uint32_t what, setun_error *err);

/* Work per token, with SETUN_NOTE_WORK: decode is one token with logits, all else is prefill. */
typedef struct setun_work {
    uint32_t size, reserved;
    int64_t  n_token;                  /* the tokens counted; 0: none */
    double   bytes[SETUN_N_CLASS];     /* from memory, by what they belong to; CODE and REST: 0 */
    double   int_ops, float_ops;       /* integer multiply-adds that were done; float operations */
    double   ops[SETUN_N_CLASS];       /* both together, by what the step's bytes belong to */
} setun_work;
SETUN_EXPORT void setun_session_work(const setun_session *s, int32_t decode, setun_work *w);

/* What this machine can do, measured now with generated loops for the given cpu_features. */
typedef struct setun_limit {
    int32_t n_threads, reserved;
    double  read_gb_s;    /* streaming reads from memory, several pages side by side as the kernels read */
    double  int8_gmac_s;  /* int8 multiply-adds in registers with the best instruction; 0 unknown */
    double  float_gmac_s; /* 32-bit float multiplications, each followed by an addition; 0 unknown */
    double  barrier_ns;   /* one barrier of the thread pool */
} setun_limit;
#define SETUN_MAX_LIMITS 16
typedef struct setun_limits {
    uint32_t size;
    int32_t  n_threads;
    double   read_gb_s, int8_gmac_s, barrier_ns; /* of n_threads: as in the last row of at[] */
    char     int8_with[32]; /* which instruction: "tiles", "dot4 64", "dot2 32" */
    double   float_gmac_s;
    int64_t  cache_bytes;   /* of the second level, all cores that n_threads use */
    int64_t  all_cache_bytes; /* with the third level, which others may use too */
    int32_t  n_at, reserved;
    setun_limit at[SETUN_MAX_LIMITS]; /* 1, 2, 4, ... and n_threads threads */
    double   plain_gb_s[SETUN_MAX_LIMITS]; /* beside at[]: the same bytes in plain order and without hints */
} setun_limits;
SETUN_EXPORT setun_status setun_limits_measure(const setun_options *o, int32_t n_threads, setun_limits *l, setun_error *err);

/* Every operator's time beside the limits, and why it is not faster.  Needs TIME and WORK. */
SETUN_EXPORT setun_status setun_session_roofline(const setun_session *s, int32_t decode, const setun_limits *l, int32_t json,
                                                 setun_write_fn *out, void *user, setun_error *err);

/* Means over the layers, with SETUN_NOTE_DENSITY.  Index 0: one token; 1, 2, 3: what 2, 4 and 8
 * neighbouring tokens need together, which is unknown (-1) until so many were fed at once. */
typedef struct setun_density {
    uint32_t size;
    int32_t  n_layer;      /* with a gate of relu2; 0: the model is not gated by relu2 */
    int64_t  n_token;
    double   gates[4];     /* share of gates > 0 */
    double   down[4];      /* share of int8 inputs that are not 0, of the matrix behind the gate; -1: none */
    double   other;        /* the same of all other ternary matrices; -1: there are none */
    double   zero_gate, zero_up, dead; /* neurons whose row of weights is 0: gate, up, either; -1 unknown */
} setun_density;
SETUN_EXPORT void setun_session_density(const setun_session *s, int32_t layer, setun_density *d); /* -1: the mean */
SETUN_EXPORT setun_status setun_session_density_print(const setun_session *s, int32_t json, setun_write_fn *out, void *user,
                                                      setun_error *err);

/* Go on from where another session of the same model is: its position, what it remembers up to there
 * and its setun_session_top, but not its row of logits.  Many answers to one prompt cost one reading
 * of it.  A failure leaves `to` at position 0.  [owner] of both */
SETUN_EXPORT setun_status setun_session_copy(setun_session *to, const setun_session *from, setun_error *err);

/* ---------------------------------------------------------------- several sessions together */

/* n sessions of one model take a token each per step, and the weights are read once for all of them.
 * Every sequence gets the bits that it gets alone.  The sessions stay what they are: they may be at
 * different positions, have different setun_session_set_top, and be fed, rewound and copied one by one between
 * steps.  A batch borrows them: free it first.  [owner] of all of them; n from 1 to SETUN_MAX_BATCH. */
#define SETUN_MAX_BATCH 256
typedef struct setun_batch setun_batch;
SETUN_EXPORT setun_status setun_batch_new(setun_batch **b, const setun_model *m, setun_session *const *s, int32_t n,
                                          setun_error *err);
SETUN_EXPORT void setun_batch_free(setun_batch *b); /* not its sessions; NULL is allowed */
/* tokens[i] goes to session i.  want: SETUN_LOGITS_NONE, _LAST or _TOP.  logits (NULL is allowed) has room for n
 * pointers: logits[i] gets what setun_session_feed gives session i, valid until the next call for the batch
 * or that session; setun_session_top is asked of the sessions.  After a failure (SETUN_FULL: some
 * session has no room; SETUN_BAD_ARG: a token outside the vocabulary) no session has moved. */
SETUN_EXPORT setun_status setun_batch_step(setun_batch *b, const int32_t *tokens, int32_t want, const float **logits,
                                           setun_error *err);
/* setun_session_note and setun_session_roofline of the steps of a batch.  [owner] of its sessions */
SETUN_EXPORT setun_status setun_batch_note(setun_batch *b, uint32_t what, setun_error *err);
SETUN_EXPORT setun_status setun_batch_roofline(const setun_batch *b, const setun_limits *l, int32_t json, setun_write_fn *out,
                                               void *user, setun_error *err);

/* ---------------------------------------------------------------- embeddings */

/* One vector for a whole text, from models that are made for it. */
#define SETUN_POOL_MODEL 0 /* what the model says */
#define SETUN_POOL_LAST  1 /* the last token's state */
#define SETUN_POOL_MEAN  2 /* the mean of all tokens' states */
#define SETUN_POOL_CLS   3 /* the first token's state */
#define SETUN_NORM_MODEL 0 /* as the model says; if it does not: to length 1 */
#define SETUN_NORM_ONE   1 /* divided by its length */
#define SETUN_NORM_RAW   2 /* as it is */
typedef struct setun_embedding {
    uint32_t size;
    int32_t  pool, norm; /* SETUN_POOL_..., SETUN_NORM_... */
    int32_t  dim;        /* how many columns to keep, before the vector is divided by its length; 0: all */
} setun_embedding;
SETUN_EXPORT void setun_embedding_init(setun_embedding *e);
SETUN_EXPORT int64_t setun_model_n_embedding(const setun_model *m); /* columns of a vector; 0: it makes none */
SETUN_EXPORT int32_t setun_model_pooling(const setun_model *m); /* SETUN_POOL_...; _MODEL: nobody says */
/* Vectors of n_text texts, text i of n[i] tokens, one behind the other at out: dim (or all) floats for each.  They
 * have the bits that each has alone.  Every text starts anew: the session's position is 0 before and
 * afterwards.  SETUN_FULL: a text has more tokens than the context has positions.  [owner] */
SETUN_EXPORT setun_status setun_session_embed(setun_session *s, const int32_t *const *tokens, const int64_t *n,
                                              int64_t n_text, const setun_embedding *e, float *out, setun_error *err);
/* Cosine of the angle between two vectors of n floats, in double; 0 if one of them is 0. */
SETUN_EXPORT double setun_cosine(const float *a, const float *b, int64_t n);

/* ---------------------------------------------------------------- sampling */

typedef struct setun_sampling {
    uint32_t size;
    float    temp;           /* 0: greedy (arg max, lowest id of equals); default 0.8 */
    int32_t  top_k;          /* 0: off; default 40 */
    float    top_p, min_p;   /* 1 and 0: off; default 0.95, 0 */
    float    repeat_penalty; /* 1: off (default); divides positive, multiplies negative logits */
    int32_t  repeat_last;    /* tokens that count as repeated; default 64 */
    uint64_t seed;           /* default 1: runs are repeatable */
} setun_sampling;
SETUN_EXPORT void setun_sampling_init(setun_sampling *p);
SETUN_EXPORT setun_status setun_sampler_new(setun_sampler **s, const setun_sampling *p, int64_t n_vocab, setun_error *err);
SETUN_EXPORT void setun_sampler_free(setun_sampler *s);
SETUN_EXPORT void setun_sampler_accept(setun_sampler *s, int32_t token); /* for the repeat penalty: prompt tokens too */
SETUN_EXPORT int32_t setun_sampler_pick(setun_sampler *s, const float *logits); /* does not accept it */

/* How many of the largest logits decide the token: 1 for greedy, top_k, with a repeat penalty above 1 repeat_last more, or
 * 0 when all are needed.  Constant in the life of the sampler. */
SETUN_EXPORT int32_t setun_sampler_needs(const setun_sampler *s);
/* What to ask a session for before the next token is fed: that many, or where neither top-k nor top-p limits the draw, the
 * token itself (with temperature only) or those that min-p leaves.  0: all logits are needed. */
SETUN_EXPORT int32_t setun_sampler_screen(const setun_sampler *s, setun_screen *screen);
/* The token that setun_sampler_pick gives, from the setun_sampler_needs (not 0) or more largest, or from what
 * setun_sampler_screen asked for. */
SETUN_EXPORT int32_t setun_sampler_pick_top(setun_sampler *s, const setun_top *top);

/* Sum of -ln softmax(row)[target], in double, for perplexity. */
SETUN_EXPORT double setun_nll(const float *logits, int64_t n_vocab, int32_t target);
/* 64-bit hash of the bits of floats, to be chained; start with 0. */
SETUN_EXPORT uint64_t setun_hash(uint64_t h, const float *values, int64_t n);

/* ---------------------------------------------------------------- perplexity */

/* Which tokens of a text are predicted from which: docs/numerics.md has the rules. */
#define SETUN_PPL_DISJOINT    0 /* windows side by side, each behind a BOS */
#define SETUN_PPL_LLAMA_CPP   1 /* as llama-perplexity: the second half of each window counts */
#define SETUN_PPL_HUGGINGFACE 2 /* a sliding window, as in the documentation of transformers */
SETUN_EXPORT const char *setun_ppl_name(int32_t convention); /* "disjoint", ...; NULL outside */

typedef struct setun_ppl {
    uint32_t size, reserved;
    int64_t  window, stride, windows, tokens; /* as used; tokens that were predicted */
    double   nll, ppl, error;  /* mean of -ln probability; e to that; its standard error */
    int64_t  save_bytes;       /* of the file that save names */
    /* With against: p is the saved run, q this one. */
    double   kl, kl_error, kl_max; /* mean, its standard error and maximum of the sum of p ln(p / q) */
    double   kl_at[5];             /* what 50, 90, 95, 99 and 99.9 % of the tokens do not exceed */
    double   same_top, same_top_error; /* share of tokens whose most probable one is the same */
    double   base_ppl, ratio, ratio_error; /* ppl of p, ppl / base_ppl */
} setun_ppl;

typedef struct setun_ppl_options {
    uint32_t    size;
    int32_t     convention;
    int64_t     window;  /* tokens; 0: 256, 512, or the model's context */
    int64_t     stride;  /* of SETUN_PPL_HUGGINGFACE; 0: half a window */
    int64_t     windows; /* stop after so many; 0: all of the text */
    const char *save;    /* NULL, or keep all logits in this file, which runtime/saved_logits.h describes */
    const char *against; /* NULL, or compare with the logits in this file, of the same text, tokenizer and convention */
    void      (*begin)(void *user, const setun_ppl *planned); /* with a file: before any work; NULL is allowed */
    int       (*progress)(void *user, int64_t done, int64_t total, double ppl); /* nonzero cancels; NULL is allowed */
    void       *user;
} setun_ppl_options;
/* The model should have been loaded with n_outputs of some tens: so many rows are computed at once. */
SETUN_EXPORT setun_status setun_perplexity(const setun_model *m, const char *text, size_t n_bytes, const setun_ppl_options *o,
                                           setun_ppl *result, setun_error *err);

/* ---------------------------------------------------------------- tokens */

/* path: a directory with tokenizer.json, or a GGUF file, which may have a vocabulary only. */

SETUN_EXPORT setun_status setun_vocab_open(setun_vocab **v, const char *path, setun_error *err);
SETUN_EXPORT void setun_vocab_free(setun_vocab *v); /* only what setun_vocab_open gave */
SETUN_EXPORT int64_t setun_vocab_size(const setun_vocab *v);
SETUN_EXPORT int32_t setun_vocab_bos(const setun_vocab *v); /* -1: none */
/* One line: what a GGUF file's tokenizer is, and what was decided where the file is silent; NULL for tokenizer.json. */
SETUN_EXPORT const char *setun_vocab_about(const setun_vocab *v);
#define SETUN_ENCODE_BOS     1u /* what the tokenizer puts around a text */
#define SETUN_ENCODE_SPECIAL 2u /* recognise special tokens written in the text */
/* *ids is to be freed with setun_free.  Text that is not UTF-8 is refused with the byte's offset. */
SETUN_EXPORT setun_status setun_vocab_encode(const setun_vocab *v, const char *text, size_t n_bytes, uint32_t flags,
                                             int32_t **ids, int64_t *n, setun_error *err);
/* Bytes of one token; special tokens give their text when special != 0, else nothing. */
SETUN_EXPORT setun_status setun_vocab_piece(const setun_vocab *v, int32_t id, int32_t special, const char **bytes,
                                            size_t *n, setun_error *err);
SETUN_EXPORT void setun_free(void *p);

/* Streaming: feed pieces, get whole characters.  out has room for 4 * (n + 8) bytes; n = 0 flushes. */
typedef struct setun_stream {
    char    held[8];
    int32_t n_held;
} setun_stream;
/* Begins a whole text, whose first space some vocabularies drop; a zeroed state goes on with one. */
SETUN_EXPORT void setun_stream_start(setun_stream *s, const setun_vocab *v);
SETUN_EXPORT size_t setun_stream_push(setun_stream *s, const char *bytes, size_t n, char *out);

/* ---------------------------------------------------------------- conversations */

/* Messages, the template that makes them a prompt, and what a session remembers of it.  What is said is
 * encoded without special tokens; only the template's own markers have them.  A chat borrows model and
 * session, which nobody else may feed or rewind as long as it lives.  [owner] of the session */
typedef struct setun_chat setun_chat;
typedef struct setun_chat_options {
    uint32_t    size;
    int32_t     think;         /* SETUN_THINK_...: for templates of models that think before they answer */
    const char *template_name; /* "llama3"; NULL: the one that the model's own template stands for */
    const char *date;          /* for templates that tell it; NULL: "26 Jul 2024", which they fall back to */
    int32_t     forget;        /* 1: where the context is too small for all, the oldest turns are removed until half
                                * of it is free, or only the last question is left; the system message stays */
    int32_t     reserved;
} setun_chat_options;
#define SETUN_THINK_DEFAULT 0
#define SETUN_THINK_OFF     1
#define SETUN_THINK_ON      2
/* o and s may be NULL: defaults; a chat that cannot be fed.  SETUN_UNKNOWN: there is no template, or none
 * that is known; the sentence lists those there are. */
SETUN_EXPORT setun_status setun_chat_new(setun_chat **c, const setun_model *m, setun_session *s, const setun_chat_options *o,
                                         setun_error *err);
SETUN_EXPORT void setun_chat_free(setun_chat *c); /* not its session; NULL is allowed */
SETUN_EXPORT const char *setun_chat_template(const setun_chat *c); /* "llama3"; lives as long as the chat */
SETUN_EXPORT const char *setun_chat_evidence(const setun_chat *c); /* where that was read, or why it was taken */

typedef struct setun_message {
    uint32_t    size, reserved;
    const char *role; /* "system", "user", "assistant" */
    const char *text; /* valid until the message is removed */
    size_t      n;
} setun_message;
SETUN_EXPORT int64_t setun_chat_count(const setun_chat *c);
SETUN_EXPORT setun_status setun_chat_get(const setun_chat *c, int64_t i, setun_message *m, setun_error *err);
/* At place i (0 to the count); text is copied.  A system message comes first or not at all, then user and assistant take
 * turns: that is checked when a prompt is made.  Text that is not UTF-8 is refused with the byte's offset. */
SETUN_EXPORT setun_status setun_chat_insert(setun_chat *c, int64_t i, const char *role, const char *text, size_t n, setun_error *err);
SETUN_EXPORT setun_status setun_chat_remove(setun_chat *c, int64_t i, int64_t n, setun_error *err);

/* Make the session ready for the next answer: only what it does not remember is fed.  room: positions that
 * must be left behind the prompt, else SETUN_FULL.  want and logits as in setun_session_feed; what it refuses
 * leaves the chat as it was. */
SETUN_EXPORT setun_status setun_chat_feed(setun_chat *c, int64_t room, int32_t want, const float **logits, setun_error *err);
/* Ends an answer of this token?  The model's ends, and those of the template. */
SETUN_EXPORT int32_t setun_chat_is_end(const setun_chat *c, int32_t token);
/* The answer that was generated since, without the token that ended it, all of which or all but the last were fed:
 * becomes the next message. */
SETUN_EXPORT setun_status setun_chat_answer(setun_chat *c, const int32_t *ids, int64_t n, setun_error *err);

typedef struct setun_chat_stats {
    uint32_t size, reserved;
    int64_t  prompt, reused; /* tokens of the last prompt, and how many of them the session remembered */
    int64_t  forgotten;      /* messages that were removed for it */
    int64_t  all_fed;        /* tokens of prompts that were fed, since the beginning */
} setun_chat_stats;
SETUN_EXPORT void setun_chat_get_stats(const setun_chat *c, setun_chat_stats *s);

/* The messages as JSON, {"setun_chat": 1, "messages": [{"role": "user", "content": "..."}, ...]}.  Writing replaces the
 * file at once or not at all; what is read replaces the messages only if all of it is good. */
SETUN_EXPORT setun_status setun_chat_save(const setun_chat *c, const char *path, setun_error *err);
SETUN_EXPORT setun_status setun_chat_load(setun_chat *c, const char *path, setun_error *err);

/* ---------------------------------------------------------------- the rest of the house */

/* Every operator's cases through eval, interpreter, JIT (all given cpu_features) and every backend; files (may be 0)
 * are Lua operators to check instead of the built-in ones.  *failed counts failures. */
SETUN_EXPORT setun_status setun_check(const char *const *files, int32_t n_files, const char *only, const setun_options *o,
                                      int64_t *failed, setun_write_fn *out, void *user, setun_error *err);
SETUN_EXPORT setun_status setun_plugins_print(const setun_options *o, setun_write_fn *out, void *user, setun_error *err);
/* docs/ops.md: every operator's schema. */
SETUN_EXPORT setun_status setun_ops_print(const setun_options *o, setun_write_fn *out, void *user, setun_error *err);

/* The kernels of a model that was loaded with a target, for that machine: a directory, closed to
 * others because its contents are executed, with the record TARGET, which is written last.  There it is used by
 * setun_options.kernels. */
typedef struct setun_compile_options {
    uint32_t    size, reserved;
    const char *out;
    int       (*progress)(void *user, int64_t done, int64_t total); /* nonzero cancels; doing it again goes on */
    void       *user;
} setun_compile_options;
SETUN_EXPORT setun_status setun_model_compile(const setun_model *m, const setun_compile_options *o, setun_error *err);

/* The model as one file that setun-rt runs (setun/rt.h): plan, kernels, weights, tokenizer, template, for the machine that
 * the model was loaded for.  The file appears when it is complete. */
typedef struct setun_export_options {
    uint32_t    size, reserved;
    const char *out;
    int       (*progress)(void *user, int64_t done, int64_t total); /* nonzero cancels, and leaves nothing */
    void       *user;
} setun_export_options;
SETUN_EXPORT setun_status setun_model_export(const setun_model *m, const setun_export_options *o, setun_error *err);

typedef struct setun_synth_options {
    uint32_t    size;
    int32_t     float_master; /* 1: bf16 master weights, quantised on load */
    const char *like, *config, *out;
    uint64_t    seed;
    double      zero_share;   /* < 0: 0.42 */
    int64_t     shard_bytes;  /* 0: one file */
    int       (*progress)(void *user, int64_t done, int64_t total); /* nonzero cancels and removes everything */
    void       *user;
    double      relu_density; /* share of open gates, 0.01 to 0.5, about; 0: as it comes, half of them */
    double      down_density; /* share of int8 inputs of down that are not 0, about; 0: as it comes, 0.68 of the above */
} setun_synth_options;
SETUN_EXPORT setun_status setun_synth(const setun_synth_options *o, setun_error *err);
SETUN_EXPORT const char *setun_synth_names(void); /* "2b4t, tiny, ..." */

/* A model in another form.  What is written is read again and compared with all of the input before it takes its
 * name: codes are always equal, everything else is equal or counted in the report, a line each. */
typedef struct setun_convert_options {
    uint32_t    size;
    int32_t     force;       /* out may exist: it is replaced when the new one is complete */
    const char *in, *out;    /* a Hugging Face directory or a GGUF file, both ways; in: also what a plugin reads */
    const char *to;          /* one of setun_convert_forms() */
    const char *floats;      /* type of embedding and head: "f32", "f16", "bf16", in GGUF "q8_0"; NULL: as they are */
    const char *ternary;     /* of floats that the model does not say are ternary: "absmean", "exact" (-a, 0, a); NULL: none */
    const char *i2s_layout, *activations; /* as in setun_options; with "exact", activations of a directory, too */
    int32_t     lossless;    /* 1: fail where a scale or a float would change, or activations be used otherwise */
    int32_t     reserved;
    int       (*progress)(void *user, int64_t done, int64_t total); /* nonzero cancels and removes everything */
    void       *user;
    const char *plugins;     /* colon-separated shared objects, for their formats (setun/format.h); NULL: none */
} setun_convert_options;
SETUN_EXPORT setun_status setun_convert(const setun_convert_options *o, setun_write_fn *out, void *user, setun_error *err);
SETUN_EXPORT const char *setun_convert_forms(void); /* "hf, hf-float, tq1_0, ..." */

/* Two models, in any forms: codes, scales, floats, configuration, and the logits behind some tokens. */
typedef struct setun_diff_options {
    uint32_t             size;
    int32_t              json;
    const char          *a, *b;
    const char          *ternary;  /* as in setun_convert_options */
    const int32_t       *tokens;   /* what both models are run on; n_tokens 0: they are not run */
    int64_t              n_tokens;
    const setun_options *run;      /* how; layout and activations are those of the side that is a GGUF file */
    int                (*progress)(void *user, int64_t done, int64_t total);
    void                *user;
} setun_diff_options;
/* *differs: 0 if nothing does. */
SETUN_EXPORT setun_status setun_diff(const setun_diff_options *o, int32_t *differs, setun_write_fn *out, void *user, setun_error *err);

/* What steps compute behind some tokens: a directory with a NumPy file for every tensor, and trace.json, which lists
 * them in order.  Tensors have the names of the weights they are made with, or of scope and operator; what shares the
 * memory of another (a reshaped one, a cache) is none of them. */
typedef struct setun_trace_options {
    uint32_t           size;
    int32_t            force;    /* out may be an older trace: it is replaced when the new one is complete */
    const char        *out;      /* NULL: only list the tensors */
    const char *const *select;   /* patterns (* ? [...]) of names, n_select of them; 0: every tensor */
    int32_t            n_select;
    int32_t            all;      /* logits of all tokens, not of the last; needs n_tokens <= n_outputs of the model */
    const int32_t     *tokens;   /* at most n_batch of the model */
    int64_t            n_tokens;
    int32_t            json;     /* the list for programs: what trace.json holds */
    int32_t            reserved;
    int              (*progress)(void *user, int64_t done, int64_t total); /* nonzero cancels and removes everything */
    void              *user;
    void             (*see)(void *see_user, const char *name, const setun_view *v); /* instead of out: gets each tensor
                                                                         * while it is there; NULL: nobody looks */
    void              *see_user;
} setun_trace_options;
/* The list, or if there is an out the sizes, go to `write` before anything is computed.  With `see` nothing is written. */
SETUN_EXPORT setun_status setun_trace(const setun_model *m, const setun_trace_options *o, setun_write_fn *write, void *user,
                                      setun_error *err);

/* A trace against another, or against NumPy files of whatever made them. */
typedef struct setun_tracediff_options {
    uint32_t    size;
    int32_t     json;
    const char *a;         /* a trace */
    const char *b;         /* a trace, or a directory of .npy files */
    const char *map;       /* a file with lines "NAME-IN-A FILE-IN-B"; NULL: names are the same */
    double      tolerance; /* this share of a tensor's largest number is no difference; 0: bits count */
    int32_t     common;    /* 1: only names that both have are compared */
    int32_t     reserved;
    int       (*progress)(void *user, int64_t done, int64_t total);
    void       *user;
} setun_tracediff_options;
/* *differs: 0 if nothing does. */
SETUN_EXPORT setun_status setun_tracediff(const setun_tracediff_options *o, int32_t *differs, setun_write_fn *out, void *user,
                                          setun_error *err);

/* An experiment: a Lua file with setun.lab { ... } that says which variants of a model are measured for what, as
 * docs/lab.md has it.  A variant's options have the names of the command line, and whoever runs it makes
 * setun_options of them; what is not known must be refused there. */
typedef struct setun_lab setun_lab;
SETUN_EXPORT setun_status setun_lab_open(setun_lab **l, const char *file, setun_error *err);
SETUN_EXPORT void setun_lab_free(setun_lab *l); /* NULL is allowed */
SETUN_EXPORT int32_t setun_lab_count(const setun_lab *l);
SETUN_EXPORT const char *setun_lab_variant(const setun_lab *l, int32_t i); /* its name; NULL outside */
/* Option k of variant i: "kv" and "q8"; value NULL: it has none.  Paths are as seen from here.  Returns 0 behind the last. */
SETUN_EXPORT int32_t setun_lab_option(const setun_lab *l, int32_t i, int32_t k, const char **name, const char **value);

typedef struct setun_lab_options {
    uint32_t             size;
    int32_t              again;   /* 1: nothing that was measured before counts */
    const char          *out;     /* a directory, made if it is not there: results.json, report.html, base.logits */
    const setun_options *variant; /* how each is loaded, setun_lab_count of them; n_outputs is chosen here */
    int32_t              json;    /* what is written to `write`: a table, or what results.json holds */
    int32_t              reserved;
    void               (*begin)(void *user, const char *variant, const char *measure); /* NULL is allowed */
    int                (*progress)(void *user, int64_t done, int64_t total); /* nonzero cancels, keeping what is complete */
    void                *user;
} setun_lab_options;
/* What results.json has for the same inputs is not measured again. */
SETUN_EXPORT setun_status setun_lab_run(const setun_lab *l, const setun_lab_options *o, setun_write_fn *write, void *user,
                                        setun_error *err);

/* What a packing has to show: definition, picture, tests, what it does to a model, speed beside the built-in form. */
typedef struct setun_card_options {
    uint32_t             size;
    int32_t              html;    /* a page; 0: Markdown */
    const char          *packing; /* FILE.lua, or FILE.lua:NAME */
    const char          *model;   /* NULL: none */
    const char          *out;     /* a file, replaced at once or not at all; NULL: to `write` */
    const setun_options *run;
    int                (*progress)(void *user, const char *what); /* nonzero cancels; NULL is allowed */
    void                *user;
} setun_card_options;
/* *failed: tests of the packing that did. */
SETUN_EXPORT setun_status setun_card(const setun_card_options *o, int64_t *failed, setun_write_fn *write, void *user,
                                     setun_error *err);

/* A dense array of numbers as a NumPy file, the same bytes on every host; the name is given to a whole file only. */
SETUN_EXPORT setun_status setun_npy_save(const char *path, const setun_view *v, setun_error *err);

#ifdef __cplusplus
}
#endif
#endif

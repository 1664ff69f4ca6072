/* runtime/model.h -- a loaded model, as the runtime's own files see it. */
#ifndef ST_RUNTIME_MODEL_H
#define ST_RUNTIME_MODEL_H

#include <stdatomic.h>

#include "graph/plan.h"
#include "model/pack.h"
#include "model/pooling.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "runtime/kernels.h"
#include "scripts/host.h"

struct setun_vocab {
    st_tokenizer *tokenizer;
};

/* A plan for one class of row counts, with the kernel of every node. */
typedef struct st_program {
    st_graph         *graph;  /* sizes bound for this class */
    st_plan          *plan;
    const st_kernel **kernel; /* per node; NULL: eval */
    int64_t           bound[SETUN_N_SYMBOLS]; /* most rows: tokens, outputs */
} st_program;

#define ST_ONE  0 /* one token, one row of logits: sizes are constants */
#define ST_MANY 1 /* up to n_batch tokens: sizes are read at run time */
#define ST_TOP  2 /* one token, its largest logits by the screened head */
#define ST_MANY_TOP 3 /* the same after up to n_batch tokens: of the last, or when many sequences decode of each */
#define ST_N_PROGRAM 4

/* Constants of weights in a declared packing are named after the matrix, with this behind it. */
#define ST_PACKED_NAME ".packed"

/* What a declared packing did to the model's matrices. */
typedef struct st_packed {
    const char *name;          /* NULL: they are in the built-in form */
    double      bits;          /* per weight */
    int64_t     n_matrix, bytes, weights, changed, scales, scales_changed;
    int64_t     n_dense;       /* matrices that were not ternary before */
    int         from_floats;   /* weights were quantised again, and then: */
    double      error, square; /* sums of squares: of what each weight lost, of the weights */
} st_packed;

/* What models by different scripts of the same files share: the last one closes it. */
typedef struct st_kept {
    atomic_int    n;         /* models */
    st_weights   *weights;   /* the files, and the packed matrices */
    st_tokenizer *tokenizer; /* NULL: not opened yet */
} st_kept;

/* A ternary matrix whose floats are in the files, too. */
typedef struct st_master {
    const void             *codes; /* the view of them */
    const struct st_tensor *floats;
    const struct st_master *next;
} st_master;

/* How activations are rounded before they meet ternary weights. */
typedef struct st_quantizer {
    const char *name, *own;    /* the one in use, with its value, and the one of the training: "int8", "none" */
    const char *doc, *source;  /* "" where nobody chose one */
    int         is_own;
} st_quantizer;

struct setun_model {
    st_arena          *arena;    /* owns everything below that has no owner of its own */
    st_engine         *engine;
    st_kept           *kept;
    st_weights        *weights;  /* of kept, or again from those */
    int                lacks;    /* it needs a matrix that is not among the packed ones of kept */
    const st_script_file *files; /* the scripts it was made by */
    st_graph          *graph;    /* as the script built it; kept for messages */
    st_graph          *simple;   /* after the rules */
    st_kernels        *kernels;
    struct st_tune    *tune;
    st_packed          packed;
    st_pack           *pack;     /* matrices in a declared packing; NULL: there are none */
    const st_master   *masters;  /* noted where matrices are quantised again */
    st_quantizer       quantizer;
    st_head            head;      /* short rows of the screened head; data NULL: there is none */
    int32_t            least_zeros; /* ST_ZEROS_... from which on ternary matrices are transposed */
    const void        *head_rows; /* the full head; NULL without a screened one */
    uint32_t           head_dtype;
    int64_t            head_columns;
    st_program         program[ST_N_PROGRAM];
    int                n_program; /* 2, or 4 with a screened head */
    const st_plugin_info *backend[2];
    uint32_t           n_backend;
    setun_vocab        vocab;
    const char        *path, *script;
    int64_t            n_ctx, n_batch, n_outputs;
    int64_t            n_vocab;     /* rows of the embedding of tokens, and columns of the logits if there are any */
    int                has_logits;
    int64_t            n_embedding; /* columns of the output "embedding"; 0: there is none */
    st_pooling         pooling;     /* what the files or the script say */
    const char        *pooling_from; /* who said it; NULL: nobody */
    int32_t            end[16];  /* tokens that end a text */
    int32_t            n_end;
    setun_model_stats  stats;
};

/* setun_model_load, of files that another model has open; of NULL: of those at path. */
setun_status st_model_load(setun_model **m, const char *path, const setun_options *o, const setun_model *of, setun_error *err);
/* runtime/reload.c: what a model has its weights and its tokenizer from. */
setun_status st_kept_open(setun_model *m, const setun_model *of, setun_error *err);
void         st_kept_close(setun_model *m);

/* Find an input, state or output of a program's graph. */
st_value_id st_program_output(const st_program *p, const char *name);

/* A step as a backend sees it, with shapes but without buffers; arrays come from the arena. */
setun_status st_step_make(const st_program *p, st_node_id n, st_arena *arena, setun_step *out, setun_error *err);

#endif

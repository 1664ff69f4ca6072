/* scripts/host.h -- the closed Lua world: text chunks only, memory and step limits, no io, os,
 * package, debug, load.  A script sees a graph builder (bind_graph.c), a kernel builder
 * (bind_kernel.c) and the libraries beside it (lib/nn.lua), nothing else.
 *
 * Scripts arrive with strangers' weights.  Every failure is SETUN_BAD_SCRIPT with one sentence that
 * starts with "file.lua:line:". */
#ifndef ST_SCRIPTS_HOST_H
#define ST_SCRIPTS_HOST_H

#include "base/hparam.h"
#include "base/message.h"
#include "graph/graph.h"
#include "graph/registry.h"
#include "setun/inspect.h"

typedef struct st_script st_script;

/* A ternary matrix: the weights of row r are -1, 0 or +1 times a scale. */
typedef struct st_script_ternary {
    setun_view codes;       /* T2 [rows, cols]; with across the transpose, [cols, rows] */
    setun_view scale;       /* f32[1], f32[rows] or f32[rows, ceil(cols / group)] */
    int32_t    group;       /* weights of a row that share a scale; 0: all of them */
    int32_t    across;
    int32_t    weight_only; /* activations must not be quantised */
} st_script_ternary;

/* What a script may ask of the model's files.  Names are as the file has them. */
typedef struct st_script_model {
    void            *user;
    const st_hparam *hp;
    int64_t          n_hp;
    int64_t          n_ctx;    /* positions the session wants */
    uint32_t         kv_dtype; /* SETUN_F32, F16, BF16, Q8 */
    /* Is there a tensor of this name?  1 or 0. */
    int          (*has)(void *user, const char *name);
    /* Is tensor name there, and a copy of tensor of?  Then it is consumed.  May be NULL: none is. */
    int          (*repeats)(void *user, const char *name, const char *of);
    /* A tensor as a view, consumed; want SETUN_F32 converts it (norms), 0 leaves 16-bit as it is. */
    setun_status (*tensor)(void *user, const char *name, uint32_t want, setun_view *view, setun_error *err);
    /* A ternary matrix; packed tensors are transcoded, float masters quantised by absmean when the model
     * says so.  SETUN_DECLINED: the tensor is an ordinary float matrix.  zeros says what is known about the
     * input that it will be multiplied with. */
    setun_status (*ternary)(void *user, const char *name, int32_t zeros, st_script_ternary *out, setun_error *err);
} st_script_model;

#define ST_ZEROS_UNKNOWN 0
#define ST_ZEROS_GATED   1 /* a product of two activations: many round to 0 in 8 bits */
#define ST_ZEROS_RELU    2 /* one of the two is a rectifier: half of them and more are exactly 0 */

typedef struct st_script_limits {
    int64_t memory_bytes; /* never passed; beyond half of it the script is stopped.  0: 256 MiB */
    int64_t steps;        /* VM instructions; 0: 200 million */
} st_script_limits;

/* lib_dir holds lib/ and models/; registry is searched for operators, and setun.op adds to it (the
 * descriptor lives as long as the script).  arena owns what graphs need after the script closes. */
setun_status st_script_open(st_script **s, const char *lib_dir, st_registry *r, st_arena *arena,
                            const st_script_limits *limits, setun_error *err);
void         st_script_close(st_script *s);

/* How floats become digits and scales of a packing: its field quantise. */
enum { ST_RULE_NONE, ST_RULE_ABSMEAN, ST_RULE_ABSMAX, ST_RULE_SCRIPT };
enum { ST_PER_MATRIX, ST_PER_ROW, ST_PER_UNIT };
typedef struct st_script_rule {
    int32_t kind, per; /* what shares a scale */
    int32_t ref;       /* of the script's function */
} st_script_rule;

/* A packing defined by setun.packing; lives as long as the arena. */
typedef struct st_script_packing {
    const char *name, *doc, *text, *where; /* text: of setun/packing.h; where: "base3.lua:4" */
    st_script_rule quantise;
    struct st_script_packing *next;        /* an earlier one */
} st_script_packing;

/* A file that was read, as it was just before. */
typedef struct st_script_file {
    const char *path;
    int64_t     bytes, mtime_ns; /* -1: it could not be asked */
    uint64_t    hash;            /* of its text */
    const struct st_script_file *next; /* an earlier one */
} st_script_file;
/* They live as long as the arena. */
const st_script_file *st_script_files(const st_script *s);

/* How activations are rounded before they meet ternary weights, if not as the weights' form says: setun.quantizer. */
typedef struct st_script_quantizer {
    const char *name;        /* "topk=0.5": with its value */
    const char *doc, *source;
    double      value;
    int32_t     whole, floats; /* the value is an integer; activations may stay floats */
    int64_t     used;        /* products whose input went through it */
} st_script_quantizer;

/* Use one in all graphs that are built from now on: NAME or NAME=VALUE of lib_dir/quantizers, or FILE.lua[=VALUE].
 * A model script's own does not come in between. */
setun_status st_script_quantizer_choose(st_script *s, const char *spec, setun_error *err);
/* The one in use; NULL: none was chosen, here or by a model script. */
const st_script_quantizer *st_script_quantizer_chosen(const st_script *s);

typedef struct st_script_made {
    st_graph   *graph;
    const char *path;    /* of the script that was used */
    const char *pooling; /* "last", "mean", "cls": how the script says that embeddings are made; NULL: it does not */
    const st_script_packing *packing; /* that the script wants its ternary matrices in; NULL: none */
    const char *quantizer; /* that the script says its model was trained with; NULL: it does not say */
} st_script_made;

/* Run a model script: find in lib_dir/models the one for the architecture arch, or use file when it is
 * not NULL, and call its build(g, hp) on a new graph.  Of several the one is used whose `keys` (of the
 * configuration) and `tensors` (by its names) are there, rather than one that asks for none.  Strings in
 * made live in the arena. */
setun_status st_script_model_build(st_script *s, const char *file, const char *arch, const st_script_model *m,
                                   st_script_made *made, setun_error *err);

/* ---------------------------------------------------------------- consoles */

/* What somebody at a console may ask beside what scripts can; the host knows no models. */
typedef struct st_console {
    void *user;
    int          (*stop)(void *user); /* nonzero ends what runs */
    /* tensor(name): *t goes to the others, and in the end to drop. */
    setun_status (*get)(void *user, const char *name, setun_tensor **t, setun_error *err);
    void         (*drop)(setun_tensor *t);
    setun_status (*about)(void *user, const setun_tensor *t, setun_tensor_info *info, setun_error *err);
    setun_status (*at)(const setun_tensor *t, const int64_t *index, int32_t n, double *value, setun_error *err);
    setun_status (*print)(const setun_tensor *t, const char *slice, setun_write_fn *write, void *user, setun_error *err);
} st_console;

/* Adds tensor() to what scripts have; c is the caller's, and lives as long as the script. */
setun_status st_script_console(st_script *s, const st_console *c, setun_error *err);
/* One input: an expression, whose values are printed, or statements.  Its global variables stay. */
setun_status st_script_eval(st_script *s, const char *text, setun_error *err);

/* ---------------------------------------------------------------- chat templates */

/* What a conversation looks like to a model: a file of lib_dir/templates each.  A template sees who speaks and
 * may cut what they say, but never sees it: it orders pieces of messages between markers of its own. */
typedef struct st_chat {
    const st_message *message;
    int64_t           n;
    int               prompt; /* end with what an answer begins with */
    int               think;  /* -1: as the template does by itself; 0 no, 1 yes */
    const char       *bos, *eos, *date; /* NULL: not known */
} st_chat;

typedef struct st_script_template {
    const char        *name, *file; /* "llama3", its path */
    const char *const *token;       /* special tokens that it writes; ends with NULL */
    const char *const *stop;        /* tokens that end an answer, if the vocabulary has them; ends with NULL */
    const char        *repairs;     /* "": none; else why another template than the model's own was taken */
    int                thinks;      /* it can tell the model to think first, or not to */
} st_script_template;

/* Choose the template called name; or, when that is NULL, the one that is known to write all of the marks and
 * nothing else (model/template.h), or that repairs such marks for this architecture.  SETUN_UNKNOWN, also
 * without any marks: names all there are.  The answer lives in the script's arena. */
setun_status st_script_template_find(st_script *s, const char *name, const char *arch, const char *const *mark,
                                     int64_t n_mark, const st_script_template **t, setun_error *err);
/* Run the chosen one.  add gets the pieces in order: of message i, or of a marker with i = -1.  What add
 * returns other than SETUN_OK ends it. */
setun_status st_script_template_render(st_script *s, const st_chat *chat,
                                       setun_status (*add)(void *user, int64_t i, const char *text, int64_t n, setun_error *err),
                                       void *user, setun_error *err);

/* ---------------------------------------------------------------- experiments */

/* What can be measured of a variant, in the order of doing it; bit i of st_script_lab.measure. */
enum { ST_LAB_SIZE, ST_LAB_PERPLEXITY, ST_LAB_KL, ST_LAB_LAYERS, ST_LAB_SPEED, ST_LAB_MEASURES };
const char *st_script_lab_measure(int i); /* "size", ... */

typedef struct st_script_option {
    const char *name, *value; /* as on the command line, "cpu-features"; value NULL: it takes none */
} st_script_option;

typedef struct st_script_variant {
    const char             *name, *model; /* model NULL: the experiment's */
    const st_script_option *option;       /* in the order of their names */
    int32_t                 n_option;
} st_script_variant;

/* An experiment, as the file says it: paths are not resolved. */
typedef struct st_script_lab {
    const char *model, *text, *convention; /* text NULL: none; convention NULL: the default */
    int64_t     window, stride, windows;   /* 0: the defaults of perplexity */
    int64_t     tokens;                    /* that layers are compared for */
    int64_t     prefill, decode, runs;     /* of speed: tokens, tokens, how often */
    uint32_t    measure;
    int32_t     base, n_variant;           /* the variant that others are compared with */
    const st_script_variant *variant;
} st_script_lab;

/* Run a file that calls setun.lab { ... } once; what it describes lives as long as the arena. */
setun_status st_script_lab_read(st_script *s, const char *file, const st_script_lab **lab, setun_error *err);

/* Operators defined by a script infer always, lower while the script is open, and eval then and on
 * its thread only. */
/* Run a file that defines operators with setun.op, which are in the registry afterwards, or packings. */
setun_status st_script_ops(st_script *s, const char *file, setun_error *err);
/* All packings that were defined, newest first. */
const st_script_packing *st_script_packings(const st_script *s);
/* Digits and scale of n values by the function that the packing declares; `is` is its text, read, and what names the values in
 * errors.  The scale is as it will be stored. */
struct setun_packing;
setun_status st_script_quantise(st_script *s, const st_script_packing *p, const struct setun_packing *is, const float *x, int64_t n,
                                const char *what, int8_t *digit, float *scale, setun_error *err);
/* Where print(...) goes, one line per call without its newline; NULL (the default) drops it. */
void         st_script_on_print(st_script *s, void (*fn)(void *user, const char *text), void *user);

#endif

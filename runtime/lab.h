/* runtime/lab.h -- what the files of setun lab share.
 *
 *     scripts/bind_lab.c     the experiment, from its file    runtime/lab_measure.c  measures of a loaded model
 *     runtime/lab.c          which results are missing        runtime/lab_speed.c    speeds, variants in turn
 *     model/lab_results.c    results.json                     runtime/lab_report.c   results as a table and as a page */
#ifndef ST_RUNTIME_LAB_H
#define ST_RUNTIME_LAB_H

#include "model/lab_results.h"
#include "runtime/model.h"
#include "scripts/host.h"

struct setun_lab {
    st_arena            *arena;
    const char          *file; /* as it was given */
    const st_script_lab *x;    /* paths are as seen from here */
};

/* What leaves each layer, and the logits, behind the first tokens of the text. */
typedef struct st_lab_layer {
    int64_t node, rows, columns; /* node: who made it last */
    float  *x;
} st_lab_layer;

typedef struct st_lab_layers {
    st_lab_layer *layer;
    int64_t       n, n_token, n_vocab;
    float        *logits; /* a row for each token */
    setun_status  status; /* of keeping them, while the model runs */
} st_lab_layers;

typedef struct st_lab_run {
    const setun_lab         *l;
    const setun_lab_options *o;
    st_arena                *arena;
    st_lab_results           results;  /* a row for each variant and measure, in that order */
    uint64_t                *input;    /* per variant: a hash of model, options and the files that they name */
    char                    *text;
    int64_t                  n_text;
    const char              *json_path, *report_path, *logits_path;
    int32_t                  variant;  /* that is loaded */
    const setun_model       *m;
    int32_t                 *id;       /* tokens of the text, for this model */
    int64_t                  n_id;
    st_lab_layers            base;     /* of the base variant; n 0: not known yet */
} st_lab_run;

static inline st_lab_result *st_lab_at(const st_lab_run *r, int32_t variant, int measure)
{
    return &r->results.result[variant * ST_LAB_MEASURES + measure];
}

/* Is the measure asked for, and makes it sense for this variant?  Is there no result of it yet? */
int st_lab_wanted(const st_lab_run *r, int32_t variant, int measure);
int st_lab_missing(const st_lab_run *r, int32_t variant, int measure);

/* A variant's model, and the tokens of the text for it, setun_free'd by the caller. */
setun_status st_lab_load(const st_lab_run *r, int32_t variant, setun_model **m, setun_error *err);
setun_status st_lab_tokens(const st_lab_run *r, const setun_model *m, int32_t **id, int64_t *n, setun_error *err);
/* Whose error it is; returns st. */
setun_status st_lab_wrap(const st_lab_run *r, int32_t variant, setun_status st, setun_error *err);

/* lab_measure.c: of the loaded model, whose results go to its rows. */
void         st_lab_size(st_lab_run *r);
/* save: the logits are kept for the others. */
setun_status st_lab_perplexity(st_lab_run *r, int save, setun_error *err);
setun_status st_lab_keep_base(st_lab_run *r, setun_error *err);
setun_status st_lab_layers_error(st_lab_run *r, setun_error *err);
void         st_lab_layers_free(st_lab_layers *k);

void         st_lab_put(st_lab_result *to, const char *name, double x);

/* lab_speed.c: of all variants that lack it, which it loads. */
setun_status st_lab_speed(st_lab_run *r, setun_error *err);

/* lab_report.c */
void st_lab_table(const st_lab_run *r, st_str *out);
void st_lab_html(const st_lab_run *r, st_str *out);

#endif

/* model/source.h -- a model file of any form, tensor by tensor and row by row, under one set of names.
 *
 * For whoever copies or compares models: nothing is kept in memory but the maps, and codes are those
 * of the file, not what kernels make of them.  Names, shapes and the order of rows are those of a
 * Hugging Face checkpoint, whatever the file has. */
#ifndef ST_MODEL_SOURCE_H
#define ST_MODEL_SOURCE_H

#include "model/gguf_model.h"
#include "model/weights.h"

/* What to make of floats where the configuration does not say that linear layers are ternary. */
enum { ST_FLOATS_STAY, ST_FLOATS_ABSMEAN, ST_FLOATS_EXACT /* -a, 0 and a alone, of a matrix, row or group: they are ternary already */ };

typedef struct st_source_tensor {
    const char *name, *stored; /* stored: in the file */
    const char *file, *type;   /* type: "U8", "BF16", "TQ2_0" */
    uint32_t    rank;
    int64_t     dim[4];        /* outermost first; unused ones are 1 */
    int64_t     rows, cols;    /* the last dimension is cols */
    int         ternary, weight_only;
    int         linear;        /* a linear layer's matrix: ternary in a ternary model */
    uint32_t    dtype;         /* of floats that are stored plainly: F32, F16 or BF16; else 0 */
    int64_t     n_scales;      /* of a row of a ternary one; 1 also where all rows share it */
    int64_t     per_scale;     /* columns */
    int         scales_vary;   /* rows of floats that are ternary have scales of their own; known, as are their number and
                                  columns, from st_source_begin on */
    int64_t     bytes;
    /* source.c's own: */
    int64_t     index;
    int         form, is_ready;
    float       scale;
} st_source_tensor;

typedef struct st_source {
    st_arena         *arena;
    const char       *path;
    const char       *name;    /* of the model in GGUF files made of a directory; NULL: the last part of path */
    st_weights       *weights; /* of a directory, or NULL */
    st_gguf_model    *model;   /* of a GGUF file, or NULL */
    const st_hparam  *config;
    int64_t           n_config;
    const char       *architecture; /* architectures[0] */
    st_source_tensor *tensor;
    int64_t           n_tensors;
    st_table         *by_name;
} st_source;

/* Zero-initialise *s; after a failure, too, call st_source_close.  choice is about GGUF files. */
setun_status st_source_open(st_source *s, const char *path, const st_weights_choice *choice, int floats, setun_error *err);
void         st_source_close(st_source *s);

st_source_tensor *st_source_find(const st_source *s, const char *name); /* NULL: there is none */
const st_hparam  *st_source_config(const st_source *s, const char *key); /* NULL: absent or null */

/* Once before the rows of t are read: finds scales that depend on the whole tensor. */
setun_status st_source_begin(const st_source *s, st_source_tensor *t, setun_error *err);
/* Row r: of a ternary one codes and n_scales scales to multiply with, else floats. */
setun_status st_source_row(const st_source *s, const st_source_tensor *t, int64_t r, float *value, uint8_t *code,
                           float *scale, setun_error *err);
/* The tensor will not be read soon: its pages may leave memory. */
void         st_source_end(const st_source *s, const st_source_tensor *t);

#endif

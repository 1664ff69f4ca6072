/* model/recode.h -- a model in another form: the same codes, scales and floats in other bytes.
 *
 * From whatever model/source.c reads to a Hugging Face directory or a GGUF file.  Codes never change;
 * what does change is counted and named, and what has no place in the other form is refused. */
#ifndef ST_MODEL_RECODE_H
#define ST_MODEL_RECODE_H

#include "model/compare.h"
#include "model/gguf_encode.h"

typedef struct st_recode {
    const char *in, *out;
    const char *name;      /* of the model, as a path whose last part it is; NULL: in */
    const char *to;        /* "hf", "hf-float", or what st_gguf_packing_find finds */
    const char *floats;    /* type of float matrices that are not linear layers: a float packing; NULL: as they are */
    int         ternary;   /* ST_FLOATS_... */
    int         i2s, activations; /* of a GGUF input: what it does not say (st_weights_choice) */
    int         force;     /* out may exist */
    int         lossless;  /* fail where a number would change, or how it is used */
    int       (*progress)(void *user, int64_t done, int64_t total); /* bytes; nonzero cancels and removes everything */
    void       *user;
} st_recode;

/* Writes out beside its place, reads it again and compares all of it with the input, then renames.
 * report: what was carried over and what changed, in lines. */
setun_status st_recode_write(const st_recode *o, st_str *report, setun_error *err);
/* "hf, hf-float, tq1_0, ..." for messages. */
const char  *st_recode_forms(void);

/* ---------------------------------------------------------------- recode_rows.c */

enum { ST_RECODE_CODES, ST_RECODE_PLANES, ST_RECODE_SCALE, ST_RECODE_FLOATS, ST_RECODE_RAW };

/* One tensor of the output. */
typedef struct st_recode_item {
    st_source_tensor      *from;
    const char            *name;
    int                    how;
    const st_gguf_packing *packing; /* CODES and FLOATS */
    const st_gguf_type    *type;    /* of a GGUF tensor */
    int64_t                heads;   /* > 0: the rows of each head are interleaved */
    float                  plus;    /* added to values: 1 to gains that GGUF stores so */
    int64_t                rows, bytes;
    float                  scale;   /* the one of SCALE, and of PLANES and I2_S */
} st_recode_item;

/* The one scale of all rows, 1 if no weight tells; refuses several, naming two. */
setun_status st_recode_one_scale(const st_source *s, st_source_tensor *t, const char *form, float *scale, setun_error *err);

/* The item's bytes, in pieces. */
typedef setun_status st_recode_sink(void *user, const void *bytes, int64_t n, setun_error *err);
setun_status st_recode_rows(const st_source *s, const st_recode_item *item, st_recode_sink *sink, void *user, setun_error *err);

#endif

/* model/gguf_encode.h -- rows of codes or floats as bytes of GGUF's element types: gguf_decode.c the
 * other way round.  [any] */
#ifndef ST_MODEL_GGUF_ENCODE_H
#define ST_MODEL_GGUF_ENCODE_H

#include "model/gguf_types.h"

/* A packing that can be written.  Exactly one of floats, codes and block_rows is set. */
typedef struct st_gguf_packing {
    const char *name;       /* "tq2_0": what users say */
    const char *type;       /* "TQ2_0": a name of st_gguf_type */
    int64_t     file_type;  /* general.file_type of a file that is mostly this; -1: no number is agreed upon */
    int         half_scale; /* scales are binary16, else binary32 */
    int         i2s;        /* of I2_S: the layout */
    float       most;       /* of floats: the largest that stays finite */
    void      (*floats)(const float *x, int64_t n, uint8_t *row);
    /* n codes and st_gguf_type.group's scales.  Scales are rounded where half_scale is set, and 2-bit
     * types take code 3: whoever cannot have either looks before. */
    void      (*codes)(const uint8_t *code, const float *scale, int64_t n, uint8_t *row);
} st_gguf_packing;

/* NULL: Setun does not write it. */
const st_gguf_packing *st_gguf_packing_find(const char *name);
/* "tq1_0, tq2_0, ..." of ternary packings or, with ternary 0, of float ones, for messages. */
const char            *st_gguf_packing_names(int ternary);

/* Codes of I2_S without the scale behind them: `rows` whole rows of n that make whole blocks, which
 * ST_GGUF_I2S_ROWS rows do in every layout, and so does what is left of a tensor that has the layout. */
#define ST_GGUF_I2S_ROWS 128
void st_gguf_pack_i2s(const uint8_t *code, int layout, int64_t rows, int64_t n, uint8_t *out);

#endif

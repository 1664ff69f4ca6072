/* model/gguf_types.h -- the element types of GGUF: sizes, shared numbers, rows as floats and codes.
 *
 * A matrix has rows of dim[0] values; dim[1] and further count rows.  [any] */
#ifndef ST_MODEL_GGUF_TYPES_H
#define ST_MODEL_GGUF_TYPES_H

#include "model/gguf.h"

/* Weights per scale of a ternary type, beside the numbers above 0. */
enum { ST_GGUF_NOT_TERNARY = 0, ST_GGUF_PER_ROW = -1, ST_GGUF_PER_TENSOR = -2 };

/* Where a number that several programs use has this meaning. */
enum { ST_GGUF_ANYWHERE, ST_GGUF_IN_FORK, ST_GGUF_NOT_FORK };

struct st_gguf_type {
    uint32_t    id;
    const char *name;
    int32_t     block, block_bytes; /* a row is whole blocks */
    int32_t     row_bytes;  /* a scale in front of each row */
    int32_t     tail_bytes; /* a scale behind the tensor */
    int32_t     group;      /* ternary: weights per scale */
    int32_t     where;
    int32_t     has_two;    /* code 3 is weight +2, not damage */
    /* One row: floats, or codes (weight + 1) and a scale per group.  Both NULL: the size is known,
     * and Setun cannot compute with it. */
    void      (*floats)(const uint8_t *row, int64_t n, float *out);
    void      (*codes)(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
    const char *refused;    /* why files with it are not read at all */
};

/* Decides what every tensor's number stands for, with the evidence in g->decision, and checks that
 * each has exactly the bytes which its type and shape need. */
setun_status st_gguf_settle(st_gguf *g, int i2s, setun_error *err);

/* Settles a layout that was left open (g->i2s is ST_I2S_ASK, and there is I2_S). */
setun_status st_gguf_set_i2s(st_gguf *g, int layout, const char *why, setun_error *err);
/* NULL: no type is called so ("TQ2_0"). */
const st_gguf_type *st_gguf_type_named(const char *name);
/* Bytes of a tensor; 0, or -1 if the shape is not one of the type's or overflows. */
int                 st_gguf_type_bytes(const st_gguf_type *y, const int64_t dim[4], int64_t *bytes);

/* "x86", "arm", "rows4"; -1: none of them. */
int st_i2s_find(const char *name);
/* Keys of the files that Setun writes, for what types cannot tell: the name of the layout of I2_S, and whether
 * linear layers take "int8" or "float" activations. */
#define ST_I2S_KEY "setun.i2_s.layout"
#define ST_ACTIVATIONS_KEY "setun.activations"
const char *st_i2s_name(int layout);

int64_t st_gguf_rows(const st_gguf_tensor *t);
int64_t st_gguf_scales(const st_gguf_tensor *t); /* of a row; 0: not ternary */

/* Row r as floats, dim[0] of them; of a ternary type also as codes 0 1 2 (weight -1 0 +1) and
 * st_gguf_scales scales, with value = weight * scale.  Code 3 is weight +2 in Q2_0 and PQ2_0, and
 * refused elsewhere.  SETUN_UNKNOWN: a type that Setun cannot compute with, or I2_S whose layout
 * nobody said. */
setun_status st_gguf_read_row(const st_gguf *g, const st_gguf_tensor *t, int64_t r, float *value, uint8_t *code,
                              float *scale, setun_error *err);

/* The same of a ternary type without the floats. */
setun_status st_gguf_read_codes(const st_gguf *g, const st_gguf_tensor *t, int64_t r, uint8_t *code, float *scale,
                                setun_error *err);

/* gguf_decode.c */
void st_gguf_f32(const uint8_t *row, int64_t n, float *out);
void st_gguf_f16(const uint8_t *row, int64_t n, float *out);
void st_gguf_bf16(const uint8_t *row, int64_t n, float *out);
void st_gguf_q4_0(const uint8_t *row, int64_t n, float *out);
void st_gguf_q8_0(const uint8_t *row, int64_t n, float *out);
void st_gguf_q4_k(const uint8_t *row, int64_t n, float *out);
void st_gguf_q6_k(const uint8_t *row, int64_t n, float *out);
void st_gguf_tq1_0(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_tq2_0(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_iq1_bn(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_iq2_bn(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_q2_0_64(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_q2_0_128(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_ptq1_0(const uint8_t *row, int64_t n, uint8_t *code, float *scale);
void st_gguf_i2s(const uint8_t *data, int layout, int64_t r, int64_t n, uint8_t *code);

#endif

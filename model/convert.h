/* model/convert.h -- element conversions of file data, which is little-endian and may be unaligned,
 * and the ways into SETUN_T2.  [any] */
#ifndef ST_MODEL_CONVERT_H
#define ST_MODEL_CONVERT_H

#include "setun/types.h"

/* Bytes of one element; 0 for a type that has none, such as one of blocks. */
int64_t st_element_bytes(uint32_t dtype);

/* n elements of F32, F16 or BF16 as floats, exactly.  Returns 0, or -1 for another type. */
int st_convert_f32(float *out, const void *in, uint32_t dtype, int64_t n);

/* n elements of the given size in bytes from file order to host order. */
void st_convert_order(void *out, const void *in, int64_t element_bytes, int64_t n);

/* Four planes (docs/formats.md), bytes [quarter][cols], to 4 * quarter rows of T2.  Returns -1, or,
 * when some code is 3, the logical row of the first such byte and its column in *col. */
int64_t st_t2_from_planes(uint8_t *t2, const uint8_t *packed, int64_t quarter, int64_t cols,
                          int64_t *col);

/* The transpose of a T2 matrix of rows x cols: cols rows, their padding filled. */
void st_t2_transpose(uint8_t *out, const uint8_t *in, int64_t rows, int64_t cols);

/* One row of codes 0, 1, 2 to T2. */
void st_t2_from_codes(uint8_t *t2, const uint8_t *code, int64_t cols);

/* n floats to codes: 2 where x * s > 0.5, 0 where x * s < -0.5, else 1.  This is rint, ties to even,
 * clamped to -1..1: 0.5 goes to 0, everything above to 1. */
void st_codes_from_floats(uint8_t *code, const float *x, int64_t n, float s);
/* One row of floats to T2, likewise. */
void st_t2_from_floats(uint8_t *t2, const float *x, int64_t cols, float s);

/* max(mean |x|, 1e-5) of n values that come in pieces, in order.  Zero-initialise. */
typedef struct st_absmean {
    double  sum[8]; /* value i belongs to i mod 8 */
    int64_t n;
} st_absmean;
void  st_absmean_add(st_absmean *m, const float *x, int64_t n);
float st_absmean_of(const st_absmean *m); /* NaN or infinite if some value was */

#endif

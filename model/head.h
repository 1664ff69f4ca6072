/* model/head.h -- 8-bit rows of an output head in two parts, and how far they are from the 16-bit ones. */
#ifndef ST_MODEL_HEAD_H
#define ST_MODEL_HEAD_H

#include "setun/types.h"

/* Per row and block of 256 columns: bytes of the upper six bits, and of the lower two. */
#define ST_HEAD_CODE_BYTES 192
#define ST_HEAD_FINE_BYTES 64

/* Blocks of a row: columns of w, rounded up. */
int64_t st_head_blocks(int64_t columns);

/* w: f32, f16 or bf16 [rows, columns].  code and fine: st_head_blocks of the bytes above a row, in the
 * layout of ops/head_kernels.h; meta: 4 floats a row: half a step, bounds of |w - w~| with six and with
 * eight bits, a bound of the norms of all three; infinite bounds for a row that is not finite.  Rows
 * are shared by n_threads threads. */
setun_status st_head_quantise(const setun_view *w, uint8_t *code, uint8_t *fine, float *meta, int32_t n_threads,
                              setun_error *err);

#endif

/* model/head.h -- 8-bit rows of an output head, and how far they are from the 16-bit ones. */
#ifndef ST_MODEL_HEAD_H
#define ST_MODEL_HEAD_H

#include "setun/types.h"

/* Columns of the codes: those of w, rounded up to whole blocks. */
int64_t st_head_width(int64_t columns);

/* w: f32, f16 or bf16 [rows, columns].  code: rows * st_head_width bytes; meta: 4 floats a row:
 * scale, a bound of |w - scale * (code - 128)|, a bound of the norms of both, 0; infinite bounds
 * for a row that is not finite.  Rows are shared by n_threads threads. */
setun_status st_head_quantise(const setun_view *w, uint8_t *code, float *meta, int32_t n_threads, setun_error *err);

#endif

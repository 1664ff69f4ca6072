/* model/write_safetensors.h -- the front of a safetensors file; the tensors' bytes follow it as they are. */
#ifndef ST_MODEL_WRITE_SAFETENSORS_H
#define ST_MODEL_WRITE_SAFETENSORS_H

#include "base/str.h"
#include "model/weights.h"

/* Length and JSON of n tensors that lie one behind the other: name, dtype, view's rank and dimensions,
 * and bytes are used.  Padded so that data begin at a cache line. */
void st_safetensors_header(const st_tensor *t, int64_t n, st_str *out);

#endif

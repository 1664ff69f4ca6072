/* model/gguf_pack.h -- matrices of a GGUF file that are not used in place, kept in the cache of weights. */
#ifndef ST_MODEL_GGUF_PACK_H
#define ST_MODEL_GGUF_PACK_H

#include "model/gguf_model.h"
#include "model/pack.h"

/* Bytes that tensor i can take of the cache, in all forms together; -1: more than there are. */
int64_t      st_gguf_pack_bytes(const st_gguf_model *m, int64_t i);

/* Tensor i as weights.h has it; made now unless the cache has it.  *bytes: of its codes. */
setun_status st_gguf_pack_ternary(const st_gguf_model *m, st_pack *pack, st_arena *arena, int64_t i, int across, st_ternary *out,
                                  int64_t *bytes, setun_error *err);

/* Tensor i as floats, or, if want is 0 and it has 16 bits, with its own elements. */
setun_status st_gguf_pack_floats(const st_gguf_model *m, st_pack *pack, st_arena *arena, int64_t i, uint32_t want,
                                 setun_view *view, setun_error *err);

#endif

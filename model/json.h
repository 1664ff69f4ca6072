/* model/json.h -- JSON files beside a model, as a whole. */
#ifndef ST_MODEL_JSON_H
#define ST_MODEL_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "setun/types.h"

/* Enough for whatever has no lists of tokens, tensors or messages in it. */
#define ST_JSON_SMALL ((int64_t)1 << 20)

/* A whole file of at most limit bytes; json_decref *root.  Members that are there twice are refused, as readers differ
 * about which of them counts.  hash (may be NULL) goes on over the bytes. */
setun_status st_json_load(const char *path, int64_t limit, uint64_t *hash, json_t **root, setun_error *err);

#endif

/* model/json.h -- small JSON files beside a model. */
#ifndef ST_MODEL_JSON_H
#define ST_MODEL_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "setun/types.h"

/* A whole file of at most 1 MiB; json_decref *root.  hash (may be NULL) goes on over its bytes. */
setun_status st_json_load(const char *path, uint64_t *hash, json_t **root, setun_error *err);

#endif

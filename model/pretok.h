/* model/pretok.h -- read a pre_tokenizer, and cut with PCRE2; pieces.h cuts. */
#ifndef ST_MODEL_PRETOK_H
#define ST_MODEL_PRETOK_H

#include <jansson.h>

#include "model/pieces.h"

/* From the JSON of "pre_tokenizer", which may be absent or null; path is for messages. */
setun_status st_pretok_new(st_pretok **p, json_t *json, const char *path, setun_error *err);
/* Appends it as st_pretok_take reads it, expressions as programs.  What has none is refused, naming it. */
setun_status st_pretok_put(const st_pretok *p, const char *path, st_str *out, setun_error *err);

#endif

/* model/pretok.h -- cut text into pieces as a pre_tokenizer says. */
#ifndef ST_MODEL_PRETOK_H
#define ST_MODEL_PRETOK_H

#include <jansson.h>

#include "setun/types.h"

typedef struct st_pretok st_pretok;

/* From the JSON of "pre_tokenizer"; path is for messages. */
setun_status st_pretok_new(st_pretok **p, json_t *json, const char *path, setun_error *err);
void         st_pretok_free(st_pretok *p);

/* Calls piece for each piece in order; text is valid UTF-8.  Stops at the first failure.  [any] */
typedef setun_status (*st_piece_fn)(void *user, const char *piece, int64_t n, setun_error *err);
setun_status st_pretok_split(const st_pretok *p, const char *text, int64_t n, st_piece_fn piece,
                             void *user, setun_error *err);

#endif

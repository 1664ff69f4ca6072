/* model/pretok.h -- cut text into pieces as a pre_tokenizer says. */
#ifndef ST_MODEL_PRETOK_H
#define ST_MODEL_PRETOK_H

#include <jansson.h>

#include "setun/types.h"

typedef struct st_pretok st_pretok;

/* From the JSON of "pre_tokenizer", which may be absent or null; path is for messages. */
setun_status st_pretok_new(st_pretok **p, json_t *json, const char *path, setun_error *err);
void         st_pretok_free(st_pretok *p);
int          st_pretok_is_bytes(const st_pretok *p); /* is there a ByteLevel in it? */

/* Calls piece for each piece in order; text is valid UTF-8, and so are the pieces unless they are
 * bytes.  first: 1 nothing stands before this text, 0 a token, -1 text that it goes on from.  Stops at the first failure.  [any] */
typedef setun_status (*st_piece_fn)(void *user, const char *piece, int64_t n, setun_error *err);
setun_status st_pretok_split(const st_pretok *p, const char *text, int64_t n, int first,
                             st_piece_fn piece, void *user, setun_error *err);

#endif

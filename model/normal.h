/* model/normal.h -- change a text as a normalizer says, before it is cut into pieces. */
#ifndef ST_MODEL_NORMAL_H
#define ST_MODEL_NORMAL_H

#include <jansson.h>

#include "base/str.h"
#include "setun/types.h"

typedef struct st_normal st_normal;

/* From the JSON of "normalizer", which may be absent or null; path is for messages. */
setun_status st_normal_new(st_normal **out, json_t *json, const char *path, setun_error *err);
void         st_normal_free(st_normal *m);
int          st_normal_is_none(const st_normal *m);

/* text is valid UTF-8; *result is either text itself or *held, which the caller frees.  [any] */
setun_status st_normal_apply(const st_normal *m, const char *text, int64_t n, st_str *held,
                             const char **result, int64_t *n_result, setun_error *err);
/* The same in the midst of a text, to which nothing is prepended any more. */
setun_status st_normal_continue(const st_normal *m, const char *text, int64_t n, st_str *held,
                                const char **result, int64_t *n_result, setun_error *err);

/* Fails, naming it, if json has a member other than those of known, a list with a space after each
 * name; "type " is always known. */
setun_status st_json_known(json_t *json, const char *known, const char *what, const char *path,
                           setun_error *err);
/* true or false, or absent or null; anything else fails. */
setun_status st_json_flag(json_t *json, const char *key, int absent, int *value, const char *path,
                          setun_error *err);

#endif

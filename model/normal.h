/* model/normal.h -- read a normalizer; rules.h applies it. */
#ifndef ST_MODEL_NORMAL_H
#define ST_MODEL_NORMAL_H

#include <jansson.h>

#include "model/rules.h"

/* From the JSON of "normalizer", which may be absent or null; path is for messages. */
setun_status st_normal_new(st_normal **out, json_t *json, const char *path, setun_error *err);
/* Appends it as st_normal_take reads it. */
setun_status st_normal_put(const st_normal *m, const char *path, st_str *out, setun_error *err);

/* Fails, naming it, if json has a member other than those of known, a list with a space after each
 * name; "type " is always known. */
setun_status st_json_known(json_t *json, const char *known, const char *what, const char *path,
                           setun_error *err);
/* true or false, or absent or null; anything else fails. */
setun_status st_json_flag(json_t *json, const char *key, int absent, int *value, const char *path,
                          setun_error *err);

#endif

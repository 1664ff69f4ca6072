/* model/config.h -- config.json and generation_config.json as a flat list of hyperparameters. */
#ifndef ST_MODEL_CONFIG_H
#define ST_MODEL_CONFIG_H

#include "base/arena.h"
#include "base/hparam.h"
#include "setun/types.h"

typedef struct st_config {
    st_hparam  *item; /* what has a meaning, in the order of the file; strings belong to the arena */
    int64_t     n, cap;
    int64_t     n_seen;       /* values met, dropped ones too; bounds the work on a hostile file */
    const char *path;         /* of config.json */
    const char *architecture; /* architectures[0] */
    uint64_t    hash;         /* of both files' bytes */
} st_config;

/* Reads dir/config.json, strictly, and dir/generation_config.json, if there is one, for the ids and
 * sampling values it knows.  A key of config.json that is not in the table of config.c is refused. */
setun_status st_config_open(st_config *c, const char *dir, st_arena *arena, setun_error *err);

/* NULL when the key is absent or null. */
const st_hparam *st_config_find(const st_config *c, const char *key);
/* Its text; fallback when the key is absent.  Fails when it is not a string. */
setun_status st_config_string(const st_config *c, const char *key, const char *fallback,
                              const char **out, setun_error *err);

#endif

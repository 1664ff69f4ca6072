/* base/hparam.h -- one hyperparameter of a model: what readers hand to scripts and info. */
#ifndef ST_HPARAM_H
#define ST_HPARAM_H

#include <stdint.h>

/* Nested objects have dotted keys ("rope_scaling.factor"), arrays of scalars are numbered from 1
 * ("eos_token_id.1").  Strings belong to whoever made the list. */
typedef struct st_hparam {
    const char *key;
    enum { ST_HP_INT, ST_HP_FLOAT, ST_HP_BOOL, ST_HP_STRING, ST_HP_NULL } kind;
    int64_t     i; /* also bool */
    double      f;
    const char *s;
} st_hparam;

#endif

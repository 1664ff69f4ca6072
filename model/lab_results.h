/* model/lab_results.h -- results.json: what an experiment has measured so far, a line for each variant and measure.
 *
 *     {"setun_lab": 1, "version": "0.1.0", "base": "as it is", "base_logits": "5ce1...",
 *      "results": [
 *       {"variant": "base3", "measure": "perplexity", "key": "09c3...", "values": {"ppl": 12.5, ...}},
 *       {"variant": "base3", "measure": "layers", "key": "77aa...", "values": {...}, "layers": [0.01, ...]},
 *       {"variant": "base3", "measure": "speed", "key": "1f20...", "speeds": {"decode_tokens_s": 80.1, ...}}
 *      ]}
 *
 * A key is a hash of everything that the result depends on: where it is another one, the result is of other
 * inputs.  What differs from run to run is in "speeds" and nowhere else. */
#ifndef ST_MODEL_LAB_RESULTS_H
#define ST_MODEL_LAB_RESULTS_H

#include "base/arena.h"
#include "setun/types.h"

#define ST_LAB_VALUES 16

typedef struct st_lab_value {
    const char *name;
    double      x; /* finite */
} st_lab_value;

typedef struct st_lab_result {
    const char  *variant, *measure;
    uint64_t     key;
    int32_t      is_speed, n;
    st_lab_value value[ST_LAB_VALUES];
    double      *layer;
    int64_t      n_layer; /* 0: no list */
} st_lab_result;

typedef struct st_lab_results {
    const char    *base;   /* the variant that others were compared with */
    uint64_t       logits; /* what its saved logits were made from; 0: there are none */
    st_lab_result *result;
    int64_t        n;
} st_lab_results;

/* Strings and lists come from the arena.  A file that is not there gives no results. */
setun_status st_lab_results_load(st_lab_results *r, const char *path, st_arena *arena, setun_error *err);
/* Write-then-rename.  Rows without values are left out. */
setun_status st_lab_results_save(const st_lab_results *r, const char *path, setun_error *err);

/* The value of that name; returns 0 where there is none. */
int st_lab_result_get(const st_lab_result *r, const char *name, double *x);

#endif

/* model/synth.h -- a model of a known shape with random weights, for benchmarks and tests. */
#ifndef ST_MODEL_SYNTH_H
#define ST_MODEL_SYNTH_H

#include "base/log.h"
#include "setun/types.h"

/* like: "2b4t", "tiny", "llama-tiny"; or config: a config.json file.  Writes a Hugging Face directory
 * (config.json, generation_config.json, tokenizer.json, tokenizer_config.json, model.safetensors) to
 * out, which must not exist; builds it beside and renames.  Deterministic in seed.  progress may be
 * NULL; returning nonzero from it cancels and removes everything. */
typedef struct st_synth {
    const char *like, *config, *out;
    uint64_t    seed;
    double      zero_share;   /* of ternary weights; default 0.42 when < 0 */
    double      relu_density; /* share of open gates, 0.01 to 0.5, about; 0: as it comes, half of them */
    double      down_density; /* share of int8 inputs of down that are not 0, about; 0: as it comes, 0.68 of the above */
    int         float_master; /* 1: bf16 master weights instead of packed ternary (online mode) */
    int64_t     shard_bytes;  /* 0: one file */
    int       (*progress)(void *user, int64_t done, int64_t total);
    void       *user;
} st_synth;
setun_status st_synth_write(const st_synth *s, setun_error *err);
/* "2b4t, tiny, ..." for messages. */
const char  *st_synth_names(void);

#endif

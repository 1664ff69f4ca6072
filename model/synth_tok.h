/* model/synth_tok.h -- the text of a tokenizer.json with exactly n tokens, for synthetic models. */
#ifndef ST_MODEL_SYNTH_TOK_H
#define ST_MODEL_SYNTH_TOK_H

#include "base/str.h"
#include "setun/types.h"

#define ST_SYNTH_MIN_VOCAB 260

/* What the special tokens are called and where they are. */
typedef struct st_synth_ids {
    int64_t vocab, first_special, bos, eos, eot;
} st_synth_ids;

/* Specials fill the ids from wanted_bos up when that is near the end, else the last three. */
setun_status st_synth_ids_of(st_synth_ids *ids, int64_t vocab, int64_t wanted_bos,
                             setun_error *err);

/* Appends the file's text; the same for the same ids, whatever the machine. */
setun_status st_synth_tokenizer(const st_synth_ids *ids, st_str *out, setun_error *err);

#endif

/* model/carry.h -- what a model has beside its tensors, in the other form: configuration, tokenizer,
 * chat template.
 *
 * What has no place there is named in notes, a line each, if it changes nothing that is computed;
 * recode.c compares configurations when all is written, and refuses what is left. */
#ifndef ST_MODEL_CARRY_H
#define ST_MODEL_CARRY_H

#include "model/newdir.h"
#include "model/source.h"
#include "model/write_gguf.h"

/* All keys of a GGUF file.  file_type < 0: no number stands for what is in it. */
setun_status st_carry_keys(const st_source *s, st_gguf_writer *w, int64_t file_type, st_str *notes, setun_error *err);

/* All files of a directory but the tensors'.  packed: linear layers are U8 with a weight_scale to
 * multiply with; dtype: what most other tensors are ("bfloat16"). */
setun_status st_carry_files(const st_source *s, st_newdir *d, int packed, const char *dtype, st_str *notes, setun_error *err);

/* The tokenizer and the chat template of each: carry_vocab.c and carry_files.c. */
setun_status st_carry_vocab_keys(const st_source *s, st_gguf_writer *w, st_str *notes, setun_error *err);
setun_status st_carry_vocab_files(const st_source *s, st_newdir *d, st_str *notes, setun_error *err);

/* Llama 3's scaling of angles in a directory, as the divisors that a GGUF file has; out NULL: only their
 * number.  0: there is none, or one that readers of these divisors would not take for it. */
int st_carry_divisors(const st_source *s, float *out, int64_t *n);

/* The row of a class of config.json; NULL: GGUF has none. */
const st_gguf_arch *st_carry_arch(const char *class_name);

#endif

/* model/weights.h -- a model's tensors as named, typed, const views; its config as keys.
 *
 * Files stay mapped read-only for the life of the object; nothing is copied that need not be.
 * Strict: every tensor must be consumed, every config key must be known.  Facts of the formats:
 * docs/formats.md. */
#ifndef ST_MODEL_WEIGHTS_H
#define ST_MODEL_WEIGHTS_H

#include "base/hparam.h"
#include "base/log.h"
#include "setun/types.h"

typedef struct st_weights st_weights;

typedef struct st_tensor {
    const char *name;
    const char *file;   /* path of the file that holds it */
    const char *dtype;  /* as the file spells it: "BF16", "U8" */
    setun_view  view;   /* dtype 0 if Setun has no such element type */
    int64_t     bytes;
} st_tensor;

/* What GGUF files do not always say, and the user may: 0 where nothing was said. */
enum { ST_ACTIVATIONS_ASK, ST_ACTIVATIONS_INT8, ST_ACTIVATIONS_FLOAT };
typedef struct st_weights_choice {
    int i2s;         /* ST_I2S_... of gguf.h */
    int activations; /* of ternary layers */
} st_weights_choice;

/* From the words of setun_options; NULL: nothing was said. */
setun_status st_weights_choose(st_weights_choice *c, const char *i2s_layout, const char *activations, setun_error *err);

/* path: a Hugging Face directory (config.json, model.safetensors or an index with shards), or a GGUF
 * file, whose tensors have Hugging Face's names here. */
setun_status st_weights_open(st_weights **w, const char *path, const st_log *log, setun_error *err);
setun_status st_weights_open_as(st_weights **w, const char *path, const st_weights_choice *choice, const st_log *log,
                                setun_error *err);
/* The same files and packed matrices for another script, for which nothing is consumed yet.  Nothing can be added to what
 * is packed: a matrix that lies otherwise, or was none, is SETUN_FULL.  Close it before `of`, which it leaves alone.  [any] */
setun_status st_weights_again(st_weights **w, const st_weights *of, setun_error *err);
void         st_weights_close(st_weights *w);
int64_t          st_weights_count(const st_weights *w);
const st_tensor *st_weights_at(const st_weights *w, int64_t i);
const st_tensor *st_weights_find(const st_weights *w, const char *name); /* NULL when absent */
const char      *st_weights_path(const st_weights *w);

/* What was decided about a GGUF file and from which evidence; of a directory: nothing. */
const char *const *st_weights_lines(const st_weights *w, int64_t *n);

/* config.json, flattened; also generation_config.json's eos_token_id (key "generation.eos_token_id.1"). */
const st_hparam *st_weights_config(const st_weights *w, int64_t *n);
const char *st_weights_architecture(const st_weights *w); /* architectures[0] */

/* For caches: a text with every file's path, size, mtime, and hashes of its header and of samples; and a hash of the paths alone. */
const char  *st_weights_identity(const st_weights *w);
uint64_t     st_weights_paths(const st_weights *w);

/* Where transcoded ternary matrices live: made at first load, then mapped from dir (NULL: kept in
 * memory).  choice says by what rule matrices are asked for transposed, and is part of the file's
 * identity, so that it never holds a matrix twice.  Call before the first st_weights_ternary; finish after the last one: it commits the
 * file and maps it.  Views given out stay valid until close. */
setun_status st_weights_pack_begin(st_weights *w, const char *dir, const char *choice, setun_error *err);
setun_status st_weights_pack_end(st_weights *w, setun_error *err);
int          st_weights_pack_hit(const st_weights *w); /* 1: came from the cache file */

/* The questions of scripts/host.h; each consumes the tensors it answers with.  Messages name
 * file, tensor and value. */
int          st_weights_has(st_weights *w, const char *name);
/* 1: tensor name has the type, the shape and the bytes of tensor of, and counts as consumed. */
int          st_weights_repeats(st_weights *w, const char *name, const char *of);
setun_status st_weights_tensor(st_weights *w, const char *name, uint32_t want, setun_view *view, setun_error *err);
/* A ternary matrix, fields as in scripts/host.h. */
typedef struct st_ternary {
    setun_view codes, scale;
    int32_t    group, across, weight_only;
} st_ternary;
/* across: codes are wanted as the transpose, [cols, rows]; granted, as out->across says, for one scale per
 * tensor and 8-bit activations.  A file holds what it was written with alone. */
setun_status st_weights_ternary(st_weights *w, const char *name, int across, st_ternary *out, setun_error *err);
/* How it is ternary, for whoever reads the tensors themselves: packed with *scale to multiply with, or
 * floats whose absmean is the scale.  SETUN_DECLINED: an ordinary matrix. */
setun_status st_weights_form(const st_weights *w, const char *name, int *packed, float *scale, setun_error *err);
/* Short rows of a head that st_weights_tensor gave (model/head.h), made at first load like ternary
 * matrices.  Between pack_begin and pack_end.  SETUN_DECLINED: the view is not a tensor of the files. */
typedef struct st_head {
    setun_view code, fine, meta; /* data NULL: there is none */
} st_head;
setun_status st_weights_head(st_weights *w, const setun_view *head, int32_t n_threads, st_head *out, setun_error *err);
/* Row r of the head that st_weights_head was asked for, bytes of it, read without mapping it.  Nonzero:
 * that is not possible.  [any] */
int          st_weights_row(const st_weights *w, int64_t r, int64_t bytes, void *to);
int          st_weights_has_rows(const st_weights *w);
/* If data is a tensor that is used in place: its pages may leave the process until they are read again. */
void         st_weights_let_go(const st_weights *w, const void *data);
/* Fails, naming the first ones, if a tensor was never consumed. */
setun_status st_weights_all_used(const st_weights *w, setun_error *err);

/* Bytes by class for `setun info`. */
typedef struct st_weights_stats {
    int64_t ternary_weights, ternary_bytes; /* weights counted, bytes as packed by Setun */
    int64_t mapped_bytes;  /* floats, as such or in blocks, used in place */
    int64_t copied_bytes;  /* converted, or put in order */
    int64_t head_bytes;    /* short rows of the head, with their bounds */
    int64_t n_across;      /* matrices that were asked for transposed */
    int64_t n_weight_only; /* matrices whose activations stay floats */
    int64_t near_threshold; /* master weights within 1e-6 relative of the rounding threshold */
    const char *scale_rule; /* "multiply (autobitlinear)", "divide (bitlinear)", "absmean on load", "none", or what
                             * unpacked.c found */
} st_weights_stats;
void st_weights_get_stats(const st_weights *w, st_weights_stats *s);

#endif

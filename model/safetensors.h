/* model/safetensors.h -- the safetensors container: one file, or shards named by an index.
 *
 * Knows the container only: what a tensor means is decided in weights.c.  Not installed. */
#ifndef ST_MODEL_SAFETENSORS_H
#define ST_MODEL_SAFETENSORS_H

#include "base/arena.h"
#include "base/file.h"
#include "base/table.h"
#include "model/weights.h"

/* The format allows 100 MB; JSON takes some forty times its text in memory, and a hundred thousand
 * tensors fit into this. */
#define ST_SAFETENSORS_HEADER_LIMIT (16 << 20)
#define ST_SAFETENSORS_SHARD_LIMIT 1024

typedef struct st_shard {
    const char *path;
    st_map      map;
    int64_t     mtime_ns;
    uint64_t    header_hash;
} st_shard;

typedef struct st_safetensors {
    st_arena  *arena; /* not owned */
    st_shard  *shard;
    int64_t    n_shards;
    st_tensor *tensor; /* in file order within a shard, shards by name */
    int64_t    n_tensors, cap_tensors;
    st_table  *by_name; /* name -> index into tensor */
} st_safetensors;

/* Opens everything under dir and validates every header completely.  Zero-initialise *s; after a
 * failure, too, call st_safetensors_close.  Names and paths live in arena. */
setun_status st_safetensors_open(st_safetensors *s, const char *dir, st_arena *arena,
                                 setun_error *err);
void         st_safetensors_close(st_safetensors *s);

/* One file as bytes, for st_safetensors_open and for tests: appends its tensors.  path is for
 * messages and st_tensor.file; data must outlive s. */
setun_status st_safetensors_parse(st_safetensors *s, const char *path, const uint8_t *data,
                                  int64_t bytes, uint64_t *header_hash, setun_error *err);

#endif

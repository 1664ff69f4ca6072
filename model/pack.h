/* model/pack.h -- where transcoded matrices live: memory, or a private cache file. */
#ifndef ST_MODEL_PACK_H
#define ST_MODEL_PACK_H

#include "base/log.h"
#include "setun/types.h"

typedef struct st_pack st_pack;

typedef struct st_pack_slot {
    const char *name;
    /* Readable from st_pack_finish on; before it only without a directory or after a hit. */
    uint8_t    *data;
    uint32_t    dtype; /* T2; U8 and F32 for a head's codes and bounds, and for declared packings */
    int64_t     rows, cols, offset, bytes;
    uint64_t    checksum;
    int64_t     near;  /* masters near the rounding threshold, kept for the statistics */
    float       scale; /* what the file said or absmean found */
} st_pack_slot;

/* dir NULL: memory.  Otherwise dir/weights-<key>.t2 is used if it is whole and of this identity, or
 * written anew.  capacity: bytes that all matrices together can need, each rounded up to 64. */
setun_status st_pack_open(st_pack **p, const char *dir, uint64_t key, const char *identity,
                          int64_t capacity, const st_log *log, setun_error *err);
void         st_pack_close(st_pack *p);

/* A matrix that is already there, or NULL. */
const st_pack_slot *st_pack_find(const st_pack *p, const char *name, uint32_t dtype, int64_t rows,
                                 int64_t cols);

/* Add a matrix in two steps: fill *buffer (dense rows), then put it.  name is borrowed for life. */
setun_status st_pack_room(st_pack *p, const char *name, uint32_t dtype, int64_t rows, int64_t cols,
                          uint8_t **buffer, setun_error *err);
setun_status st_pack_put(st_pack *p, float scale, int64_t near, const st_pack_slot **slot,
                         setun_error *err);

/* Commit the file and map it under the addresses already given out. */
setun_status st_pack_finish(st_pack *p, setun_error *err);
int          st_pack_is_hit(const st_pack *p); /* everything so far came from the file */

#endif

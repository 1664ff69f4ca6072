/* model/gguf.h -- the GGUF container: versions 2 and 3, one file or the parts of a split one.
 *
 * Knows the container, the element types (gguf_types.c) and how a row of each is read
 * (gguf_decode.c); what a tensor is for is not decided here.  Everything stays mapped; strings and
 * values are pointers into the map, little-endian on every host.  Not installed. */
#ifndef ST_MODEL_GGUF_H
#define ST_MODEL_GGUF_H

#include "base/arena.h"
#include "base/file.h"
#include "base/table.h"

/* Memory for a header is some ten times its bytes, so its counts are limited: published files have
 * some forty keys and at most a few thousand tensors. */
#define ST_GGUF_KEY_LIMIT 65536
#define ST_GGUF_TENSOR_LIMIT (1 << 18)
#define ST_GGUF_SHARD_LIMIT 1024
#define ST_GGUF_NAME_BYTES 64 /* with a final 0: what the format's own reader takes */

/* Types of values, as in the file. */
enum {
    ST_GGUF_U8, ST_GGUF_I8, ST_GGUF_U16, ST_GGUF_I16, ST_GGUF_U32, ST_GGUF_I32, ST_GGUF_F32,
    ST_GGUF_BOOL, ST_GGUF_STRING, ST_GGUF_ARRAY, ST_GGUF_U64, ST_GGUF_I64, ST_GGUF_F64,
    ST_GGUF_VALUE_TYPES
};

typedef struct st_gguf_value {
    const char    *key;     /* NUL-terminated, UTF-8 without control characters */
    uint32_t       type;
    uint32_t       element; /* of an array: the type of its elements; else type */
    int64_t        n;       /* elements of an array; else 1 */
    const uint8_t *data;    /* the elements back to back; a string is a u64 length and its bytes */
    int64_t        bytes;
} st_gguf_value;

typedef struct st_gguf_type st_gguf_type;

typedef struct st_gguf_tensor {
    const char         *name, *file;
    uint32_t            id;     /* of the type, as in the file: several types share a number */
    const st_gguf_type *type;   /* which of them it is */
    uint32_t            rank;
    int64_t             dim[4]; /* as in the file, innermost first; unused ones are 1 */
    int64_t             values; /* product of dim */
    int64_t             offset, extent; /* in its file's data; extent ends where the next one begins */
    int64_t             bytes;  /* extent without padding */
    int64_t             alignment;
    int                 is_last; /* of its file: the padding behind it may be missing */
    const uint8_t      *data;
} st_gguf_tensor;

typedef struct st_gguf_file {
    const char *path;
    st_map      map;
    uint32_t    version;
    int64_t     alignment, data_at;
} st_gguf_file;

/* Three ways to lay out I2_S (gguf_decode.c draws them), all of one size under one number. */
enum { ST_I2S_ASK, ST_I2S_X86, ST_I2S_ARM, ST_I2S_ROWS4 };

typedef struct st_gguf {
    st_arena       *arena; /* not owned */
    const char     *path;  /* of the first file */
    st_gguf_file   *file;
    int64_t         n_files;
    st_gguf_value  *value; /* of the first file, which has them all */
    int64_t         n_values;
    st_table       *by_key;
    st_gguf_tensor *tensor; /* file by file, in order of offset */
    int64_t         n_tensors, cap_tensors;
    st_table       *by_name;
    const char     *architecture;
    int64_t         file_type; /* -1: the file does not say */
    int             i2s;       /* ST_I2S_ASK: the file does not tell, and nobody said */
    const char    **decision;  /* a line each: which type a shared number stands for, and why */
    int64_t         n_decisions;
} st_gguf;

/* Does the file begin as GGUF does?  Its name plays no part. */
int st_gguf_is(const char *path);

/* Opens path and, if it is the first part of a split model, the others, and checks all of it: after
 * success every tensor has a known type and lies where it says, all of it.  i2s: what the user said
 * about I2_S.  Zero-initialise *g; after a failure, too, call st_gguf_close.  Names live in arena. */
setun_status st_gguf_open(st_gguf *g, const char *path, int i2s, st_arena *arena, setun_error *err);
void         st_gguf_close(st_gguf *g);

/* One whole file as bytes, which must outlive g; for tests.  As st_gguf_open otherwise. */
setun_status st_gguf_parse(st_gguf *g, const char *path, const uint8_t *data, int64_t bytes, int i2s,
                           st_arena *arena, setun_error *err);

const st_gguf_value *st_gguf_find(const st_gguf *g, const char *key); /* NULL when absent */

/* Elements of values.  An integer of any width that fits; strings: bytes, not terminated, and any
 * bytes at all.  Element i of a string array takes a walk: go through them with st_gguf_next. */
int         st_gguf_int(const st_gguf_value *v, int64_t i, int64_t *out); /* -1: no i64, but *out has a u64's bits */
double      st_gguf_float(const st_gguf_value *v, int64_t i);             /* F32 and F64 only */
const char *st_gguf_text(const st_gguf_value *v, int64_t *n);             /* NULL: not a string */
const char *st_gguf_next(const uint8_t **at, int64_t *n); /* at a string's length; moves behind it */
const char *st_gguf_value_name(uint32_t type);            /* "u32" */

#endif

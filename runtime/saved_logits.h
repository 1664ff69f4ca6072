/* runtime/saved_logits.h -- a file of logits, to compare another run with: written once, read strictly.
 *
 *     0       8         12           16       24       32        40       48        56         64           72    80
 *     +-------+---------+------------+--------+--------+---------+--------+---------+----------+------------+-----+
 *     | SETUN | version | convention | window | stride | windows | tokens | n_vocab | hash of  | hash of    | sum |
 *     | LGT   | u32: 1  | u32        | i64    | i64    | i64     | i64    | i64     | the text | the vocab. | u64 |
 *     +-------+---------+------------+--------+--------+---------+--------+---------+----------+------------+-----+
 *
 *     then for each predicted token: its id as i32, 4 bytes 0, its logits as f32[n_vocab], and the
 *     checksum of these bytes as u64
 *
 * Little-endian on every host.  The hashes tell other texts and other tokenizers apart; the sums are
 * st_checksum, the first of the 72 bytes before it. */
#ifndef ST_RUNTIME_SAVED_LOGITS_H
#define ST_RUNTIME_SAVED_LOGITS_H

#include "base/file.h"

/* What a run was; two that can be compared are equal in all of it. */
typedef struct st_saved_head {
    int64_t  convention, window, stride, windows, tokens, n_vocab;
    uint64_t text, vocab;
} st_saved_head;

int64_t st_saved_bytes(const st_saved_head *h); /* -1: too many */

typedef struct st_saved_out st_saved_out;
setun_status st_saved_create(st_saved_out **o, const char *path, const st_saved_head *h, setun_error *err);
setun_status st_saved_write(st_saved_out *o, int32_t token, const float *logits, setun_error *err);
setun_status st_saved_commit(st_saved_out *o, setun_error *err); /* frees o, also when it fails */
void         st_saved_abort(st_saved_out *o);                    /* frees o; NULL is allowed */

typedef struct st_saved_in {
    const char   *path;
    st_map        map;
    st_saved_head head;
    float        *row;
    int64_t       at;
} st_saved_in;

/* Refuses a file that is not of the run want, saying in what it differs.  Zero-initialise; after a
 * failure, too, call st_saved_close. */
setun_status st_saved_open(st_saved_in *in, const char *path, const st_saved_head *want, setun_error *err);
/* The next row, valid until the next call: finite, and of this token. */
setun_status st_saved_next(st_saved_in *in, int32_t token, const float **logits, setun_error *err);
void         st_saved_close(st_saved_in *in);

#endif

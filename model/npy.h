/* model/npy.h -- NumPy's array files: written in format 1.0, read in 1.0, 2.0 and 3.0.
 *
 *     byte  0            6  7  8    10                                                       10 + n
 *          +------------+--+--+----+--------------------------------------------------------+-----
 *          | \x93NUMPY  | 1| 0| n  | {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n | rows
 *          +------------+--+--+----+--------------------------------------------------------+-----
 *
 * n is little-endian, 16 bits in format 1.0 and 32 bits from 2.0 on.  What is written is filled up with
 * spaces, so that the numbers begin at a multiple of 64; what is read need not be. */
#ifndef ST_MODEL_NPY_H
#define ST_MODEL_NPY_H

#include "base/file.h"

#define ST_NPY_MAX_RANK 8

/* The type that a dtype has in a file: "<f4"; NULL: NumPy has none, or the elements come in blocks.  bf16 becomes
 * "<f4", exactly. */
const char  *st_npy_type(uint32_t dtype);
/* Bytes of the whole file; -1: the type has none. */
int64_t      st_npy_bytes(const setun_view *v);
/* Write-then-rename, as st_out_open; the same bytes on every host. */
setun_status st_npy_save(const char *path, const setun_view *v, int durable, setun_error *err);

typedef struct st_npy {
    st_map         map;
    const uint8_t *data;   /* count elements of `width` bytes, not aligned */
    int64_t        count;
    int64_t        dim[ST_NPY_MAX_RANK]; /* outermost first */
    uint32_t       rank;   /* 0: a single number */
    uint32_t       width;
    char           kind;   /* 'f' float, 'i' signed, 'u' unsigned, 'b' boolean */
    char           order;  /* '<' or '>'; of single bytes '|' */
} st_npy;

/* Refuses what is not a whole file of one dense array of numbers, rows first.  Zero-initialise; a failed open needs no close. */
setun_status st_npy_open(st_npy *n, const char *path, setun_error *err);
void         st_npy_close(st_npy *n);
/* Element i as a number: exact but for integers beyond 53 bits. */
double       st_npy_at(const st_npy *n, int64_t i);

#endif

/* runtime/requantise.h -- a matrix on its way from floats into a declared packing, by the packing's rule.
 *
 * Not here: where codes go (setun/packing.h), and what becomes of the graph (runtime/packing.c). */
#ifndef ST_RUNTIME_REQUANTISE_H
#define ST_RUNTIME_REQUANTISE_H

#include "runtime/model.h"
#include "scripts/host.h"
#include "setun/packing.h"

/* What a row became. */
typedef struct st_requantised {
    double  error, square; /* sums of squares: of what was lost, of the values */
    int64_t at;            /* the column of `value`, or the number of the scale */
    float   value;
    int     wrong;         /* 0; VALUE or SCALE: it is not finite */
} st_requantised;

typedef struct st_requantise {
    setun_model             *m;
    st_script               *script;
    const st_script_packing *rule;
    const setun_packing     *p;
    const char              *name;         /* of the matrix */
    const setun_view        *w, *ws;       /* T2 codes and their scales; or floats, and NULL */
    const st_tensor         *master;       /* what is read instead of them; or NULL */
    int64_t                  group;        /* weights that share a scale of ws */
    int                      across;       /* w is the transpose */
    int64_t                  rows, columns;
    int64_t                  each, n;      /* columns that share a scale, such parts of a row */
    setun_view               scale;        /* f32[1], f32[rows] or f32[rows, n], as they are stored */
    st_requantised          *row;
    double                   error, square; /* of all rows */
    int64_t                  deadline;     /* of all calls of the script's function */
    setun_status             status;       /* of the first call that failed */
    setun_error              err;
    int32_t                  n_level;
    int8_t                   level[SETUN_PACKING_LEVELS]; /* rising */
    float                    middle[SETUN_PACKING_LEVELS]; /* of level[i] and level[i + 1] */
    uint8_t                  up[SETUN_PACKING_LEVELS];     /* the middle itself becomes level[i + 1] */
} st_requantise;

/* A ternary matrix of m's files, by its name there, whose codes are at `codes`: if it is stored as floats, those are
 * what is quantised again. */
setun_status st_requantise_note(setun_model *m, const char *name, const void *codes, setun_error *err);

/* q has m, script, rule, p, name, w, ws, group and across; sizes are filled in, and the scales' shape, without data: no value
 * is read. */
void st_requantise_shape(st_requantise *q);
/* What is missing then: scales, in m's arena, of which those of the whole matrix are found. */
setun_status st_requantise_open(st_requantise *q, setun_error *err);
/* Row r: its values to x, what they become to digit, and its scales.  By different threads for different rows, where the rule
 * is not a function. */
void st_requantise_row(st_requantise *q, int64_t r, float *x, int8_t *digit);
/* After row r is packed: how far off it is.  changed: not all digits came back. */
void st_requantise_measure(st_requantise *q, int64_t r, const float *x, const int8_t *digit, const uint8_t *packed, int changed);
/* Adds up what was lost, to q; fails if a row had a value or a scale that cannot be, or the function failed.  After a failure
 * of open, too. */
setun_status st_requantise_close(st_requantise *q, setun_error *err);
/* q's sums, counted now or remembered, to m->packed and to the log. */
void st_requantise_count(const st_requantise *q);

/* What was lost, as a share of the root mean square of the weights. */
double st_requantise_error(const st_packed *s);

#endif

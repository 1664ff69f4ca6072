/* ops/ternary_scales.h -- the scales of a ternary matrix: one, one for each row, or one for every
 * `group` neighbouring weights of a row.  What operators with such a matrix check alike, and the order
 * in which they add products with scales. */
#ifndef SETUN_OPS_TERNARY_SCALES_H
#define SETUN_OPS_TERNARY_SCALES_H

#include "setun/op.h"

/* Terms with a scale are added in 8 stripes: term i to stripe i mod 8, in order, from +0; then the
 * stripes are halved.  Eight, because the sums of eight vectors are what halving them together leaves in the
 * lanes of one, and because eight are few enough to be kept for every row and token of a tile. */
#define STRIPES 8

static inline float halve_stripes(float *p)
{
    for (int half = STRIPES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            p[i] += p[i + half];
    return p[0];
}

/* ws f32[1] or f32[r] with group 0, or f32[r, ceil(k / group)]; for w t2[r,k]. */
static inline setun_status want_scales(const setun_args *a, uint32_t weight, uint32_t scale, int64_t group, setun_error *err)
{
    const setun_view *w = &a->in[weight], *ws = &a->in[scale];
    setun_text t, u;
    if (group < 0 || group > INT32_MAX || (group != 32 && group != 64 && group % SETUN_T2_BLOCK != 0))
        return setun_fail(err, SETUN_BAD_ARG, "group is %lld, wants 0, 32, 64 or a multiple of 128", (long long)group);
    if (ws->dtype == SETUN_F32 && ws->rank == 1 && group == 0 && (ws->dim[0] == 1 || ws->dim[0] == w->dim[0]))
        return SETUN_OK;
    if (ws->dtype == SETUN_F32 && ws->rank == 2 && group > 0 && ws->dim[0] == w->dim[0] &&
        ws->dim[1] == (w->dim[1] + group - 1) / group)
        return SETUN_OK;
    return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s with group %lld, and %s is %s: wants f32[1] or f32[r] with group 0, or "
                      "f32[r,k/group rounded up]", a->op->in[scale].name, setun_view_text(ws, &t), (long long)group,
                      a->op->in[weight].name, setun_view_text(w, &u));
}

/* Elements of ws from a row of weights to the next. */
static inline int64_t scale_stride(const setun_view *ws)
{
    return ws->rank == 2 ? ws->dim[1] : ws->dim[0] != 1;
}

#define GROUP_ATTR {"group", "weights of a row that share a scale: 0 (all), 32, 64 or a multiple of 128", SETUN_ATTR_INT, 0, {.i = 0}}

#endif

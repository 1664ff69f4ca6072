/* ops/ternary_sums.h -- adding up the lanes of several vectors at once. */
#ifndef SETUN_OPS_TERNARY_SUMS_H
#define SETUN_OPS_TERNARY_SUMS_H

#include "setun/op.h"

/* The sums of the lanes of v[0 .. n), n a power of two, as n lanes; lanes are halved as k_rsum halves them,
 * so floats come out with the same bits.  Two vectors are joined while they are
 * halved, so that lanes stay full:  a0 a1 a2 a3, b0 b1 b2 b3  ->  a0+a2 a1+a3 b0+b2 b1+b3. */
static inline k_val sum_lanes(setun_kernel *k, k_val *v, int n)
{
    int32_t lo[16], hi[16];
    int lanes = (int)K_LANES(k_type_of(k, v[0]));
    for (int part = lanes / 2; part > 0; part /= 2) { /* lanes of a sum after this round */
        int join = n > 1, wide = join ? lanes : lanes / 2;
        for (int i = 0; i < wide; i++) {
            lo[i] = i / part * 2 * part + i % part; /* in both vectors, one behind the other */
            hi[i] = lo[i] + part;
        }
        n = join ? n / 2 : n;
        for (int i = 0; i < n; i++) {
            k_val a = v[join ? 2 * i : i], b = v[join ? 2 * i + 1 : i];
            v[i] = k_add(k, k_shuffle(k, a, b, lo, (uint32_t)wide), k_shuffle(k, a, b, hi, (uint32_t)wide));
        }
        lanes = wide;
    }
    return v[0];
}

#endif

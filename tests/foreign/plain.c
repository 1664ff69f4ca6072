/* tests/foreign/plain.c -- the product of one token as anyone writes it in C: what e2e/counts.sh counts kernels against.
 *
 * It stands in for the kernel of the case q:i8[1,2560] and is called like it, so that run.c compares its results, too.
 * A byte is read once for its four weights, and the number of columns is a constant, as it is in a kernel. */
#include "launch.h"

enum { COLUMNS = 2560, UNIT = 16 }; /* rows of a unit of the kernel's grid */

void kernel0(const launch *l, const tile *t);
void kernel0(const launch *l, const tile *t)
{
    const int8_t *q = l->arg[0];
    const float *scale = l->arg[1], *ws = l->arg[4];
    const uint8_t *w = l->arg[3];
    float *y = l->arg[5], m = ws[0] / scale[0];
    int64_t end = t->end * UNIT < l->dim[0] ? t->end * UNIT : l->dim[0];
    for (int64_t r = t->begin * UNIT; r < end; r++) {
        int32_t s = 0;
        for (int64_t b = 0; b < COLUMNS / 128; b++)
            for (int64_t j = 0; j < 32; j++) {
                int32_t byte = w[r * (COLUMNS / 4) + 32 * b + j];
                for (int f = 0; f < 4; f++)
                    s += ((byte >> (2 * f) & 3) - 1) * q[128 * b + 32 * f + j];
            }
        y[r] = (float)s * m;
    }
}

/* base/clock.h -- monotonic time in nanoseconds.  [any] */
#ifndef ST_CLOCK_H
#define ST_CLOCK_H

#include <stdint.h>

int64_t st_now_ns(void);

#endif

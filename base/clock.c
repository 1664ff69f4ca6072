/* base/clock.c -- monotonic time.  See clock.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/clock.h"

#include <time.h>

int64_t st_now_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t))
        return 0; /* cannot happen on Linux; a clock that stands still breaks no caller */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

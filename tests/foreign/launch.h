/* tests/foreign/launch.h -- what a kernel is called with (include/setun/op.h has it), for programs without headers. */
#ifndef SETUN_TESTS_FOREIGN_LAUNCH_H
#define SETUN_TESTS_FOREIGN_LAUNCH_H

#include <stdint.h>

typedef struct launch {
    void *const   *arg;
    const int64_t *dim;
    const void    *self;
} launch;
typedef struct tile {
    int64_t begin, end;
    void   *scratch;
} tile;

#endif

/* tests/abi/no_entry.c -- a shared object that is no plugin. */
#include "setun/types.h"

SETUN_EXPORT int32_t something_else(void);

int32_t something_else(void)
{
    return 42;
}

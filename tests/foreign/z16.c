/* tests/foreign/z16.c -- getauxval of a z16, for an emulator that runs its vector instructions and does not say so.
 *
 * Bits of AT_HWCAP on s390x (Linux, arch/s390/include/asm/elf.h): 15, the second vector enhancements of z15; 20, the
 * neural-network assist by which z16 is known, and which no kernel uses.  Loaded before the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/auxv.h>

unsigned long getauxval(unsigned long type)
{
    unsigned long (*real)(unsigned long);
    *(void **)&real = dlsym(RTLD_NEXT, "getauxval");
    return real(type) | (type == AT_HWCAP ? 1ul << 15 | 1ul << 20 : 0);
}

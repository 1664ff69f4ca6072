/* base/cpu_process.c -- what the system grants this process and what it uses, through Linux itself.  See cpu.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/cpu.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux: arch_prctl(ARCH_REQ_XCOMP_PERM, 18), 18 being the number of the tile data among the states
 * that XSAVE knows.  Sources: Linux, Documentation/arch/x86/xstate.rst. */
int st_cpu_allow_tiles(void)
{
#if defined(__linux__) && defined(__x86_64__) && defined(SYS_arch_prctl)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return 0;
#endif
}

/* A line of /proc/self/status: "VmRSS:\t   12345 kB". */
static int64_t status_kb(const char *key)
{
    char line[256];
    int64_t kb = 0;
    size_t n = strlen(key);
    FILE *f = fopen("/proc/self/status", "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n) || line[n] != ':')
            continue;
        char *digits = line + n + 1 + strspn(line + n + 1, " \t");
        digits[strspn(digits, "0123456789")] = 0;
        if (st_parse_i64(digits, 0, INT64_MAX / 1024, &kb))
            kb = 0;
        break;
    }
    (void)fclose(f);
    return kb * 1024;
}

int64_t st_memory_now(void)
{
    return status_kb("VmRSS");
}

int64_t st_memory_peak(void)
{
    return status_kb("VmHWM");
}

int64_t st_memory_files(void)
{
    return status_kb("RssFile");
}

void st_memory_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

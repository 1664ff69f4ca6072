/* base/cpu_identity.c -- what decides which instructions may be used, as text.  See cpu.h.
 *
 * Asked of the processor itself on x86, of the kernel elsewhere.  Nothing in it changes from one core to
 * the next, or from day to day: numbers of cores, clock rates and addresses are left out. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/cpu.h"

#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)

/* Leaves of CPUID that describe instructions, and those of their four registers that are no secret of a
 * single core (leaf 1's EBX has its number). */
static const struct leaf {
    uint32_t leaf, sub;
    uint32_t regs; /* bits 0 to 3: EAX, EBX, ECX, EDX */
} leaves[] = {
    { 0, 0, 15 },  { 1, 0, 1 | 4 | 8 }, { 7, 0, 15 },   { 7, 1, 15 },           { 7, 2, 15 },
    { 0xd, 1, 1 }, { 0x14, 0, 2 },      { 0x19, 0, 2 }, { 0x1d, 1, 15 },        { 0x1e, 0, 15 },
    { 0x24, 0, 2 }, { 0x80000001u, 0, 4 | 8 }, { 0x80000007u, 0, 8 }, { 0x80000008u, 0, 2 }, { 0x80000021u, 0, 1 },
};

void st_cpu_identity(st_str *out)
{
    st_str_add(out, "x86-64");
    for (size_t i = 0; i < sizeof leaves / sizeof leaves[0]; i++) {
        unsigned r[4] = { 0, 0, 0, 0 };
        if (!__get_cpuid_count(leaves[i].leaf, leaves[i].sub, &r[0], &r[1], &r[2], &r[3]))
            memset(r, 0, sizeof r);
        for (int k = 0; k < 4; k++)
            if (leaves[i].regs >> k & 1)
                st_str_addf(out, "%c%x", k ? '.' : ' ', r[k]);
    }
    unsigned a, b, c, d, low = 0, high = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) && c & bit_OSXSAVE) /* which registers the system saves */
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    st_str_addf(out, " %x.%x\n", high, low);
}

#else

/* Is this line of /proc/cpuinfo the same tomorrow? */
static int is_lasting(const char *line)
{
    static const char *const passing[] = { "processor", "cpu MHz", "clock", "timebase", "BogoMIPS", "bogomips", "hart",
                                           "# processors", "cpu number" };
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++)
        if (!strncmp(line, passing[i], strlen(passing[i])))
            return 0;
    return 1;
}

/* The compiler reads names of processors from the same place; the first processor's block will do. */
static void add_cpuinfo(st_str *out)
{
    char line[4096];
    FILE *f = fopen("/proc/cpuinfo", "re");
    int n = 0;
    while (f && fgets(line, sizeof line, f) && (line[0] != '\n' || n == 0))
        if (is_lasting(line)) {
            st_str_add(out, line);
            n++;
        }
    if (f)
        (void)fclose(f);
}

void st_cpu_identity(st_str *out)
{
    const char *platform = (const char *)getauxval(AT_PLATFORM), *base = (const char *)getauxval(AT_BASE_PLATFORM);
    st_str_addf(out, "hwcap %lx %lx %s %s\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2), platform ? platform : "",
                base ? base : "");
    add_cpuinfo(out);
}

#endif

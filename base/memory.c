/* base/memory.c -- see memory.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* An entry of pagemap is 64 bits; the highest one says that the page is present.  (Its place is hidden
 * from ordinary users, its presence is not.) */
#define PRESENT ((uint64_t)1 << 63)

int64_t st_memory_present(const void *p, int64_t bytes)
{
    uint64_t entry[512];
    int64_t page = sysconf(_SC_PAGESIZE), begin = (int64_t)(intptr_t)p, end = begin + bytes, sum = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || page < 1)
        return -1;
    for (int64_t at = begin / page; at * page < end;) {
        int64_t n = (end + page - 1) / page - at;
        n = n < 512 ? n : 512;
        ssize_t got = pread(fd, entry, (size_t)n * sizeof entry[0], at * (int64_t)sizeof entry[0]);
        if (got != (ssize_t)((size_t)n * sizeof entry[0])) {
            sum = -1;
            break;
        }
        for (int64_t i = 0; i < n; i++, at++) {
            int64_t from = at * page > begin ? at * page : begin, to = (at + 1) * page < end ? (at + 1) * page : end;
            sum += entry[i] & PRESENT ? to - from : 0;
        }
    }
    (void)close(fd);
    return sum;
}

/* "7f0a-7f0b r-xp 00000000 fe:00 123   /usr/lib/libx.so.1": permissions and path of a mapping's first line. */
static int is_code(const char *line, const char *program)
{
    char perms[5] = "", path[512] = "";
    if (sscanf(line, "%*x-%*x %4s %*x %*s %*s %511[^\n]", perms, path) < 1)
        return 0;
    return strstr(path, ".so") != NULL || (*path && strcmp(path, program) == 0) || (perms[2] == 'x' && *path != '[');
}

int st_memory_mappings(int64_t *all, int64_t *code)
{
    char line[1024], program[512] = "";
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    FILE *f = fopen("/proc/self/smaps", "re");
    int in_code = 0;
    *all = *code = 0;
    if (!f)
        return -1;
    program[n > 0 ? n : 0] = 0;
    while (fgets(line, sizeof line, f)) {
        long long kb;
        if (sscanf(line, "Rss: %lld kB", &kb) == 1) {
            *all += kb * 1024;
            *code += in_code ? kb * 1024 : 0;
        } else if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f')) {
            in_code = is_code(line, program); /* names of other lines start with a capital */
        }
    }
    (void)fclose(f);
    return *all > 0 ? 0 : -1;
}

int64_t st_memory_available(void)
{
    char line[256];
    long long kb = -1;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && kb < 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lld kB", &kb) != 1)
            kb = -1;
    if (f)
        (void)fclose(f);
    return kb < 0 ? -1 : kb * 1024;
}

/* rt/cpu.c -- base/cpu.h's view of the machine without hwloc: what Linux says in files and masks.
 *
 * Stands where base/cpu.c does in the large program.  Caches are not asked for: they decide how kernels are made, and
 * those of a bundle are made. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#define MOST_CORES ((int32_t)(sizeof((st_cpu *)0)->core_pu / sizeof(int32_t)))

/* The lowest logical CPU of the core that this one belongs to; itself, if the system does not tell. */
static int first_of_core(int cpu)
{
    char path[96];
    int first = cpu;
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%d", &first) != 1)
            first = cpu;
        (void)fclose(f);
    }
    return first;
}

void st_cpu_detect(st_cpu *c)
{
    cpu_set_t mine;
    int32_t core[MOST_CORES]; /* the cores already seen, by first_of_core */
    memset(c, 0, sizeof *c);
    (void)snprintf(c->name, sizeof c->name, "unknown CPU");
    if (sched_getaffinity(0, sizeof mine, &mine))
        CPU_ZERO(&mine);
    for (int cpu = 0; cpu < CPU_SETSIZE && c->n_cores < MOST_CORES; cpu++) {
        int32_t first = CPU_ISSET((size_t)cpu, &mine) ? first_of_core(cpu) : -1, seen = 0;
        c->n_threads += first >= 0;
        while (first >= 0 && seen < c->n_cores && core[seen] != first)
            seen++;
        if (first < 0 || seen < c->n_cores)
            continue;
        core[c->n_cores] = first;
        c->core_pu[c->n_cores++] = cpu;
    }
    c->n_cores += c->n_cores == 0;
    c->n_threads += c->n_threads == 0;
}

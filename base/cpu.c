/* base/cpu.c -- topology and caches through hwloc.  See cpu.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/cpu.h"

#include <hwloc.h>
#include <stdio.h>
#include <string.h>

#define MOST_CORES ((int32_t)(sizeof((st_cpu *)0)->core_pu / sizeof(int32_t)))

static void fill_caches(st_cpu *c, hwloc_obj_t first)
{
    for (hwloc_obj_t o = first; o; o = o->parent) {
        if (!hwloc_obj_type_is_dcache(o->type))
            continue;
        int64_t bytes = (int64_t)o->attr->cache.size;
        if (o->type == HWLOC_OBJ_L1CACHE)
            c->l1d_bytes = bytes;
        else if (o->type == HWLOC_OBJ_L2CACHE)
            c->l2_bytes = bytes;
        else if (o->type == HWLOC_OBJ_L3CACHE)
            c->l3_bytes = bytes;
    }
}

void st_cpu_detect(st_cpu *c)
{
    hwloc_topology_t topo;
    memset(c, 0, sizeof *c);
    c->n_cores = c->n_threads = 1;
    (void)snprintf(c->name, sizeof c->name, "unknown CPU");
    if (hwloc_topology_init(&topo))
        return;
    hwloc_bitmap_t mine = hwloc_bitmap_alloc();
    if (!mine || hwloc_topology_load(topo))
        goto done;
    /* The machine, less what the container forbids, less what the process was bound away from. */
    if (hwloc_get_cpubind(topo, mine, HWLOC_CPUBIND_PROCESS) || hwloc_bitmap_iszero(mine))
        hwloc_bitmap_fill(mine);
    hwloc_bitmap_and(mine, mine, hwloc_topology_get_allowed_cpuset(topo));
    int n_threads = hwloc_bitmap_weight(mine), n_cores = 0;
    if (n_threads < 1)
        goto done;
    hwloc_obj_t first = hwloc_get_pu_obj_by_os_index(topo, (unsigned)hwloc_bitmap_first(mine));
    int type_of_core =
        hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    for (hwloc_obj_t o = NULL; n_cores < MOST_CORES;) {
        o = hwloc_get_next_obj_by_type(topo, (hwloc_obj_type_t)type_of_core, o);
        if (!o)
            break;
        int pu = -1;
        do /* the first logical CPU of this core that we may use */
            pu = hwloc_bitmap_next(o->cpuset, pu);
        while (pu >= 0 && !hwloc_bitmap_isset(mine, (unsigned)pu));
        if (pu >= 0)
            c->core_pu[n_cores++] = pu;
    }
    if (n_cores) {
        c->n_cores = n_cores;
        c->n_threads = n_threads;
    }
    fill_caches(c, first);
    hwloc_obj_t package =
        first ? hwloc_get_ancestor_obj_by_type(topo, HWLOC_OBJ_PACKAGE, first) : NULL;
    const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (model)
        (void)snprintf(c->name, sizeof c->name, "%s", model);
done:
    hwloc_bitmap_free(mine);
    hwloc_topology_destroy(topo);
}

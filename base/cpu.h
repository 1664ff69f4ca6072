/* base/cpu.h -- what this machine has: topology and caches (hwloc), memory use. */
#ifndef ST_CPU_H
#define ST_CPU_H

#include <stdint.h>

#include "base/str.h"

typedef struct st_cpu {
    int32_t n_cores;         /* physical cores this process may run on */
    int32_t n_threads;       /* logical ones */
    int64_t l1d_bytes, l2_bytes, l3_bytes; /* of the first core; 0 unknown */
    int32_t core_pu[256];    /* operating-system index of one logical CPU per core */
    char    name[64];        /* CPU model, for people */
} st_cpu;

/* Fills *c; falls back to one core and unknown caches when the system tells nothing.  [any] */
void st_cpu_detect(st_cpu *c);

/* Everything the processor and the system say about which instructions may be used, as text: where it is
 * equal, the same compiled code can run.  Takes microseconds.  [any] */
void st_cpu_identity(st_str *out);

/* Ask the system for the use of matrix tiles (x86 AMX), whose state is large and is kept only for
 * processes that asked; threads made before or after may use them.  1: granted.  [any] */
int st_cpu_allow_tiles(void);

/* Resident set of this process in bytes, now and at its peak; 0 unknown. */
int64_t st_memory_now(void);
int64_t st_memory_peak(void);
int64_t st_memory_files(void); /* the part of st_memory_now that is pages of files, which others can share */
void    st_memory_trim(void);  /* give what was freed back to the system */

#endif

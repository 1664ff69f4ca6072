/* base/memory.h -- what of this process is in memory, page by page and mapping by mapping.
 *
 * The system's own tables: /proc/self/pagemap and smaps.  Where there are none, all answers are "unknown". */
#ifndef ST_MEMORY_H
#define ST_MEMORY_H

#include <stdint.h>

/* Bytes of [p, p + bytes) whose pages this process has mapped now; -1 unknown. */
int64_t st_memory_present(const void *p, int64_t bytes);
/* Resident bytes of all mappings, and of those that hold machine code: shared objects, the program, and
 * executable memory without a file.  0 done, -1 unknown. */
int st_memory_mappings(int64_t *all, int64_t *code);
/* Bytes that the system thinks it can give without swapping; -1 unknown. */
int64_t st_memory_available(void);

#endif

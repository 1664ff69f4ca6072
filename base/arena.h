/* base/arena.h -- bump allocator: one arena per lifetime, no free of single objects.
 *
 * Memory is zeroed and 64-byte aligned when it is 64 bytes or more, else 16.  Failure returns NULL;
 * callers turn that into SETUN_NO_MEMORY.  In SETUN_HARD builds rewound memory is poisoned and the
 * n-th allocation can be made to fail (st_arena_fail_after).  One thread at a time. */
#ifndef ST_ARENA_H
#define ST_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct st_arena st_arena;
typedef struct st_mark { void *block; size_t used; } st_mark;

st_arena *st_arena_new(void);          /* NULL: no memory */
void      st_arena_free(st_arena *a);  /* everything in it; NULL is allowed */
void     *st_arena_alloc(st_arena *a, int64_t bytes);           /* bytes < 0 gives NULL */
void     *st_arena_array(st_arena *a, int64_t n, int64_t size); /* checks n * size */
char     *st_arena_strdup(st_arena *a, const char *s);
char     *st_arena_strndup(st_arena *a, const char *s, size_t n);
char     *st_arena_printf(st_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
st_mark   st_arena_mark(const st_arena *a);
void      st_arena_rewind(st_arena *a, st_mark m);
int64_t   st_arena_bytes(const st_arena *a); /* handed out and not rewound */

/* Fault injection: after n more allocations every one fails; n < 0 switches it off. */
void      st_arena_fail_after(st_arena *a, int64_t n);

#endif

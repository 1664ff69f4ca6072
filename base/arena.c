/* base/arena.c -- bump allocator.  See arena.h.
 *
 * A chain of blocks, newest first; each knows how much of it is used and how much has ever been
 * used.  Blocks come zeroed from calloc, so only bytes below that high-water mark are cleared
 * again. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BLOCK ((size_t)16 << 10)
#define LARGEST_STEP ((size_t)1 << 20) /* blocks double up to here; larger objects get their own */
#define LARGEST_OBJECT ((int64_t)1 << 39) /* above this a size is a lie, not a wish */

typedef struct block {
    struct block *older;
    size_t        cap, used, dirty; /* dirty: bytes that may differ from zero */
    int64_t       before;           /* handed out in older blocks */
    char         *data;             /* 64-byte aligned, inside this allocation */
} block;

struct st_arena {
    block  *top;
    block  *spare; /* one block kept by rewind, so that a loop at its edge does not call malloc */
    size_t  step;
    int64_t fail_after; /* < 0: never */
};

st_arena *st_arena_new(void)
{
    st_arena *a = calloc(1, sizeof *a);
    if (a) {
        a->step = FIRST_BLOCK;
        a->fail_after = -1;
    }
    return a;
}

static void free_chain(block *b, const block *end)
{
    while (b != end) {
        block *older = b->older;
        free(b);
        b = older;
    }
}

void st_arena_free(st_arena *a)
{
    if (!a)
        return;
    free_chain(a->top, NULL);
    free(a->spare);
    free(a);
}

static int64_t used_total(const st_arena *a)
{
    return a->top ? a->top->before + (int64_t)a->top->used : 0;
}

static int push_block(st_arena *a, size_t bytes)
{
    block *b = a->spare;
    if (b && b->cap >= bytes) {
        a->spare = NULL;
    } else {
        size_t cap = bytes > a->step ? bytes : a->step;
        b = calloc(1, sizeof *b + 64 + cap);
        if (!b)
            return 0;
        b->cap = cap;
        b->data = (char *)(((uintptr_t)(b + 1) + 63) & ~(uintptr_t)63);
        if (a->step < LARGEST_STEP)
            a->step *= 2;
    }
    b->before = used_total(a);
    b->used = 0;
    b->older = a->top;
    a->top = b;
    return 1;
}

void *st_arena_alloc(st_arena *a, int64_t bytes)
{
    if (bytes < 0 || bytes > LARGEST_OBJECT)
        return NULL;
    if (a->fail_after == 0)
        return NULL;
    if (a->fail_after > 0)
        a->fail_after--;
    size_t align = bytes >= 64 ? 64 : 16;
    size_t n = bytes ? ((size_t)bytes + 15) & ~(size_t)15 : 16;
    block *b = a->top;
    size_t at = b ? (b->used + align - 1) & ~(align - 1) : 0;
    if (!b || at > b->cap || b->cap - at < n) {
        if (!push_block(a, n))
            return NULL;
        b = a->top;
        at = 0;
    }
    b->used = at + n;
    if (at < b->dirty)
        memset(b->data + at, 0, (b->used < b->dirty ? b->used : b->dirty) - at);
    if (b->dirty < b->used)
        b->dirty = b->used;
    return b->data + at;
}

void *st_arena_array(st_arena *a, int64_t n, int64_t size)
{
    int64_t bytes;
    if (n < 0 || size < 0 || __builtin_mul_overflow(n, size, &bytes))
        return NULL;
    return st_arena_alloc(a, bytes);
}

char *st_arena_strndup(st_arena *a, const char *s, size_t n)
{
    char *copy = n < (size_t)LARGEST_OBJECT ? st_arena_alloc(a, (int64_t)n + 1) : NULL;
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}

char *st_arena_strdup(st_arena *a, const char *s)
{
    return st_arena_strndup(a, s, strlen(s));
}

char *st_arena_printf(st_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = n < 0 ? NULL : st_arena_alloc(a, (int64_t)n + 1);
    if (text) {
        va_start(ap, fmt);
        (void)vsnprintf(text, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    return text;
}

st_mark st_arena_mark(const st_arena *a)
{
    st_mark m = { a->top, a->top ? a->top->used : 0 };
    return m;
}

void st_arena_rewind(st_arena *a, st_mark m)
{
    while (a->top != (block *)m.block) {
        block *b = a->top;
        a->top = b->older;
        b->used = 0;
        if (!a->spare || a->spare->cap < b->cap) {
            block *smaller = a->spare;
            a->spare = b;
            b = smaller;
        }
        free(b);
    }
    if (a->top) {
#ifdef SETUN_HARD
        /* Whoever still reads rewound memory shall read nonsense, not yesterday's values. */
        memset(a->top->data + m.used, 0xa5, a->top->used - m.used);
#endif
        a->top->used = m.used;
    }
}

int64_t st_arena_bytes(const st_arena *a)
{
    return used_total(a);
}

void st_arena_fail_after(st_arena *a, int64_t n)
{
    a->fail_after = n < 0 ? -1 : n;
}

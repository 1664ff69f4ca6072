/* backends/hostmem.c -- host buffers: zeroed, 64-byte aligned, in huge pages when large. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "backends/hostmem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"

/* From here on pages come straight from the system: zeroed without being touched, and few enough
 * for the address caches when the system can make them 2 MiB each. */
#define LARGE ((int64_t)4 << 20)
/* Smaller ones are filled bit by bit, as the cache of keys of a layer: in huge pages they would take
 * memory long before they hold anything. */
#define HUGE_FROM ((int64_t)32 << 20)
#define HUGE_PAGE ((int64_t)2 << 20)
#define MOST_BYTES ((int64_t)1 << 46)
#define SLACK 64 /* readable behind the end, so that a kernel may load whole vectors there */

static setun_status new_pages(setun_buffer *b)
{
    int64_t bytes = (b->bytes + SLACK + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    b->base_bytes = bytes + HUGE_PAGE; /* room to align */
    void *p = mmap(NULL, (size_t)b->base_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    if (p == MAP_FAILED)
        return SETUN_NO_MEMORY;
    b->base = p;
    b->data = (char *)(((uintptr_t)p + (uintptr_t)HUGE_PAGE - 1) & ~((uintptr_t)HUGE_PAGE - 1));
    b->kind = ST_BUFFER_PAGES;
    if (b->bytes >= HUGE_FROM)
        (void)madvise(b->data, (size_t)bytes, MADV_HUGEPAGE); /* a wish; small pages work as well */
    return SETUN_OK;
}

static setun_status new_heap(setun_buffer *b)
{
    int64_t bytes = (b->bytes + SLACK + 63) / 64 * 64;
    b->data = aligned_alloc(64, (size_t)bytes);
    if (!b->data)
        return SETUN_NO_MEMORY;
    memset(b->data, 0, (size_t)bytes);
    b->base = b->data;
    b->kind = ST_BUFFER_HEAP;
    return SETUN_OK;
}

setun_status st_hostmem_new(setun_context *c, int64_t bytes, setun_buffer **out, setun_error *err)
{
    (void)c;
    *out = NULL;
    if (bytes < 0 || bytes > MOST_BYTES)
        return st_fail(err, SETUN_BAD_ARG, "a buffer of %lld bytes was asked for",
                       (long long)bytes);
    setun_buffer *b = calloc(1, sizeof *b);
    if (b) {
        b->bytes = bytes;
        if ((bytes >= LARGE ? new_pages(b) : new_heap(b)) == SETUN_OK) {
            *out = b;
            return SETUN_OK;
        }
        free(b);
    }
    return st_fail(err, SETUN_NO_MEMORY, "no memory for a buffer of %lld bytes", (long long)bytes);
}

setun_status st_hostmem_wrap(setun_context *c, const void *data, int64_t bytes, setun_buffer **out,
                             setun_error *err)
{
    (void)c;
    *out = NULL;
    if (bytes < 0 || bytes > MOST_BYTES || (!data && bytes))
        return st_fail(err, SETUN_BAD_ARG, "a wrapped buffer of %lld bytes was asked for",
                       (long long)bytes);
    setun_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to wrap a buffer");
    b->data = (char *)(uintptr_t)data; /* written only if a step has it as an output */
    b->bytes = bytes;
    b->kind = ST_BUFFER_WRAPPED;
    *out = b;
    return SETUN_OK;
}

void st_hostmem_free(setun_buffer *b)
{
    if (!b)
        return;
    if (b->kind == ST_BUFFER_HEAP)
        free(b->base);
    else if (b->kind == ST_BUFFER_PAGES)
        (void)munmap(b->base, (size_t)b->base_bytes);
    free(b);
}

static setun_status check_range(const setun_buffer *b, int64_t offset, int64_t bytes,
                                setun_error *err)
{
    if (offset < 0 || bytes < 0 || offset > b->bytes || bytes > b->bytes - offset)
        return st_fail(err, SETUN_BAD_ARG, "%lld bytes at %lld are outside a buffer of %lld",
                       (long long)bytes, (long long)offset, (long long)b->bytes);
    return SETUN_OK;
}

setun_status st_hostmem_write(setun_buffer *b, int64_t offset, const void *data, int64_t bytes,
                              setun_error *err)
{
    ST_TRY(check_range(b, offset, bytes, err));
    if (b->kind == ST_BUFFER_WRAPPED)
        return st_fail(err, SETUN_BAD_ARG, "a wrapped buffer is read-only");
    if (bytes)
        memcpy(b->data + offset, data, (size_t)bytes);
    return SETUN_OK;
}

setun_status st_hostmem_read(setun_buffer *b, int64_t offset, void *data, int64_t bytes,
                             setun_error *err)
{
    ST_TRY(check_range(b, offset, bytes, err));
    if (bytes)
        memcpy(data, b->data + offset, (size_t)bytes);
    return SETUN_OK;
}

void *st_hostmem_map(setun_buffer *b)
{
    return b->data;
}

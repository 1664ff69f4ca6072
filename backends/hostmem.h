/* backends/hostmem.h -- buffers of backends that compute in the host's own memory.
 *
 * The functions have the signatures of setun_backend_v1 and go into its table as they are; the
 * context is not looked at. */
#ifndef ST_BACKENDS_HOSTMEM_H
#define ST_BACKENDS_HOSTMEM_H

#include "setun/backend.h"

struct setun_buffer {
    char   *data;
    int64_t bytes;
    enum { ST_BUFFER_HEAP, ST_BUFFER_PAGES, ST_BUFFER_WRAPPED } kind;
    void   *base;       /* what to give back; not data when data was aligned up */
    int64_t base_bytes;
};

setun_status st_hostmem_new(setun_context *c, int64_t bytes, setun_buffer **b, setun_error *err);
setun_status st_hostmem_wrap(setun_context *c, const void *data, int64_t bytes, setun_buffer **b,
                             setun_error *err);
void         st_hostmem_free(setun_buffer *b);
setun_status st_hostmem_write(setun_buffer *b, int64_t offset, const void *data, int64_t bytes,
                              setun_error *err);
setun_status st_hostmem_read(setun_buffer *b, int64_t offset, void *data, int64_t bytes,
                             setun_error *err);
void        *st_hostmem_map(setun_buffer *b);

/* How a module was built: quoted in refusals and bug reports. */
#if defined(__SANITIZE_ADDRESS__)
#define ST_BUILD "compiler " __VERSION__ ", address sanitizer"
#elif defined(__SANITIZE_THREAD__)
#define ST_BUILD "compiler " __VERSION__ ", thread sanitizer"
#else
#define ST_BUILD "compiler " __VERSION__
#endif

#endif

/* codegen/loader.h -- machine code in this process: images become functions.
 *
 * Needs no compiler.  Images that are loaded together share a mapping and its pages: they are copied
 * into memory that can be written, which then becomes memory that can be executed; it is never both. */
#ifndef ST_LOADER_H
#define ST_LOADER_H

#include "codegen/image.h"

typedef struct st_loader st_loader; /* owns loaded code; free it after the last call into it */

setun_status st_loader_new(st_loader **l, setun_error *err);
void         st_loader_free(st_loader *l); /* NULL is allowed */
/* Can this process execute such an image?  If not, the sentence says what it was made for. */
setun_status st_loader_fits(const st_image *m, setun_error *err);
/* Load n images; all or none.  They are copied.  One thread at a time. */
setun_status st_loader_load(st_loader *l, const st_image *m, int32_t n, setun_kernel_fn **fn, setun_error *err);
/* Bytes of memory that hold code now. */
int64_t      st_loader_bytes(const st_loader *l);

#endif

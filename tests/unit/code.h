/* tests/unit/code.h -- from a kernel to a function, step by step as the runtime does it.  Everything is static. */
#ifndef TESTS_CODE_H
#define TESTS_CODE_H

#include <stdlib.h>

#include "codegen/codegen.h"
#include "codegen/loader.h"

#define CODE_SIMPLE 0x100u /* with ST_EMIT_...: in the simple way */

static inline setun_status code_emit(const st_codegen *cg, const st_kir *k, const st_target *t, const char *symbol,
                                     uint32_t what, char **bytes, int64_t *n, setun_error *err)
{
    const st_emit how = { what & ~CODE_SIMPLE, (what & CODE_SIMPLE) != 0, 0 };
    return cg->emit(k, t, symbol, &how, bytes, n, err);
}

/* Link and load an object. */
static inline setun_status code_load(st_loader *l, const void *object, int64_t n, const char *symbol,
                                     setun_kernel_fn **fn, setun_error *err)
{
    char *image = NULL;
    int64_t image_n = 0;
    st_image m;
    *fn = NULL;
    setun_status s = st_image_link(object, n, symbol, &image, &image_n, err);
    if (s == SETUN_OK)
        s = st_image_open(&m, image, image_n, err);
    if (s == SETUN_OK)
        s = st_loader_load(l, &m, 1, fn, err);
    free(image);
    return s;
}

#endif

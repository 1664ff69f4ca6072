/* base/error.h -- fill an error, prefix an error, return early.  [any] */
#ifndef ST_ERROR_H
#define ST_ERROR_H

#include "setun/types.h"

/* Fill err (may be NULL) with code and a formatted sentence; returns code. */
setun_status st_fail(setun_error *err, setun_status code, const char *fmt, ...) SETUN_PRINTF(3, 4);

/* Put "prefix: " in front of err's text: st_wrap(err, "loading %s", path). */
void st_wrap(setun_error *err, const char *fmt, ...) SETUN_PRINTF(2, 3);

/* Short text of a code for logs: "bad file". */
const char *st_status_name(setun_status s);

/* Return from the calling function if the call did not give SETUN_OK. */
#define ST_TRY(call)                    \
    do {                                \
        setun_status st_try_ = (call);  \
        if (st_try_ != SETUN_OK)        \
            return st_try_;             \
    } while (0)

#endif

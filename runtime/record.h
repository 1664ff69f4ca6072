/* runtime/record.h -- the file TARGET in a directory of kernels: which machine they were made for. */
#ifndef ST_RUNTIME_RECORD_H
#define ST_RUNTIME_RECORD_H

#include "runtime/engine.h"

/* Written last, when all kernels are there. */
setun_status st_record_write(const st_engine *e, int32_t n_kernels, const char *dir, setun_error *err);
/* Take the target over, if this machine is one.  A record that is damaged, of another version, or of another
 * machine is refused. */
setun_status st_record_read(st_engine *e, const char *dir, setun_error *err);

#endif

/* runtime/machine.h -- the machine that kernels are compiled for, remembered from one start to the next.
 *
 * Only the compiler's library knows a processor's name and features as the compiler calls them, and it takes
 * longer to open than a small model takes to load.  So the answer is kept in the cache, under everything it
 * depends on: what the processor says of itself, the user's choice of features, the compiler's files.  A start
 * that finds it, and all kernels, never opens the compiler; nor does a Setun that has none. */
#ifndef ST_RUNTIME_MACHINE_H
#define ST_RUNTIME_MACHINE_H

#include "runtime/engine.h"

/* Fills e->target and e->codegen_bytes, _mtime; opens the compiler if it must.  SETUN_DECLINED: no compiler is
 * installed and none was here before. */
setun_status st_machine_find(st_engine *e, setun_error *err);

#endif

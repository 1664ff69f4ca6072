/* runtime/packing.h -- a model's ternary matrices in the packing that somebody declared. */
#ifndef ST_RUNTIME_PACKING_H
#define ST_RUNTIME_PACKING_H

#include "runtime/model.h"
#include "scripts/host.h"

/* Run the file of the option --packing, "base3.lua" or "all.lua:base3", and find the packing that it means; without
 * the option the model script's, which may be NULL. */
setun_status st_packing_choose(setun_model *m, st_script *script, const st_script_packing *from_script,
                               const st_script_packing **p, setun_error *err);
/* The same of a file by itself: "base3.lua", or "all.lua:base3" of several.  *file may be NULL; strings are in the arena. */
setun_status st_packing_find(st_script *script, st_arena *arena, const char *option, const char **file,
                             const st_script_packing **p, setun_error *err);
/* Weights of every ternary product of m->graph as p says: packed_matmul takes its place.  What that changes is in
 * m->packed.  After the weights are packed: their codes are read.  With the option from_floats the weights are quantised
 * again (runtime/requantise.h), and those of products of floats, too.  Packed weights are m->pack, which is the model's to close,
 * after a failure, too. */
setun_status st_packing_apply(setun_model *m, st_script *script, const st_script_packing *p, setun_error *err);

#endif

/* runtime/quantizer.h -- which quantizer activations go through, and whether it is the one that the model was trained with. */
#ifndef ST_RUNTIME_QUANTIZER_H
#define ST_RUNTIME_QUANTIZER_H

#include "runtime/model.h"
#include "scripts/host.h"

/* What --quantizer asks for, before the graph is built.  With one that gives floats no matrix is transposed. */
setun_status st_quantizer_choose(setun_model *m, st_script *script, setun_error *err);
/* What became of it, after the graph is built, in m->quantizer; another one than the model's own is said in a warning. */
setun_status st_quantizer_settle(setun_model *m, const st_script *script, const st_script_made *made, setun_error *err);

#endif

/* runtime/quantizer.c -- see quantizer.h.
 *
 * A model's own quantizer is what its script names; else int8, or none where only the weights were trained to be ternary.
 * With any other the logits are those of a model that nobody trained: whoever reads answers or figures must be told. */
#include "runtime/quantizer.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

setun_status st_quantizer_choose(setun_model *m, st_script *script, setun_error *err)
{
    const char *spec = m->engine->o.quantizer;
    if (!spec)
        return SETUN_OK;
    ST_TRY(st_script_quantizer_choose(script, spec, err));
    if (st_script_quantizer_chosen(script)->floats)
        m->least_zeros = INT32_MAX;
    return SETUN_OK;
}

setun_status st_quantizer_settle(setun_model *m, const st_script *script, const st_script_made *made, setun_error *err)
{
    const st_script_quantizer *q = st_script_quantizer_chosen(script);
    st_quantizer *is = &m->quantizer;
    st_weights_stats w;
    st_weights_get_stats(m->weights, &w);
    is->own = made->quantizer ? made->quantizer : w.ternary_weights && !w.n_weight_only ? "int8" : "none";
    is->name = q ? q->name : is->own;
    is->doc = q ? q->doc : "";
    is->source = q ? q->source : "";
    is->is_own = strcmp(is->name, is->own) == 0;
    if (!q || is->is_own)
        return SETUN_OK;
    if (!q->used)
        return st_fail(err, SETUN_UNKNOWN, "%s: the quantizer %s would change nothing, because no product of %s has ternary weights; "
                       "leave --quantizer out", m->path, q->name, m->script);
    st_logf(&m->engine->log, ST_LOG_WARN, "activations go through the quantizer %s, and the model was trained with %s: these are not the "
            "trained model's answers", is->name, is->own);
    return SETUN_OK;
}

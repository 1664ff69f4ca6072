/* runtime/reload.c -- a model again, by scripts that were edited meanwhile.
 *
 * Not here: the pipeline (load.c), which runs as for any model.  What takes long in it depends on the files alone, and
 * is shared by all models that come from one another:
 *
 *     first model ---+
 *     reloaded    ---+--> st_kept: mapped files, packed matrices, tokenizer     closed with the last of them
 *     reloaded    ---+
 *
 * A graph is built, planned and its kernels asked for each time: kernels that did not change come from the cache. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "runtime/inspect.h"
#include "runtime/model.h"

setun_status st_kept_open(setun_model *m, const setun_model *of, setun_error *err)
{
    const setun_options *o = &m->engine->o;
    st_weights_choice choice;
    if (of) {
        m->kept = of->kept;
        atomic_fetch_add(&m->kept->n, 1);
        return st_weights_again(&m->weights, m->kept->weights, err);
    }
    m->kept = calloc(1, sizeof *m->kept);
    if (!m->kept)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to load a model");
    atomic_init(&m->kept->n, 1);
    ST_TRY(st_weights_choose(&choice, o->i2s_layout, o->activations, err));
    ST_TRY(st_weights_open_as(&m->kept->weights, m->path, &choice, &m->engine->log, err));
    m->weights = m->kept->weights;
    return SETUN_OK;
}

void st_kept_close(setun_model *m)
{
    st_kept *k = m->kept;
    if (!k)
        return;
    if (m->weights != k->weights)
        st_weights_close(m->weights);
    if (atomic_fetch_sub(&k->n, 1) > 1)
        return;
    st_tokenizer_close(k->tokenizer);
    st_weights_close(k->weights);
    free(k);
}

setun_status setun_model_reload(setun_model **m, const setun_model *of, const char *script, setun_error *err)
{
    setun_options o = of->engine->o;
    if (script)
        o.script = script;
    return st_model_load(m, of->path, &o, of, err);
}

int32_t setun_model_shares(const setun_model *m) { return m->weights != m->kept->weights; }

uint64_t setun_model_scripts(const setun_model *m, int32_t now)
{
    uint64_t h = ST_HASH_INIT;
    for (const st_script_file *f = m->files; f; f = f->next) {
        int64_t is[2] = {f->bytes, f->mtime_ns};
        if (now && st_file_stat(f->path, &is[0], &is[1], NULL) != SETUN_OK)
            is[0] = is[1] = -1;
        h = st_hash(st_hash(h, f->path, strlen(f->path)), is, sizeof is);
    }
    return h;
}

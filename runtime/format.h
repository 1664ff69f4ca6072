/* runtime/format.h -- the format of a model's conversations: its template, and the tokens that it needs. */
#ifndef ST_RUNTIME_FORMAT_H
#define ST_RUNTIME_FORMAT_H

#include "model/template.h"
#include "runtime/model.h"
#include "scripts/host.h"

#define ST_FORMAT_TOKENS 32

typedef struct st_format {
    st_arena                 *arena;
    st_registry              *registry; /* empty: templates define no operators */
    st_script                *script;
    const st_script_template *t;
    st_template               file;      /* what the model's files say */
    const char               *evidence;
    int32_t                   control[ST_FORMAT_TOKENS]; /* ids that nobody can type */
    int64_t                   n_control;
    int32_t                   stop[ST_FORMAT_TOKENS];
    int64_t                   n_stop;
    int                       add_bos;   /* the template writes one, and the tokenizer does not by itself */
} st_format;

/* name NULL: by the model's own template.  Zero-initialise *f; call st_format_close after a failure, too. */
setun_status st_format_open(st_format *f, const setun_model *m, const char *name, setun_error *err);
void         st_format_close(st_format *f);

#endif

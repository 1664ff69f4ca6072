/* runtime/export_text.h -- what a bundle has of a model's tokenizer and chat template: see rt/text.h. */
#ifndef ST_RUNTIME_EXPORT_TEXT_H
#define ST_RUNTIME_EXPORT_TEXT_H

#include "base/str.h"
#include "model/turns.h"
#include "runtime/format.h"

/* Appends the tokenizer as st_tokenizer_load reads it.  Fails, naming it, for what a bundle cannot do. */
setun_status st_export_tokenizer(const setun_model *m, st_str *out, setun_error *err);
/* Appends the chat template as st_turns_load reads it; template_name NULL: the model's own.  A model without
 * one, or with one that is no table of turns, gives a block that says why (SETUN_OK); *why is that sentence,
 * at most n bytes with its end, or "". */
setun_status st_export_template(const setun_model *m, const char *template_name, st_str *out, char *why, size_t n,
                                setun_error *err);
/* Edges and trimming of a template that is a table; else SETUN_UNKNOWN, and why. */
setun_status st_export_turns(const st_format *f, st_turns *t, setun_error *err);

#endif

/* model/template.h -- the chat template that comes with a model: its text, and what it can write.
 *
 * Templates are programs in Jinja, and Setun does not run them: the few formats that models use are Lua
 * functions in scripts/templates.  Which of them a text stands for is decided by its marks: everything
 * that the text can write besides the messages' own words, as far as that concerns conversations without
 * tools.  A format lists all marks that it knows, so a text with one more is not taken for it. */
#ifndef ST_MODEL_TEMPLATE_H
#define ST_MODEL_TEMPLATE_H

#include "base/arena.h"
#include "setun/types.h"

#define ST_TEMPLATE_LIMIT (1 << 18) /* bytes of a text; published ones have at most some 20,000 */
#define ST_TEMPLATE_MARKS 256       /* more of them are refused */

typedef struct st_template {
    const char  *from;   /* "chat_template in tokenizer_config.json" */
    const char  *text;   /* NUL-terminated */
    int64_t      n;
    const char  *bos, *eos; /* what bos_token and eos_token stand for; NULL: the files do not say as text */
    int64_t      bos_id, eos_id; /* or as a number, in GGUF files; -1: neither */
    const char **mark;   /* in order of appearance, each once */
    int64_t      n_mark;
} st_template;

/* Marks are
 *
 *     text         a string that may be written, strings joined by + or ~ as one; text between the tags,
 *                  after trim_blocks and lstrip_blocks, which the reference always sets.  One that begins
 *                  with { has a second one in front
 *     {|trim}      a filter
 *     {.strip()}   a method, {.split("x")} with its argument if that is one string
 *     {bos_token}  the variables bos_token and eos_token, and functions: {strftime_now()}
 *
 * of all that can run when nobody gives tools: branches whose condition is then certainly false are left
 * out.  Strings in conditions, comparisons and subscripts are never written, and no marks.
 * Fails with SETUN_UNKNOWN on tags other than if, for, set and generation, with SETUN_BAD_FILE on what is no Jinja. */
setun_status st_template_parse(const char *text, int64_t n, const char *from, st_arena *arena, st_template *t,
                               setun_error *err);

/* Of a directory (chat_template.jinja, chat_template.json, tokenizer_config.json, in the reference's order)
 * or a GGUF file.  SETUN_DECLINED: there is none; then only bos and eos are set.  Strings live in arena. */
setun_status st_template_open(st_template *t, const char *path, st_arena *arena, setun_error *err);

#endif

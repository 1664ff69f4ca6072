/* model/rules.h -- what a normalizer is, and changing a text as it says.
 *
 * A normalizer is a list of rules: Prepend, Replace of a fixed string, and Unicode's normal forms NFC, NFD,
 * NFKC and NFKD.  Most of a text is what no form changes: only stretches around other characters go through `map`,
 * which asks a library (normal.c, which reads normalizers from JSON too); a bundle has none. */
#ifndef ST_MODEL_RULES_H
#define ST_MODEL_RULES_H

#include "base/bytes.h"
#include "setun/types.h"

#define ST_RULES 16
#define ST_RULE_BYTES 64 /* of a content; real ones have three */

enum { ST_RULE_PREPEND, ST_RULE_REPLACE, ST_RULE_FORM, ST_N_RULES };
enum { ST_NFC, ST_NFD, ST_NFKC, ST_NFKD, ST_N_FORMS };

typedef struct st_rule {
    int  kind, form;
    char from[ST_RULE_BYTES + 1], to[ST_RULE_BYTES + 1];
} st_rule;

typedef struct st_normal st_normal;
struct st_normal {
    int           n_rules;
    st_rule       rule[ST_RULES];
    setun_status (*map)(const st_normal *m, int form, const char *text, int64_t n, st_str *out, setun_error *err);
};

void st_normal_free(st_normal *m);
int  st_normal_is_none(const st_normal *m);

/* text is valid UTF-8; *result is either text itself or *held, which the caller frees.  [any] */
setun_status st_normal_apply(const st_normal *m, const char *text, int64_t n, st_str *held,
                             const char **result, int64_t *n_result, setun_error *err);
/* The same in the midst of a text, to which nothing is prepended any more. */
setun_status st_normal_continue(const st_normal *m, const char *text, int64_t n, st_str *held,
                                const char **result, int64_t *n_result, setun_error *err);

/* What st_normal_put (normal.h) wrote.  Fails with SETUN_NO_MEMORY, or sets in->bad.  *m is there also then. */
setun_status st_normal_take(st_normal **m, st_bytes *in, setun_error *err);

#endif

/* model/pattern_read.h -- make the program of a regular expression. */
#ifndef ST_MODEL_PATTERN_READ_H
#define ST_MODEL_PATTERN_READ_H

#include "model/pattern.h"

/* regex as PCRE2 is given it by model/pretok.c; or, literal, a text.  What the program cannot say is refused, naming it. */
setun_status st_pattern_read(st_pattern **p, const char *regex, int literal, const char *path, setun_error *err);

#endif

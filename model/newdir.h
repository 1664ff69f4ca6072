/* model/newdir.h -- a model, or a trace, in the making: a directory beside its final place, renamed when it is
 * complete or removed when it is not. */
#ifndef ST_MODEL_NEWDIR_H
#define ST_MODEL_NEWDIR_H

#include "base/str.h"
#include "setun/types.h"

/* Zero-initialise; st_newdir_end when done: it removes what was not committed. */
typedef struct st_newdir {
    st_str      dir;    /* being filled: files only */
    st_str      target; /* without slashes at its end */
    const char *name;
    int         force;
    const char *mark;   /* set before it begins: only directories with this file are replaced; NULL: config.json */
} st_newdir;

/* out: where to, in a directory that exists.  name: one file of those that are made will be all of it;
 * NULL: the directory will.  force: out may exist, as a file or as a directory, whichever it will be; a
 * directory must have the mark (a model's is config.json) and no directories in it. */
setun_status st_newdir_begin(st_newdir *d, const char *out, const char *name, int force, setun_error *err);
/* "<dir>/<name>" into *path, which is freed first. */
setun_status st_newdir_path(const st_newdir *d, const char *name, st_str *path, setun_error *err);
setun_status st_newdir_text(const st_newdir *d, const char *name, const char *text, size_t n, setun_error *err);
/* Everything is there: the target appears. */
setun_status st_newdir_commit(st_newdir *d, setun_error *err);
void         st_newdir_end(st_newdir *d);

#endif

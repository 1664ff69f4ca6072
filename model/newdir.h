/* model/newdir.h -- a model in the making: a directory beside its final place, renamed when it is
 * complete or removed when it is not. */
#ifndef ST_MODEL_NEWDIR_H
#define ST_MODEL_NEWDIR_H

#include "base/str.h"
#include "setun/types.h"

/* Zero-initialise; st_newdir_end when done: it removes what was not committed. */
typedef struct st_newdir {
    st_str dir;    /* being filled: files only */
    st_str target; /* without slashes at its end */
    int    force;
} st_newdir;

/* out: where to, in a directory that exists.  force: it may exist, if it is a file, or a directory
 * which looks like a model and has no directories in it. */
setun_status st_newdir_begin(st_newdir *d, const char *out, int force, setun_error *err);
/* "<dir>/<name>" into *path, which is freed first. */
setun_status st_newdir_path(const st_newdir *d, const char *name, st_str *path, setun_error *err);
setun_status st_newdir_text(const st_newdir *d, const char *name, const char *text, size_t n, setun_error *err);
/* The directory, or with a name this one file of it, becomes the target. */
setun_status st_newdir_commit(st_newdir *d, const char *name, setun_error *err);
void         st_newdir_end(st_newdir *d);

#endif

/* model/newdir.c -- see newdir.h.
 *
 * Also a single file is made in a directory of its own: it has its name and can be read again before
 * anybody else sees it.  What was at the target is renamed away first, and back if the new one cannot
 * take its place, so that there is a complete model there at any time but one moment. */
#include "model/newdir.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"

static setun_status no_memory(const char *path, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory to write %s", path);
}

/* Only files: there are no directories in what is made here, and others' are not for us to remove. */
static void remove_flat(const char *dir)
{
    char **names;
    int64_t n;
    if (st_dir_list(dir, &names, &n, NULL) != SETUN_OK)
        return;
    for (int64_t i = 0; i < n; i++) {
        st_str path = { 0 };
        st_str_addf(&path, "%s/%s", dir, names[i]);
        if (!path.failed)
            (void)unlink(path.text);
        st_str_free(&path);
    }
    st_dir_free(names, n);
    (void)rmdir(dir);
}

/* May a directory be replaced?  Not one that somebody named by mistake. */
static setun_status check_old(const char *dir, const char *mark, setun_error *err)
{
    char **names;
    int64_t n;
    int has_mark = 0;
    setun_status st = SETUN_OK;
    ST_TRY(st_dir_list(dir, &names, &n, err));
    for (int64_t i = 0; i < n && st == SETUN_OK; i++) {
        st_str path = { 0 };
        st_str_addf(&path, "%s/%s", dir, names[i]);
        has_mark |= strcmp(names[i], mark) == 0;
        if (path.failed)
            st = no_memory(dir, err);
        else if (st_is_dir(path.text))
            st = st_fail(err, SETUN_BAD_ARG, "%s has the directory %s in it, and is not replaced", dir, names[i]);
        st_str_free(&path);
    }
    st_dir_free(names, n);
    if (st == SETUN_OK && n && !has_mark)
        st = st_fail(err, SETUN_BAD_ARG, "%s is not replaced: there is no %s in it", dir, mark);
    return st;
}

/* Is the place free, or may what is there be replaced? */
static setun_status check_place(const st_newdir *d, setun_error *err)
{
    const char *target = d->target.text;
    if (st_is_absent(target))
        return SETUN_OK;
    if (!d->force)
        return st_fail(err, SETUN_BAD_ARG, "%s exists, and is not replaced unasked", target);
    int is_dir = st_is_dir(target);
    if (is_dir != !d->name || (!is_dir && !st_is_file(target)))
        return st_fail(err, SETUN_BAD_ARG, "%s is %s, which %s does not replace", target,
                       is_dir ? "a directory" : st_is_file(target) ? "a file" : "neither a file nor a directory",
                       d->name ? "a file" : "a directory");
    return is_dir ? check_old(target, d->mark ? d->mark : "config.json", err) : SETUN_OK;
}

setun_status st_newdir_begin(st_newdir *d, const char *out, const char *name, int force, setun_error *err)
{
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/')
        n--;
    if (n == 0)
        return st_fail(err, SETUN_BAD_ARG, "an empty name is no place to write to");
    st_str_addn(&d->target, out, n);
    if (d->target.failed)
        return no_memory(out, err);
    d->name = name;
    d->force = force;
    ST_TRY(check_place(d, err));
    st_str parent = { 0 };
    const char *slash = strrchr(d->target.text, '/');
    if (slash)
        st_str_addn(&parent, d->target.text, slash == d->target.text ? 1 : (size_t)(slash - d->target.text));
    int found = st_is_dir(slash ? parent.text : ".");
    setun_status st = parent.failed ? no_memory(out, err) : SETUN_OK;
    if (st == SETUN_OK && !found)
        st = st_fail(err, SETUN_BAD_ARG, "the directory %s does not exist", slash ? parent.text : ".");
    st_str_free(&parent);
    ST_TRY(st);
    st_str_addf(&d->dir, "%s.%ld.%llx.tmp", d->target.text, (long)getpid(), (unsigned long long)st_now_ns());
    if (d->dir.failed)
        return no_memory(out, err);
    st = st_make_dirs(d->dir.text, 0, err);
    if (st != SETUN_OK)
        st_str_free(&d->dir);
    return st;
}

setun_status st_newdir_path(const st_newdir *d, const char *name, st_str *path, setun_error *err)
{
    st_str_free(path);
    st_str_addf(path, "%s/%s", d->dir.text, name);
    return path->failed ? no_memory(name, err) : SETUN_OK;
}

setun_status st_newdir_text(const st_newdir *d, const char *name, const char *text, size_t n, setun_error *err)
{
    st_out *o = NULL;
    st_str path = { 0 };
    setun_status st = text ? st_newdir_path(d, name, &path, err) : no_memory(name, err);
    if (st == SETUN_OK)
        st = st_out_open(&o, path.text, 1, err);
    st_str_free(&path);
    if (st == SETUN_OK)
        st = st_out_write(o, text, (int64_t)n, err);
    if (st == SETUN_OK)
        return st_out_commit(o, err);
    st_out_abort(o);
    return st;
}

/* A directory takes the place of another: rename alone does that only where the other is empty. */
static setun_status replace_dir(const st_newdir *d, setun_error *err)
{
    st_str old = { 0 };
    st_str_addf(&old, "%s.old", d->dir.text);
    setun_status st = old.failed ? no_memory(d->target.text, err) : SETUN_OK;
    if (st == SETUN_OK)
        st = st_rename(d->target.text, old.text, err);
    if (st == SETUN_OK) {
        st = st_rename(d->dir.text, d->target.text, err);
        if (st == SETUN_OK)
            remove_flat(old.text);
        else
            (void)st_rename(old.text, d->target.text, NULL);
    }
    st_str_free(&old);
    return st;
}

setun_status st_newdir_commit(st_newdir *d, setun_error *err)
{
    ST_TRY(check_place(d, err)); /* somebody else may have made something there meanwhile */
    if (d->name) {
        st_str path = { 0 };
        setun_status st = st_newdir_path(d, d->name, &path, err);
        if (st == SETUN_OK)
            st = st_rename(path.text, d->target.text, err);
        st_str_free(&path);
        return st; /* the directory is removed by st_newdir_end */
    }
    setun_status st = st_is_absent(d->target.text) ? st_rename(d->dir.text, d->target.text, err) : replace_dir(d, err);
    if (st == SETUN_OK)
        st_str_free(&d->dir);
    return st;
}

void st_newdir_end(st_newdir *d)
{
    if (d->dir.text)
        remove_flat(d->dir.text);
    st_str_free(&d->dir);
    st_str_free(&d->target);
}

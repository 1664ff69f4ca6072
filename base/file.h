/* base/file.h -- read-only maps, write-then-rename, directories.
 *
 * The only place that sees <sys/stat.h>.  Paths are UTF-8 as the system gives them. */
#ifndef ST_FILE_H
#define ST_FILE_H

#include "setun/types.h"

typedef struct st_map {
    const uint8_t *data; /* NULL for an empty file */
    int64_t        bytes;
    uint64_t       device, inode;
} st_map;

/* Map a regular file read-only (private).  Fails on directories, devices and missing files. */
setun_status st_map_open(st_map *m, const char *path, setun_error *err);
void         st_map_close(st_map *m);
/* To read pieces of the same file without mapping them: a descriptor, or -1 if path is another file by now. */
int          st_map_reader(const st_map *m, const char *path);
int          st_reader_read(int reader, int64_t offset, void *to, int64_t bytes); /* 0: all of them */
void         st_reader_close(int reader);                                        /* -1 is allowed */
/* Address space for bytes, zeros, that takes memory where it is written; NULL: there is none. */
void        *st_space_new(int64_t bytes);
void         st_space_empty(void *space, int64_t bytes); /* zeros again, and no memory */
void         st_space_free(void *space, int64_t bytes);
/* The pages of data[0..bytes) will be read soon (want != 0) or are no longer needed in memory. */
void         st_map_advise(const void *data, int64_t bytes, int want);
/* Few and far pieces of data[0..bytes) will be read: reading one should not map 2 MiB around it. */
void         st_map_scattered(const void *data, int64_t bytes);

/* A whole small file, NUL-terminated, malloc'ed; refuses above limit bytes. */
setun_status st_file_read(const char *path, int64_t limit, char **text, int64_t *bytes, setun_error *err);

/* Write to a file without a name, or with a temporary one beside path, then rename: readers see the old file or the new one.
 * durable: sync before the rename (models), 0 for caches that are checksummed and can be rebuilt.
 * The temporary name is unique to this process and call.  st_out_abort (also after a failed write or commit) removes the temporary file. */
typedef struct st_out st_out;
setun_status st_out_open(st_out **o, const char *path, int durable, setun_error *err);
setun_status st_out_write(st_out *o, const void *bytes, int64_t n, setun_error *err);
int64_t      st_out_tell(const st_out *o);
setun_status st_out_commit(st_out *o, setun_error *err); /* frees o, also when it fails */
void         st_out_abort(st_out *o);                    /* frees o; NULL is allowed */

/* A whole text: all three at once. */
setun_status st_file_write(const char *path, const char *text, int64_t bytes, int durable, setun_error *err);

/* Rename, and wait until that is on disk, too. */
setun_status st_rename(const char *from, const char *to, setun_error *err);

int  st_is_dir(const char *path);
int  st_is_file(const char *path);
/* Nothing has this name.  What is there but cannot be opened is not absent, and opening it says why. */
int  st_is_absent(const char *path);
/* Size and modification time in ns: identity of a file for caches. */
setun_status st_file_stat(const char *path, int64_t *bytes, int64_t *mtime_ns, setun_error *err);
/* Make path and its parents; a directory that exists must belong to this user and, with private_ != 0,
 * be closed to others (0700), else refused. */
setun_status st_make_dirs(const char *path, int private_, setun_error *err);

/* Names of entries of a directory, sorted by byte value; malloc'ed array of malloc'ed strings. */
setun_status st_dir_list(const char *path, char ***names, int64_t *n, setun_error *err);
void         st_dir_free(char **names, int64_t n);

#endif

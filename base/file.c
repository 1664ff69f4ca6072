/* base/file.c -- maps, whole-file reads, write-then-rename, directories.  See file.h.
 *
 * Every message names the path and says in words what the system refused. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/* ---------------------------------------------------------------- errors */

static setun_status refuse(setun_error *err, const char *verb, const char *path, int code)
{
    char text[128];
#ifdef __GLIBC__
    const char *why = strerror_r(code, text, sizeof text); /* text, or a constant of its own */
#else
    const char *why = strerror_r(code, text, sizeof text) ? "an unknown reason" : text;
#endif
    setun_status s = code == ENOMEM ? SETUN_NO_MEMORY : SETUN_IO;
    if (code == ENOSPC)
        why = "the disk is full";
    else if (code == EDQUOT)
        why = "the disk quota is used up";
    else if (code == EFBIG)
        why = "the file would be larger than the system allows";
    return st_fail(err, s, "cannot %s %s: %s", verb, path, why);
}

/* ---------------------------------------------------------------- reading */

/* Opens a regular file; O_NONBLOCK keeps a named pipe from waiting for its other end. */
static setun_status open_regular(const char *path, int *fd, struct stat *info, setun_error *err)
{
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f < 0)
        return refuse(err, "open", path, errno);
    if (fstat(f, info)) {
        int code = errno;
        (void)close(f);
        return refuse(err, "examine", path, code);
    }
    if (!S_ISREG(info->st_mode)) {
        (void)close(f);
        return st_fail(err, SETUN_IO, "%s is %s, not a regular file", path,
                       S_ISDIR(info->st_mode) ? "a directory" : "a device or pipe");
    }
    *fd = f;
    return SETUN_OK;
}

setun_status st_map_open(st_map *m, const char *path, setun_error *err)
{
    struct stat info;
    int fd = -1;
    m->data = NULL;
    m->bytes = 0;
    ST_TRY(open_regular(path, &fd, &info, err));
    if (info.st_size > 0) {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int code = errno;
            (void)close(fd);
            return refuse(err, "map", path, code);
        }
        m->data = (const uint8_t *)p;
        m->bytes = info.st_size;
    }
    m->device = (uint64_t)info.st_dev;
    m->inode = (uint64_t)info.st_ino;
    (void)close(fd); /* the map keeps the file */
    return SETUN_OK;
}

int st_map_reader(const st_map *m, const char *path)
{
    struct stat info;
    int fd = -1;
    if (open_regular(path, &fd, &info, NULL) != SETUN_OK)
        return -1;
    if ((uint64_t)info.st_dev == m->device && (uint64_t)info.st_ino == m->inode && info.st_size == m->bytes)
        return fd;
    (void)close(fd);
    return -1;
}

int st_reader_read(int reader, int64_t offset, void *to, int64_t bytes)
{
    for (int64_t done = 0; done < bytes;) {
        ssize_t got = pread(reader, (char *)to + done, (size_t)(bytes - done), offset + done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        done += got;
    }
    return 0;
}

void st_reader_close(int reader)
{
    if (reader >= 0)
        (void)close(reader);
}

void *st_space_new(int64_t bytes)
{
    void *p = bytes < 1 ? MAP_FAILED : mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    st_map_scattered(p, bytes);
    return p;
}

void st_space_empty(void *space, int64_t bytes)
{
    (void)madvise(space, (size_t)bytes, MADV_DONTNEED);
}

void st_space_free(void *space, int64_t bytes)
{
    if (space)
        (void)munmap(space, (size_t)bytes);
}

void st_map_close(st_map *m)
{
    if (m->data)
        (void)munmap((void *)(uintptr_t)m->data, (size_t)m->bytes);
    m->data = NULL;
    m->bytes = 0;
}

static void advise(const void *data, int64_t bytes, int outward, int advice)
{
    long page_size = sysconf(_SC_PAGESIZE);
    if (!data || bytes <= 0 || page_size <= 0)
        return;
    uintptr_t page = (uintptr_t)page_size, begin = (uintptr_t)data, end = begin + (uintptr_t)bytes;
    if (outward) {
        begin = begin / page * page;
        end = (end + page - 1) / page * page;
    } else { /* neighbours on a shared page may still be in use */
        begin = (begin + page - 1) / page * page;
        end = end / page * page;
    }
    if (begin < end) /* advice only: failure changes nothing but speed */
        (void)madvise((void *)begin, end - begin, advice);
}

void st_map_advise(const void *data, int64_t bytes, int want)
{
    advise(data, bytes, want, want ? MADV_WILLNEED : MADV_DONTNEED);
}

void st_map_scattered(const void *data, int64_t bytes)
{
#ifdef MADV_NOHUGEPAGE
    advise(data, bytes, 0, MADV_NOHUGEPAGE);
#else
    (void)data;
    (void)bytes;
#endif
}

setun_status st_file_read(const char *path, int64_t limit, char **text, int64_t *bytes,
                          setun_error *err)
{
    struct stat info;
    int fd = -1;
    *text = NULL;
    *bytes = 0;
    ST_TRY(open_regular(path, &fd, &info, err));
    setun_status s = SETUN_OK;
    char *p = NULL;
    int64_t n = 0, cap = info.st_size;
    if (info.st_size > limit) {
        s = st_fail(err, SETUN_BAD_FILE, "%s has %lld bytes; at most %lld are accepted", path,
                    (long long)info.st_size, (long long)limit);
        goto done;
    }
    p = malloc((size_t)cap + 1);
    if (!p) {
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for the %lld bytes of %s", (long long)cap,
                    path);
        goto done;
    }
    while (n < cap) {
        ssize_t got = read(fd, p + n, (size_t)(cap - n));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            s = refuse(err, "read", path, errno);
            goto done;
        }
        if (got == 0) {
            s = st_fail(err, SETUN_IO, "%s became shorter while it was read", path);
            goto done;
        }
        n += got;
    }
    p[n] = 0;
    *text = p;
    *bytes = n;
    p = NULL;
done:
    free(p);
    (void)close(fd);
    return s;
}

/* ---------------------------------------------------------------- writing */

#define OUT_BUFFER (256 << 10)

struct st_out {
    int     fd, durable, failed, nameless;
    int64_t written; /* by the caller, buffered bytes included */
    int64_t n_buffer;
    char   *path, *tmp;
    char    buffer[OUT_BUFFER];
};

void st_out_abort(st_out *o)
{
    if (!o)
        return;
    if (o->fd >= 0)
        (void)close(o->fd);
    if (o->tmp)
        (void)unlink(o->tmp);
    free(o->path);
    free(o->tmp);
    free(o);
}

/* A new file in the directory of path that has no name yet: a process that is killed leaves nothing
 * behind.  Less than 0 where the system has no such files, or no way to name them later. */
static int open_nameless(const char *path)
{
    char *dir = strdup(path);
    if (!dir)
        return -1;
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir ? 1 : 0] = 0;
    int fd = access("/proc/self/fd", X_OK) ? -1 : open(slash ? dir : ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    free(dir);
    return fd;
}

static int give_name(const st_out *o)
{
    char fd[40];
    (void)snprintf(fd, sizeof fd, "/proc/self/fd/%d", o->fd);
    return linkat(AT_FDCWD, fd, AT_FDCWD, o->tmp, AT_SYMLINK_FOLLOW);
}

/* A name that nobody else uses: process, attempt and 64 random bits; O_EXCL settles the rest. */
static int open_tmp(st_out *o, size_t cap)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        uint64_t bits = 0;
        if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != (ssize_t)sizeof bits)
            bits = (uint64_t)st_now_ns() ^ (uint64_t)(uintptr_t)o << 16;
        (void)snprintf(o->tmp, cap, "%s.%ld.%d.%016llx.tmp", o->path, (long)getpid(), attempt,
                       (unsigned long long)bits);
        if (attempt == 0 && (o->fd = open_nameless(o->path)) >= 0) {
            o->nameless = 1;
            return 0;
        }
        o->fd = open(o->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (o->fd >= 0 || errno != EEXIST)
            break;
    }
    return o->fd >= 0 ? 0 : errno;
}

setun_status st_out_open(st_out **out, const char *path, int durable, setun_error *err)
{
    size_t cap = strlen(path) + 64;
    st_out *o = malloc(sizeof *o);
    *out = NULL;
    if (!o)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to write %s", path);
    memset(o, 0, offsetof(st_out, buffer));
    o->fd = -1;
    o->durable = durable;
    o->path = strdup(path);
    char *tmp = malloc(cap);
    if (!o->path || !tmp) {
        free(tmp);
        st_out_abort(o);
        return st_fail(err, SETUN_NO_MEMORY, "no memory to write %s", path);
    }
    o->tmp = tmp;
    int code = open_tmp(o, cap);
    if (code) {
        free(o->tmp);
        o->tmp = NULL; /* nothing to remove */
        st_out_abort(o);
        return refuse(err, "create", path, code);
    }
    *out = o;
    return SETUN_OK;
}

static setun_status write_all(st_out *o, const char *p, int64_t n, setun_error *err)
{
    while (n > 0) {
        ssize_t put = write(o->fd, p, (size_t)(n < (int64_t)1 << 30 ? n : (int64_t)1 << 30));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            int code =
                put < 0 ? errno : ENOSPC; /* zero bytes taken: no room, said without an error */
            o->failed = 1;
            return refuse(err, "write", o->path, code);
        }
        p += put;
        n -= put;
    }
    return SETUN_OK;
}

static setun_status flush(st_out *o, setun_error *err)
{
    int64_t n = o->n_buffer;
    o->n_buffer = 0;
    return write_all(o, o->buffer, n, err);
}

setun_status st_out_write(st_out *o, const void *bytes, int64_t n, setun_error *err)
{
    if (n < 0)
        return st_fail(err, SETUN_BAD_ARG, "%lld bytes to write to %s", (long long)n, o->path);
    if (o->failed)
        return st_fail(err, SETUN_IO, "cannot write %s: an earlier write failed", o->path);
    if (n > OUT_BUFFER - o->n_buffer) {
        ST_TRY(flush(o, err));
        if (n >= OUT_BUFFER) {
            ST_TRY(write_all(o, (const char *)bytes, n, err));
            o->written += n;
            return SETUN_OK;
        }
    }
    if (n)
        memcpy(o->buffer + o->n_buffer, bytes, (size_t)n);
    o->n_buffer += n;
    o->written += n;
    return SETUN_OK;
}

int64_t st_out_tell(const st_out *o)
{
    return o->written;
}

/* A rename survives a crash only when its directory is on disk too. */
static setun_status sync_parent(const char *path, setun_error *err)
{
    char *dir = strdup(path);
    if (!dir)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to write %s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir ? 1 : 0] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fd < 0 || (fsync(fd) && errno != EINVAL) ? errno : 0;
    if (fd >= 0)
        (void)close(fd);
    free(dir);
    return code ? refuse(err, "sync the directory of", path, code) : SETUN_OK;
}

setun_status st_out_commit(st_out *o, setun_error *err)
{
    setun_status s = SETUN_OK;
    if (o->failed)
        s = st_fail(err, SETUN_IO, "cannot write %s: an earlier write failed", o->path);
    else
        s = flush(o, err);
    if (s == SETUN_OK && o->durable && fsync(o->fd) && errno != EINVAL)
        s = refuse(err, "sync", o->path, errno);
    if (s == SETUN_OK && o->nameless && give_name(o))
        s = refuse(err, "name", o->path, errno);
    /* Some file systems report a full disk only here. */
    int closed = close(o->fd), code = errno;
    o->fd = -1;
    if (s == SETUN_OK && closed)
        s = refuse(err, "write", o->path, code);
    if (s == SETUN_OK && rename(o->tmp, o->path))
        s = refuse(err, "replace", o->path, errno);
    if (s == SETUN_OK) {
        free(o->tmp);
        o->tmp = NULL;
        if (o->durable)
            s = sync_parent(o->path, err);
    }
    st_out_abort(o);
    return s;
}

setun_status st_file_write(const char *path, const char *text, int64_t bytes, int durable, setun_error *err)
{
    st_out *out;
    ST_TRY(st_out_open(&out, path, durable, err));
    setun_status st = st_out_write(out, text, bytes, err);
    if (st == SETUN_OK)
        return st_out_commit(out, err);
    st_out_abort(out);
    return st;
}

setun_status st_rename(const char *from, const char *to, setun_error *err)
{
    return rename(from, to) ? refuse(err, "make", to, errno) : sync_parent(to, err);
}

/* ---------------------------------------------------------------- names */

int st_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int st_is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

int st_is_absent(const char *path)
{
    struct stat info;
    return lstat(path, &info) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

setun_status st_file_stat(const char *path, int64_t *bytes, int64_t *mtime_ns, setun_error *err)
{
    struct stat info;
    if (stat(path, &info))
        return refuse(err, "examine", path, errno);
    *bytes = info.st_size;
    *mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    return SETUN_OK;
}

setun_status st_make_dirs(const char *path, int private_, setun_error *err)
{
    struct stat info;
    setun_status s = SETUN_OK;
    char *p = strdup(path);
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to make the directory %s", path);
    for (size_t i = 1; s == SETUN_OK && i <= strlen(path) && p[0]; i++) {
        if (path[i] != '/' && path[i])
            continue;
        p[i] = 0; /* a parent, or the whole */
        if (mkdir(p, private_ ? 0700 : 0777) && errno != EEXIST) {
            int code = errno;
            if (!st_is_dir(p)) /* "/" and mount points may give other codes than EEXIST */
                s = refuse(err, "make the directory", p, code);
        }
        p[i] = path[i];
    }
    free(p);
    if (s != SETUN_OK)
        return s;
    if (stat(path, &info))
        return refuse(err, "examine", path, errno);
    if (!S_ISDIR(info.st_mode))
        return st_fail(err, SETUN_IO, "%s exists and is not a directory", path);
    if (info.st_uid != geteuid())
        return st_fail(err, SETUN_IO, "the directory %s belongs to another user", path);
    if (private_ && (info.st_mode & 077))
        return st_fail(
            err, SETUN_IO,
            "the directory %s is open to other users (mode %03o); close it with chmod 700", path,
            (unsigned)(info.st_mode & 0777));
    if (private_ && access(path, W_OK | X_OK))
        return refuse(err, "write into", path, errno);
    return SETUN_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

setun_status st_dir_list(const char *path, char ***names, int64_t *n, setun_error *err)
{
    char **list = NULL;
    int64_t count = 0, room = 0;
    struct dirent *e;
    int code;
    *names = NULL;
    *n = 0;
    DIR *d = opendir(path);
    if (!d)
        return refuse(err, "list", path, errno);
    while (errno = 0, (e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (count == room) {
            char **more = realloc(list, (size_t)(room ? 2 * room : 16) * sizeof *list);
            if (!more)
                break;
            list = more;
            room = room ? 2 * room : 16;
        }
        list[count] = strdup(e->d_name);
        if (!list[count])
            break;
        count++;
    }
    code = e ? ENOMEM : errno; /* a name left over: one of the two allocations failed */
    (void)closedir(d);
    if (code) {
        st_dir_free(list, count);
        return refuse(err, "list", path, code);
    }
    if (count)
        qsort(list, (size_t)count, sizeof *list, by_bytes);
    *names = list;
    *n = count;
    return SETUN_OK;
}

void st_dir_free(char **names, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* tests/fuzz/common.c -- see fuzz.h; and the memory that one allocation may take. */
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>
#include <unistd.h>

static char  home[512], path[1024];
static pid_t owner; /* the replaying driver forks; its children leave the directory to it */

/* Where there are sanitizers: an allocation above this fails, and fuzz_judge says so.  (The name is the
 * sanitizer's; elsewhere nobody calls it.) */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=512";
}

void fuzz_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    abort();
}

/* UTF-8 without control characters; U+0080 to U+009F are some, too. */
static int is_plain(const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f ||
            ((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0))
            return 0;
    return st_utf8_valid(text, n) == n;
}

void fuzz_judge(setun_status s, const setun_error *err, const char *name)
{
    if (s == SETUN_OK)
        return;
    if (s == SETUN_NO_MEMORY)
        fuzz_fail("a small input asks for too much memory: %s", err->text);
    if (s > SETUN_OK || err->code != s || !err->text[0])
        fuzz_fail("status %d, code %d, text '%s'", (int)s, (int)err->code, err->text);
    if (!is_plain(err->text))
        fuzz_fail("not one plain line: '%s'", err->text);
    if (!strstr(err->text, name))
        fuzz_fail("the file's name, %s, is not in '%s'", name, err->text);
}

static void empty(const char *dir)
{
    char **names, at[2048];
    int64_t n;
    if (st_dir_list(dir, &names, &n, NULL) != SETUN_OK)
        return;
    for (int64_t i = 0; i < n; i++) {
        (void)snprintf(at, sizeof at, "%s/%s", dir, names[i]);
        if (st_is_dir(at))
            empty(at);
        else
            (void)unlink(at);
    }
    st_dir_free(names, n);
    (void)rmdir(dir);
}

static void clean_up(void)
{
    if (getpid() == owner)
        empty(home);
}

const char *fuzz_dir(void)
{
    const char *base = getenv("TMPDIR");
    if (home[0])
        return home;
    if (!base || !*base) /* files that live for a millisecond: in memory, where there is such a place */
        base = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(home, sizeof home, "%s/setun-fuzz-XXXXXX", base);
    if (!mkdtemp(home))
        fuzz_fail("no directory %s", home);
    owner = getpid();
    (void)atexit(clean_up);
    return home;
}

const char *fuzz_path(const char *name)
{
    (void)snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    return path;
}

const char *fuzz_put(const char *name, const void *bytes, size_t n)
{
    FILE *f = fopen(fuzz_path(name), "wb");
    if (!f || (n && fwrite(bytes, 1, n, f) != n) || fclose(f))
        fuzz_fail("cannot write %s", path);
    return path;
}

int fuzz_next(fuzz_piece *rest, fuzz_piece *piece)
{
    static const char cut[] = FUZZ_CUT;
    const uint8_t *at = rest->data ? memmem(rest->data, rest->n, cut, sizeof cut - 1) : NULL;
    if (!rest->data)
        return 0;
    *piece = *rest;
    rest->data = NULL;
    if (at) {
        piece->n = (size_t)(at - piece->data);
        rest->data = at + sizeof cut - 1;
        rest->n -= piece->n + sizeof cut - 1;
    }
    return 1;
}

char *fuzz_text(fuzz_piece piece)
{
    char *text = malloc(piece.n + 1);
    if (!text)
        fuzz_fail("no memory for the input");
    memcpy(text, piece.data, piece.n);
    text[piece.n] = 0;
    if (strlen(text) == piece.n)
        return text;
    free(text);
    return NULL;
}

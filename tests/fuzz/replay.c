/* tests/fuzz/replay.c -- a main() for a fuzz target where there is no libFuzzer.
 *
 *     fuzz_NAME [--seconds S] [--keep DIR] FILE|DIRECTORY...
 *
 * Runs every file once, then copies of them that are damaged in ways which depend on a counter and on
 * nothing else, for S seconds.  All of it happens in a child; when that dies, its parent, which shares
 * the input with it, writes the input to DIR and says how to try it again. */
#include "tests/fuzz/fuzz.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define MOST (1 << 20)      /* bytes of one input */
#define SECONDS_OF_ONE 60   /* an input that takes longer is a finding; a script is stopped after 20 itself */
#define MEMORY ((rlim_t)2 << 30)

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

typedef struct seed {
    char    *name, *text;
    int64_t  n;
} seed;

typedef struct list {
    seed  *item;
    size_t n;
} list;

/* What parent and child both see. */
typedef struct shared {
    char    name[512];
    int64_t damage; /* -1: the file as it is */
    size_t  n;
    uint8_t data[MOST];
} shared;

static uint64_t next(uint64_t *r)
{
    *r += 0x9e3779b97f4a7c15u;
    uint64_t z = *r;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(uint64_t *r, size_t n) { return n ? (size_t)(next(r) % n) : 0; }

/* ---------------------------------------------------------------- damage */

/* Where a word begins at or after `at`, and how long it is. */
static size_t word(const uint8_t *t, size_t n, size_t at, size_t *len)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._";
    while (at < n && (!t[at] || !strchr(plain, t[at])))
        at++;
    *len = 0;
    while (at + *len < n && t[at + *len] && strchr(plain, t[at + *len]))
        ++*len;
    return at;
}

/* t[at, at + old) becomes the m bytes of v, which may lie in t. */
static size_t splice(uint8_t *t, size_t n, size_t at, size_t old, const void *v, size_t m)
{
    uint8_t piece[1024];
    if (m > sizeof piece || n - old + m > MOST)
        return n;
    memcpy(piece, v, m);
    memmove(t + at + m, t + at + old, n - at - old);
    memcpy(t + at, piece, m);
    return n - old + m;
}

static size_t another_value(uint8_t *t, size_t n, size_t at, uint64_t *r)
{
    static const char *const nasty[] = {
        "0", "-1", "1", "3", "1e308", "-0.0", "1e-320", "9223372036854775807", "-9223372036854775808", "4294967296", "2147483648",
        "null", "true", "false", "\"\"", "[]", "{}", "[1,2]", "{\"a\":1}", "\"\\u0000\"", "\"\\ud800\"", "\"\\n\"", "U8", "F32", "NaN",
        "[[[[[[[[[[[[]]]]]]]]]]]]", "18446744073709551616", "1.5", "\xff", "%s%n", "../..", "999999999999999999999999999999",
    };
    const char *v = nasty[below(r, sizeof nasty / sizeof *nasty)];
    size_t w;
    at = word(t, n, at, &w);
    return splice(t, n, at, w, v, strlen(v));
}

/* A number of the machine: all bits, none, one, few, or one more or less than it was. */
static void another_number(uint8_t *t, size_t n, size_t at, uint64_t *r)
{
    size_t bytes = (size_t)1 << below(r, 4);
    uint64_t v = 0, kind = below(r, 5);
    if (bytes > n - at)
        return;
    memcpy(&v, t + at, bytes);
    v = kind == 0 ? 0 : kind == 1 ? UINT64_MAX : kind == 2 ? v + 1 : kind == 3 ? v - 1 : next(r) >> below(r, 64);
    memcpy(t + at, &v, bytes);
}

static size_t damage(uint8_t *t, size_t n, uint64_t *r)
{
    for (size_t times = 1 + below(r, 3); times > 0; times--) {
        size_t at = below(r, n), left = n - at, some = below(r, left < 256 ? left : 256);
        switch (below(r, 9)) {
        case 0: case 1: /* bits */
            for (size_t i = 1 + below(r, 4); i > 0 && n; i--)
                t[below(r, n)] ^= (uint8_t)(1 << below(r, 8));
            break;
        case 2: n = at; break; /* the end is missing */
        case 3: n = splice(t, n, at, some, "", 0); break; /* a part is missing */
        case 4: n = splice(t, n, at, 0, t + at, some); break; /* a part is there twice */
        case 5: case 6: another_number(t, n, at, r); break;
        default: n = another_value(t, n, at, r);
        }
    }
    return n;
}

/* ---------------------------------------------------------------- inputs */

static void add(list *l, const char *path)
{
    setun_error err = {0, ""};
    if (st_is_dir(path)) {
        char **names, at[2048];
        int64_t n;
        if (st_dir_list(path, &names, &n, &err) != SETUN_OK)
            fuzz_fail("%s", err.text);
        for (int64_t i = 0; i < n; i++) {
            (void)snprintf(at, sizeof at, "%s/%s", path, names[i]);
            add(l, at);
        }
        st_dir_free(names, n);
        return;
    }
    seed *more = realloc(l->item, (l->n + 1) * sizeof *more);
    if (!more || !(more[l->n].name = strdup(path)))
        fuzz_fail("no memory for %s", path);
    l->item = more;
    if (st_file_read(path, MOST, &more[l->n].text, &more[l->n].n, &err) != SETUN_OK)
        fuzz_fail("%s", err.text);
    l->n++;
}

/* The target sees a copy of exactly n bytes, so that a sanitizer sees reads past the end. */
static void one(const shared *s)
{
    uint8_t *copy = malloc(s->n ? s->n : 1);
    if (!copy)
        fuzz_fail("no memory for the input");
    memcpy(copy, s->data, s->n);
    (void)alarm(SECONDS_OF_ONE);
    (void)LLVMFuzzerTestOneInput(copy, s->n);
    (void)alarm(0);
    free(copy);
}

static void take(shared *s, const seed *from, int64_t number)
{
    (void)snprintf(s->name, sizeof s->name, "%s", from->name);
    s->n = (size_t)from->n;
    memcpy(s->data, from->text, s->n);
    s->damage = number;
    if (number >= 0) {
        uint64_t r = (uint64_t)number << 20 ^ (uint64_t)s->n;
        s->n = damage(s->data, s->n, &r);
    }
}

static void run_all(const list *l, double seconds, shared *s)
{
    int64_t number = 0, end;
    for (size_t i = 0; i < l->n; i++) {
        take(s, &l->item[i], -1);
        one(s);
    }
    end = st_now_ns() + (int64_t)(seconds * 1e9);
    for (; seconds > 0 && l->n && st_now_ns() < end; number++) {
        take(s, &l->item[(size_t)number % l->n], number);
        one(s);
    }
    printf("%zu files and %lld damaged copies: nothing found\n", l->n, (long long)number);
    (void)fflush(stdout);
}

static int report(const char *program, const char *keep, const shared *s, int status)
{
    char path[1024];
    FILE *f;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    (void)snprintf(path, sizeof path, "%s/crash-%s-%lld", keep, strrchr(program, '/') ? strrchr(program, '/') + 1 : program,
                   (long long)s->damage);
    fprintf(stderr, "%s, damage %lld: ", s->name, (long long)s->damage);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        fprintf(stderr, "longer than %d seconds\n", SECONDS_OF_ONE);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "signal %d\n", WTERMSIG(status));
    else
        fprintf(stderr, "exit code %d\n", WEXITSTATUS(status));
    f = fopen(path, "wb");
    if (f && fwrite(s->data, 1, s->n, f) == s->n && fclose(f) == 0)
        fprintf(stderr, "again: %s %s\n", program, path);
    return 1;
}

int main(int argc, char **argv)
{
    list l = {0};
    double seconds = 0;
    const char *keep = ".";
    int status = 0;
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        fuzz_fail("no memory for the input");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--keep") == 0 && i + 1 < argc)
            keep = argv[++i];
        else
            add(&l, argv[i]);
    }
    if (!l.n)
        fuzz_fail("usage: %s [--seconds S] [--keep DIR] FILE|DIRECTORY...", argv[0]);
    (void)fuzz_dir();
    pid_t child = fork();
    if (child == 0) {
        /* Address space means nothing to a sanitizer, which takes terabytes of it. */
        if (!SANITIZED)
            (void)setrlimit(RLIMIT_DATA, &(struct rlimit){MEMORY, MEMORY});
        run_all(&l, seconds, s);
        exit(0); /* here the sanitizer looks for leaks */
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        fuzz_fail("cannot start a process");
    for (size_t i = 0; i < l.n; i++) {
        free(l.item[i].name);
        free(l.item[i].text);
    }
    free(l.item);
    return report(argv[0], keep, s, status);
}

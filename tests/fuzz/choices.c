/* tests/fuzz/choices.c -- what the tuner keeps: a file as it is, or, when it does not begin as one does, rows
 * between a good beginning and a checksum that fits. */
#include "tests/fuzz/fuzz.h"

#include "base/hash.h"
#include "runtime/choices.h"

#define IDENTITY "a machine"
#define TITLE "setun choices 1\n"

static void put(const char *path, const uint8_t *data, size_t n)
{
    st_str file = {0};
    const char *name = strrchr(path, '/') + 1;
    if (n >= 5 && memcmp(data, "setun", 5) == 0) {
        (void)fuzz_put(name, data, n);
        return;
    }
    st_str_add(&file, TITLE IDENTITY "\n");
    st_str_addn(&file, data, n);
    st_str_addf(&file, "sum %016llx\n", (unsigned long long)st_checksum(file.text, file.len));
    FUZZ_CHECK(!file.failed);
    (void)fuzz_put(name, file.text, file.len);
    st_str_free(&file);
}

static int64_t open(st_choices *c, st_arena *a, const char *dir)
{
    setun_error err = {0, ""};
    FUZZ_CHECK(st_choices_open(c, dir, IDENTITY, a, NULL, &err) == SETUN_OK);
    for (int64_t i = 0; i < c->n; i++) {
        const st_choice *row = &c->row[i];
        FUZZ_CHECK(row->question && row->choice && st_choices_find(c, row->question) == row);
        FUZZ_CHECK(!strpbrk(row->question, "\t\n") && !strchr(row->choice, '\n'));
    }
    return c->n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    st_arena *a = st_arena_new();
    st_choices c, again;
    setun_error err = {0, ""};
    FUZZ_CHECK(a);
    (void)open(&c, a, fuzz_dir()); /* only its path is of interest */
    put(c.path, data, n);
    /* What was read is kept, with one row more, and read again. */
    int64_t rows = open(&c, a, fuzz_dir());
    int full = st_choices_put(&c, "a question of this test's own", "its answer", 7, &err) != SETUN_OK;
    FUZZ_CHECK(st_choices_save(&c, &err) == SETUN_OK);
    int64_t kept = open(&again, a, fuzz_dir());
    FUZZ_CHECK(kept == c.n && (full || kept == rows || kept == rows + 1));
    for (int64_t i = 0; i < kept; i++) {
        const st_choice *was = st_choices_find(&c, again.row[i].question);
        FUZZ_CHECK(was && was->gain == again.row[i].gain && strcmp(was->choice, again.row[i].choice) == 0);
    }
    st_arena_free(a);
    return 0;
}

/* tests/fuzz/objects.c -- a file of the cache of compiled kernels: as it is, and with a checksum that fits. */
#include "tests/fuzz/fuzz.h"

#include "base/hash.h"
#include "codegen/cache.h"

#define KEY "a kernel"

/* The only name in the cache's directory. */
static void find(char *name, size_t room)
{
    char **names;
    int64_t n = 0;
    FUZZ_CHECK(st_dir_list(fuzz_path("objects"), &names, &n, NULL) == SETUN_OK && n == 1);
    (void)snprintf(name, room, "objects/%s", names[0]);
    st_dir_free(names, n);
}

/* A miss with a sentence, or a payload that lies in the file behind the key. */
static void get(st_cache *c, const uint8_t *file, size_t n)
{
    char *bytes = NULL;
    int64_t got = 0;
    setun_error err = {0, ""};
    setun_status s = st_cache_get(c, KEY, sizeof KEY - 1, &bytes, &got, &err);
    FUZZ_CHECK(s == SETUN_OK || s == SETUN_BAD_FILE);
    if (s == SETUN_OK) {
        const size_t before = 32 + sizeof KEY - 1;
        FUZZ_CHECK(n == before + (size_t)got + 8 && memcmp(file + 32, KEY, sizeof KEY - 1) == 0);
        FUZZ_CHECK(memcmp(bytes, file + before, (size_t)got) == 0);
    } else {
        FUZZ_CHECK(err.text[0] && !bytes && !got);
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char name[128];
    st_cache *c;
    setun_error err = {0, ""};
    FUZZ_CHECK(st_cache_open(&c, fuzz_path("objects"), &err) == SETUN_OK);
    if (!name[0]) {
        FUZZ_CHECK(st_cache_put(c, KEY, sizeof KEY - 1, "code", 4, &err) == SETUN_OK);
        find(name, sizeof name);
    }
    (void)fuzz_put(name, data, n);
    get(c, data, n);
    uint8_t *whole = malloc(n + 8);
    uint64_t sum = st_checksum(data, n);
    FUZZ_CHECK(whole);
    memcpy(whole, data, n);
    memcpy(whole + n, &sum, 8);
    (void)fuzz_put(name, whole, n + 8);
    get(c, whole, n + 8);
    free(whole);
    st_cache_close(c);
    return 0;
}

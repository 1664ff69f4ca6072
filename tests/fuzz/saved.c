/* tests/fuzz/saved.c -- a file of saved logits, opened for the run that its own head describes, and for another.
 *
 * Checksums are set right first, which damage would otherwise never get past; an input whose first
 * byte is 'x' is read as it is, without that byte. */
#include "tests/fuzz/fuzz.h"

#include "base/hash.h"
#include "runtime/saved_logits.h"

#define HEAD 80

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;)
        v = v << 8 | at[i];
    return v;
}

static void put(uint8_t *at, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

/* The head as saved_logits.h draws it. */
static st_saved_head head_of(const uint8_t *p)
{
    return (st_saved_head){(int64_t)get(p + 12, 4), (int64_t)get(p + 16, 8), (int64_t)get(p + 24, 8), (int64_t)get(p + 32, 8),
                           (int64_t)get(p + 40, 8), (int64_t)get(p + 48, 8), get(p + 56, 8), get(p + 64, 8)};
}

static void mend(uint8_t *p, size_t n, int64_t n_vocab)
{
    put(p + 72, st_checksum(p, 72));
    size_t row = n_vocab > 0 && n_vocab < 4096 ? 16 + 4 * (size_t)n_vocab : n;
    for (size_t at = HEAD; at + row <= n; at += row)
        put(p + at + row - 8, st_checksum(p + at, row - 8));
}

static void read_all(const char *path, const uint8_t *p, size_t n, const st_saved_head *want)
{
    st_saved_in in;
    const float *logits;
    setun_error err = {0, ""};
    memset(&in, 0, sizeof in);
    setun_status s = st_saved_open(&in, path, want, &err);
    fuzz_judge(s, &err, "saved");
    for (int64_t i = 0; s == SETUN_OK && i <= want->tokens; i++) {
        size_t at = HEAD + (size_t)i * (16 + 4 * (size_t)want->n_vocab);
        s = st_saved_next(&in, at + 4 <= n ? (int32_t)get(p + at, 4) : 0, &logits, &err);
        fuzz_judge(s, &err, "saved");
        FUZZ_CHECK(s != SETUN_OK || i < want->tokens);
        for (int64_t k = 0; s == SETUN_OK && k < want->n_vocab; k++)
            FUZZ_CHECK(__builtin_isfinite(logits[k]));
    }
    st_saved_close(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int as_is = n && data[0] == 'x';
    st_saved_head want = {.tokens = 1, .n_vocab = 2};
    uint8_t *p = calloc(n + 1, 1);
    char path[1024];
    FUZZ_CHECK(p);
    n -= (size_t)as_is;
    memcpy(p, data + as_is, n);
    if (n >= HEAD && !as_is)
        mend(p, n, head_of(p).n_vocab);
    (void)snprintf(path, sizeof path, "%s", fuzz_put("saved", p, n));
    read_all(path, p, n, &want);
    /* A run has sizes of texts and vocabularies that exist. */
    if (n >= HEAD)
        want = head_of(p);
    if (want.tokens >= 0 && want.n_vocab > 0 && want.n_vocab <= 1 << 20)
        read_all(path, p, n, &want);
    free(p);
    return 0;
}

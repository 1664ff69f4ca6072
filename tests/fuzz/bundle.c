/* tests/fuzz/bundle.c -- bundles: as they are, and once more with checksums that fit, so that what lies behind
 * them is reached.  Nothing of a bundle is executed here. */
#include "tests/fuzz/fuzz.h"

#include "rt/bundle.h"

static void read_it(const uint8_t *data, size_t n)
{
    setun_error err = {0, ""};
    st_bundle b;
    const char *path = fuzz_put("a.bundle", data, n);
    setun_status s = st_bundle_open(&b, path, &err);
    fuzz_judge(s, &err, "a.bundle");
    if (s != SETUN_OK) {
        FUZZ_CHECK(!b.arena && !b.map.data);
        return;
    }
    /* What is said of steps lies in what is said of buffers. */
    for (int i = 0; i < ST_RT_N_PROGRAM; i++) {
        const uint32_t *at = b.program[i].buffer;
        for (uint32_t k = 0; k < b.program[i].n; k++) {
            const setun_step *step = &b.program[i].step[k];
            FUZZ_CHECK(b.program[i].kernel[k] < b.n_kernel);
            for (uint32_t j = 0; j < step->n_in + step->n_out; j++, at++)
                FUZZ_CHECK(*at < b.n_buffer && step->in[j].offset <= b.buffer[*at].bytes);
        }
        FUZZ_CHECK(b.program[i].logits + 4 * b.n_vocab <= b.buffer[0].bytes);
    }
    for (uint32_t i = 0; i < b.n_buffer; i++)
        FUZZ_CHECK(b.buffer[i].kind != ST_BUFFER_CONST || b.buffer[i].at + b.buffer[i].bytes <= b.bytes[ST_BUNDLE_WEIGHTS]);
    if (st_bundle_fits(&b, &err) != SETUN_OK)
        FUZZ_CHECK(strstr(err.text, "a.bundle"));
    st_bundle_close(&b);
}

static int64_t get(const uint8_t *p)
{
    uint64_t x = 0;
    for (int i = 7; i >= 0; i--)
        x = x << 8 | p[i];
    return (int64_t)x;
}

static void put(uint8_t *p, uint64_t x)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(x >> 8 * i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const size_t table = ST_BUNDLE_HEADER + ST_BUNDLE_N * ST_BUNDLE_ROW;
    read_it(data, n);
    if (n < table)
        return 0;
    uint8_t *copy = malloc(n);
    if (!copy)
        fuzz_fail("no memory for the input");
    memcpy(copy, data, n);
    put(copy + 16, n);
    for (int i = 0; i < ST_BUNDLE_N; i++) {
        uint8_t *row = copy + ST_BUNDLE_HEADER + i * ST_BUNDLE_ROW;
        int64_t at = get(row + 8), bytes = get(row + 16);
        uint64_t sum = 0;
        if (at < 0 || bytes < 0 || at > (int64_t)n || bytes > (int64_t)n - at)
            continue;
        for (int64_t k = 0; k < bytes; k += ST_BUNDLE_PIECE)
            sum = st_bundle_sum(sum, copy + at + k, bytes - k < ST_BUNDLE_PIECE ? bytes - k : ST_BUNDLE_PIECE);
        put(row + 24, sum);
    }
    put(copy + 24, st_checksum(copy, 24) * 31 + st_checksum(copy + ST_BUNDLE_HEADER, ST_BUNDLE_N * ST_BUNDLE_ROW));
    read_it(copy, n);
    free(copy);
    return 0;
}

/* tests/fuzz/tokenizer.c -- tokenizer.json and, behind a cut, a text to encode beside the usual one. */
#include "tests/fuzz/fuzz.h"

#include "model/tokenizer.h"

/* Ids to text, one by one: whole characters each time. */
static void decode(const st_tokenizer *t, const int32_t *ids, int64_t n)
{
    st_detok d;
    st_detok_start(&d, t);
    for (int64_t i = 0; i <= n; i++) {
        const char *bytes = NULL;
        int64_t len = 0;
        int special;
        setun_error err = {0, ""};
        if (i < n)
            fuzz_judge(st_tokenizer_bytes(t, ids[i], &bytes, &len, &special, &err), &err, "");
        FUZZ_CHECK(i == n || (bytes && len >= 0));
        char *out = malloc((size_t)(4 * (len + 8)));
        FUZZ_CHECK(out);
        int64_t got = st_detok_push(&d, bytes, len, out);
        FUZZ_CHECK(got <= 4 * (len + 8) && st_utf8_valid(out, (size_t)got) == (size_t)got);
        free(out);
    }
}

static void encode(const st_tokenizer *t, const char *text, size_t n, uint32_t flags)
{
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    setun_error err = {0, ""};
    int valid = st_utf8_valid(text, n) == n;
    setun_status s = st_tokenizer_encode(t, text, (int64_t)n, flags, &ids, &n_ids, &err);
    fuzz_judge(s, &err, "");
    FUZZ_CHECK(valid || s == SETUN_BAD_ARG);
    for (int64_t i = 0; i < n_ids; i++)
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < st_tokenizer_size(t));
    if (s == SETUN_OK)
        decode(t, ids, n_ids);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "To be, or not to be: 3.14 \xe2\x82\xac\n\n  <|eot_id|>A\xcc\x8a";
    fuzz_piece rest = {data, n}, json, more = {data, 0};
    st_tokenizer *t = NULL;
    setun_error err = {0, ""};
    FUZZ_CHECK(fuzz_next(&rest, &json));
    (void)fuzz_next(&rest, &more);
    (void)fuzz_put("tokenizer.json", json.data, json.n);
    setun_status s = st_tokenizer_open(&t, fuzz_dir(), &err);
    fuzz_judge(s, &err, "tokenizer.json");
    FUZZ_CHECK((s == SETUN_OK) == (t != NULL));
    if (t) {
        const char *bytes;
        int64_t len;
        int special;
        for (uint32_t flags = 0; flags < 4; flags++) {
            encode(t, text, sizeof text - 1, flags);
            encode(t, (const char *)more.data, more.n, flags);
        }
        FUZZ_CHECK(st_tokenizer_bos(t) < st_tokenizer_size(t));
        FUZZ_CHECK(st_tokenizer_bytes(t, -1, &bytes, &len, &special, &err) != SETUN_OK);
        FUZZ_CHECK(st_tokenizer_bytes(t, INT32_MAX, &bytes, &len, &special, &err) != SETUN_OK);
    }
    st_tokenizer_close(t);
    return 0;
}

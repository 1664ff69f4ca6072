/* tests/fuzz/vocab.c -- the tokenizer in a GGUF file: opened, and texts to ids and back. */
#include "tests/fuzz/fuzz.h"

#include "model/tokenizer.h"

static void encode(const st_tokenizer *t, const char *text, size_t n, uint32_t flags)
{
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    setun_error err = {0, ""};
    st_detok d;
    fuzz_judge(st_tokenizer_encode(t, text, (int64_t)n, flags, &ids, &n_ids, &err), &err, "");
    st_detok_start(&d, t);
    for (int64_t i = 0; i < n_ids; i++) {
        const char *bytes = NULL;
        int64_t len = 0;
        int special;
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < st_tokenizer_size(t));
        fuzz_judge(st_tokenizer_bytes(t, ids[i], &bytes, &len, &special, &err), &err, "");
        FUZZ_CHECK(bytes && len >= 0);
        char *out = malloc((size_t)(4 * (len + 8)));
        FUZZ_CHECK(out);
        int64_t got = st_detok_push(&d, bytes, len, out);
        FUZZ_CHECK(got <= 4 * (len + 8) && st_utf8_valid(out, (size_t)got) == (size_t)got);
        free(out);
    }
    free(ids);
}

/* Every id, the tokens that end a text, and those around it. */
static void ask(const st_tokenizer *t)
{
    const int32_t *end = NULL;
    int64_t size = st_tokenizer_size(t), n = st_tokenizer_ends(t, &end), len;
    const char *bytes;
    int special;
    setun_error err = {0, ""};
    FUZZ_CHECK(st_tokenizer_about(t) && !strchr(st_tokenizer_about(t), '\n') && n >= 0);
    for (int64_t i = 0; i < n; i++)
        FUZZ_CHECK(end[i] >= 0 && end[i] < size);
    for (int64_t i = -1; i <= size; i++) {
        setun_status s = st_tokenizer_bytes(t, (int32_t)i, &bytes, &len, &special, &err);
        fuzz_judge(s, &err, "");
        FUZZ_CHECK(s != SETUN_OK || (i >= 0 && i < size && len >= 0));
    }
    FUZZ_CHECK(st_tokenizer_bos(t) >= -1 && st_tokenizer_bos(t) < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "To be, or not to be: 3.14 \xe2\x82\xac\n\n  <|eot_id|></s>A\xcc\x8a";
    char path[1024];
    st_tokenizer *t = NULL;
    setun_error err = {0, ""};
    (void)snprintf(path, sizeof path, "%s", fuzz_put("vocab.gguf", data, n));
    setun_status s = st_tokenizer_open(&t, path, &err);
    /* What is no GGUF file is taken for a directory. */
    fuzz_judge(s, &err, "vocab.gguf");
    FUZZ_CHECK((s == SETUN_OK) == (t != NULL));
    if (t) {
        ask(t);
        for (uint32_t flags = 0; flags < 4; flags++)
            encode(t, text, sizeof text - 1, flags);
    }
    st_tokenizer_close(t);
    return 0;
}

/* tests/fuzz/text.c -- the tokenizer of a bundle, and its chat template: bytes, and what is done with them. */
#include "tests/fuzz/fuzz.h"

#include "model/tokenizer.h"
#include "model/turns.h"

static setun_status add(void *user, int64_t i, const char *text, int64_t n, setun_error *err)
{
    int64_t *total = user;
    (void)err;
    FUZZ_CHECK(i >= -1 && i < 3 && text && n > 0);
    *total += n;
    return SETUN_OK;
}

static void try_turns(const uint8_t *data, size_t n)
{
    static const st_message talk[] = {{"system", " a ", 3}, {"user", "b", 1}, {"assistant", "", 0}};
    setun_error err = {0, ""};
    st_turns *t;
    setun_status s = st_turns_load(&t, data, (int64_t)n, "bundle", &err);
    fuzz_judge(s, &err, "bundle");
    if (s != SETUN_OK)
        return;
    for (int k = 0; k < 4; k++) {
        int64_t total = 0;
        (void)st_turns_render(t, talk + k % 2, 3 - k % 2, k / 2, add, &total, &err);
    }
    st_turns_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "I'll ab 1234\n\n \xe2\x96\x81 <s> \xc3\xa9\xe4\xb8\xad  x";
    setun_error err = {0, ""};
    st_tokenizer *t;
    try_turns(data, n);
    memset(&err, 0, sizeof err);
    setun_status s = st_tokenizer_load(&t, data, (int64_t)n, "bundle", &err);
    fuzz_judge(s, &err, "bundle");
    for (uint32_t flags = 0; s == SETUN_OK && flags < 4; flags++) {
        int32_t *ids;
        int64_t n_ids;
        if (st_tokenizer_encode(t, text, sizeof text - 1, flags, &ids, &n_ids, &err) != SETUN_OK)
            break; /* a pattern that needs all of its steps takes seconds here: once is enough */
        for (int64_t i = 0; i < n_ids; i++) {
            const char *bytes;
            int64_t len;
            int special;
            FUZZ_CHECK(st_tokenizer_bytes(t, ids[i], &bytes, &len, &special, &err) == SETUN_OK);
        }
        free(ids);
    }
    if (s == SETUN_OK)
        st_tokenizer_close(t);
    return 0;
}

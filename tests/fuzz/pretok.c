/* tests/fuzz/pretok.c -- the pre_tokenizer of a tokenizer.json, with any regular expression, and, behind a
 * cut, a text to be split by it. */
#include "tests/fuzz/fuzz.h"

#include "model/pretok.h"

typedef struct seen {
    int     bytes;
    int64_t n;
} seen;

static setun_status piece(void *user, const char *text, int64_t n, setun_error *err)
{
    seen *s = user;
    (void)err;
    FUZZ_CHECK(n > 0 && (s->bytes || st_utf8_valid(text, (size_t)n) == (size_t)n));
    s->n += n;
    return SETUN_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char usual[] = "I'll take 1234 of them,  please!\r\n\n \tNa\xc3\xafve \xe4\xb8\xad\xe6\x96\x87 x";
    fuzz_piece rest = {data, n}, json, text = {(const uint8_t *)usual, sizeof usual - 1};
    st_pretok *p = NULL;
    setun_error err = {0, ""};
    FUZZ_CHECK(fuzz_next(&rest, &json));
    (void)fuzz_next(&rest, &text);
    json_t *root = json_loadb((const char *)json.data, json.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    if (!root || st_utf8_valid((const char *)text.data, text.n) != text.n) {
        json_decref(root);
        return 0;
    }
    setun_status s = st_pretok_new(&p, root, "tokenizer.json", &err);
    fuzz_judge(s, &err, "tokenizer.json");
    json_decref(root);
    for (int first = 0; s == SETUN_OK && first < 2; first++) {
        seen all = {st_pretok_is_bytes(p), 0};
        setun_status done = st_pretok_split(p, (const char *)text.data, (int64_t)text.n, first, piece, &all, &err);
        fuzz_judge(done, &err, "");
    }
    st_pretok_free(p);
    return 0;
}

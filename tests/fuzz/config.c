/* tests/fuzz/config.c -- config.json and, behind a cut, generation_config.json. */
#include "tests/fuzz/fuzz.h"

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_piece rest = {data, n}, piece;
    setun_error err = {0, ""};
    st_config c;
    st_arena *a = st_arena_new();
    FUZZ_CHECK(a && fuzz_next(&rest, &piece));
    (void)fuzz_put("config.json", piece.data, piece.n);
    if (fuzz_next(&rest, &piece))
        (void)fuzz_put("generation_config.json", piece.data, piece.n);
    else
        (void)remove(fuzz_path("generation_config.json"));
    setun_status s = st_config_open(&c, fuzz_dir(), a, &err);
    fuzz_judge(s, &err, "config.json");
    if (s == SETUN_OK) {
        FUZZ_CHECK(c.architecture);
        for (int64_t i = 0; i < c.n; i++) {
            const st_hparam *h = &c.item[i];
            const char *text;
            FUZZ_CHECK(h->key && *h->key && (h->kind != ST_HP_STRING || h->s));
            FUZZ_CHECK(h->kind != ST_HP_FLOAT || __builtin_isfinite(h->f));
            fuzz_judge(st_config_string(&c, h->key, "", &text, &err), &err, "config.json");
        }
    }
    FUZZ_CHECK(st_arena_bytes(a) < ((int64_t)64 << 20));
    st_arena_free(a);
    return 0;
}

/* tests/fuzz/gguf.c -- one GGUF file in memory, or the parts of a split one as files; every row; the text
 * that setun info prints, for people and as JSON. */
#include "tests/fuzz/fuzz.h"

#include <jansson.h>

#include "model/gguf_types.h"
#include "setun/setun.h"

/* Of a row of a ternary type: every value is its code's weight times the scale of its group. */
static void check_codes(const st_gguf_tensor *t, const float *value, const uint8_t *code, const float *scale)
{
    int64_t group = t->type->group > 0 ? t->type->group : t->dim[0];
    for (int64_t i = 0; i < t->dim[0]; i++) {
        float want = (float)(code[i] - 1) * scale[i / group];
        FUZZ_CHECK(code[i] < 3 || (code[i] == 3 && t->type->has_two));
        FUZZ_CHECK(value[i] == want || (want != want && value[i] != value[i]));
    }
}

static void read_rows(const st_gguf *g, const st_gguf_tensor *t)
{
    int64_t n_scales = st_gguf_scales(t);
    if (t->values == 0)
        return;
    float *value = malloc((size_t)t->dim[0] * sizeof *value), *scale = malloc((size_t)(n_scales + 1) * sizeof *scale);
    uint8_t *code = malloc((size_t)t->dim[0]);
    FUZZ_CHECK(value && scale && code);
    for (int64_t r = 0; r < st_gguf_rows(t); r++) {
        setun_error err = {0, ""};
        setun_status s = st_gguf_read_row(g, t, r, value, n_scales ? code : NULL, n_scales ? scale : NULL, &err);
        fuzz_judge(s, &err, t->name);
        if (s == SETUN_OK && n_scales)
            check_codes(t, value, code, scale);
    }
    free(value);
    free(scale);
    free(code);
}

/* In memory, where a sanitizer sees what is read beyond the end. */
static void parse(fuzz_piece file, int i2s)
{
    st_gguf g = {0};
    st_arena *a = st_arena_new();
    setun_error err = {0, ""};
    FUZZ_CHECK(a);
    setun_status s = st_gguf_parse(&g, "test.gguf", file.data, (int64_t)file.n, i2s, a, &err);
    fuzz_judge(s, &err, "test.gguf");
    for (int64_t i = 0; s == SETUN_OK && i < g.n_tensors; i++) {
        const st_gguf_tensor *t = &g.tensor[i];
        FUZZ_CHECK(t->type && t->bytes >= 0 && t->data >= file.data && t->data + t->bytes <= file.data + file.n);
        read_rows(&g, t);
    }
    st_gguf_close(&g);
    st_arena_free(a);
}

static int collect(void *user, const char *text, size_t n)
{
    st_str_addn(user, text, n);
    return 0;
}

static void print(const char *path, int json, const char *layout)
{
    setun_file_options o = {.size = sizeof o, .json = json, .values = 1, .i2s_layout = layout};
    /* JSON has numbers of 64 bits, the library only of 63. */
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
    setun_error err = {0, ""};
    st_str text = {0};
    setun_status s = setun_file_info(path, &o, collect, &text, &err);
    if (s != SETUN_DECLINED)
        fuzz_judge(s, &err, "");
    if (s == SETUN_OK) {
        json_t *root = json ? json_loadb(text.text, text.len, flags, NULL) : NULL;
        FUZZ_CHECK(st_utf8_valid(text.text, text.len) == text.len);
        FUZZ_CHECK(!json == !root);
        json_decref(root);
    }
    st_str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const layout[] = {NULL, "x86", "arm", "rows4"};
    fuzz_piece rest = {data, n}, part;
    char name[64], first[1024];
    int count = 0;
    for (fuzz_piece all = rest; count < 9 && fuzz_next(&all, &part);)
        count++;
    for (int i = 0; i < count && fuzz_next(&rest, &part); i++) {
        if (i == 0)
            for (int i2s = ST_I2S_ASK; i2s <= ST_I2S_ROWS4; i2s++)
                parse(part, i2s);
        (void)snprintf(name, sizeof name, "m-0000%d-of-0000%d.gguf", i + 1, count);
        (void)fuzz_put(name, part.data, part.n);
    }
    (void)snprintf(name, sizeof name, "m-00001-of-0000%d.gguf", count);
    (void)snprintf(first, sizeof first, "%s", fuzz_path(name));
    for (int json = 0; json < 2; json++)
        print(first, json, layout[(n + (size_t)json) % 4]);
    return 0;
}

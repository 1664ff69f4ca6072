/* tests/fuzz/gguf_model.c -- a GGUF file as a model: its keys, its tensors' names, and everything that
 * a script may ask of it.  No kernels are made.
 *
 * The first byte is what the user said: bits 0 and 1 the layout of I2_S, bits 2 and 3 the activations. */
#include "tests/fuzz/fuzz.h"

#include "model/weights.h"

static const char path_of[] = "model.gguf";

/* What was decided: lines of text; the configuration: keys that have values. */
static void read_lines(const st_weights *w)
{
    int64_t n = 0;
    const char *const *line = st_weights_lines(w, &n);
    for (int64_t i = 0; i < n; i++)
        FUZZ_CHECK(line[i] && !strchr(line[i], '\n') && st_utf8_valid(line[i], strlen(line[i])) == strlen(line[i]));
    const st_hparam *h = st_weights_config(w, &n);
    for (int64_t i = 0; i < n; i++) {
        FUZZ_CHECK(h[i].key && *h[i].key && (h[i].kind != ST_HP_STRING || h[i].s));
        FUZZ_CHECK(h[i].kind != ST_HP_FLOAT || __builtin_isfinite(h[i].f));
    }
    FUZZ_CHECK(st_weights_architecture(w) && *st_weights_architecture(w));
}

/* Codes are the four values of two bits less the one that stands for nothing; scales are finite. */
static void check_ternary(const st_ternary *t)
{
    int64_t rows = t->codes.dim[0], cols = t->codes.dim[1], bytes = (rows * cols + 3) / 4, n = 1;
    const uint8_t *codes = t->codes.data;
    const float *scale = t->scale.data;
    uint8_t most = 0;
    FUZZ_CHECK(codes && scale && rows > 0 && cols > 0 && t->group >= 0 && (t->across == 0 || t->across == 1));
    for (int64_t i = 0; i < bytes; i++)
        most |= codes[i] & (uint8_t)(codes[i] >> 1) & 0x55;
    FUZZ_CHECK(most == 0);
    for (uint32_t d = 0; d < t->scale.rank; d++)
        n *= t->scale.dim[d];
    for (int64_t i = 0; i < n; i++)
        FUZZ_CHECK(__builtin_isfinite(scale[i]));
}

static void ask(st_weights *w)
{
    for (int64_t i = 0; i < st_weights_count(w); i++) {
        const char *name = st_weights_at(w, i)->name;
        size_t n = strlen(name);
        char linear[256];
        setun_error err = {0, ""};
        setun_view v = {.data = NULL};
        st_ternary t = {.group = -1};
        setun_status s = SETUN_DECLINED;
        FUZZ_CHECK(st_weights_find(w, name) == st_weights_at(w, i));
        if (n > 7 && n < sizeof linear && strcmp(name + n - 7, ".weight") == 0) {
            (void)snprintf(linear, sizeof linear, "%.*s", (int)n - 7, name);
            s = st_weights_ternary(w, linear, (int)(i & 1), &t, &err);
        }
        if (s == SETUN_OK)
            check_ternary(&t);
        if (s == SETUN_DECLINED) {
            s = st_weights_tensor(w, name, 0, &v, &err);
            FUZZ_CHECK(s != SETUN_OK || (v.data && v.rank > 0));
        }
        fuzz_judge(s, &err, path_of);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[1024];
    st_weights *w = NULL;
    setun_error err = {0, ""};
    if (!n)
        return 0;
    st_weights_choice choice = {data[0] & 3, (data[0] >> 2 & 3) % 3};
    (void)snprintf(path, sizeof path, "%s", fuzz_put(path_of, data + 1, n - 1));
    setun_status s = st_weights_open_as(&w, path, &choice, NULL, &err);
    /* Anything that does not begin as GGUF does is taken for a directory, and the sentence names that. */
    fuzz_judge(s, &err, path_of);
    FUZZ_CHECK((s == SETUN_OK) == (w != NULL));
    if (w) {
        read_lines(w);
        fuzz_judge(st_weights_pack_begin(w, NULL, "fuzz", &err), &err, "never");
        ask(w);
    }
    st_weights_close(w);
    return 0;
}

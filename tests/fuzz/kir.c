/* tests/fuzz/kir.c -- kernels as text: parse, print, check, and run what is right with every access checked. */
#include "tests/fuzz/fuzz.h"

#include "codegen/kir.h"

#define N 5              /* what symbolic sizes are */
#define MOST_BYTES (1 << 16)
#define MOST_STEPS 20000

/* Bytes of argument a; -1 if that is not sensible. */
static int64_t arg_bytes(const st_kir *k, uint32_t a)
{
    int64_t rows = 1, last = 1;
    for (uint32_t d = 0; d < k->arg_rank[a]; d++) {
        if (d && st_mul_i64(rows, last, &rows))
            return -1;
        last = k->arg_dim[a][d] < 0 ? N : k->arg_dim[a][d];
    }
    if (last > MOST_BYTES || st_mul_i64(rows, setun_row_bytes(k->arg_dtype[a], last), &rows) || rows > MOST_BYTES)
        return -1;
    return rows;
}

/* Arguments of exactly their size, so that a sanitizer sees what the interpreter's own checks miss. */
static void run(st_kir *k)
{
    void *arg[ST_MAX_ARGS] = {NULL};
    int64_t bytes[ST_MAX_ARGS] = {0}, dim[ST_MAX_SLOTS] = {0};
    uint32_t n = 0;
    int fits = k->scratch_bytes < 1 << 20;
    setun_error err = {0, ""};
    for (uint32_t s = 0; s < k->n_slot; s++) {
        int64_t d = k->arg_dim[k->slot[s].arg][k->slot[s].dim];
        dim[s] = d < 0 ? N : d;
    }
    for (; fits && n < k->n_in + k->n_out; n++) {
        bytes[n] = arg_bytes(k, n);
        fits = bytes[n] >= 0 && (arg[n] = calloc(1, (size_t)bytes[n] + !bytes[n])) != NULL;
    }
    if (fits) {
        setun_launch l = {arg, dim, k};
        setun_tile t = {0, N, NULL};
        k->max_steps = MOST_STEPS;
        fuzz_judge(st_kir_eval(k, &l, bytes, &t, &err), &err, "");
    }
    for (uint32_t i = 0; i < n; i++)
        free(arg[i]);
}

/* Printing is a fixed point after one round. */
static void print(const st_kir *k, st_arena *a)
{
    st_str one = {0}, two = {0};
    setun_error err = {0, ""};
    st_kir *twin;
    st_kir_print(k, &one);
    FUZZ_CHECK(!one.failed && one.text);
    fuzz_judge(st_kir_parse(one.text, "printed", NULL, a, &twin, &err), &err, "never");
    st_kir_print(twin, &two);
    FUZZ_CHECK(strcmp(one.text, two.text) == 0);
    st_str_free(&one);
    st_str_free(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = fuzz_text((fuzz_piece){data, n});
    st_arena *a = st_arena_new();
    setun_error err = {0, ""};
    st_kir *k;
    FUZZ_CHECK(a);
    if (text) {
        setun_status s = st_kir_parse(text, "test.kir", NULL, a, &k, &err);
        fuzz_judge(s, &err, "test.kir:");
        if (s == SETUN_OK) {
            print(k, a);
            s = st_kir_verify(k, &err);
            fuzz_judge(s, &err, "kernel ");
            if (s == SETUN_OK)
                run(k);
        }
    }
    st_arena_free(a);
    free(text);
    return 0;
}

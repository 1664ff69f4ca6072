/* tests/fuzz/npy.c -- NumPy files, the index of a trace, and the map of a comparison.
 *
 * The first piece of an input is a NumPy file, the second (if there is one) trace.json, the third a map: the file is the
 * only tensor of the trace and of the directory that it is compared with. */
#include "tests/fuzz/fuzz.h"

#include <math.h>

#include "model/npy.h"
#include "model/trace_index.h"
#include "setun/setun.h"

/* Whatever the header says, what came out is in the file. */
static void read_npy(const char *path)
{
    st_npy a;
    setun_error err = {0, ""};
    setun_status s = st_npy_open(&a, path, &err);
    fuzz_judge(s, &err, "x.npy");
    if (s != SETUN_OK)
        return;
    int64_t count = 1;
    FUZZ_CHECK(a.rank <= ST_NPY_MAX_RANK);
    for (uint32_t i = 0; i < a.rank; i++)
        FUZZ_CHECK(a.dim[i] >= 0 && !st_mul_i64(count, a.dim[i], &count));
    FUZZ_CHECK(count == a.count && a.data + count * a.width == a.map.data + a.map.bytes);
    for (int64_t i = 0; i < a.count; i++) {
        double x = st_npy_at(&a, i);
        FUZZ_CHECK(a.kind == 'f' || (isfinite(x) && fabs(x) <= ldexp(1, 8 * (int)a.width)));
    }
    st_npy_close(&a);
}

/* What was read says the same when it is written and read again. */
static void read_index(const char *path)
{
    st_arena *arena = st_arena_new();
    st_trace_index x, again;
    setun_error err = {0, ""};
    st_str text = {0};
    FUZZ_CHECK(arena);
    setun_status s = st_trace_index_open(&x, path, arena, &err);
    fuzz_judge(s, &err, ST_TRACE_INDEX);
    if (s == SETUN_OK) {
        st_trace_index_print(&x, &text);
        /* It may be longer than any file that is read: escapes. */
        s = text.len > ST_TRACE_INDEX_LIMIT ? SETUN_FAILED : st_trace_index_open(&again, fuzz_put("again.json", text.text, text.len), arena, &err);
        FUZZ_CHECK(text.len > ST_TRACE_INDEX_LIMIT || (s == SETUN_OK && again.n == x.n && again.n_token == x.n_token));
        for (int64_t i = 0; i < x.n && s == SETUN_OK; i++)
            FUZZ_CHECK(strcmp(x.tensor[i].name, again.tensor[i].name) == 0 && x.tensor[i].rank == again.tensor[i].rank &&
                       strcmp(x.tensor[i].where, again.tensor[i].where) == 0);
    }
    st_str_free(&text);
    st_arena_free(arena);
}

static int take(void *user, const char *text, size_t n)
{
    (void)user;
    FUZZ_CHECK(st_utf8_valid(text, n) == n);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_piece rest = {data, n}, piece = {NULL, 0};
    setun_error err = {0, ""};
    char map[1024];
    int32_t differs = 0, has_map;
    if (!fuzz_next(&rest, &piece))
        return 0;
    read_npy(fuzz_put("x.npy", piece.data, piece.n));
    if (!fuzz_next(&rest, &piece))
        return 0;
    read_index(fuzz_put(ST_TRACE_INDEX, piece.data, piece.n));
    has_map = fuzz_next(&rest, &piece);
    (void)snprintf(map, sizeof map, "%s", has_map ? fuzz_put("map", piece.data, piece.n) : "");
    for (int i = 0; i < 3; i++) {
        setun_tracediff_options o = {.size = sizeof o, .json = i & 1, .a = fuzz_dir(), .b = fuzz_dir(), .map = has_map && i ? map : NULL,
                                     .tolerance = i == 2 ? 0.5 : 0, .common = i};
        setun_status s = setun_tracediff(&o, &differs, take, NULL, &err);
        fuzz_judge(s, &err, "");
        FUZZ_CHECK(s != SETUN_OK || has_map || !differs); /* a trace is equal to itself */
    }
    return 0;
}

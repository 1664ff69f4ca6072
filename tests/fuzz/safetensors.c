/* tests/fuzz/safetensors.c -- one safetensors file in memory: as it is, or, when it begins with a brace, a
 * header whose length the target says, a zero byte, and the data. */
#include "tests/fuzz/fuzz.h"

#include "model/safetensors.h"

static void parse(const uint8_t *data, size_t n)
{
    st_safetensors s = {0};
    setun_error err = {0, ""};
    uint64_t hash = 0;
    int64_t total = 0;
    FUZZ_CHECK((s.arena = st_arena_new()) != NULL);
    setun_status st = st_safetensors_parse(&s, "test.safetensors", data, (int64_t)n, &hash, &err);
    fuzz_judge(st, &err, "test.safetensors");
    for (int64_t i = 0; st == SETUN_OK && i < s.n_tensors; i++) {
        const uint8_t *p = s.tensor[i].view.data;
        FUZZ_CHECK(s.tensor[i].bytes >= 0 && p >= data + 8 && p + s.tensor[i].bytes <= data + n);
        FUZZ_CHECK(!s.tensor[i].view.dtype || setun_view_bytes(&s.tensor[i].view) == s.tensor[i].bytes);
        total += s.tensor[i].bytes;
    }
    FUZZ_CHECK(total <= (int64_t)n); /* they tile the file */
    st_arena *a = s.arena;
    st_safetensors_close(&s);
    st_arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *end = n && data[0] == '{' ? memchr(data, 0, n) : NULL;
    size_t header = end ? (size_t)(end - data) : n, behind = end ? n - header - 1 : 0;
    if (!n || data[0] != '{') {
        parse(data, n);
        return 0;
    }
    uint8_t *file = malloc(8 + header + behind);
    FUZZ_CHECK(file);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header >> 8 * i);
    memcpy(file + 8, data, header);
    if (end)
        memcpy(file + 8 + header, end + 1, behind);
    parse(file, 8 + header + behind);
    free(file);
    return 0;
}

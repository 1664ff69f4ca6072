/* tests/fuzz/index.c -- model.safetensors.index.json beside two good shards, a damaged one and none. */
#include "tests/fuzz/fuzz.h"

#include "model/safetensors.h"

static void put_shard(const char *file, const char *header, size_t data)
{
    uint8_t bytes[256] = {(uint8_t)strlen(header)};
    memcpy(bytes + 8, header, strlen(header));
    (void)fuzz_put(file, bytes, 8 + strlen(header) + data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static int made;
    if (!made++) {
        put_shard("a.safetensors", "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                                   "\"y\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[3,7]}}", 7);
        put_shard("b.safetensors", "{\"z\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}", 8);
        put_shard("c.safetensors", "{\"w\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 2);
    }
    st_safetensors s = {0};
    st_arena *a = st_arena_new();
    setun_error err = {0, ""};
    FUZZ_CHECK(a);
    (void)fuzz_put("model.safetensors.index.json", data, n);
    fuzz_judge(st_safetensors_open(&s, fuzz_dir(), a, &err), &err, ".safetensors");
    st_safetensors_close(&s);
    st_arena_free(a);
    return 0;
}

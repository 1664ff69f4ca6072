/* tests/fuzz/history.c -- the conversation of a chat in a file: what is read is written and read again. */
#include "tests/fuzz/fuzz.h"

#include "model/history.h"

static void again(const st_message *list, int64_t n, st_arena *a)
{
    const st_message *back = NULL;
    int64_t n_back = 0;
    char path[1024];
    setun_error err = {0, ""};
    (void)snprintf(path, sizeof path, "%s", fuzz_path("again.json"));
    fuzz_judge(st_history_write(path, list, n, &err), &err, "never");
    fuzz_judge(st_history_read(path, a, &back, &n_back, &err), &err, "never");
    FUZZ_CHECK(n_back == n);
    for (int64_t i = 0; i < n; i++)
        FUZZ_CHECK(back[i].role == list[i].role && back[i].n == list[i].n &&
                   memcmp(back[i].text, list[i].text, (size_t)list[i].n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const st_message *list = NULL;
    int64_t n_list = 0;
    char path[1024];
    setun_error err = {0, ""};
    st_arena *a = st_arena_new();
    FUZZ_CHECK(a);
    (void)snprintf(path, sizeof path, "%s", fuzz_put("chat.json", data, n));
    setun_status s = st_history_read(path, a, &list, &n_list, &err);
    fuzz_judge(s, &err, "chat.json");
    if (s == SETUN_OK) {
        for (int64_t i = 0; i < n_list; i++)
            FUZZ_CHECK(st_message_role(list[i].role) == list[i].role && list[i].n >= 0 &&
                       st_utf8_valid(list[i].text, (size_t)list[i].n) == (size_t)list[i].n);
        fuzz_judge(st_message_check(list, n_list, "the chat", &err), &err, "the chat");
        again(list, n_list, a);
    }
    FUZZ_CHECK(st_arena_bytes(a) < ((int64_t)64 << 20));
    st_arena_free(a);
    return 0;
}

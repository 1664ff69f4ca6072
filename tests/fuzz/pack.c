/* tests/fuzz/pack.c -- the cache of converted weights: a file as it is, or, when it begins with 'T', a table
 * (behind one byte that says how many pieces of 64 bytes lie before it) in a file that is right otherwise. */
#include "tests/fuzz/fuzz.h"

#include "base/hash.h"
#include "model/pack.h"

#define NAME "weights-0000000000000007.t2"
#define MAGIC 0x32325453554e5453u
#define IDENTITY "model 7"

static void put_table(const uint8_t *data, size_t n)
{
    st_str file = {0};
    uint64_t magic = MAGIC;
    size_t pieces = n > 1 ? data[1] % 16 : 0;
    const uint8_t *table = data + (n > 1 ? 2 : n);
    uint64_t footer[4] = {64 + 64 * pieces, n > 1 ? n - 2 : 0, 0, MAGIC};
    footer[2] = st_checksum(table, footer[1]);
    st_str_addn(&file, &magic, 8);
    for (size_t i = 8; i < footer[0]; i++)
        st_str_addn(&file, i < 64 ? "" : "\x55", 1);
    st_str_addn(&file, table, footer[1]);
    st_str_addn(&file, footer, sizeof footer);
    FUZZ_CHECK(!file.failed);
    (void)fuzz_put(NAME, file.text, file.len);
    st_str_free(&file);
}

/* Asks for one matrix, and makes it where it is missing.  Every byte of it can be read. */
static void use(st_pack *p, int *was_there)
{
    setun_error err = {0, ""};
    const st_pack_slot *slot = st_pack_find(p, "w", SETUN_T2, 4, 128);
    uint8_t *buffer;
    *was_there = slot != NULL;
    if (!slot) {
        setun_status s = st_pack_room(p, "w", SETUN_T2, 4, 128, &buffer, &err);
        fuzz_judge(s, &err, "w");
        FUZZ_CHECK(s == SETUN_OK);
        memset(buffer, 0x55, (size_t)(4 * setun_row_bytes(SETUN_T2, 128)));
        FUZZ_CHECK(st_pack_put(p, 0.5f, 3, &slot, &err) == SETUN_OK);
    }
    fuzz_judge(st_pack_finish(p, &err), &err, NAME);
    slot = st_pack_find(p, "w", SETUN_T2, 4, 128);
    FUZZ_CHECK(slot && slot->bytes == 4 * setun_row_bytes(SETUN_T2, 128));
    volatile uint8_t sum = 0;
    for (int64_t i = 0; i < slot->bytes; i++)
        sum = (uint8_t)(sum + slot->data[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n && data[0] == 'T')
        put_table(data, n);
    else
        (void)fuzz_put(NAME, data, n);
    for (int round = 0; round < 2; round++) {
        st_pack *p;
        int was_there;
        setun_error err = {0, ""};
        setun_status s = st_pack_open(&p, fuzz_dir(), 7, IDENTITY, 4096, NULL, &err);
        fuzz_judge(s, &err, NAME);
        FUZZ_CHECK(s == SETUN_OK);
        use(p, &was_there);
        FUZZ_CHECK(round == 0 || was_there); /* what finish wrote is whole */
        st_pack_close(p);
    }
    return 0;
}

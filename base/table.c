/* base/table.c -- the one hash table.  See table.h.
 *
 * Entries lie in an array in order of insertion; a second array of slots, at most half full, holds
 * entry numbers + 1 and is probed linearly.  Nothing is ever removed, so there are no tombstones.
 */
#include "base/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

typedef struct entry {
    const void *key;
    size_t      n;
    uint64_t    hash;
    int64_t     value;
} entry;

struct st_table {
    entry    *entry;
    uint32_t *slot;   /* 0: free */
    int64_t   count, room;
    uint64_t  mask, seed;
};

#define MOST_ENTRIES ((int64_t)1 << 30)

/* Keys come from files of strangers: the seed keeps them from choosing collisions, and the last
 * step spreads FNV's high bits over the low ones that pick the slot. */
static uint64_t hash_key(const st_table *t, const void *key, size_t n)
{
    uint64_t h = st_hash(t->seed, key, n);
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int grow(st_table *t, int64_t room)
{
    if (room > MOST_ENTRIES)
        return -1;
    entry *e = realloc(t->entry, (size_t)room * sizeof *e);
    if (!e)
        return -1;
    t->entry = e;
    uint32_t *slot = calloc((size_t)room * 2, sizeof *slot);
    if (!slot)
        return -1;
    free(t->slot);
    t->slot = slot;
    t->room = room;
    t->mask = (uint64_t)room * 2 - 1;
    for (int64_t i = 0; i < t->count; i++) {
        uint64_t at = t->entry[i].hash & t->mask;
        while (slot[at])
            at = (at + 1) & t->mask;
        slot[at] = (uint32_t)i + 1;
    }
    return 0;
}

st_table *st_table_new(int64_t expected)
{
    st_table *t = calloc(1, sizeof *t);
    int64_t room = 16;
    if (!t)
        return NULL;
    while (room < expected && room < MOST_ENTRIES)
        room *= 2;
    t->seed = ST_HASH_INIT ^ ((uint64_t)(uintptr_t)t * 0x9e3779b97f4a7c15u) ^ (uint64_t)st_now_ns();
    if (grow(t, room)) {
        st_table_free(t);
        return NULL;
    }
    return t;
}

void st_table_free(st_table *t)
{
    if (!t)
        return;
    free(t->entry);
    free(t->slot);
    free(t);
}

/* The slot that holds the key, or the free one where it belongs. */
static uint64_t probe(const st_table *t, const void *key, size_t n, uint64_t hash)
{
    uint64_t at = hash & t->mask;
    for (; t->slot[at]; at = (at + 1) & t->mask) {
        const entry *e = &t->entry[t->slot[at] - 1];
        if (e->hash == hash && e->n == n && (n == 0 || memcmp(e->key, key, n) == 0))
            break;
    }
    return at;
}

int st_table_put(st_table *t, const void *key, size_t n, int64_t value)
{
    uint64_t hash = hash_key(t, key, n), at = probe(t, key, n, hash);
    if (t->slot[at]) {
        t->entry[t->slot[at] - 1].value = value;
        return 0;
    }
    if (t->count == t->room) {
        if (grow(t, t->room * 2))
            return -1;
        at = probe(t, key, n, hash);
    }
    entry *e = &t->entry[t->count++];
    e->key = key;
    e->n = n;
    e->hash = hash;
    e->value = value;
    t->slot[at] = (uint32_t)t->count;
    return 0;
}

int st_table_get(const st_table *t, const void *key, size_t n, int64_t *value)
{
    uint64_t at = probe(t, key, n, hash_key(t, key, n));
    if (!t->slot[at])
        return 0;
    *value = t->entry[t->slot[at] - 1].value;
    return 1;
}

void st_table_get_many(const st_table *t, int n, const char *const *key, const size_t *bytes, int64_t *value)
{
    uint64_t hash[ST_TABLE_MANY];
    for (int i = 0; i < n; i++) {
        hash[i] = hash_key(t, key[i], bytes[i]);
        __builtin_prefetch(&t->slot[hash[i] & t->mask]);
    }
    for (int i = 0; i < n; i++) {
        uint32_t s = t->slot[hash[i] & t->mask];
        __builtin_prefetch(s ? &t->entry[s - 1] : t->entry);
    }
    for (int i = 0; i < n; i++) {
        uint32_t s = t->slot[hash[i] & t->mask];
        __builtin_prefetch(s ? t->entry[s - 1].key : t->entry);
    }
    for (int i = 0; i < n; i++) {
        uint64_t at = probe(t, key[i], bytes[i], hash[i]);
        value[i] = t->slot[at] ? t->entry[t->slot[at] - 1].value : -1;
    }
}

int64_t st_table_count(const st_table *t)
{
    return t->count;
}

void st_table_at(const st_table *t, int64_t index, const void **key, size_t *n, int64_t *value)
{
    const entry *e = &t->entry[index];
    *key = e->key;
    *n = e->n;
    *value = e->value;
}

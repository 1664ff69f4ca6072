/* base/table.h -- the one hash table: byte-string keys to int64 values, insertion order kept.
 *
 * Keys are borrowed, not copied: they live as long as the table.  Open addressing; iteration is in
 * order of insertion (index 0..count-1), so no result ever depends on hash order. */
#ifndef ST_TABLE_H
#define ST_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct st_table st_table;

st_table *st_table_new(int64_t expected); /* NULL: no memory */
void      st_table_free(st_table *t);
/* Adds or replaces; returns 0, or -1 without memory. */
int       st_table_put(st_table *t, const void *key, size_t n, int64_t value);
/* Returns 1 and the value, or 0 when absent.  [any] while nobody writes. */
int       st_table_get(const st_table *t, const void *key, size_t n, int64_t *value);
/* Up to ST_TABLE_MANY keys at once, -1 for those that are absent (values are from 0 on).  In a large
 * table each key waits for memory several times; here all of them wait together. */
#define ST_TABLE_MANY 64
void      st_table_get_many(const st_table *t, int n, const char *const *key, const size_t *bytes, int64_t *value);
int64_t   st_table_count(const st_table *t);
void      st_table_at(const st_table *t, int64_t index, const void **key, size_t *n, int64_t *value);

#endif

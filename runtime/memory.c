/* runtime/memory.c -- whom the resident bytes of the process belong to.
 *
 * Constants, caches and temporaries are ranges of addresses that Setun knows; the pages of them that are
 * present are counted.  Two values can be the same memory (an embedding that is also the head, layers of
 * parts of one tensor), so ranges are sorted and joined before they are counted.  Machine code is what the
 * system's list of mappings says.  What is left of the resident set is heap, stacks and the like. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "runtime/session.h"

typedef struct range {
    uintptr_t begin, end;
    int32_t   class_of;
} range;

static int by_place(const void *a, const void *b)
{
    const range *x = a, *y = b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : x->end < y->end ? -1 : x->end > y->end;
}

static void add_range(range *r, uint32_t *n, const void *data, int64_t bytes, int32_t class_of)
{
    if (data && bytes > 0)
        r[(*n)++] = (range){(uintptr_t)data, (uintptr_t)data + (uintptr_t)bytes, class_of};
}

static uint32_t find_ranges(const setun_session *s, range *r)
{
    uint32_t n = 0;
    const setun_backend_v1 *b = st_session_api(s, 0);
    for (int i = 0; i < ST_N_PROGRAM; i++) {
        const st_graph *g = s->program[i] ? s->program[i]->graph : NULL;
        for (uint32_t v = 0; g && v < g->n_value; v++) {
            const st_value *value = &g->value[v];
            if (value->kind == ST_CONST)
                add_range(r, &n, value->view.data, setun_view_bytes(&value->view), st_class_of(value));
            else if (value->kind == ST_STATE)
                add_range(r, &n, b->buffer_map(s->buffer[0][st_session_buffer(s, value->name)]), setun_view_bytes(&value->view),
                          SETUN_CLASS_KV);
        }
    }
    add_range(r, &n, s->temp_host, s->m->stats.temp_bytes, SETUN_CLASS_TEMP);
    return n;
}

setun_status setun_session_memory(const setun_session *s, setun_memory *out, setun_error *err)
{
    setun_memory m = {.size = out->size};
    size_t most = 1;
    uintptr_t done = 0;
    for (int i = 0; i < ST_N_PROGRAM; i++)
        most += s->program[i] ? s->program[i]->graph->n_value : 0;
    range *r = malloc(most * sizeof *r);
    if (!r)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to count memory");
    uint32_t n = find_ranges(s, r);
    qsort(r, n, sizeof *r, by_place);
    setun_status status = SETUN_OK;
    for (uint32_t i = 0; i < n && status == SETUN_OK; i++) {
        uintptr_t begin = r[i].begin > done ? r[i].begin : done; /* what an earlier one covers is counted */
        if (r[i].end <= begin)
            continue;
        int64_t present = st_memory_present((const void *)begin, (int64_t)(r[i].end - begin));
        if (present < 0)
            status = st_fail(err, SETUN_UNKNOWN, "this system does not say which pages of a process are in memory");
        m.held[r[i].class_of] += (int64_t)(r[i].end - begin);
        m.resident[r[i].class_of] += present;
        done = r[i].end;
    }
    free(r);
    if (status == SETUN_OK && st_memory_mappings(&m.resident_bytes, &m.resident[SETUN_CLASS_CODE]))
        status = st_fail(err, SETUN_UNKNOWN, "this system does not list the mappings of a process");
    int64_t rest = m.resident_bytes;
    for (int c = 0; c < SETUN_CLASS_REST; c++)
        rest -= m.resident[c];
    m.resident[SETUN_CLASS_REST] = rest;
    memcpy(out, &m, m.size < sizeof m ? m.size : sizeof m);
    return status;
}

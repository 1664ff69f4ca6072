/* model/pack.c -- the cache of transcoded matrices: ternary ones, the short rows of a head, and those of a declared packing.
 *
 * Not here: what is transcoded and how (weights.c, convert.c, runtime/packing.c).  Three ways of life:
 *
 *   memory   one anonymous region; matrices are written in place.
 *   stream   a file is missing, stale or damaged.  The region is only reserved (no access, no memory);
 *            each matrix goes through a scratch buffer to the file, and its address is
 *            region + offset.  finish maps the file there.  So the model is never in memory twice.
 *   hit      the file is whole: it is mapped and nothing else is read.
 *
 * The file is written in one pass, so what describes it comes last:
 *
 *     0     64                                       trailer            footer (32 bytes)
 *     +-----+---------+---------+-- ... --+----------+------------------+
 *     |magic| matrix  | matrix  |         | identity, table of matrices | at, bytes, sum, magic
 *     +-----+---------+---------+-- ... --+----------+------------------+
 *
 * Matrices begin at multiples of 64.  Each has a checksum in the table, the trailer has one in the
 * footer.  Numbers are in host order: the file is private to this machine, and another order shows
 * as a wrong magic number.  Two processes may write the same file at once: each writes its own
 * temporary file, the last rename wins, and both contents are the same. */
#include "model/pack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/str.h"
#include "base/table.h"

#define PACK_MAGIC 0x32325453554e5453u /* "STNUST22", read in the writer's order */
#define PACK_ALIGN 64
#define PACK_HEAD 64
#define PACK_FOOTER 32
#define PACK_HUGE (2 << 20)
#define PACK_MAX_SLOTS 1000000
#define PACK_MAX_DIM INT32_MAX

enum { MEMORY, STREAM, HIT };

struct st_pack {
    st_arena     *arena;
    st_log        log;
    const char   *path, *identity;
    int           mode, finished, has_room, n_extra;
    st_pack_slot *slot;
    int64_t       n, cap;
    st_table     *by_name;
    uint8_t      *base;      /* region; page-aligned */
    void         *region;    /* what mmap gave */
    int64_t       capacity, region_bytes, used;
    uint8_t      *scratch;   /* stream: one matrix */
    int64_t       scratch_bytes;
    st_out       *out;
    st_map        map;       /* hit: the file */
};

static int64_t align64(int64_t n)
{
    return (n + PACK_ALIGN - 1) / PACK_ALIGN * PACK_ALIGN;
}

static setun_status advise_user(setun_error *err, setun_status s, const st_pack *p)
{
    if (s == SETUN_OK || s == SETUN_NO_MEMORY)
        return s;
    if (err) {
        char why[sizeof err->text];
        memcpy(why, err->text, sizeof why);
        (void)st_fail(
            err, SETUN_IO,
            "cannot keep the converted weights in %s (%s): free some space there, choose another place with "
            "--cache-dir, or do without it with --no-cache",
            p->path, why);
    }
    return SETUN_IO;
}

/* ---------------------------------------------------------------- region and slots */

static setun_status reserve(st_pack *p, int64_t capacity, int writable, setun_error *err)
{
    if (p->region)
        return SETUN_OK;
    /* Aligned to huge pages, which anonymous memory then gets: fewer misses when it is streamed. */
    int64_t bytes = capacity + 2 * (int64_t)PACK_HUGE;
    void *m = mmap(NULL, (size_t)bytes, writable ? PROT_READ | PROT_WRITE : PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        return st_fail(err, SETUN_NO_MEMORY, "no address space for %lld bytes of ternary weights",
                       (long long)bytes);
    p->region = m;
    p->region_bytes = bytes;
    p->base = (uint8_t *)(((uintptr_t)m + PACK_HUGE - 1) / PACK_HUGE * PACK_HUGE);
#ifdef MADV_HUGEPAGE
    if (writable)
        (void)madvise(p->base, (size_t)(bytes - PACK_HUGE), MADV_HUGEPAGE);
#endif
    return SETUN_OK;
}

static setun_status add_slot(st_pack *p, const char *name, uint32_t dtype, int64_t rows,
                             int64_t cols, setun_error *err)
{
    int64_t bytes;
    if (rows < 0 || cols < 0 || rows > PACK_MAX_DIM || cols > PACK_MAX_DIM ||
        st_mul_i64(rows, setun_row_bytes(dtype, cols), &bytes))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %lld x %lld is too large", name, (long long)rows,
                       (long long)cols);
    if (p->n == p->cap) {
        int64_t cap = p->cap ? 2 * p->cap : 256;
        st_pack_slot *more = st_arena_array(p->arena, cap, sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld matrices", (long long)cap);
        if (p->n)
            memcpy(more, p->slot, (size_t)p->n * sizeof *more);
        p->slot = more;
        p->cap = cap;
    }
    st_pack_slot *s = &p->slot[p->n];
    *s = (st_pack_slot){ .name = name, .dtype = dtype, .rows = rows, .cols = cols, .bytes = bytes };
    if (st_table_put(p->by_name, name, strlen(name), p->n))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld matrices", (long long)p->n);
    p->n++;
    return SETUN_OK;
}

const st_pack_slot *st_pack_find(const st_pack *p, const char *name, uint32_t dtype, int64_t rows,
                                 int64_t cols)
{
    int64_t i;
    if (!st_table_get(p->by_name, name, strlen(name), &i))
        return NULL;
    const st_pack_slot *s = &p->slot[i];
    return s->dtype == dtype && s->rows == rows && s->cols == cols ? s : NULL;
}

setun_status st_pack_room(st_pack *p, const char *name, uint32_t dtype, int64_t rows, int64_t cols,
                          uint8_t **buffer, setun_error *err)
{
    if (p->finished)
        return st_fail(err, SETUN_FULL, "%s is asked for after the weights were complete", name);
    if (p->mode == HIT) { /* another script asked for less when the file was written */
        ST_TRY(reserve(p, p->capacity, 1, err));
        p->n_extra++;
    }
    /* After a failed matrix its slot is used again. */
    if (p->has_room)
        p->n--;
    p->has_room = 0;
    ST_TRY(add_slot(p, name, dtype, rows, cols, err));
    p->has_room = 1;
    st_pack_slot *s = &p->slot[p->n - 1];
    s->offset = p->used;
    if (s->bytes > p->capacity || p->used > p->capacity - s->bytes)
        return st_fail(err, SETUN_FULL, "%s: no room left for %lld bytes", name,
                       (long long)s->bytes);
    s->data = p->base + s->offset;
    *buffer = s->data;
    if (p->mode != STREAM)
        return SETUN_OK;
    if (s->bytes > p->scratch_bytes) {
        free(p->scratch);
        p->scratch_bytes = 0;
        p->scratch = malloc((size_t)s->bytes);
        if (!p->scratch)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to convert the %lld bytes of %s",
                           (long long)s->bytes, name);
        p->scratch_bytes = s->bytes;
    }
    *buffer = p->scratch;
    return SETUN_OK;
}

static setun_status write_padded(st_out *out, const void *bytes, int64_t n, setun_error *err)
{
    static const uint8_t zeros[PACK_ALIGN];
    ST_TRY(st_out_write(out, bytes, n, err));
    return st_out_write(out, zeros, align64(n) - n, err);
}

static setun_status write_head(st_out *out, setun_error *err)
{
    uint64_t magic = PACK_MAGIC;
    return write_padded(out, &magic, sizeof magic, err);
}

setun_status st_pack_put(st_pack *p, float scale, int64_t near, const st_pack_slot **slot,
                         setun_error *err)
{
    st_pack_slot *s = &p->slot[p->n - 1];
    s->scale = scale;
    s->near = near;
    if (p->mode == STREAM) {
        s->checksum = st_checksum(p->scratch, (size_t)s->bytes);
        setun_status st = write_padded(p->out, p->scratch, s->bytes, err);
        if (st != SETUN_OK)
            return advise_user(err, st, p);
    }
    p->used = s->offset + align64(s->bytes);
    p->has_room = 0;
    *slot = s;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the trailer */

static void add_u64(st_str *s, uint64_t v)
{
    st_str_addn(s, &v, sizeof v);
}

static void add_text(st_str *s, const char *text)
{
    size_t n = strlen(text);
    add_u64(s, n);
    st_str_addn(s, text, n);
    st_str_addn(s, "\0\0\0\0\0\0\0", (8 - n % 8) % 8);
}

static void build_trailer(const st_pack *p, st_str *s)
{
    add_text(s, p->identity);
    add_u64(s, (uint64_t)p->n);
    for (int64_t i = 0; i < p->n; i++) {
        const st_pack_slot *t = &p->slot[i];
        uint32_t bits;
        memcpy(&bits, &t->scale, 4);
        add_text(s, t->name);
        add_u64(s, t->dtype);
        add_u64(s, (uint64_t)t->rows);
        add_u64(s, (uint64_t)t->cols);
        add_u64(s, (uint64_t)t->offset);
        add_u64(s, t->checksum);
        add_u64(s, (uint64_t)t->near);
        add_u64(s, bits);
    }
}

static setun_status write_trailer(const st_pack *p, st_out *out, st_str *trailer, setun_error *err)
{
    build_trailer(p, trailer);
    if (trailer->failed)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the table of %s", p->path);
    uint64_t footer[4] = { (uint64_t)st_out_tell(out), trailer->len,
                           st_checksum(trailer->text, trailer->len), PACK_MAGIC };
    ST_TRY(st_out_write(out, trailer->text, (int64_t)trailer->len, err));
    return st_out_write(out, footer, sizeof footer, err);
}

/* A bounded reader: past the end everything is 0 and bad is set. */
typedef struct cursor {
    const uint8_t *p, *end;
    int            bad;
} cursor;

static uint64_t get_u64(cursor *c)
{
    uint64_t v = 0;
    if (c->end - c->p < 8)
        c->bad = 1;
    else {
        memcpy(&v, c->p, 8);
        c->p += 8;
    }
    return v;
}

static const char *get_text(cursor *c, uint64_t *n)
{
    *n = get_u64(c);
    uint64_t left = (uint64_t)(c->end - c->p), padded = *n + (8 - *n % 8) % 8;
    const char *s = (const char *)c->p;
    if (*n > left || padded > left)
        c->bad = 1;
    if (c->bad) {
        *n = 0;
        return "";
    }
    c->p += padded;
    return s;
}

static setun_status read_slots(st_pack *p, cursor *c, int64_t data_end, setun_error *err)
{
    uint64_t count = get_u64(c);
    if (count > PACK_MAX_SLOTS)
        return st_fail(err, SETUN_BAD_FILE, "it has too many matrices");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n;
        const char *text = get_text(c, &n);
        uint64_t dtype = get_u64(c), rows = get_u64(c), cols = get_u64(c), offset = get_u64(c), sum = get_u64(c),
                 near = get_u64(c);
        uint32_t bits = (uint32_t)get_u64(c);
        char *name = c->bad ? NULL : st_arena_strndup(p->arena, text, (size_t)n);
        if (!name)
            return st_fail(err, SETUN_BAD_FILE, "its table is cut short");
        if (dtype != SETUN_T2 && dtype != SETUN_U8 && dtype != SETUN_F32)
            return st_fail(err, SETUN_BAD_FILE, "the type of %s is not known", name);
        ST_TRY(add_slot(p, name, (uint32_t)dtype, rows > PACK_MAX_DIM ? -1 : (int64_t)rows,
                        cols > PACK_MAX_DIM ? -1 : (int64_t)cols, err));
        st_pack_slot *s = &p->slot[p->n - 1];
        if (offset % PACK_ALIGN != 0 || offset > (uint64_t)data_end ||
            s->bytes > data_end - (int64_t)offset)
            return st_fail(err, SETUN_BAD_FILE, "%s is outside of it", name);
        memcpy(&s->scale, &bits, 4);
        s->offset = (int64_t)offset;
        s->near = (int64_t)near;
        s->checksum = sum;
        s->data = (uint8_t *)(uintptr_t)(p->map.data + offset);
        if (st_checksum(s->data, (size_t)s->bytes) != sum)
            return st_fail(err, SETUN_BAD_FILE, "the checksum of %s is wrong", name);
        if (dtype == SETUN_U8)
            st_map_advise(s->data, s->bytes, 0); /* a head is not always asked for: no pages until it is */
    }
    if (c->bad || c->p != c->end)
        return st_fail(err, SETUN_BAD_FILE, "its table is cut short");
    return SETUN_OK;
}

/* Is the mapped file whole and ours?  The error says what is wrong, without the path. */
static setun_status check_file(st_pack *p, setun_error *err)
{
    const uint8_t *d = p->map.data;
    int64_t size = p->map.bytes;
    uint64_t footer[4], magic;
    if (size < PACK_HEAD + PACK_FOOTER)
        return st_fail(err, SETUN_BAD_FILE, "it is too short");
    memcpy(&magic, d, 8);
    memcpy(footer, d + size - PACK_FOOTER, PACK_FOOTER);
    if (magic != PACK_MAGIC || footer[3] != PACK_MAGIC || footer[0] < PACK_HEAD ||
        footer[0] > (uint64_t)(size - PACK_FOOTER) ||
        footer[1] != (uint64_t)(size - PACK_FOOTER) - footer[0])
        return st_fail(err, SETUN_BAD_FILE, "it is not of this version or not complete");
    if (st_checksum(d + footer[0], footer[1]) != footer[2])
        return st_fail(err, SETUN_BAD_FILE, "the checksum of its table is wrong");
    cursor c = { d + footer[0], d + size - PACK_FOOTER, 0 };
    uint64_t n;
    const char *identity = get_text(&c, &n);
    if (n != strlen(p->identity) || memcmp(identity, p->identity, n) != 0)
        return st_fail(err, SETUN_DECLINED, "the model's files, a declaration or this program have changed since");
    return read_slots(p, &c, (int64_t)footer[0], err);
}

static setun_status try_hit(st_pack *p, setun_error *err)
{
    setun_error why = { 0 };
    if (!st_is_file(p->path))
        return SETUN_OK;
    setun_status s = st_map_open(&p->map, p->path, &why);
    if (s == SETUN_OK) {
        st_map_advise(p->map.data, p->map.bytes, 1);
        s = check_file(p, &why);
    }
    if (s == SETUN_OK) {
        p->mode = HIT;
        return s;
    }
    /* A model that changed is ordinary; a file that was damaged is worth a word. */
    st_logf(&p->log, s == SETUN_DECLINED ? ST_LOG_INFO : ST_LOG_WARN, "%s is written anew: %s",
            p->path, why.text);
    st_map_close(&p->map);
    st_table_free(p->by_name);
    p->by_name = st_table_new(256);
    p->n = 0;
    return p->by_name ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for the weights");
}

/* ---------------------------------------------------------------- life */

setun_status st_pack_open(st_pack **out, const char *dir, uint64_t key, const char *identity,
                          int64_t capacity, const st_log *log, setun_error *err)
{
    st_pack *p = calloc(1, sizeof *p);
    *out = p;
    if (!p || !(p->arena = st_arena_new()) || !(p->by_name = st_table_new(256)) ||
        !(p->identity = st_arena_strdup(p->arena, identity)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the weights");
    if (log)
        p->log = *log;
    p->used = PACK_HEAD; /* memory has the same layout as the file */
    if (st_add_i64(capacity, PACK_HEAD, &p->capacity) ||
        p->capacity > INT64_MAX - 4 * (int64_t)PACK_HUGE)
        return st_fail(err, SETUN_BAD_SHAPE, "the ternary weights are too large");
    if (!dir)
        return reserve(p, p->capacity, 1, err);
    p->path = st_arena_printf(p->arena, "%s/weights-%016" PRIx64 ".t2", dir, key);
    if (!p->path)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the weights");
    setun_status s = st_make_dirs(dir, 1, err);
    if (s != SETUN_OK)
        return advise_user(err, s, p);
    ST_TRY(try_hit(p, err));
    if (p->mode == HIT)
        return SETUN_OK;
    p->mode = STREAM;
    ST_TRY(reserve(p, p->capacity, 0, err));
    s = st_out_open(&p->out, p->path, 0, err);
    if (s == SETUN_OK)
        s = write_head(p->out, err);
    return advise_user(err, s, p);
}

void st_pack_close(st_pack *p)
{
    if (!p)
        return;
    st_out_abort(p->out);
    st_map_close(&p->map);
    if (p->region)
        (void)munmap(p->region, (size_t)p->region_bytes);
    free(p->scratch);
    st_table_free(p->by_name);
    st_arena_free(p->arena);
    free(p);
}

/* Does the open file end with this trailer, at the offset where ours begins? */
static int has_trailer(int fd, int64_t at, const st_str *trailer)
{
    if (lseek(fd, 0, SEEK_END) != at + (int64_t)trailer->len + PACK_FOOTER)
        return 0;
    char part[4096];
    for (size_t done = 0; done < trailer->len;) {
        size_t want = trailer->len - done < sizeof part ? trailer->len - done : sizeof part;
        ssize_t got = pread(fd, part, want, at + (int64_t)done);
        if (got <= 0 || memcmp(part, trailer->text + done, (size_t)got) != 0)
            return 0;
        done += (size_t)got;
    }
    return 1;
}

/* Put the committed file under the addresses that views already have.  Between rename and open
 * another process may have renamed its own file over ours; it will do if its trailer is the same,
 * because the trailer has the offset and checksum of every matrix. */
static setun_status map_in_place(st_pack *p, int64_t data_end, const st_str *trailer,
                                 setun_error *err)
{
    void *m = MAP_FAILED;
    int fd = open(p->path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && has_trailer(fd, data_end, trailer))
        m = mmap(p->base, (size_t)data_end, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    if (fd >= 0)
        (void)close(fd);
    if (m == MAP_FAILED)
        return st_fail(
            err, SETUN_IO,
            "%s was replaced or could not be mapped just after it was written: start again",
            p->path);
    return SETUN_OK;
}

static setun_status finish_stream(st_pack *p, setun_error *err)
{
    st_str trailer = { 0 };
    int64_t data_end = st_out_tell(p->out);
    setun_status s = write_trailer(p, p->out, &trailer, err);
    if (s == SETUN_OK) {
        st_out *o = p->out;
        p->out = NULL; /* freed by commit, whatever happens */
        s = st_out_commit(o, err);
    }
    s = advise_user(err, s, p);
    if (s == SETUN_OK)
        s = map_in_place(p, data_end, &trailer, err);
    st_str_free(&trailer);
    free(p->scratch);
    p->scratch = NULL;
    return s;
}

/* A hit that lacked something: write a complete file for the next start.  Views stay where they are. */
static setun_status rewrite(st_pack *p, setun_error *err)
{
    st_out *out = NULL;
    st_str trailer = { 0 };
    setun_status s = st_out_open(&out, p->path, 0, err);
    if (s == SETUN_OK)
        s = write_head(out, err);
    for (int64_t i = 0; s == SETUN_OK && i < p->n; i++) {
        st_pack_slot *t = &p->slot[i];
        t->offset = st_out_tell(out);
        t->checksum = st_checksum(t->data, (size_t)t->bytes);
        s = write_padded(out, t->data, t->bytes, err);
    }
    if (s == SETUN_OK)
        s = write_trailer(p, out, &trailer, err);
    if (s == SETUN_OK) {
        s = st_out_commit(out, err);
        out = NULL;
    }
    st_out_abort(out);
    st_str_free(&trailer);
    return advise_user(err, s, p);
}

setun_status st_pack_finish(st_pack *p, setun_error *err)
{
    if (p->finished)
        return SETUN_OK;
    p->finished = 1;
    if (p->mode == STREAM)
        return finish_stream(p, err);
    if (p->mode == HIT && p->n_extra)
        return rewrite(p, err);
    if (p->mode == MEMORY && p->region)
        (void)mprotect(p->base, (size_t)(p->capacity), PROT_READ);
    return SETUN_OK;
}

int st_pack_is_hit(const st_pack *p)
{
    return p->mode == HIT && p->n_extra == 0;
}

/* rt/bundle.c -- a bundle is mapped, and checked before anything of it is believed.  See bundle.h.
 *
 * First the header and the table, then every section's checksum, then META and PLAN, record by record.  No byte of the
 * file is left out, not even those between sections, so a file in which any one is another is refused.  What
 * backends/steps.c checks again when programs are made (that a view fits its buffer) is left to it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rt/bundle.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "codegen/isa.h"

static const char *const section_name[ST_BUNDLE_N] = { "META", "PLAN", "KERNELS", "WEIGHTS", "TOKENIZER", "TEMPLATE" };

static setun_status damaged(const st_bundle *b, const char *what, setun_error *err)
{
    return st_fail(err, SETUN_BAD_FILE, "%s: damaged: %s", b->path, what);
}

/* ---------------------------------------------------------------- sections */

static uint64_t sum_of(const uint8_t *data, int64_t n)
{
    uint64_t sum = 0;
    for (int64_t at = 0; at < n; at += ST_BUNDLE_PIECE)
        sum = st_bundle_sum(sum, data + at, n - at < ST_BUNDLE_PIECE ? n - at : ST_BUNDLE_PIECE);
    return sum;
}

static setun_status read_row(st_bundle *b, int i, st_bytes *t, int64_t least, setun_error *err)
{
    uint32_t kind = st_take_u32(t), zero = st_take_u32(t);
    int64_t at = st_take_i64(t), n = st_take_i64(t), sum = st_take_i64(t);
    int ok = kind == (uint32_t)i && !zero && at >= least && at - least < ST_BUNDLE_PAGE && at % ST_BUNDLE_ALIGN == 0 && n >= 0 &&
             at <= b->map.bytes && n <= b->map.bytes - at && (i + 1 < ST_BUNDLE_N || at + n == b->map.bytes);
    for (int64_t gap = least; ok && gap < at; gap++)
        ok = b->map.data[gap] == 0;
    if (!ok)
        return st_fail(err, SETUN_BAD_FILE, "%s: damaged: section %s is not where it belongs", b->path, section_name[i]);
    if (sum_of(b->map.data + at, n) != (uint64_t)sum)
        return st_fail(err, SETUN_BAD_FILE, "%s: damaged: the checksum of section %s does not fit", b->path, section_name[i]);
    b->section[i] = b->map.data + at;
    b->bytes[i] = n;
    return SETUN_OK;
}

static setun_status read_sections(st_bundle *b, setun_error *err)
{
    const int64_t table = ST_BUNDLE_HEADER + ST_BUNDLE_N * ST_BUNDLE_ROW;
    static const uint8_t zeros[32];
    /* A map of nothing has no address, to which nothing may be added. */
    st_bytes h = { b->map.bytes ? b->map.data : zeros, b->map.bytes ? b->map.data + b->map.bytes : zeros, 0 };
    const char *magic = st_take_bytes(&h, 8);
    if (!magic || memcmp(magic, ST_BUNDLE_MAGIC, 8))
        return st_fail(err, SETUN_BAD_FILE, "%s is not a bundle of setun export", b->path);
    uint32_t version = st_take_u32(&h), n = st_take_u32(&h);
    if (!h.bad && version != ST_BUNDLE_VERSION)
        return st_fail(err, SETUN_UNKNOWN, "%s is a bundle of version %u; this program knows version %u", b->path, version,
                       ST_BUNDLE_VERSION);
    int64_t bytes = st_take_i64(&h), sum = st_take_i64(&h);
    if (h.bad || b->map.bytes < table)
        return damaged(b, "it ends before its table of sections does", err);
    if (bytes != b->map.bytes)
        return st_fail(err, SETUN_BAD_FILE, "%s: damaged: it has %lld bytes, and by its header %lld", b->path,
                       (long long)b->map.bytes, (long long)bytes);
    if (n != ST_BUNDLE_N || memcmp(h.at, zeros, sizeof zeros) ||
        (uint64_t)sum != st_checksum(b->map.data, 24) * 31 + st_checksum(b->map.data + ST_BUNDLE_HEADER, ST_BUNDLE_N * ST_BUNDLE_ROW))
        return damaged(b, "the checksum of its header does not fit", err);
    st_bytes t = { b->map.data + ST_BUNDLE_HEADER, b->map.data + table, 0 };
    for (int i = 0; i < ST_BUNDLE_N; i++)
        ST_TRY(read_row(b, i, &t, i ? (b->section[i - 1] - b->map.data) + b->bytes[i - 1] : table, err));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- META */

/* A text of the bundle's own, which goes into messages; NULL: it cannot be had. */
static const char *take_name(st_bundle *b, st_bytes *s)
{
    int64_t n;
    const char *text = st_take_text(s, &n);
    if (s->bad || n > 4000 || memchr(text, 0, (size_t)n) || memchr(text, '\n', (size_t)n) || !st_text_plain(text, (size_t)n)) {
        s->bad = 1;
        return "";
    }
    const char *copy = st_arena_strndup(b->arena, text, (size_t)n);
    s->bad |= !copy;
    return copy ? copy : "";
}

static void take_into(st_bundle *b, st_bytes *s, char *to, size_t size)
{
    const char *text = take_name(b, s);
    if (strlen(text) >= size)
        s->bad = 1;
    else
        memcpy(to, text, strlen(text) + 1);
}

static setun_status read_meta(st_bundle *b, setun_error *err)
{
    st_bytes s = { b->section[ST_BUNDLE_META], b->section[ST_BUNDLE_META] + b->bytes[ST_BUNDLE_META], 0 };
    b->name = take_name(b, &s);
    b->made_by = take_name(b, &s);
    take_into(b, &s, b->target.triple, sizeof b->target.triple);
    take_into(b, &s, b->target.cpu, sizeof b->target.cpu);
    take_into(b, &s, b->target.features, sizeof b->target.features);
    b->target.vlen = (int32_t)st_take_up_to(&s, 65536);
    b->n_ctx = st_take_up_to(&s, ST_RT_MAX_CTX);
    b->n_batch = st_take_up_to(&s, (uint32_t)b->n_ctx);
    b->n_vocab = st_take_up_to(&s, INT32_MAX);
    b->n_end = (int32_t)st_take_up_to(&s, ST_RT_MAX_END);
    for (int32_t i = 0; i < b->n_end; i++)
        b->end[i] = (int32_t)st_take_up_to(&s, (uint32_t)b->n_vocab);
    if (s.bad || s.at != s.end || !b->n_ctx || !b->n_batch || !b->n_vocab)
        return damaged(b, "a number or a text of section META is out of range", err);
    const st_isa_arch *a = st_isa_find(b->target.triple);
    b->target.arch = a ? a->arch : ST_ARCH_OTHER;
    b->target.big_endian = a ? a->big_endian : 0;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- PLAN */

static setun_status read_buffers(st_bundle *b, st_bytes *s, setun_error *err)
{
    b->n_buffer = st_take_count(s, 20);
    b->buffer = st_arena_array(b->arena, b->n_buffer, sizeof *b->buffer);
    if (!b->buffer)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its plan", b->path);
    for (uint32_t i = 0; i < b->n_buffer; i++) {
        st_rt_buffer *f = &b->buffer[i];
        f->kind = st_take_up_to(s, ST_BUFFER_N - 1);
        f->at = st_take_i64(s);
        f->bytes = st_take_i64(s);
        int64_t most = f->kind == ST_BUFFER_CONST ? b->bytes[ST_BUNDLE_WEIGHTS] : (int64_t)1 << 40;
        if (s->bad || f->at < 0 || f->at % ST_BUNDLE_ALIGN || f->bytes < 0 || f->at > most || f->bytes > most - f->at ||
            (f->kind == ST_BUFFER_TEMP) != (i == 0))
            return st_fail(err, SETUN_BAD_FILE, "%s: damaged: buffer %u is not a piece of its weights, nor one to be made", b->path,
                           i);
    }
    for (int i = 0; i < ST_RT_N_INPUT; i++) {
        uint32_t at = st_take_u32(s);
        int64_t rows = i == ST_RT_OUTPUTS ? 1 : b->n_batch;
        if (s->bad || at >= b->n_buffer || b->buffer[at].kind != ST_BUFFER_INPUT || b->buffer[at].bytes < 4 * rows)
            return damaged(b, "it has no buffers for what is fed", err);
        b->input[i] = at;
    }
    return SETUN_OK;
}

static setun_status read_kernel(st_bundle *b, st_rt_kernel *k, st_bytes *s, setun_error *err)
{
    setun_slot *slot = st_arena_array(b->arena, ST_RT_MAX_SLOTS, sizeof *slot);
    setun_error why = { 0, "" };
    if (!slot)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its plan", b->path);
    k->name = take_name(b, s);
    k->at = st_take_i64(s);
    k->bytes = st_take_i64(s);
    k->op.size = (uint32_t)sizeof k->op;
    k->op.name = k->name;
    k->op.n_in = st_take_up_to(s, ST_RT_MAX_ARGS);
    k->op.n_out = st_take_up_to(s, ST_RT_MAX_ARGS);
    k->code.size = (uint32_t)sizeof k->code;
    k->code.slot = slot;
    k->code.n_slot = st_take_up_to(s, ST_RT_MAX_SLOTS);
    for (uint32_t i = 0; i < k->code.n_slot; i++) {
        slot[i].arg = (int32_t)st_take_up_to(s, 2 * ST_RT_MAX_ARGS);
        slot[i].dim = (int32_t)st_take_up_to(s, SETUN_MAX_RANK);
    }
    for (int i = 0; i < 2; i++) { /* argument 0 is "none", so that numbers have no signs */
        k->code.grid.at[i].arg = (int32_t)st_take_up_to(s, 2 * ST_RT_MAX_ARGS) - 1;
        k->code.grid.at[i].dim = (int32_t)st_take_up_to(s, SETUN_MAX_RANK);
        k->code.grid.granule[i] = st_take_i64(s);
    }
    k->code.scratch_bytes = st_take_i64(s);
    if (s->bad || k->at < 0 || k->bytes < 0 || k->at > b->bytes[ST_BUNDLE_KERNELS] ||
        k->bytes > b->bytes[ST_BUNDLE_KERNELS] - k->at)
        return damaged(b, "a kernel's record is out of range", err);
    if (st_image_open(&k->image, b->section[ST_BUNDLE_KERNELS] + k->at, k->bytes, &why) != SETUN_OK)
        return st_fail(err, why.code, "%s: kernel %s: %s", b->path, k->name, why.text);
    k->code.launch_abi = k->image.launch_abi;
    return SETUN_OK;
}

/* One argument of a step; *buffer says which buffer it is in. */
static int take_operand(const st_bundle *b, st_bytes *s, int is_out, setun_operand *o, uint32_t *buffer)
{
    uint32_t at = st_take_u32(s);
    o->shape.dtype = st_take_u32(s);
    o->shape.rank = st_take_up_to(s, SETUN_MAX_RANK);
    o->offset = st_take_i64(s);
    for (uint32_t i = 0; i < SETUN_MAX_RANK; i++)
        o->shape.dim[i] = i < o->shape.rank ? st_take_i64(s) : 1;
    *buffer = at;
    if (s->bad || at >= b->n_buffer || !setun_align(o->shape.dtype) || o->offset < 0 || o->offset > b->buffer[at].bytes)
        return -1;
    for (uint32_t i = 0; i < o->shape.rank; i++)
        if (o->shape.dim[i] < (i ? 0 : -SETUN_N_SYMBOLS))
            return -1;
    /* The pages of constants cannot be written, and what is fed is nobody's result. */
    return is_out && (b->buffer[at].kind == ST_BUFFER_CONST || b->buffer[at].kind == ST_BUFFER_INPUT) ? -1 : 0;
}

static setun_status read_step(st_bundle *b, st_rt_program *p, uint32_t i, uint32_t *buffer, st_bytes *s, setun_error *err)
{
    setun_step *t = &p->step[i];
    t->label = take_name(b, s);
    uint32_t at = st_take_u32(s);
    if (s->bad || at >= b->n_kernel)
        return damaged(b, "a step has no kernel", err);
    const st_rt_kernel *k = &b->kernel[at];
    setun_operand *o = st_arena_array(b->arena, k->op.n_in + k->op.n_out, sizeof *o);
    if (!o)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its plan", b->path);
    t->size = (uint32_t)sizeof *t;
    t->op = &k->op;
    t->n_in = k->op.n_in;
    t->n_out = k->op.n_out;
    t->in = o;
    t->out = o + k->op.n_in;
    t->code = &k->code;
    p->kernel[i] = at;
    for (uint32_t j = 0; j < t->n_in + t->n_out; j++)
        if (take_operand(b, s, j >= t->n_in, &o[j], &buffer[j]))
            return st_fail(err, SETUN_BAD_FILE, "%s: damaged: argument %u of step %s is out of range", b->path, j, t->label);
    return SETUN_OK;
}

static setun_status read_program(st_bundle *b, st_rt_program *p, st_bytes *s, setun_error *err)
{
    p->n = st_take_count(s, 8);
    p->step = st_arena_array(b->arena, p->n, sizeof *p->step);
    p->kernel = st_arena_array(b->arena, p->n, sizeof *p->kernel);
    p->buffer = st_arena_array(b->arena, p->n, 2 * ST_RT_MAX_ARGS * (int64_t)sizeof *p->buffer);
    if (!p->step || !p->kernel || !p->buffer)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its plan", b->path);
    uint32_t *buffer = p->buffer;
    for (uint32_t i = 0; i < p->n; i++) {
        ST_TRY(read_step(b, p, i, buffer, s, err));
        buffer += p->step[i].n_in + p->step[i].n_out;
    }
    p->logits = st_take_i64(s);
    if (s->bad || p->logits < 0 || p->logits % 4 || p->logits > b->buffer[0].bytes || 4 * b->n_vocab > b->buffer[0].bytes - p->logits)
        return damaged(b, "its logits are not in its memory", err);
    return SETUN_OK;
}

static setun_status read_plan(st_bundle *b, setun_error *err)
{
    st_bytes s = { b->section[ST_BUNDLE_PLAN], b->section[ST_BUNDLE_PLAN] + b->bytes[ST_BUNDLE_PLAN], 0 };
    ST_TRY(read_buffers(b, &s, err));
    b->n_kernel = st_take_count(&s, 64);
    b->kernel = st_arena_array(b->arena, b->n_kernel, sizeof *b->kernel);
    if (!b->kernel)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory for its plan", b->path);
    for (uint32_t i = 0; i < b->n_kernel; i++)
        ST_TRY(read_kernel(b, &b->kernel[i], &s, err));
    for (int i = 0; i < ST_RT_N_PROGRAM; i++)
        ST_TRY(read_program(b, &b->program[i], &s, err));
    return s.bad || s.at != s.end ? damaged(b, "section PLAN has another length than what is in it", err) : SETUN_OK;
}

/* ---------------------------------------------------------------- the whole */

setun_status st_bundle_open(st_bundle *b, const char *path, setun_error *err)
{
    memset(b, 0, sizeof *b);
    b->arena = st_arena_new();
    b->path = b->arena ? st_arena_strdup(b->arena, path) : NULL;
    setun_status s = b->path ? st_map_open(&b->map, path, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", path);
    if (s == SETUN_OK)
        s = read_sections(b, err);
    if (s == SETUN_OK)
        s = read_meta(b, err);
    if (s == SETUN_OK)
        s = read_plan(b, err);
    if (s != SETUN_OK)
        st_bundle_close(b);
    return s;
}

void st_bundle_close(st_bundle *b)
{
    st_map_close(&b->map);
    st_arena_free(b->arena);
    memset(b, 0, sizeof *b);
}

setun_status st_bundle_fits(const st_bundle *b, setun_error *err)
{
    setun_status s = st_isa_fits(&b->target, err);
    if (s != SETUN_OK)
        st_wrap(err, "%s cannot run here", b->path);
    return s;
}

int st_bundle_is(const char *path)
{
    st_map m;
    if (st_map_open(&m, path, NULL) != SETUN_OK)
        return 0;
    int is = m.bytes >= 8 && memcmp(m.data, ST_BUNDLE_MAGIC, 8) == 0;
    st_map_close(&m);
    return is;
}

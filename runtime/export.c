/* runtime/export.c -- a loaded model as a bundle: see rt/bundle.h, which says what is where.
 *
 * The two programs that a session would run with all logits are written down step by step, as session.c gives them to a
 * backend: which kernel, which views of which buffers.  Steps that store nothing (views of other memory) are left out here,
 * as there.  Weights go through twice, for the table's checksum and to the file; for a machine of the other byte order they
 * are turned on the way. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"
#include "rt/bundle.h"
#include "runtime/export_text.h"
#include "runtime/model.h"

#define KERNEL_WORK ((int64_t)1 << 20) /* bytes that take as long as making a kernel, for the progress */
#define SLACK 64                       /* readable behind the last constant: kernels load whole registers */
#define TURN_BYTES (64 << 10)

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define HOST_BIG 1
#else
#define HOST_BIG 0
#endif

typedef struct constant {
    const char *name;
    setun_view  view;
    int64_t     at, bytes;
} constant;

typedef struct exporter {
    const setun_model          *m;
    const setun_export_options *o;
    st_arena                   *arena;
    const char                **name;      /* of every buffer but the temporary one */
    st_rt_buffer               *buffer;
    uint32_t                    n_buffer;
    constant                   *constant;
    uint32_t                    n_constant;
    const st_kernel           **kernel;    /* those that are used, each once */
    uint32_t                    n_kernel;
    int64_t                     weights;   /* bytes of section WEIGHTS */
    int64_t                     done, total;
    st_str                      section[ST_BUNDLE_N]; /* all but WEIGHTS */
    st_out                     *out;       /* NULL: only the checksum is wanted */
    uint8_t                    *piece;
    int64_t                     n_piece;
    uint64_t                    sum;
} exporter;

static setun_status no_memory(const exporter *x, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "%s: no memory to export it", x->m->path);
}

static setun_status progress(exporter *x, int64_t work, setun_error *err)
{
    x->done += work;
    if (x->o->progress && x->o->progress(x->o->user, x->done, x->total))
        return st_fail(err, SETUN_CANCELLED, "%s: cancelled", x->o->out);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- what there is */

static int64_t find_buffer(const exporter *x, const char *name)
{
    for (uint32_t i = 1; i < x->n_buffer; i++)
        if (strcmp(x->name[i], name) == 0)
            return i;
    return -1;
}

/* Both graphs name their constants, states and inputs alike. */
static setun_status collect_buffers(exporter *x, setun_error *err)
{
    const setun_model *m = x->m;
    const st_graph *g = m->program[ST_MANY].graph;
    x->name = st_arena_array(x->arena, g->n_value + 1, sizeof *x->name);
    x->buffer = st_arena_array(x->arena, g->n_value + 1, sizeof *x->buffer);
    x->constant = st_arena_array(x->arena, g->n_value + 1, sizeof *x->constant);
    if (!x->name || !x->buffer || !x->constant)
        return no_memory(x, err);
    x->n_buffer = 1;
    for (int i = 0; i < ST_RT_N_PROGRAM; i++)
        if (m->program[i].plan->bytes > x->buffer[0].bytes)
            x->buffer[0].bytes = m->program[i].plan->bytes;
    for (uint32_t v = 0; v < g->n_value; v++) {
        const st_value *value = &g->value[v];
        if (value->kind == ST_TEMP)
            continue;
        setun_view view = value->view;
        if (view.rank && view.dim[0] < 0)
            view.dim[0] = view.dim[0] == SETUN_DIM_TOKENS ? m->n_batch : m->n_outputs;
        st_rt_buffer *b = &x->buffer[x->n_buffer];
        b->bytes = setun_view_bytes(&view);
        b->kind = value->kind == ST_CONST ? ST_BUFFER_CONST : value->kind == ST_STATE ? ST_BUFFER_STATE : ST_BUFFER_INPUT;
        x->name[x->n_buffer++] = value->name;
        if (value->kind != ST_CONST)
            continue;
        if (!view.data)
            return st_fail(err, SETUN_BAD_ARG, "%s: constant '%s' has no data", m->path, value->name);
        b->at = x->weights;
        x->constant[x->n_constant++] = (constant){ value->name, view, x->weights, b->bytes };
        x->weights += (b->bytes + SLACK + ST_BUNDLE_ALIGN - 1) / ST_BUNDLE_ALIGN * ST_BUNDLE_ALIGN;
    }
    return SETUN_OK;
}

static int runs(const st_program *p, uint32_t planned)
{
    const st_kernel *k = p->kernel[p->plan->step[planned].node];
    return !k || k->writes;
}

static setun_status collect_kernels(exporter *x, setun_error *err)
{
    const setun_model *m = x->m;
    x->kernel = st_arena_array(x->arena, m->kernels->n + 1, sizeof *x->kernel);
    if (!x->kernel)
        return no_memory(x, err);
    for (int i = 0; i < ST_RT_N_PROGRAM; i++) {
        const st_program *p = &m->program[i];
        for (uint32_t s = 0; s < p->plan->n_step; s++) {
            const st_node *node = &p->graph->node[p->plan->step[s].node];
            const st_kernel *k = p->kernel[p->plan->step[s].node];
            uint32_t at = 0;
            if (!runs(p, s))
                continue;
            if (!k)
                return st_fail(err, SETUN_UNKNOWN, "%s: the step '%s%s%s' has no kernel; a bundle is kernels alone", m->path,
                               node->scope, *node->scope ? " " : "", node->op->name);
            while (at < x->n_kernel && x->kernel[at] != k)
                at++;
            if (at == x->n_kernel)
                x->kernel[x->n_kernel++] = k;
        }
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- META, PLAN, KERNELS */

static void put_name(st_str *s, const char *text) { st_put_text(s, text, (int64_t)strlen(text)); }

static void put_meta(exporter *x)
{
    const setun_model *m = x->m;
    const st_target *t = &m->engine->target;
    const char *slash = strrchr(m->path, '/');
    st_str *s = &x->section[ST_BUNDLE_META];
    put_name(s, slash && slash[1] ? slash + 1 : m->path);
    put_name(s, SETUN_VERSION);
    put_name(s, t->triple);
    put_name(s, t->cpu);
    put_name(s, t->features);
    st_put_u32(s, (uint32_t)t->vlen);
    st_put_u32(s, (uint32_t)m->n_ctx);
    st_put_u32(s, (uint32_t)m->n_batch);
    st_put_u32(s, (uint32_t)m->n_vocab);
    st_put_u32(s, (uint32_t)m->n_end);
    for (int32_t i = 0; i < m->n_end; i++)
        st_put_u32(s, (uint32_t)m->end[i]);
}

static setun_status put_buffers(exporter *x, st_str *s, setun_error *err)
{
    static const char *const inputs[ST_RT_N_INPUT] = { "tokens", "positions", "outputs" };
    st_put_u32(s, x->n_buffer);
    for (uint32_t i = 0; i < x->n_buffer; i++) {
        st_put_u32(s, x->buffer[i].kind);
        st_put_i64(s, x->buffer[i].at);
        st_put_i64(s, x->buffer[i].bytes);
    }
    for (int i = 0; i < ST_RT_N_INPUT; i++) {
        int64_t at = find_buffer(x, inputs[i]);
        if (at < 0)
            return st_fail(err, SETUN_BAD_SCRIPT, "%s: the graph does not use the input '%s'", x->m->script, inputs[i]);
        st_put_u32(s, (uint32_t)at);
    }
    return SETUN_OK;
}

static setun_status put_kernel(exporter *x, const st_kernel *k, st_str *s, setun_error *err)
{
    st_str *images = &x->section[ST_BUNDLE_KERNELS];
    const st_kir *kir = k->kir;
    char *image;
    int64_t n;
    ST_TRY(st_kernel_image(x->m->kernels, k, &image, &n, err));
    put_name(s, k->name);
    st_put_i64(s, (int64_t)images->len);
    st_put_i64(s, n);
    st_put_u32(s, kir->n_in);
    st_put_u32(s, kir->n_out);
    st_put_u32(s, kir->n_slot);
    for (uint32_t i = 0; i < kir->n_slot; i++) {
        st_put_u32(s, (uint32_t)kir->slot[i].arg);
        st_put_u32(s, (uint32_t)kir->slot[i].dim);
    }
    for (int i = 0; i < 2; i++) {
        int none = kir->grid.at[i].arg < 0;
        st_put_u32(s, none ? 0 : (uint32_t)kir->grid.at[i].arg + 1);
        st_put_u32(s, none ? 0 : (uint32_t)kir->grid.at[i].dim);
        st_put_i64(s, none ? 1 : kir->grid.granule[i]);
    }
    st_put_i64(s, kir->scratch_bytes);
    st_str_addn(images, image, (size_t)n);
    free(image);
    return progress(x, KERNEL_WORK, err);
}

static void put_operand(const exporter *x, const st_program *p, st_value_id v, st_str *s)
{
    const st_value *value = &p->graph->value[v], *root = &p->graph->value[value->root];
    int temp = root->kind == ST_TEMP;
    st_put_u32(s, temp ? 0 : (uint32_t)find_buffer(x, root->name));
    st_put_u32(s, value->view.dtype);
    st_put_u32(s, value->view.rank);
    st_put_i64(s, temp ? p->plan->place[value->root].offset : 0);
    for (uint32_t i = 0; i < value->view.rank; i++)
        st_put_i64(s, value->view.dim[i]);
}

static setun_status put_program(const exporter *x, const st_program *p, st_str *s, setun_error *err)
{
    st_value_id logits = st_program_output(p, "logits");
    const st_value *root = &p->graph->value[p->graph->value[logits].root];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->plan->n_step; i++)
        n += (uint32_t)runs(p, i);
    st_put_u32(s, n);
    for (uint32_t i = 0; i < p->plan->n_step; i++) {
        const st_node *node = &p->graph->node[p->plan->step[i].node];
        uint32_t k = 0;
        char label[256];
        if (!runs(p, i))
            continue;
        while (x->kernel[k] != p->kernel[p->plan->step[i].node])
            k++;
        (void)snprintf(label, sizeof label, "%s%s%s", node->scope, *node->scope ? " " : "", node->op->name);
        put_name(s, label);
        st_put_u32(s, k);
        for (uint32_t j = 0; j < node->op->n_in; j++)
            put_operand(x, p, node->in[j], s);
        for (uint32_t j = 0; j < node->op->n_out; j++)
            put_operand(x, p, node->out[j], s);
    }
    if (root->kind != ST_TEMP)
        return st_fail(err, SETUN_BAD_SCRIPT, "%s: the output 'logits' must be computed", x->m->script);
    st_put_i64(s, p->plan->place[p->graph->value[logits].root].offset);
    return SETUN_OK;
}

static setun_status put_plan(exporter *x, setun_error *err)
{
    st_str *s = &x->section[ST_BUNDLE_PLAN];
    ST_TRY(put_buffers(x, s, err));
    st_put_u32(s, x->n_kernel);
    for (uint32_t i = 0; i < x->n_kernel; i++)
        ST_TRY(put_kernel(x, x->kernel[i], s, err));
    for (int i = 0; i < ST_RT_N_PROGRAM; i++)
        ST_TRY(put_program(x, &x->m->program[i], s, err));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- WEIGHTS */

static void turn(uint8_t *p, int n)
{
    for (int i = 0; i < n / 2; i++) {
        uint8_t b = p[i];
        p[i] = p[n - 1 - i];
        p[n - 1 - i] = b;
    }
}

/* The numbers of more than a byte in one block (or element) change their order; setun/types.h draws the blocks. */
static void turn_block(uint32_t dtype, uint8_t *p)
{
    switch (dtype) {
    case SETUN_F32: case SETUN_I32: turn(p, 4); break;
    case SETUN_F16: case SETUN_BF16: case SETUN_I16: turn(p, 2); break;
    case SETUN_I64: turn(p, 8); break;
    case SETUN_Q8: case SETUN_Q4_0: case SETUN_Q8_0: turn(p, 2); break;
    case SETUN_Q4_K: turn(p, 2); turn(p + 2, 2); break;
    case SETUN_Q6_K: turn(p + 208, 2); break;
    default: break; /* bytes, and ternary codes in bytes */
    }
}

static setun_status flush(exporter *x, setun_error *err)
{
    int64_t n = x->n_piece;
    x->n_piece = 0;
    x->sum = st_bundle_sum(x->sum, x->piece, n);
    if (x->out)
        ST_TRY(st_out_write(x->out, x->piece, n, err));
    return progress(x, n, err);
}

static setun_status put_bytes(exporter *x, const void *bytes, int64_t n, setun_error *err)
{
    for (int64_t at = 0; at < n;) {
        int64_t k = n - at < ST_BUNDLE_PIECE - x->n_piece ? n - at : ST_BUNDLE_PIECE - x->n_piece;
        memcpy(x->piece + x->n_piece, (const char *)bytes + at, (size_t)k);
        x->n_piece += k;
        at += k;
        if (x->n_piece == ST_BUNDLE_PIECE)
            ST_TRY(flush(x, err));
    }
    return SETUN_OK;
}

static setun_status put_turned(exporter *x, const constant *c, setun_error *err)
{
    uint8_t part[TURN_BYTES];
    int64_t block = setun_row_bytes(c->view.dtype, setun_block(c->view.dtype)), most = TURN_BYTES / block * block;
    for (int64_t at = 0; at < c->bytes; at += most) {
        int64_t n = c->bytes - at < most ? c->bytes - at : most;
        memcpy(part, (const char *)c->view.data + at, (size_t)n);
        for (int64_t i = 0; i < n; i += block)
            turn_block(c->view.dtype, part + i);
        ST_TRY(put_bytes(x, part, n, err));
    }
    return SETUN_OK;
}

static setun_status put_weights(exporter *x, setun_error *err)
{
    static const uint8_t zeros[SLACK + ST_BUNDLE_ALIGN];
    int64_t at = 0;
    x->sum = 0;
    for (uint32_t i = 0; i < x->n_constant; i++) {
        const constant *c = &x->constant[i];
        int64_t end = i + 1 < x->n_constant ? x->constant[i + 1].at : x->weights;
        ST_TRY(x->m->engine->target.big_endian != HOST_BIG ? put_turned(x, c, err) : put_bytes(x, c->view.data, c->bytes, err));
        ST_TRY(put_bytes(x, zeros, end - c->at - c->bytes, err));
        at = end;
    }
    return at && x->n_piece ? flush(x, err) : SETUN_OK;
}

/* ---------------------------------------------------------------- the file */

static setun_status put_zeros(st_out *out, int64_t to, setun_error *err)
{
    static const uint8_t zeros[ST_BUNDLE_PAGE];
    int64_t n = to - st_out_tell(out);
    return n ? st_out_write(out, zeros, n, err) : SETUN_OK;
}

static void put_header(const exporter *x, const int64_t at[ST_BUNDLE_N], const int64_t bytes[ST_BUNDLE_N], uint64_t weights_sum,
                       st_str *h)
{
    st_str table = { 0 };
    int64_t end = at[ST_BUNDLE_N - 1] + bytes[ST_BUNDLE_N - 1];
    for (int i = 0; i < ST_BUNDLE_N; i++) {
        uint64_t sum = weights_sum;
        if (i != ST_BUNDLE_WEIGHTS) {
            sum = 0;
            for (int64_t k = 0; k < bytes[i]; k += ST_BUNDLE_PIECE)
                sum = st_bundle_sum(sum, x->section[i].text + k, bytes[i] - k < ST_BUNDLE_PIECE ? bytes[i] - k : ST_BUNDLE_PIECE);
        }
        st_put_u32(&table, (uint32_t)i);
        st_put_u32(&table, 0);
        st_put_i64(&table, at[i]);
        st_put_i64(&table, bytes[i]);
        st_put_i64(&table, (int64_t)sum);
    }
    st_str_addn(h, ST_BUNDLE_MAGIC, 8);
    st_put_u32(h, ST_BUNDLE_VERSION);
    st_put_u32(h, ST_BUNDLE_N);
    st_put_i64(h, end);
    if (h->failed || table.failed)
        h->failed = 1;
    else
        st_put_i64(h, (int64_t)(st_checksum(h->text, 24) * 31 + st_checksum(table.text, table.len)));
    for (int i = 0; i < 4; i++)
        st_put_i64(h, 0);
    st_str_addn(h, table.text, table.len);
    st_str_free(&table);
}

static setun_status write_sections(exporter *x, const int64_t at[ST_BUNDLE_N], const st_str *header, setun_error *err)
{
    ST_TRY(st_out_write(x->out, header->text, (int64_t)header->len, err));
    for (int i = 0; i < ST_BUNDLE_N; i++) {
        ST_TRY(put_zeros(x->out, at[i], err));
        if (i == ST_BUNDLE_WEIGHTS)
            ST_TRY(put_weights(x, err));
        else if (x->section[i].len)
            ST_TRY(st_out_write(x->out, x->section[i].text, (int64_t)x->section[i].len, err));
    }
    return SETUN_OK;
}

static setun_status write_file(exporter *x, setun_error *err)
{
    int64_t at[ST_BUNDLE_N], bytes[ST_BUNDLE_N], end = ST_BUNDLE_HEADER + ST_BUNDLE_N * ST_BUNDLE_ROW;
    st_str header = { 0 };
    for (int i = 0; i < ST_BUNDLE_N; i++) {
        int64_t align = i == ST_BUNDLE_WEIGHTS ? ST_BUNDLE_PAGE : ST_BUNDLE_ALIGN;
        if (x->section[i].failed)
            return no_memory(x, err);
        bytes[i] = i == ST_BUNDLE_WEIGHTS ? x->weights : (int64_t)x->section[i].len;
        at[i] = (end + align - 1) / align * align;
        end = at[i] + bytes[i];
    }
    ST_TRY(put_weights(x, err));
    put_header(x, at, bytes, x->sum, &header);
    setun_status s = header.failed ? no_memory(x, err) : st_out_open(&x->out, x->o->out, 1, err);
    if (s == SETUN_OK)
        s = write_sections(x, at, &header, err);
    if (s == SETUN_OK)
        s = st_out_commit(x->out, err);
    else
        st_out_abort(x->out);
    st_str_free(&header);
    return s;
}

/* ---------------------------------------------------------------- */

static setun_status check(const setun_model *m, setun_error *err)
{
    if (!m->has_logits)
        return st_fail(err, SETUN_BAD_ARG, "%s makes embeddings of texts; a bundle is for models that predict tokens", m->path);
    if (!m->engine->compiles || (m->engine->o.interpret && !m->engine->o.target))
        return st_fail(err, SETUN_BAD_ARG, "%s cannot be exported: a bundle needs compiled kernels, and here there is no code "
                       "generator, or it was not to be used", m->path);
    if (!m->backend[0]->backend_info.wants_code)
        return st_fail(err, SETUN_BAD_ARG, "%s cannot be exported from the backend '%s', which runs no kernels", m->path,
                       m->backend[0]->backend_info.name);
    if (m->packed.name && m->engine->target.big_endian != HOST_BIG)
        return st_fail(err, SETUN_UNKNOWN, "%s: the packing '%s' is not known in the byte order of %s", m->path, m->packed.name,
                       m->engine->target.triple);
    return SETUN_OK;
}

static setun_status export(exporter *x, setun_error *err)
{
    ST_TRY(collect_buffers(x, err));
    ST_TRY(collect_kernels(x, err));
    x->total = x->n_kernel * KERNEL_WORK + 2 * x->weights;
    put_meta(x);
    ST_TRY(put_plan(x, err));
    if (x->m->vocab.tokenizer) {
        ST_TRY(st_export_tokenizer(x->m, &x->section[ST_BUNDLE_TOKENIZER], err));
        ST_TRY(st_export_template(x->m, NULL, &x->section[ST_BUNDLE_TEMPLATE], NULL, 0, err));
    }
    return write_file(x, err);
}

setun_status setun_model_export(const setun_model *m, const setun_export_options *o, setun_error *err)
{
    exporter x = { .m = m, .o = o };
    if (!o || !SETUN_HAS(setun_export_options, o, out))
        return st_fail(err, SETUN_BAD_ARG, "setun_model_export: options.size is too small, or there is no file to write to");
    ST_TRY(check(m, err));
    x.arena = st_arena_new();
    x.piece = malloc(ST_BUNDLE_PIECE);
    setun_status s = x.arena && x.piece ? export(&x, err) : no_memory(&x, err);
    for (int i = 0; i < ST_BUNDLE_N; i++)
        st_str_free(&x.section[i]);
    free(x.piece);
    st_arena_free(x.arena);
    return s;
}

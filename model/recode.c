/* model/recode.c -- see recode.h.
 *
 *     open input -> list of output tensors -> header -> bytes -> open output -> compare -> rename
 *
 * What a tensor becomes is decided before anything is written, so that what does not fit is refused at
 * once: here shapes, while writing (recode_rows.c) scales and codes.  What was written is then read by
 * the same readers as any model, which is also how keys are checked: a configuration that says
 * something else than the input's is an error, unless the difference is known to be harmless. */
#include "model/recode.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/carry.h"
#include "model/write_safetensors.h"
#include "setun/numerics.h"

#define MODEL "model.gguf"

typedef struct job {
    const st_recode       *o;
    const st_gguf_packing *ternary, *floats; /* of a GGUF file; of float matrices, NULL: as they are */
    int                    planes;           /* linear layers of a directory are packed */
    st_source              in;
    st_recode_item        *item;
    int64_t                n;
    st_newdir              dir;
    st_watch               watch;
    st_str                *report;
} job;

const char *st_recode_forms(void)
{
    return "hf, hf-float, tq1_0, tq2_0, i2_s, i2_s-arm, i2_s-rows4, iq1_bn, iq2_bn, q2_0, q2_0-128, pq2_0, ptq1_0";
}

static setun_status no_memory(const job *j, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", j->o->in);
}

/* ---------------------------------------------------------------- plans */

static const st_gguf_packing *plain(uint32_t dtype)
{
    return st_gguf_packing_find(dtype == SETUN_BF16 ? "bf16" : dtype == SETUN_F16 ? "f16" : "f32");
}

/* The smallest float that has exactly this value. */
static const st_gguf_packing *exact(float x)
{
    if (setun_bf16_f32(setun_f32_bf16(x)) == x)
        return st_gguf_packing_find("bf16");
    return st_gguf_packing_find(setun_f16_f32(setun_f32_f16(x)) == x ? "f16" : "f32");
}

/* What floats become: matrices what was asked for, or what they are; vectors stay, and are F32 in a
 * GGUF file, where readers expect it. */
static const st_gguf_packing *choose_floats(const job *j, const st_source_tensor *t)
{
    if (t->rank == 2 && j->floats && !t->ternary)
        return j->floats;
    return t->rank < 2 && j->ternary ? st_gguf_packing_find("f32") : plain(t->dtype);
}

static st_recode_item *add(job *j, st_source_tensor *t, const char *name, int how)
{
    st_recode_item *item = &j->item[j->n++];
    *item = (st_recode_item){ .from = t, .name = name, .how = how, .rows = t->rows };
    return item;
}

static void set_floats(st_recode_item *item, const st_gguf_packing *p)
{
    item->packing = p;
    item->type = st_gguf_type_named(p->type);
}

/* ---- a directory */

static const char *safetensors_type(const st_recode_item *item)
{
    return item->how == ST_RECODE_PLANES ? "U8" : item->packing->type;
}

static setun_status plan_planes(job *j, st_source_tensor *t, setun_error *err)
{
    float scale;
    ST_TRY(st_recode_one_scale(&j->in, t, "a packed matrix", &scale, err));
    const char *name = st_arena_printf(j->in.arena, "%s_scale", t->name);
    st_recode_item *item = add(j, t, t->name, ST_RECODE_PLANES);
    item->scale = scale;
    item->rows = (t->rows + 3) / 4;
    item->bytes = item->rows * t->cols;
    item = add(j, t, name, ST_RECODE_SCALE);
    item->scale = scale;
    item->rows = 1;
    set_floats(item, exact(scale));
    item->bytes = item->type->block_bytes;
    return name ? SETUN_OK : no_memory(j, err);
}

/* Values -s, 0, s: the smallest float that has s has them all. */
static setun_status plan_unpacked(job *j, st_source_tensor *t, setun_error *err)
{
    float scale = 0.1f; /* scales that differ: in no float but binary32 exactly */
    setun_status st = st_recode_one_scale(&j->in, t, "hf-float", &scale, NULL);
    if (st != SETUN_OK && st != SETUN_BAD_SHAPE)
        return st_recode_one_scale(&j->in, t, "hf-float", &scale, err);
    st_recode_item *item = add(j, t, t->name, ST_RECODE_FLOATS);
    set_floats(item, st == SETUN_OK ? exact(scale) : st_gguf_packing_find("f32"));
    return SETUN_OK;
}

/* Where readers make floats ternary by their mean, values that are ternary already would get another scale. */
static setun_status refuse_unpacked(const job *j, setun_error *err)
{
    static const char end[] = "_proj.norm.weight";
    const char *why = !j->planes && st_source_config(&j->in, "weight_bits") ? "weight_bits" : NULL;
    for (int64_t i = 0; i < j->in.n_tensors && !j->planes && !why; i++) {
        const char *name = j->in.tensor[i].name;
        size_t n = strlen(name);
        if (n >= sizeof end && strcmp(name + n - (sizeof end - 1), end) == 0)
            why = name;
    }
    return why ? st_fail(err, SETUN_UNKNOWN, "%s: hf-float is no form of this model: readers that find %s make floats ternary again, with other "
                         "scales", j->in.path, why)
               : SETUN_OK;
}

static setun_status plan_directory(job *j, setun_error *err)
{
    ST_TRY(refuse_unpacked(j, err));
    for (int64_t i = 0; i < j->in.n_tensors; i++) {
        st_source_tensor *t = &j->in.tensor[i];
        if (t->ternary)
            ST_TRY((j->planes ? plan_planes : plan_unpacked)(j, t, err));
        else
            set_floats(add(j, t, t->name, ST_RECODE_FLOATS), choose_floats(j, t));
        st_recode_item *item = &j->item[j->n - 1];
        int64_t values;
        if (item->how == ST_RECODE_FLOATS && (st_mul_i64(t->rows, t->cols, &values) || st_mul_i64(values, item->type->block_bytes, &item->bytes)))
            return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is too large", t->file, t->stored);
    }
    return SETUN_OK;
}

/* ---- a GGUF file */

/* Name, order of rows and what is added, by the table. */
static setun_status set_target(job *j, st_recode_item *item, setun_error *err)
{
    const st_source_tensor *t = item->from;
    const st_gguf_arch *arch = j->in.model ? j->in.model->arch : st_carry_arch(j->in.architecture);
    int64_t n, layer;
    const st_gguf_name *row = st_gguf_names(&n), *found = NULL;
    for (int64_t i = 0; i < n && !found; i++)
        if (row[i].in & arch->in && st_gguf_name_matches(row[i].hf, t->name, &layer))
            found = &row[i];
    if (!found)
        return st_fail(err, SETUN_UNKNOWN, "%s: GGUF has no name for tensor %s in the architecture %s", t->file, t->stored, arch->name);
    item->name = st_gguf_name_of(j->in.arena, found->gguf, layer);
    item->plus = arch->in == ST_GGUF_GEMMA3 && found->kind == ST_NAME_NORM ? 1.0f : 0.0f;
    if (arch->in == ST_GGUF_LLAMA && (strstr(found->gguf, "attn_q.") || strstr(found->gguf, "attn_k."))) {
        const st_hparam *heads = st_source_config(&j->in, "num_attention_heads"), *kv = st_source_config(&j->in, "num_key_value_heads");
        heads = strstr(found->gguf, "attn_k.") && kv ? kv : heads;
        item->heads = heads && heads->kind == ST_HP_INT ? heads->i : 0;
        if (item->heads < 1 || t->rows % item->heads || t->rows / item->heads % 2)
            return st_fail(err, SETUN_BAD_SHAPE, "%s: %s has %lld rows, which are not whole heads of two halves", t->file, t->stored,
                           (long long)t->rows);
    }
    return item->name ? SETUN_OK : no_memory(j, err);
}

/* What another GGUF file has, and nobody wants otherwise, is copied: many types can be read and not
 * written. */
static int is_copied(const job *j, const st_source_tensor *t)
{
    return j->in.model && !t->ternary && !(t->rank == 2 && j->floats);
}

static setun_status plan_gguf(job *j, setun_error *err)
{
    int64_t ternary = 0;
    for (int64_t i = 0; i < j->in.n_tensors; i++) {
        st_source_tensor *t = &j->in.tensor[i];
        st_recode_item *item = add(j, t, NULL, t->ternary ? ST_RECODE_CODES : is_copied(j, t) ? ST_RECODE_RAW : ST_RECODE_FLOATS);
        ternary += t->ternary;
        if (item->how == ST_RECODE_RAW)
            item->type = j->in.model->source[t->index].t->type;
        else
            set_floats(item, t->ternary ? j->ternary : choose_floats(j, t));
        ST_TRY(set_target(j, item, err));
        if (t->ternary && j->ternary->i2s)
            ST_TRY(st_recode_one_scale(&j->in, t, j->o->to, &item->scale, err));
    }
    if (ternary)
        return SETUN_OK;
    return st_fail(err, SETUN_BAD_ARG, "%s says of no matrix that it is ternary: --ternary absmean makes some of floats, and --ternary exact takes "
                   "floats that are -a, 0 and a", j->o->in);
}

/* Why a type cannot have a shape. */
static setun_status refuse_shape(const st_recode_item *item, setun_error *err)
{
    const st_source_tensor *t = item->from;
    static const int64_t block[] = { [ST_I2S_X86] = 128, [ST_I2S_ARM] = 64, [ST_I2S_ROWS4] = 4 };
    int i2s = item->packing ? item->packing->i2s : 0;
    if (i2s)
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is %lld x %lld, and %s takes %s in multiples of %lld", t->file, t->stored,
                       (long long)t->rows, (long long)t->cols, item->packing->name, i2s == ST_I2S_ROWS4 ? "rows" : "weights",
                       (long long)block[i2s]);
    return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is %lld x %lld, and %s takes columns in multiples of %d", t->file, t->stored,
                   (long long)t->rows, (long long)t->cols, item->type->name, item->type->block);
}

static int is_i2s_shape(const st_recode_item *item)
{
    int64_t weights = item->from->rows * item->from->cols;
    switch (item->packing ? item->packing->i2s : 0) {
    case ST_I2S_X86: return weights % 128 == 0;
    case ST_I2S_ARM: return weights % 64 == 0;
    case ST_I2S_ROWS4: return item->from->rows % 4 == 0;
    default: return 1;
    }
}

/* ---------------------------------------------------------------- writing */

typedef struct target {
    job            *j;
    st_out         *out;  /* of a directory */
    st_gguf_writer *gguf; /* or of a GGUF file */
    int64_t         bytes;
} target;

static setun_status put(void *user, const void *bytes, int64_t n, setun_error *err)
{
    target *t = user;
    ST_TRY(t->gguf ? st_gguf_write_data(t->gguf, bytes, n, err) : st_out_write(t->out, bytes, n, err));
    t->bytes += n;
    return st_watch_add(&t->j->watch, n, err);
}

static setun_status write_items(job *j, target *t, setun_error *err)
{
    for (int64_t i = 0; i < j->n; i++) {
        t->bytes = 0;
        ST_TRY(st_recode_rows(&j->in, &j->item[i], put, t, err));
        if (t->bytes != j->item[i].bytes)
            return st_fail(err, SETUN_BAD_ARG, "%s: %lld bytes were written of %lld", j->item[i].name, (long long)t->bytes,
                           (long long)j->item[i].bytes);
        if (t->gguf)
            ST_TRY(st_gguf_write_pad(t->gguf, err));
    }
    return SETUN_OK;
}

/* Tensors of larger elements come first, so that all of them are aligned; their order is otherwise kept. */
static int by_element(const void *a, const void *b)
{
    const st_recode_item *x = a, *y = b;
    int p = x->how == ST_RECODE_PLANES ? 1 : x->type->block_bytes, q = y->how == ST_RECODE_PLANES ? 1 : y->type->block_bytes;
    return p != q ? q - p : strcmp(x->name, y->name);
}

static setun_status write_safetensors(job *j, setun_error *err)
{
    target t = { .j = j };
    st_str header = { 0 }, path = { 0 };
    st_tensor *row = st_arena_array(j->in.arena, j->n + 1, sizeof *row);
    if (!row)
        return no_memory(j, err);
    qsort(j->item, (size_t)j->n, sizeof *j->item, by_element);
    for (int64_t i = 0; i < j->n; i++) {
        const st_recode_item *item = &j->item[i];
        int is_scale = item->how == ST_RECODE_SCALE;
        setun_view v = { NULL, 0, is_scale ? 1 : item->from->rank, { 1, 1, 1, 1 } };
        for (int k = 0; k < 4 && !is_scale; k++)
            v.dim[k] = item->from->dim[k];
        v.dim[0] = item->how == ST_RECODE_PLANES ? item->rows : v.dim[0];
        row[i] = (st_tensor){ item->name, NULL, safetensors_type(item), v, item->bytes };
    }
    st_safetensors_header(row, j->n, &header);
    setun_status st = header.failed ? no_memory(j, err) : st_newdir_path(&j->dir, "model.safetensors", &path, err);
    if (st == SETUN_OK)
        st = st_out_open(&t.out, path.text, 1, err);
    if (st == SETUN_OK)
        st = st_out_write(t.out, header.text, (int64_t)header.len, err);
    st_str_free(&header);
    st_str_free(&path);
    if (st == SETUN_OK)
        st = write_items(j, &t, err);
    if (st == SETUN_OK)
        return st_out_commit(t.out, err);
    st_out_abort(t.out);
    return st;
}

/* Llama 3's divisors belong to the keys: a model's reader uses them up while it opens a file.  From another
 * file they are copied.  data NULL: there are none. */
static setun_status find_divisors(job *j, st_gguf_tensor *t, setun_error *err)
{
    int64_t at, n;
    *t = (st_gguf_tensor){ .data = NULL };
    if (j->in.model && st_table_get(j->in.model->g.by_name, ST_DIVISORS, sizeof ST_DIVISORS - 1, &at))
        *t = j->in.model->g.tensor[at];
    if (!st_carry_divisors(&j->in, NULL, &n))
        return SETUN_OK;
    float *d = st_arena_array(j->in.arena, n, sizeof *d);
    uint8_t *bytes = st_arena_array(j->in.arena, n, sizeof *d);
    if (!d || !bytes)
        return no_memory(j, err);
    (void)st_carry_divisors(&j->in, d, &n);
    plain(SETUN_F32)->floats(d, n, bytes);
    *t = (st_gguf_tensor){ .name = ST_DIVISORS, .type = st_gguf_type_named("F32"), .rank = 1, .dim = { n, 1, 1, 1 }, .data = bytes,
                           .bytes = n * (int64_t)sizeof *d };
    return SETUN_OK;
}

static setun_status add_divisors(job *j, st_gguf_writer *w, st_gguf_tensor *t, setun_error *err)
{
    int64_t bytes;
    ST_TRY(find_divisors(j, t, err));
    return t->data && st_gguf_write_info(w, t->name, t->type, t->rank, t->dim, &bytes) ? no_memory(j, err) : SETUN_OK;
}

/* What the types leave open, or say otherwise.  BitNet's architectures settle activations. */
static void put_choices(const job *j, st_gguf_writer *w)
{
    const st_gguf_arch *arch = j->in.model ? j->in.model->arch : st_carry_arch(j->in.architecture);
    int ternary = 0, floats = 0;
    for (int64_t i = 0; i < j->in.n_tensors; i++) {
        ternary |= j->in.tensor[i].ternary;
        floats |= j->in.tensor[i].ternary && j->in.tensor[i].weight_only;
    }
    const char *layout = j->ternary->i2s ? st_i2s_name(j->ternary->i2s) : NULL, *activations = floats ? "float" : "int8";
    if (layout)
        st_gguf_write_text(w, ST_I2S_KEY, layout, strlen(layout));
    if (ternary && !(arch->in & ST_GGUF_BITNET))
        st_gguf_write_text(w, ST_ACTIVATIONS_KEY, activations, strlen(activations));
}

static setun_status write_tensors(job *j, st_gguf_writer *w, setun_error *err)
{
    st_str path = { 0 };
    st_gguf_tensor divisors;
    target t = { .j = j, .gguf = w };
    for (int64_t i = 0; i < j->n; i++) {
        st_recode_item *item = &j->item[i];
        const st_source_tensor *from = item->from;
        int64_t dim[4] = { 1, 1, 1, 1 };
        for (uint32_t k = 0; k < from->rank; k++)
            dim[k] = from->dim[from->rank - 1 - k];
        if (!is_i2s_shape(item) || st_gguf_write_info(w, item->name, item->type, from->rank ? from->rank : 1, dim, &item->bytes))
            return refuse_shape(item, err);
    }
    ST_TRY(add_divisors(j, w, &divisors, err));
    ST_TRY(st_carry_keys(&j->in, w, j->ternary->file_type, j->report, err));
    put_choices(j, w);
    setun_status st = st_newdir_path(&j->dir, MODEL, &path, err);
    if (st == SETUN_OK)
        st = st_gguf_write_header(w, path.text, err);
    st_str_free(&path);
    ST_TRY(st);
    ST_TRY(write_items(j, &t, err));
    if (divisors.data) {
        ST_TRY(st_gguf_write_data(w, divisors.data, divisors.bytes, err));
        ST_TRY(st_gguf_write_pad(w, err));
    }
    return st_gguf_write_commit(w, err);
}

static setun_status write_gguf(job *j, setun_error *err)
{
    st_gguf_writer w = { .out = NULL };
    setun_status st = write_tensors(j, &w, err);
    st_gguf_writer_end(&w);
    return st;
}

static setun_status write_directory(job *j, setun_error *err)
{
    int has_planes = 0;
    const char *dtype = "float32";
    for (int64_t i = 0; i < j->n; i++) {
        has_planes |= j->item[i].how == ST_RECODE_PLANES;
        if (strcmp(j->item[i].name, "model.embed_tokens.weight") == 0 && j->item[i].type->block_bytes == 2)
            dtype = strcmp(j->item[i].type->name, "F16") ? "bfloat16" : "float16";
    }
    ST_TRY(st_carry_files(&j->in, &j->dir, has_planes, dtype, j->report, err));
    return write_safetensors(j, err);
}

/* ---------------------------------------------------------------- what changed */

static void report_codes(st_str *s, const st_comparison *c)
{
    st_str_addf(s, "codes: %" PRId64 " weights in %" PRId64 " matrices, all equal\n", c->weights, c->matrices);
    if (c->scaled && !c->scale_matrices)
        st_str_addf(s, "scales: of %" PRId64 " matrices, all equal\n", c->scaled);
    else if (c->scaled)
        st_str_addf(s, "scales: of %" PRId64 " matrices, changed in %" PRId64 ", by at most %.3g of their size (rounded to binary16)\n",
                    c->scaled, c->scale_matrices, c->scale_rel);
}

static void report_floats(st_str *s, const st_comparison *c)
{
    if (!c->values)
        st_str_addf(s, "floats: %" PRId64 " tensors, all values equal\n", c->floats);
    else
        st_str_addf(s, "floats: %" PRId64 " tensors; %" PRId64 " values changed in %" PRId64 ", by at most %.3g\n", c->floats, c->values,
                    c->value_tensors, c->value_abs);
    for (int64_t i = 0; i < c->n; i++)
        if (c->row[i].values)
            st_str_addf(s, "  %s, %s to %s: %" PRId64 " of %" PRId64 " values, by at most %.3g\n", c->row[i].name, c->row[i].type_a,
                        c->row[i].type_b, c->row[i].values, c->row[i].weights, c->row[i].value_abs);
}

static setun_status check_codes(const job *j, const st_comparison *c, setun_error *err)
{
    for (int64_t i = 0; i < c->n; i++) {
        const st_difference *d = &c->row[i];
        if (!d->type_a || !d->type_b || d->shape_differs)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s %s", j->o->out, d->name,
                           !d->type_a ? "is new" : !d->type_b ? "was not written" : "was written in another shape");
        if (d->codes)
            return st_fail(err, SETUN_BAD_FILE, "%s: %s was written with other codes, such as %d instead of %d at row %lld, column %lld",
                           j->o->out, d->name, d->code_b, d->code_a, (long long)d->row, (long long)d->col);
    }
    return SETUN_OK;
}

static setun_status report_keys(const job *j, const st_comparison *c, setun_error *err)
{
    if (c->n_keys)
        return st_fail(err, SETUN_UNKNOWN, "%s: this form does not say what config.json says (before, after): %s%s", j->o->in, c->key[0],
                       c->n_keys > 1 ? ", and more" : "");
    for (int64_t i = 0; i < c->n_notes; i++)
        st_str_addf(j->report, "config.json (before, after; nothing computed changes): %s\n", c->note[i]);
    return SETUN_OK;
}

static setun_status judge(const job *j, const st_comparison *c, setun_error *err)
{
    ST_TRY(check_codes(j, c, err));
    report_codes(j->report, c);
    report_floats(j->report, c);
    if (c->uses)
        st_str_addf(j->report, "activations: of %" PRId64 " matrices, int8 in one and floats in the other: the model computes something else\n",
                    c->uses);
    ST_TRY(report_keys(j, c, err));
    if (j->o->lossless && !st_compare_equal(c))
        return st_fail(err, SETUN_BAD_ARG, "%s would not be the same numbers: %" PRId64 " matrices with other scales, %" PRId64
                       " tensors with other values, %" PRId64 " matrices with other activations", j->o->out, c->scale_matrices,
                       c->value_tensors, c->uses);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- all of it */

static setun_status check_written(job *j, setun_error *err)
{
    st_source out = { 0 };
    st_comparison c;
    st_str path = { 0 };
    const st_weights_choice choice = { .i2s = ST_I2S_ASK };
    setun_status st = j->ternary ? st_newdir_path(&j->dir, MODEL, &path, err) : SETUN_OK;
    if (st == SETUN_OK)
        st = st_source_open(&out, path.text ? path.text : j->dir.dir.text, &choice, ST_FLOATS_STAY, err);
    if (st == SETUN_OK)
        st = st_compare(&j->in, &out, &c, &j->watch, err);
    if (st == SETUN_OK)
        st = st_compare_tokens(&j->in, &out, &c, err);
    if (st != SETUN_OK && st != SETUN_CANCELLED)
        st_wrap(err, "%s is not written, as what was made cannot be read as the same model", j->o->out);
    if (st == SETUN_OK)
        st = judge(j, &c, err);
    st_source_close(&out);
    st_str_free(&path);
    return st;
}

static setun_status choose(job *j, setun_error *err)
{
    const st_recode *o = j->o;
    j->planes = strcmp(o->to, "hf") == 0;
    if (!j->planes && strcmp(o->to, "hf-float") != 0) {
        j->ternary = st_gguf_packing_find(o->to);
        if (!j->ternary || j->ternary->floats)
            return st_fail(err, SETUN_BAD_ARG, "'%s' is not a form that Setun writes; there are %s", o->to, st_recode_forms());
    }
    if (!o->floats)
        return SETUN_OK;
    j->floats = st_gguf_packing_find(o->floats);
    if (!j->floats || !j->floats->floats)
        return st_fail(err, SETUN_BAD_ARG, "'%s' is not a type for floats; there are %s", o->floats, st_gguf_packing_names(0));
    if (!j->ternary && strcmp(j->floats->name, "q8_0") == 0)
        return st_fail(err, SETUN_BAD_ARG, "a directory has no floats of type q8_0");
    return SETUN_OK;
}

static setun_status run(job *j, setun_error *err)
{
    const st_recode *o = j->o;
    const st_weights_choice choice = { .i2s = o->i2s, .activations = o->activations };
    ST_TRY(choose(j, err));
    ST_TRY(st_source_open(&j->in, o->in, &choice, o->ternary, err));
    j->in.name = o->name;
    if (!j->in.model && j->ternary && !st_carry_arch(j->in.architecture))
        return st_fail(err, SETUN_UNKNOWN, "%s: GGUF has no architecture for %s", o->in, j->in.architecture);
    j->item = st_arena_array(j->in.arena, 2 * j->in.n_tensors + 1, sizeof *j->item); /* a scale beside each */
    if (!j->item)
        return no_memory(j, err);
    ST_TRY(st_newdir_begin(&j->dir, o->out, j->ternary ? MODEL : NULL, o->force, err));
    ST_TRY((j->ternary ? plan_gguf : plan_directory)(j, err));
    j->watch = (st_watch){ .progress = o->progress, .user = o->user };
    for (int64_t i = 0; i < j->in.n_tensors; i++) /* what is written and read again is about as much */
        j->watch.total += 2 * j->in.tensor[i].bytes;
    ST_TRY((j->ternary ? write_gguf : write_directory)(j, err));
    ST_TRY(check_written(j, err));
    return st_newdir_commit(&j->dir, err);
}

setun_status st_recode_write(const st_recode *o, st_str *report, setun_error *err)
{
    job j = { .o = o, .report = report };
    setun_status st = run(&j, err);
    st_newdir_end(&j.dir);
    st_source_close(&j.in);
    if (st == SETUN_OK && report->failed)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to report about %s, which is complete", o->out);
    return st;
}

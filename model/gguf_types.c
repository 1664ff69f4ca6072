/* model/gguf_types.c -- which type a number in a GGUF file stands for, how many bytes it has.
 *
 * Programs gave the same numbers to different types, and files do not say which program wrote them.
 * Two things tell: the architecture and the label of the file (BitNet's fork has 36 to 39 to itself),
 * and the distance from one tensor to the next.  A reading counts only if it fits *every* tensor with
 * that number.  If several do, or none, the file is refused: a wrong reading gives plausible noise. */
#include "model/gguf_types.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/convert.h"

#define REMOVED "a type that was removed from the format"
#define TILES " depends on tile sizes in the kernel_config.ini of the build that wrote the file, which no file has"

static const st_gguf_type types[] = {
    { 0, "F32", 1, 4, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_f32, NULL, NULL },
    { 1, "F16", 1, 2, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_f16, NULL, NULL },
    { 30, "BF16", 1, 2, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_bf16, NULL, NULL },
    { 2, "Q4_0", 32, 18, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_q4_0, NULL, NULL },
    { 8, "Q8_0", 32, 34, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_q8_0, NULL, NULL },
    { 12, "Q4_K", 256, 144, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_q4_k, NULL, NULL },
    { 14, "Q6_K", 256, 210, 0, 0, 0, ST_GGUF_ANYWHERE, 0, st_gguf_q6_k, NULL, NULL },
    /* Ternary. */
    { 34, "TQ1_0", 256, 54, 0, 0, 256, ST_GGUF_ANYWHERE, 0, NULL, st_gguf_tq1_0, NULL },
    { 35, "TQ2_0", 256, 66, 0, 0, 256, ST_GGUF_ANYWHERE, 0, NULL, st_gguf_tq2_0, NULL },
    { 36, "I2_S", 4, 1, 0, 32, ST_GGUF_PER_TENSOR, ST_GGUF_IN_FORK, 0, NULL, NULL, NULL },
    { 36, "IQ4_NL_4_4", 32, 18, 0, 0, 0, ST_GGUF_NOT_FORK, 0, NULL, NULL, REMOVED },
    { 42, "Q2_0", 64, 18, 0, 0, 64, ST_GGUF_ANYWHERE, 1, NULL, st_gguf_q2_0_64, NULL },
    { 42, "Q2_0 (groups of 128)", 128, 34, 0, 0, 128, ST_GGUF_ANYWHERE, 1, NULL, st_gguf_q2_0_128, NULL },
    { 42, "STQ1_0", 256, 42, 0, 0, 256, ST_GGUF_ANYWHERE, 0, NULL, NULL, "a type that Setun does not read" },
    { 134, "IQ1_BN", 64, 13, 2, 0, ST_GGUF_PER_ROW, ST_GGUF_ANYWHERE, 0, NULL, st_gguf_iq1_bn, NULL },
    { 135, "IQ2_BN", 64, 16, 4, 0, ST_GGUF_PER_ROW, ST_GGUF_ANYWHERE, 0, NULL, st_gguf_iq2_bn, NULL },
    { 142, "PQ2_0", 128, 34, 0, 0, 128, ST_GGUF_ANYWHERE, 1, NULL, st_gguf_q2_0_128, NULL },
    { 142, "IQ2_TN", 256, 64, 4, 0, ST_GGUF_PER_ROW, ST_GGUF_ANYWHERE, 0, NULL, NULL, "a type that its makers have given up" },
    { 143, "PTQ1_0", 128, 28, 0, 0, 128, ST_GGUF_ANYWHERE, 0, NULL, st_gguf_ptq1_0, NULL },
    { 143, "IQ1_TN", 256, 52, 2, 0, ST_GGUF_PER_ROW, ST_GGUF_ANYWHERE, 0, NULL, NULL, "a type that its makers have given up" },
    /* Sizes only. */
    { 3, "Q4_1", 32, 20, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 6, "Q5_0", 32, 22, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 7, "Q5_1", 32, 24, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 10, "Q2_K", 256, 84, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 11, "Q3_K", 256, 110, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 13, "Q5_K", 256, 176, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 24, "I8", 1, 1, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 25, "I16", 1, 2, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 26, "I32", 1, 4, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 27, "I64", 1, 8, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 28, "F64", 1, 8, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 39, "MXFP4", 32, 17, 0, 0, 0, ST_GGUF_NOT_FORK, 0, NULL, NULL, NULL },
    { 40, "NVFP4", 64, 36, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    { 41, "Q1_0", 128, 18, 0, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL, NULL },
    /* Not read. */
    { 37, "I8_S", 1, 1, 0, 0, 0, ST_GGUF_IN_FORK, 0, NULL, NULL, "a type of activations, not of weights" },
    { 37, "IQ4_NL_4_8", 32, 18, 0, 0, 0, ST_GGUF_NOT_FORK, 0, NULL, NULL, REMOVED },
    { 38, "TL1", 4, 1, 0, 32, 0, ST_GGUF_IN_FORK, 0, NULL, NULL, "a layout that" TILES },
    { 38, "IQ4_NL_8_8", 32, 18, 0, 0, 0, ST_GGUF_NOT_FORK, 0, NULL, NULL, REMOVED },
    { 39, "TL2", 1, 1, 0, 32, 0, ST_GGUF_IN_FORK, 0, NULL, NULL, "a layout that" TILES },
    { 335, "IQ2_BN_R4", 64, 16, 4, 0, 0, ST_GGUF_ANYWHERE, 0, NULL, NULL,
      "four rows of IQ2_BN woven together for one program's kernels: convert it back to IQ2_BN there" },
};

#define N_TYPES ((int64_t)(sizeof types / sizeof *types))

/* ---------------------------------------------------------------- sizes */

static int64_t row_stride(const st_gguf_type *y, int64_t n) { return y->row_bytes + n / y->block * y->block_bytes; }

const st_gguf_type *st_gguf_type_named(const char *name)
{
    for (int64_t i = 0; i < N_TYPES; i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

int st_gguf_type_bytes(const st_gguf_type *y, const int64_t dim[4], int64_t *bytes)
{
    int64_t row, n = dim[0], rows = 1;
    for (int i = 1; i < 4; i++)
        if (st_mul_i64(rows, dim[i], &rows))
            return -1;
    if (y->tail_bytes) { /* these take no notice of rows: the number of all weights counts */
        if (st_mul_i64(n, rows, &n))
            return -1;
        rows = 1;
    }
    if (n % y->block != 0 || st_mul_i64(n / y->block, y->block_bytes, &row) || st_add_i64(row, y->row_bytes, &row) ||
        st_mul_i64(row, rows, bytes) || st_add_i64(*bytes, y->tail_bytes, bytes))
        return -1;
    return 0;
}

/* Does the tensor have the bytes that the type needs, and padding at most?  The last one of a file
 * may lack the padding. */
static int fits(const st_gguf_tensor *t, const st_gguf_type *y, int64_t *need)
{
    int64_t padded;
    *need = -1;
    if (st_gguf_type_bytes(y, t->dim, need) || st_add_i64(*need, t->alignment - 1, &padded))
        return 0;
    padded -= padded % t->alignment;
    return t->is_last ? t->extent >= *need && t->extent <= padded : t->extent == padded;
}

int64_t st_gguf_rows(const st_gguf_tensor *t)
{
    return t->dim[1] * t->dim[2] * t->dim[3];
}

int64_t st_gguf_scales(const st_gguf_tensor *t)
{
    int32_t group = t->type->group;
    return group > 0 ? t->dim[0] / group : group != ST_GGUF_NOT_TERNARY;
}

/* ---------------------------------------------------------------- shared numbers */

static int is_one_of(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(s, *list) == 0)
            return 1;
    return 0;
}

/* Was the file written by BitNet's fork, so that 36 to 39 are its types?  file_type 38 to 40 are its
 * labels, but 38 has another meaning elsewhere, so the architecture must be one that it converts. */
static int is_fork(const st_gguf *g)
{
    static const char *const own[] = { "bitnet", "bitnet-25", "bitnet-b1.58", NULL };
    static const char *const converted[] = { "llama", "qwen3", "gemma3", NULL };
    return is_one_of(g->architecture, own) ||
           (g->file_type >= 38 && g->file_type <= 40 && is_one_of(g->architecture, converted));
}

static int applies(const st_gguf_type *y, int fork)
{
    return y->where == ST_GGUF_ANYWHERE || (y->where == ST_GGUF_IN_FORK) == fork;
}

static int is_shared(uint32_t id)
{
    int n = 0;
    for (int64_t i = 0; i < N_TYPES; i++)
        n += types[i].id == id;
    return n > 1;
}

static setun_status note(st_gguf *g, const char *line, setun_error *err)
{
    if (!g->decision && !(g->decision = st_arena_array(g->arena, N_TYPES + 1, sizeof *g->decision)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", g->path);
    g->decision[g->n_decisions++] = line;
    return line ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", g->path);
}

/* What a tensor of this type would need, for messages. */
static void say_need(st_str *s, const st_gguf_type *y, int64_t need)
{
    st_str_addf(s, "%s%s", s->len ? ", " : "", y->name);
    if (need < 0)
        st_str_add(s, " cannot have this shape");
    else
        st_str_addf(s, " needs %lld", (long long)need);
}

/* No reading fits: name the first tensor that shows it for the reading that gets furthest. */
static setun_status refuse_size(const st_gguf_tensor *t, int fork, setun_error *err)
{
    st_str s = { 0 };
    for (int64_t i = 0; i < N_TYPES; i++)
        if (types[i].id == t->id && applies(&types[i], fork)) {
            int64_t need;
            (void)fits(t, &types[i], &need);
            say_need(&s, &types[i], need);
        }
    setun_status st = st_fail(err, s.failed ? SETUN_NO_MEMORY : SETUN_BAD_FILE,
                              "%s: tensor %s (%lld x %lld x %lld x %lld, type %u) has %lld bytes up to %s: %s", t->file, t->name,
                              (long long)t->dim[0], (long long)t->dim[1], (long long)t->dim[2], (long long)t->dim[3], t->id,
                              (long long)t->extent, t->is_last ? "the end of the file" : "the next one", s.text ? s.text : "");
    st_str_free(&s);
    return st;
}

/* All tensors with this number, from `first` on: how many, or 0 if one does not fit (*bad). */
static int64_t count_fits(const st_gguf *g, int64_t first, const st_gguf_type *y, int64_t *bad)
{
    int64_t n = 0, need;
    for (int64_t i = first; i < g->n_tensors; i++) {
        if (g->tensor[i].id != y->id)
            continue;
        if (!fits(&g->tensor[i], y, &need)) {
            *bad = i;
            return 0;
        }
        n++;
    }
    return n;
}

static setun_status explain(st_gguf *g, int64_t first, const st_gguf_type *y, int64_t n, setun_error *err)
{
    st_str others = { 0 }, why = { 0 };
    for (int64_t i = 0; i < N_TYPES; i++)
        if (types[i].id == y->id && &types[i] != y)
            st_str_addf(&others, "%s%s", others.len ? " or " : "", types[i].name);
    if (y->where != ST_GGUF_ANYWHERE) {
        st_str_addf(&why, "general.architecture is %s", g->architecture);
        if (g->file_type >= 0)
            st_str_addf(&why, ", general.file_type is %lld", (long long)g->file_type);
        st_str_add(&why, "; ");
    }
    const char *line = others.failed || why.failed ? NULL : st_arena_printf(
        g->arena, "type %u is %s, not %s: %s%lld tensor%s just its bytes, such as %s with %lld", y->id, y->name, others.text,
        why.text ? why.text : "", (long long)n, n == 1 ? " has" : "s have", g->tensor[first].name, (long long)g->tensor[first].bytes);
    st_str_free(&others);
    st_str_free(&why);
    return note(g, line, err);
}

/* Decides for the number of tensor `first`, the first one that has it. */
static setun_status decide(st_gguf *g, int64_t first, int fork, setun_error *err)
{
    const st_gguf_type *found = NULL, *second = NULL;
    const st_gguf_tensor *t = &g->tensor[first];
    int64_t n = 0, furthest = first;
    int known = 0;
    for (int64_t i = 0; i < N_TYPES; i++) {
        if (types[i].id != t->id)
            continue;
        known = 1;
        if (!applies(&types[i], fork))
            continue;
        if (types[i].where != ST_GGUF_ANYWHERE && types[i].refused)
            return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s (type %u in a file of architecture %s), %s", t->file,
                           t->name, types[i].name, t->id, g->architecture, types[i].refused);
        int64_t bad = first, fit = count_fits(g, first, &types[i], &bad);
        furthest = bad > furthest ? bad : furthest;
        if (fit == 0)
            continue;
        second = found;
        found = &types[i];
        n = fit;
        if (second)
            return st_fail(err, SETUN_UNKNOWN, "%s: type %u of tensor %s is %s or %s, and the sizes fit both", t->file, t->id,
                           t->name, second->name, found->name);
    }
    if (!known)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s has type %u, which Setun does not know", t->file, t->name, t->id);
    if (!found)
        return refuse_size(&g->tensor[furthest], fork, err);
    if (found->refused)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s (type %u), %s", t->file, t->name, found->name, t->id,
                       found->refused);
    for (int64_t i = first; i < g->n_tensors; i++)
        if (g->tensor[i].id == found->id) {
            g->tensor[i].type = found;
            (void)st_gguf_type_bytes(found, g->tensor[i].dim, &g->tensor[i].bytes); /* it fits, so it has one */
        }
    return is_shared(found->id) ? explain(g, first, found, n, err) : SETUN_OK;
}

/* ---------------------------------------------------------------- I2_S */

static const char *const i2s_names[] = { NULL, "x86", "arm", "rows4" };

const char *st_i2s_name(int layout) { return i2s_names[layout]; }

int st_i2s_find(const char *name)
{
    for (int i = ST_I2S_X86; i <= ST_I2S_ROWS4; i++)
        if (strcmp(i2s_names[i], name) == 0)
            return i;
    return -1;
}

/* The scale behind an I2_S tensor must be one: evidence that it is I2_S at all, whatever its layout. */
static setun_status i2s_scale(const st_gguf_tensor *t, float *scale, setun_error *err)
{
    (void)st_convert_f32(scale, t->data + t->values / 4, SETUN_F32, 1);
    if (!(*scale > 0.0f) || !isfinite(*scale))
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s: the scale behind the codes of I2_S is %g", t->file, t->name,
                       (double)*scale);
    return SETUN_OK;
}

/* The layout that the file's own key names. */
static setun_status layout_said(const st_gguf *g, int possible, int *layout, setun_error *err)
{
    const st_gguf_value *v = st_gguf_find(g, ST_I2S_KEY);
    int64_t n = 0;
    const char *text = v ? st_gguf_text(v, &n) : NULL;
    *layout = ST_I2S_ASK;
    for (int i = ST_I2S_X86; text && i <= ST_I2S_ROWS4; i++)
        if (n == (int64_t)strlen(i2s_names[i]) && memcmp(text, i2s_names[i], (size_t)n) == 0)
            *layout = i;
    if (v && *layout == ST_I2S_ASK)
        return st_fail(err, SETUN_UNKNOWN, "%s: key " ST_I2S_KEY " does not name a layout of I2_S; x86, arm and rows4 are known", g->path);
    if (v && !(possible & 1 << *layout))
        return st_fail(err, SETUN_BAD_FILE, "%s: key " ST_I2S_KEY " says %s, which the sizes do not allow", g->path, i2s_names[*layout]);
    return SETUN_OK;
}

/* Codes and scale say whether a file is damaged, not which layout it has: that only the shape can
 * tell, where it rules layouts out, a key of Setun's own files, or the user. */
static setun_status decide_i2s(st_gguf *g, int i2s, setun_error *err)
{
    int possible = 1 << ST_I2S_X86 | 1 << ST_I2S_ARM | 1 << ST_I2S_ROWS4;
    int64_t n = 0;
    const st_gguf_tensor *last = NULL;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const st_gguf_tensor *t = &g->tensor[i];
        float scale;
        if (t->type->group != ST_GGUF_PER_TENSOR)
            continue;
        ST_TRY(i2s_scale(t, &scale, err));
        possible &= ~(t->values % 128 ? 1 << ST_I2S_X86 : 0) & ~(t->values % 64 ? 1 << ST_I2S_ARM : 0) &
                    ~(st_gguf_rows(t) % 4 ? 1 << ST_I2S_ROWS4 : 0);
        last = t;
        n++;
        if (!possible)
            return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s (%lld x %lld) is I2_S, and the sizes fit none of its layouts",
                           t->file, t->name, (long long)t->dim[0], (long long)st_gguf_rows(t));
    }
    if (!last)
        return i2s == ST_I2S_ASK ? SETUN_OK : st_fail(err, SETUN_BAD_ARG, "%s: a layout of I2_S was given, but no tensor has this type", g->path);
    if (i2s != ST_I2S_ASK) {
        if (!(possible & 1 << i2s))
            return st_fail(err, SETUN_BAD_ARG, "%s: the sizes do not allow the layout %s of I2_S", g->path, i2s_names[i2s]);
        g->i2s = i2s;
        return note(g, st_arena_printf(g->arena, "I2_S has the layout %s: it was asked for", i2s_names[i2s]), err);
    }
    ST_TRY(layout_said(g, possible, &g->i2s, err));
    if (g->i2s != ST_I2S_ASK)
        return note(g, st_arena_printf(g->arena, "I2_S has the layout %s: the key " ST_I2S_KEY " says so", i2s_names[g->i2s]), err);
    for (int i = ST_I2S_X86; i <= ST_I2S_ROWS4; i++)
        if (possible == 1 << i) {
            g->i2s = i;
            return note(g, st_arena_printf(g->arena, "I2_S has the layout %s: the sizes allow no other", i2s_names[i]), err);
        }
    return note(g, st_arena_printf(g->arena, "I2_S has an unknown layout: %s%s%sthe sizes of %lld tensor%s, and the file does "
                "not say; published files have x86, --i2s-layout says which", possible & 1 << ST_I2S_X86 ? "x86, " : "",
                possible & 1 << ST_I2S_ARM ? "arm, " : "", possible & 1 << ST_I2S_ROWS4 ? "rows4 fit " : "fit ",
                (long long)n, n == 1 ? "" : "s"), err);
}

setun_status st_gguf_set_i2s(st_gguf *g, int layout, const char *why, setun_error *err)
{
    g->i2s = layout;
    g->n_decisions--; /* decide_i2s came last, and said that it is unknown */
    return note(g, st_arena_printf(g->arena, "I2_S has the layout %s: %s", i2s_names[layout], why), err);
}

setun_status st_gguf_settle(st_gguf *g, int i2s, setun_error *err)
{
    int fork = is_fork(g);
    for (int64_t i = 0; i < g->n_tensors; i++)
        if (!g->tensor[i].type)
            ST_TRY(decide(g, i, fork, err));
    return decide_i2s(g, i2s, err);
}

/* ---------------------------------------------------------------- rows */

setun_status st_gguf_read_codes(const st_gguf *g, const st_gguf_tensor *t, int64_t r, uint8_t *code, float *scale,
                                setun_error *err)
{
    const st_gguf_type *y = t->type;
    int64_t n = t->dim[0];
    if (y->codes) {
        y->codes(t->data + r * row_stride(y, n), n, code, scale);
    } else if (g->i2s == ST_I2S_ASK) {
        return st_fail(err, SETUN_UNKNOWN,
                       "%s: tensor %s is I2_S, which has three layouts of one size: say which with --i2s-layout x86, arm or rows4",
                       t->file, t->name);
    } else {
        st_gguf_i2s(t->data, g->i2s, r, n, code);
        ST_TRY(i2s_scale(t, scale, err));
    }
    int most = 0;
    for (int64_t i = 0; i < n; i++)
        most = code[i] > most ? code[i] : most;
    for (int64_t i = 0; i < n && most == 3 && !y->has_two; i++)
        if (code[i] == 3)
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s: code 3 at row %lld, column %lld, which %s does not have", t->file,
                           t->name, (long long)r, (long long)i, y->name);
    for (int64_t i = 0; i < st_gguf_scales(t); i++)
        if (!isfinite(scale[i]))
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s: a scale of row %lld is not finite", t->file, t->name, (long long)r);
    return SETUN_OK;
}

setun_status st_gguf_read_row(const st_gguf *g, const st_gguf_tensor *t, int64_t r, float *value, uint8_t *code,
                              float *scale, setun_error *err)
{
    const st_gguf_type *y = t->type;
    int64_t n = t->dim[0], group = y->group > 0 ? y->group : n;
    if (y->group == ST_GGUF_NOT_TERNARY) {
        if (!y->floats)
            return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s, which Setun cannot compute with", t->file, t->name, y->name);
        y->floats(t->data + r * row_stride(y, n), n, value);
        return SETUN_OK;
    }
    ST_TRY(st_gguf_read_codes(g, t, r, code, scale, err));
    for (int64_t i = 0; i < n; i += group)
        for (int64_t j = i; j < i + group; j++)
            value[j] = (float)(code[j] - 1) * scale[i / group];
    return SETUN_OK;
}

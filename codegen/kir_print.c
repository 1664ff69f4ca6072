/* codegen/kir_print.c -- a kernel as text, in the syntax that kir_parse.c reads.
 *
 *     kernel rmsnorm
 *       in f32[n,2560] f32[2560]        n and m are the symbolic dimensions
 *       out f32[n,2560]
 *       grid 0.0/1                      argument.dimension / granule, one or two of them
 *       scratch 0
 *     {
 *       %1 = arg.f32 0                  word.type, operands, immediate
 *       %2 = for %7 %8 step 1 {
 *       }
 *     }
 *
 * Floats are printed as their bits: exact, and the same in every locale, because the hash of this
 * text is the kernel's identity in caches.  A kernel need not be valid to be printed. */
#include "codegen/kir.h"

#include <stdio.h>
#include <string.h>

static const char *dtype_name(uint32_t dtype)
{
    static const char *const names[] = { "none", "f32", "f16", "bf16", "i8",
                                         "i16",  "i32", "i64", "u8",   "t2" };
    return dtype < sizeof names / sizeof names[0] ? names[dtype] : "none";
}

static void print_args(const st_kir *k, const char *word, uint32_t from, uint32_t to, st_str *out)
{
    st_str_addf(out, "  %s", word);
    for (uint32_t i = from; i < to; i++) {
        st_str_addf(out, " %s[", dtype_name(k->arg_dtype[i]));
        for (uint32_t d = 0; d < k->arg_rank[i]; d++) {
            int64_t size = k->arg_dim[i][d];
            if (size == SETUN_DIM_TOKENS || size == SETUN_DIM_OUTPUTS)
                st_str_addf(out, "%s%s", d ? "," : "", size == SETUN_DIM_TOKENS ? "n" : "m");
            else
                st_str_addf(out, "%s%lld", d ? "," : "", (long long)size);
        }
        st_str_add(out, "]");
    }
    st_str_add(out, "\n");
}

static void print_grid(const st_kir *k, st_str *out)
{
    st_str_add(out, "  grid");
    if (!k->has_grid)
        st_str_add(out, " none");
    for (int f = 0; k->has_grid && f < 2; f++) {
        const setun_slot *at = &k->grid.at[f];
        if (at->arg >= 0)
            st_str_addf(out, " %d.%d/%lld", at->arg, at->dim, (long long)k->grid.granule[f]);
        else if (f == 0)
            st_str_add(out, " -");
    }
    st_str_add(out, "\n");
}

/* Text gathers here first, a line at a time: loading a model prints all its kernels to find them in the cache,
 * and that was most of the time of a start when each word went into the string on its own. */
typedef struct line {
    st_str *out;
    size_t  n;
    char    text[120];
} line;

static void flush(line *l)
{
    st_str_addn(l->out, l->text, l->n);
    l->n = 0;
}

static void add(line *l, const char *text)
{
    for (; *text; text++) {
        if (l->n == sizeof l->text)
            flush(l);
        l->text[l->n++] = *text;
    }
}

static void add_number(line *l, const char *before, int64_t x)
{
    char digits[24];
    char *at = digits + sizeof digits;
    uint64_t u = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
    *--at = 0;
    do
        *--at = (char)('0' + u % 10);
    while (u /= 10);
    if (x < 0)
        *--at = '-';
    add(l, before);
    add(l, at);
}

static void add_bits(line *l, uint32_t x)
{
    char hex[12];
    (void)snprintf(hex, sizeof hex, " 0x%08x", (unsigned)x);
    add(l, hex);
}

static void add_immediate(line *l, const st_kir *k, const st_inst *in)
{
    if (in->op == K_shuffle) {
        for (uint32_t i = 0; i < K_LANES(in->type); i++)
            add_number(l, i ? " " : " [", k->mask[in->imm + i]);
        add(l, "]");
    } else if (in->op == K_dim) {
        add_number(l, " ", k->slot[in->imm].arg);
        add_number(l, ".", k->slot[in->imm].dim);
    } else if (in->op == K_for) {
        add_number(l, " step ", in->imm);
    } else if (in->op == K_const && K_ELEM(in->type) == K_F32) {
        add_bits(l, (uint32_t)in->imm);
    } else if (st_kir_op_has_imm(in->op)) {
        add_number(l, " ", in->imm);
    }
}

/* dim, begin, end and for are always i64; of a pointer the element says all. */
static void add_type(line *l, const st_inst *in)
{
    k_type t = K_IS_PTR(in->type) ? K_TYPE(K_ELEM(in->type), 1) : in->type;
    if (!t || in->op == K_dim || in->op == K_begin || in->op == K_end || in->op == K_for)
        return;
    add(l, ".");
    add(l, st_ktype_name(t));
    if (K_LANES(t) != 1)
        add_number(l, "x", K_LANES(t));
}

/* The line of the script, and the end of the line. */
static void end_line(line *l, const char *text, const st_origin *from)
{
    add(l, text);
    if (from) {
        add(l, "  # ");
        add(l, from->file);
        add_number(l, ":", from->line);
    }
    add(l, "\n");
    flush(l);
}

/* from: the script's line to be named behind it, or NULL */
static void print_inst(const st_kir *k, uint32_t i, int indent, const st_origin *from, st_str *out)
{
    const st_inst *in = &k->inst[i];
    const k_val operand[3] = { in->a, in->b, in->c };
    line l;
    l.out = out;
    l.n = 0;
    while (indent--)
        add(&l, " ");
    if (in->op == K_stop || in->op == K_else) {
        end_line(&l, in->op == K_stop ? "}" : "} else {", from);
        return;
    }
    if (in->type) {
        add_number(&l, "%", i);
        add(&l, " = ");
    }
    add(&l, st_kir_op_name(in->op));
    add_type(&l, in);
    for (uint32_t o = 0; o < st_kir_op_operands(in->op); o++)
        add_number(&l, " %", operand[o]);
    add_immediate(&l, k, in);
    end_line(&l, in->op == K_for || in->op == K_if ? " {" : "", from);
}

static void print(const st_kir *k, int lines, st_str *out)
{
    st_origin last = { NULL, 0 };
    st_str_addf(out, "kernel %s\n", k->name);
    print_args(k, "in", 0, k->n_in, out);
    print_args(k, "out", k->n_in, k->n_in + k->n_out, out);
    print_grid(k, out);
    st_str_addf(out, "  scratch %lld\n{\n", (long long)k->scratch_bytes);
    int depth = 1;
    for (uint32_t i = 1; i < k->n_inst; i++) {
        uint32_t op = k->inst[i].op;
        if ((op == K_stop || op == K_else) && depth > 1)
            depth--;
        st_origin at = st_kir_origin(k, i);
        int shown = lines && at.file && (at.line != last.line || !last.file || strcmp(at.file, last.file));
        print_inst(k, i, 2 * depth, shown ? &at : NULL, out);
        last = at;
        if (op == K_for || op == K_if || op == K_else)
            depth++;
    }
    st_str_add(out, "}\n");
}

void st_kir_print(const st_kir *k, st_str *out)
{
    print(k, 0, out);
}

void st_kir_print_lines(const st_kir *k, st_str *out)
{
    print(k, 1, out);
}

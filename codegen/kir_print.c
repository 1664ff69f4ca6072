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

static void add_number(st_str *out, const char *before, int64_t x)
{
    st_str_add(out, before);
    st_str_addi(out, x);
}

static void print_immediate(const st_kir *k, const st_inst *in, st_str *out)
{
    if (in->op == K_shuffle) {
        for (uint32_t l = 0; l < K_LANES(in->type); l++)
            add_number(out, l ? " " : " [", k->mask[in->imm + l]);
        st_str_add(out, "]");
    } else if (in->op == K_dim) {
        add_number(out, " ", k->slot[in->imm].arg);
        add_number(out, ".", k->slot[in->imm].dim);
    } else if (in->op == K_for) {
        add_number(out, " step ", in->imm);
    } else if (in->op == K_const && K_ELEM(in->type) == K_F32) {
        st_str_addf(out, " 0x%08x", (unsigned)(uint32_t)in->imm);
    } else if (st_kir_op_has_imm(in->op)) {
        add_number(out, " ", in->imm);
    }
}

/* Loading a model prints every kernel of it to find them in the cache, so this does without formats. */
static void print_inst(const st_kir *k, uint32_t i, int indent, st_str *out)
{
    const st_inst *in = &k->inst[i];
    while (indent--)
        st_str_add(out, " ");
    if (in->op == K_stop) {
        st_str_add(out, "}\n");
        return;
    }
    if (in->op == K_else) {
        st_str_add(out, "} else {\n");
        return;
    }
    if (in->type) {
        add_number(out, "%", i);
        st_str_add(out, " = ");
    }
    st_str_add(out, st_kir_op_name(in->op));
    /* dim, begin, end and for are always i64; of a pointer the element says all. */
    if (in->type && in->op != K_dim && in->op != K_begin && in->op != K_end && in->op != K_for) {
        st_str_add(out, ".");
        st_ktype_print(K_IS_PTR(in->type) ? K_TYPE(K_ELEM(in->type), 1) : in->type, out);
    }
    k_val v[3] = { in->a, in->b, in->c };
    for (uint32_t o = 0; o < st_kir_op_operands(in->op); o++)
        add_number(out, " %", v[o]);
    print_immediate(k, in, out);
    st_str_add(out, in->op == K_for || in->op == K_if ? " {\n" : "\n");
}

void st_kir_print(const st_kir *k, st_str *out)
{
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
        print_inst(k, i, 2 * depth, out);
        if (op == K_for || op == K_if || op == K_else)
            depth++;
    }
    st_str_add(out, "}\n");
}

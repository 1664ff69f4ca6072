/* runtime/check.c -- every operator's cases through every witness, compared bit for bit.
 *
 * Witnesses: eval (the meaning), the kir interpreter with every access checked, the JIT in one tile and
 * in five, and every loaded backend with two threads.  Each gets a fresh copy of the case, because
 * some operators write in place. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/check.h"

#define SEEDS 2

setun_status st_check_say(st_checker *c, const char *text, setun_error *err)
{
    return c->out(c->user, text, strlen(text))
         ? st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text") : SETUN_OK;
}

static setun_status by_backend(const st_plugin_info *p, const st_case *k, const setun_code *code, setun_error *err)
{
    const setun_backend_v1 *b = p->backend;
    const setun_args *a = &k->run;
    setun_operand in[ST_MAX_ARGS], out[ST_MAX_ARGS];
    setun_context *context = NULL;
    setun_program *program = NULL;
    setun_step step = {.size = sizeof step, .n_in = a->n_in, .n_out = a->n_out, .n_attr = a->n_attr, .op = a->op, .in = in,
                       .out = out, .attr = a->attr, .code = p->backend_info.wants_code ? code : NULL, .label = a->op->name};
    double seconds;
    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    for (uint32_t i = 0; i < a->n_in; i++)
        in[i].shape = k->shape.in[i];
    for (uint32_t i = 0; i < a->n_out; i++)
        out[i].shape = k->shape.out[i];
    if (b->supports(p->self, &step, &seconds) != SETUN_OK)
        return SETUN_DECLINED;
    setun_status s = b->context_new(p->self, 2, &context, err);
    for (uint32_t i = 0; i < a->n_in && s == SETUN_OK; i++) {
        s = b->buffer_new(context, setun_view_bytes(&a->in[i]) + 64, &in[i].buffer, err);
        if (s == SETUN_OK)
            s = b->buffer_write(in[i].buffer, 0, a->in[i].data, setun_view_bytes(&a->in[i]), err);
    }
    for (uint32_t i = 0; i < a->n_out && s == SETUN_OK; i++) {
        uint32_t shares = a->op->out[i].shares;
        if (shares)
            out[i].buffer = in[shares - 1].buffer;
        else
            s = b->buffer_new(context, setun_view_bytes(&a->out[i]) + 64, &out[i].buffer, err);
    }
    if (s == SETUN_OK)
        s = b->program_new(context, &step, 1, &program, err);
    if (s == SETUN_OK)
        s = b->program_run(program, k->size, SETUN_N_SYMBOLS, err);
    if (s == SETUN_OK && SETUN_HAS(setun_backend_v1, b, wait))
        s = b->wait(context, err);
    for (uint32_t i = 0; i < a->n_out && s == SETUN_OK; i++)
        s = b->buffer_read(out[i].buffer, 0, a->out[i].data, setun_view_bytes(&a->out[i]), err);
    if (program)
        b->program_free(program);
    for (uint32_t i = 0; i < a->n_out; i++)
        if (out[i].buffer && !a->op->out[i].shares)
            b->buffer_free(out[i].buffer);
    for (uint32_t i = 0; i < a->n_in; i++)
        if (in[i].buffer)
            b->buffer_free(in[i].buffer);
    if (context)
        b->context_free(context);
    return s;
}

/* Outcome of one witness over all cases of an operator. */
typedef struct tally {
    int ok, absent, bad;
    setun_error first;
} tally;

static void count(tally *t, setun_status s, const setun_error *err, const char *text, uint64_t seed)
{
    if (s == SETUN_OK) {
        t->ok++;
    } else if (s == SETUN_DECLINED) {
        t->absent++;
    } else if (!t->bad++) {
        t->first = *err;
        st_wrap(&t->first, "case \"%s\" seed %" PRIu64, text, seed);
    }
}

#define MAX_WITNESSES 20

/* Are the kernels with these knobs and with the defaults the same? */
static int same_kernel(const st_checker *c, setun_args shape, const int64_t *knob)
{
    st_kir *a, *b;
    setun_status s = SETUN_DECLINED;
    shape.knob = NULL;
    if (shape.op->lower)
        s = st_kir_lower(&a, &shape, &c->e->target, c->arena, NULL);
    shape.knob = knob;
    if (s == SETUN_OK)
        s = st_kir_lower(&b, &shape, &c->e->target, c->arena, NULL);
    return s == SETUN_OK ? st_kir_hash(a) == st_kir_hash(b) : s == SETUN_DECLINED;
}

/* knob NULL: the defaults, and every witness.  Otherwise a kernel that differs from it is what is new. */
static setun_status check_case(st_checker *c, const setun_op *op, const char *text, uint64_t seed, const int64_t *knob, tally *t,
                               setun_error *err)
{
    st_case want, got;
    setun_error why = {0};
    st_mark mark = st_arena_mark(c->arena);
    const st_asked *asked = c->kernels->asked;
    int32_t n_kernel = c->kernels->n;
    int64_t n_backend = knob ? 0 : st_plugins_count(c->e->plugins);
    st_kir *kir = NULL;
    const st_kernel *jit = NULL;
    ST_TRY(st_case_make(op, text, seed, c->arena, &want, err));
    if (knob && same_kernel(c, want.shape, knob)) {
        st_arena_rewind(c->arena, mark);
        return SETUN_OK;
    }
    want.shape.knob = knob;
    setun_status s = op->eval(&want.run, &why);
    count(&t[0], s, &why, text, seed);
    if (s != SETUN_OK)
        return SETUN_OK;
    setun_status lowered = op->lower ? st_kir_lower(&kir, &want.shape, &c->e->target, c->arena, &why) : SETUN_DECLINED;
    for (int w = 1, ran = 1; w < 4 + n_backend && w < MAX_WITNESSES && ran; w++) {
        s = lowered;
        if (w >= 4)
            s = st_plugins_at(c->e->plugins, w - 4)->backend ? SETUN_OK : SETUN_DECLINED;
        if (s == SETUN_OK)
            s = st_case_make(op, text, seed, c->arena, &got, &why);
        if (s == SETUN_OK && w == 1) {
            s = st_kernel_interpret(kir, &got.run, &why);
            ran = s == SETUN_OK; /* the machine is spared what reaches outside its arrays */
        } else if (s == SETUN_OK && w < 4) {
            s = c->e->compiles ? st_kernels_get(c->kernels, &want.shape, &jit, &why) : SETUN_DECLINED;
            if (s == SETUN_OK && jit->interpreted)
                s = SETUN_DECLINED; /* the interpreter is another witness */
            if (s == SETUN_OK)
                s = st_kernel_launch(&jit->code, &got.run, w == 2 ? 1 : 5, &why);
        } else if (s == SETUN_OK) {
            s = by_backend(st_plugins_at(c->e->plugins, w - 4), &got, jit ? &jit->code : NULL, &why);
        }
        if (s == SETUN_OK)
            s = st_outputs_equal(&want.run, &got.run, &why);
        count(&t[w], s, &why, text, seed);
    }
    if (c->kernels->asked == asked && c->kernels->n == n_kernel) /* kernels live in the same arena */
        st_arena_rewind(c->arena, mark);
    return SETUN_OK;
}

setun_status st_check_head(st_checker *c, setun_error *err)
{
    st_str head = {0};
    st_str_addf(&head, "%-20s %5s %9s %9s %9s %9s", "operator", "cases", "eval", "interp", "jit", "jit/5");
    for (int64_t i = 0; i < st_plugins_count(c->e->plugins); i++)
        if (st_plugins_at(c->e->plugins, i)->backend)
            st_str_addf(&head, " %9.9s", st_plugins_at(c->e->plugins, i)->backend_info.name);
    st_str_addf(&head, "   (%s)\n", st_engine_isa(c->e));
    setun_status s = head.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the table") : st_check_say(c, head.text, err);
    st_str_free(&head);
    return s;
}

setun_status st_check_op(st_checker *c, const setun_op *op, setun_error *err)
{
    tally t[MAX_WITNESSES];
    st_str row = {0};
    int64_t n_witness = 4 + st_plugins_count(c->e->plugins), n_cases = 0;
    memset(t, 0, sizeof t);
    /* Then again with the other candidates of its knobs: in turn v, candidate v of all of them. */
    uint32_t n_knob = SETUN_HAS(setun_op, op, knob) ? op->n_knob : 0, turns = 1;
    for (uint32_t i = 0; i < n_knob; i++)
        turns = op->knob[i].n_value > turns ? op->knob[i].n_value : turns;
    for (uint32_t v = 0; v < turns; v++) {
        int64_t *knob = v ? st_arena_array(c->arena, n_knob, sizeof *knob) : NULL;
        if (v && !knob)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to check operators");
        for (uint32_t i = 0; i < n_knob && knob; i++)
            knob[i] = op->knob[i].value[v % op->knob[i].n_value];
        n_cases = 0;
        for (const char *const *text = op->cases; *text; text++, n_cases++)
            for (uint64_t seed = 1; seed <= SEEDS; seed++)
                ST_TRY(check_case(c, op, *text, seed, knob, t, err));
    }
    st_str_addf(&row, "%-20s %5" PRId64, op->name, n_cases);
    for (int64_t w = 0; w < n_witness && w < MAX_WITNESSES; w++) {
        const char *word = t[w].bad ? "FAIL" : t[w].ok == 0 ? "-" : t[w].absent ? "part" : "ok";
        if (w >= 4 && !st_plugins_at(c->e->plugins, w - 4)->backend)
            continue;
        st_str_addf(&row, " %9s", word);
        c->failed += t[w].bad != 0;
    }
    st_str_add(&row, "\n");
    for (int64_t w = 0; w < n_witness && w < MAX_WITNESSES; w++)
        if (t[w].bad)
            st_str_addf(&row, "    %s: %s (%d of %d)\n", w == 0 ? "eval" : w == 1 ? "interpreter" : w == 2 ? "jit, one tile"
                        : w == 3 ? "jit, five tiles" : st_plugins_at(c->e->plugins, w - 4)->backend_info.name,
                        t[w].first.text, t[w].bad, t[w].bad + t[w].ok);
    setun_status s = row.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the table") : st_check_say(c, row.text, err);
    st_str_free(&row);
    return s;
}

/* In the order of their files: the list has the newest first. */
static setun_status check_packings(st_checker *c, const st_script_packing *p, const char *only, int64_t *shown, setun_error *err)
{
    if (!p)
        return SETUN_OK;
    ST_TRY(check_packings(c, p->next, only, shown, err));
    if (only && strcmp(only, p->name))
        return SETUN_OK;
    ++*shown;
    return st_check_packing(c, p, err);
}

static setun_status check_all(st_checker *c, const char *const *files, int32_t n_files, const char *only, setun_error *err)
{
    int64_t first = 0, shown = 0;
    st_script *script = NULL;
    setun_status s = SETUN_OK;
    if (n_files) {
        first = st_registry_count(c->e->registry);
        s = st_script_open(&script, c->e->scripts, c->e->registry, c->arena, NULL, err);
        for (int32_t i = 0; i < n_files && s == SETUN_OK; i++)
            s = st_script_ops(script, files[i], err);
        if (s == SETUN_OK && st_registry_count(c->e->registry) == first && !st_script_packings(script))
            s = st_fail(err, SETUN_BAD_SCRIPT, "%s defines no operator (setun.op) and no packing (setun.packing \"name\" { ... }); a quantizer is "
                        "made of operators, and is tried on a model with --quantizer", files[0]);
        if (s == SETUN_OK)
            s = check_packings(c, st_script_packings(script), only, &shown, err);
    }
    if (s == SETUN_OK && (!n_files || st_registry_count(c->e->registry) > first))
        s = st_check_head(c, err);
    for (int64_t i = first; i < st_registry_count(c->e->registry) && s == SETUN_OK; i++) {
        const setun_op *op = st_registry_at(c->e->registry, i);
        if (only && strcmp(only, op->name))
            continue;
        s = st_check_op(c, op, err);
        shown++;
    }
    if (s == SETUN_OK && !shown)
        s = st_fail(err, SETUN_UNKNOWN, "there is no operator named '%s'", only ? only : "");
    st_script_close(script);
    return s;
}

setun_status setun_check(const char *const *files, int32_t n_files, const char *only, const setun_options *o, int64_t *failed,
                         setun_write_fn *out, void *user, setun_error *err)
{
    st_checker c = {.out = out, .user = user};
    *failed = 0;
    ST_TRY(st_engine_open(&c.e, o, err));
    c.arena = st_arena_new();
    setun_status s = c.arena ? st_kernels_new(&c.kernels, c.e, c.arena, err)
                             : st_fail(err, SETUN_NO_MEMORY, "no memory to check operators");
    if (s == SETUN_OK) {
        c.kernels->wary = n_files > 0;
        s = check_all(&c, files, n_files, only, err);
    }
    *failed = c.failed;
    st_engine_close(c.e);
    st_arena_free(c.arena);
    return s;
}

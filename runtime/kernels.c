/* runtime/kernels.c -- see kernels.h. */
#include "runtime/kernels.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/guard.h"
#include "base/hash.h"

setun_status st_kernels_new(st_kernels **out, st_engine *e, st_arena *arena, setun_error *err)
{
    st_kernels *k = st_arena_alloc(arena, sizeof *k);
    if (!k)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for kernels");
    k->engine = e;
    k->arena = arena;
    *out = k;
    return SETUN_OK;
}

void st_kernel_code(const st_kir *kir, setun_kernel_fn *fn, setun_code *code)
{
    memset(code, 0, sizeof *code);
    code->size = (uint32_t)sizeof *code;
    code->launch_abi = SETUN_LAUNCH_ABI;
    code->fn = fn;
    code->self = kir;
    code->slot = kir->slot;
    code->n_slot = kir->n_slot;
    code->grid = kir->grid;
    code->scratch_bytes = fn == st_kir_run ? st_kir_run_scratch(kir) : kir->scratch_bytes;
}

static const setun_view *argument(const setun_args *a, int32_t i)
{
    return i < (int32_t)a->n_in ? &a->in[i] : &a->out[i - (int32_t)a->n_in];
}

typedef struct launching {
    const setun_code *code;
    setun_launch      launch;
    setun_tile        tile;
    int64_t           units, n_tile;
} launching;

static void run_tiles(void *user)
{
    launching *l = user;
    for (int64_t i = 0; i < l->n_tile; i++) {
        l->tile.begin = l->units * i / l->n_tile;
        l->tile.end = l->units * (i + 1) / l->n_tile;
        if (l->tile.begin < l->tile.end)
            l->code->fn(&l->launch, &l->tile);
    }
}

/* illegal NULL: the kernel is known to run.  Else *illegal says whether it met an instruction that this
 * processor does not have. */
static setun_status launch(const setun_code *code, const setun_args *a, int64_t n_tile, int *illegal, setun_error *err)
{
    void *arg[ST_MAX_ARGS];
    const setun_view *view[ST_MAX_ARGS];
    int64_t dim[ST_MAX_SLOTS];
    for (uint32_t i = 0; i < a->n_in + a->n_out; i++) {
        view[i] = argument(a, (int32_t)i);
        arg[i] = view[i]->data;
    }
    for (uint32_t i = 0; i < code->n_slot; i++)
        dim[i] = view[code->slot[i].arg]->dim[code->slot[i].dim];
    launching l = {code, {arg, dim, code->self}, {0, 0, NULL}, st_grid_units(&code->grid, view), n_tile};
    if (code->scratch_bytes) {
        l.tile.scratch = aligned_alloc(64, (size_t)(code->scratch_bytes + 63) / 64 * 64);
        if (!l.tile.scratch)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for a kernel's scratch");
    }
    if (illegal)
        *illegal = st_guard_illegal(run_tiles, &l);
    else
        run_tiles(&l);
    free(l.tile.scratch);
    return SETUN_OK;
}

setun_status st_kernel_launch(const setun_code *code, const setun_args *a, int64_t n_tile, setun_error *err)
{
    return launch(code, a, n_tile, NULL, err);
}

setun_status st_kernel_interpret(const st_kir *kir, const setun_args *a, setun_error *err)
{
    void *arg[ST_MAX_ARGS];
    const setun_view *view[ST_MAX_ARGS];
    int64_t dim[ST_MAX_SLOTS], bytes[ST_MAX_ARGS];
    for (uint32_t i = 0; i < a->n_in + a->n_out; i++) {
        view[i] = argument(a, (int32_t)i);
        arg[i] = view[i]->data;
        bytes[i] = setun_view_bytes(view[i]);
    }
    for (uint32_t i = 0; i < kir->n_slot; i++)
        dim[i] = view[kir->slot[i].arg]->dim[kir->slot[i].dim];
    setun_launch l = {arg, dim, kir};
    setun_tile t = {0, st_grid_units(&kir->grid, view), NULL};
    return t.end > 0 ? st_kir_eval(kir, &l, bytes, &t, err) : SETUN_OK;
}

static double element(const setun_view *v, int64_t i)
{
    switch (v->dtype) {
    case SETUN_F32: return (double)((const float *)v->data)[i];
    case SETUN_F16: return (double)setun_f16_f32(((const uint16_t *)v->data)[i]);
    case SETUN_BF16: return (double)setun_bf16_f32(((const uint16_t *)v->data)[i]);
    case SETUN_Q8: case SETUN_Q4_0: case SETUN_Q8_0: case SETUN_Q4_K: case SETUN_Q6_K: return (double)setun_get_f32(v, i);
    case SETUN_I8: return ((const int8_t *)v->data)[i];
    case SETUN_I32: return ((const int32_t *)v->data)[i];
    case SETUN_I64: return (double)((const int64_t *)v->data)[i];
    default: return ((const uint8_t *)v->data)[i];
    }
}

setun_status st_outputs_equal(const setun_args *want, const setun_args *got, setun_error *err)
{
    for (uint32_t o = 0; o < want->n_out; o++) {
        const setun_view *w = &want->out[o], *g = &got->out[o];
        int64_t n = setun_count(w), bytes = setun_view_bytes(w);
        if (bytes == 0 || memcmp(w->data, g->data, (size_t)bytes) == 0)
            continue;
        int64_t step = bytes / n ? bytes / n : 1;
        for (int64_t i = 0; i < n; i++) {
            if (memcmp((const char *)w->data + i * step, (const char *)g->data + i * step, (size_t)step) == 0)
                continue;
            double a = element(w, i), b = element(g, i), d = a > b ? a - b : b - a, m = a < 0 ? -a : a;
            if (a != a && b != b) /* which NaN it is, is open */
                continue;
            if (want->op->tolerance > 0 && d <= want->op->tolerance * (m > 1 ? m : 1))
                continue;
            return st_fail(err, SETUN_FAILED, "output '%s' differs at element %" PRId64 " of %" PRId64
                           ": eval gives %.9g, this gives %.9g", want->op->out[o].name, i, n, a, b);
        }
    }
    return SETUN_OK;
}

/* The smallest instance that runs the same code.  Sizes that the kernel reads at run time shrink; so
 * does every size without which lower() writes the same instructions (rows of an embedding, positions
 * of a cache): sizes that are equal shrink together, because operators tie them. */
#define SMALL 37
#define SMALL_TOKENS 5

static int same_instructions(const st_kir *a, const st_kir *b)
{
    return a->n_inst == b->n_inst && a->n_mask == b->n_mask && a->n_slot == b->n_slot &&
           memcmp(a->inst + 1, b->inst + 1, (a->n_inst - 1) * sizeof *a->inst) == 0 &&
           (a->n_mask == 0 || memcmp(a->mask, b->mask, a->n_mask * sizeof *a->mask) == 0) &&
           memcmp(a->slot, b->slot, a->n_slot * sizeof *a->slot) == 0;
}

/* Replace size `from` in all inputs; keep it if the kernel does not change. */
static void try_smaller(st_kernels *k, setun_args *a, int64_t from, const st_kir *kir, st_arena *tmp)
{
    setun_view old[ST_MAX_ARGS];
    st_kir *other;
    memcpy(old, a->in, a->n_in * sizeof old[0]);
    for (uint32_t i = 0; i < a->n_in; i++)
        for (uint32_t d = 0; d < a->in[i].rank; d++)
            if (a->in[i].dim[d] == from)
                a->in[i].dim[d] = SMALL;
    if (a->op->infer(a, NULL) != SETUN_OK ||
        st_kir_lower(&other, a, &k->engine->target, tmp, NULL) != SETUN_OK || !same_instructions(kir, other)) {
        memcpy(a->in, old, a->n_in * sizeof old[0]);
        (void)a->op->infer(a, NULL);
    }
}

static void shrink(st_kernels *k, setun_args *a, const st_kernel *kernel, st_arena *tmp)
{
    setun_view old[ST_MAX_ARGS];
    memcpy(old, a->in, a->n_in * sizeof old[0]);
    for (uint32_t i = 0; i < a->n_in; i++)
        for (uint32_t d = 0; d < a->in[i].rank; d++)
            if (a->in[i].dim[d] > SMALL)
                try_smaller(k, a, a->in[i].dim[d], kernel->kir, tmp);
    for (uint32_t i = 0; i < kernel->code.n_slot; i++) {
        setun_slot at = kernel->code.slot[i];
        if (at.arg < (int32_t)a->n_in && a->in[at.arg].dim[at.dim] > SMALL)
            a->in[at.arg].dim[at.dim] = SMALL;
    }
    if (a->op->infer(a, NULL) != SETUN_OK) {
        memcpy(a->in, old, a->n_in * sizeof old[0]); /* tied in a way not seen here: check at full size */
        (void)a->op->infer(a, NULL);
    }
}

/* The same inputs once more, and outputs of its own: made-up contents are dear, copies are not. */
static setun_status copy_case(const st_case *from, st_arena *arena, setun_args *to, setun_error *err)
{
    uint32_t n_in = from->run.n_in, n = n_in + from->run.n_out;
    setun_view *view = st_arena_array(arena, n, sizeof *view);
    if (!view)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to check a kernel");
    *to = from->run;
    to->in = view;
    to->out = view + n_in;
    for (uint32_t i = 0; i < n; i++) {
        view[i] = *argument(&from->run, (int32_t)i);
        uint32_t shares = i < n_in ? 0 : from->run.op->out[i - n_in].shares;
        int64_t bytes = setun_view_bytes(&view[i]) + ST_CASE_SLACK;
        if (shares) {
            view[i].data = view[shares - 1].data;
            continue;
        }
        void *data = st_arena_alloc(arena, bytes);
        if (!data)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to check a kernel");
        memcpy(data, view[i].data, (size_t)bytes);
        view[i].data = data;
    }
    return SETUN_OK;
}

/* *illegal: it could not be checked, because it has an instruction that this processor has not. */
static setun_status check_against_eval(st_kernels *k, const setun_args *shape, const st_kernel *kernel, int *illegal,
                                       setun_error *err)
{
    st_arena *tmp = st_arena_new();
    setun_view in[ST_MAX_ARGS], out[ST_MAX_ARGS];
    setun_args small = *shape;
    setun_status s = SETUN_OK;
    if (!tmp)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to check a kernel");
    memcpy(in, shape->in, shape->n_in * sizeof in[0]);
    memcpy(out, shape->out, shape->n_out * sizeof out[0]);
    small.in = in;
    small.out = out;
    shrink(k, &small, kernel, tmp);
    int64_t size[SETUN_N_SYMBOLS] = {SMALL_TOKENS, SMALL_TOKENS - 2};
    *illegal = 0;
    for (uint64_t seed = 1; seed <= 2 && s == SETUN_OK && !*illegal; seed++) {
        st_case want;
        setun_args got, tried;
        s = st_case_from_shape(&small, size, seed, tmp, &want, err);
        if (s == SETUN_OK)
            s = copy_case(&want, tmp, &got, err);
        if (s == SETUN_OK && k->wary)
            s = copy_case(&want, tmp, &tried, err);
        if (s == SETUN_OK && k->wary)
            s = st_kernel_interpret(kernel->kir, &tried, err);
        if (s == SETUN_OK)
            s = shape->op->eval(&want.run, err);
        if (s == SETUN_OK)
            s = launch(&kernel->code, &got, 2, illegal, err);
        if (s == SETUN_OK && !*illegal && st_outputs_equal(&want.run, &got, err) != SETUN_OK) {
            s = SETUN_FAILED;
            st_wrap(err, "the compiled kernel %s disagrees with its definition; this is a bug of Setun or LLVM "
                         "(use --interpret to go on)", kernel->name);
        }
    }
    st_arena_free(tmp);
    return s;
}

/* Everything that can change the bytes of an image is in its key. */
setun_status st_kernel_key(const st_engine *e, const st_kir *kir, const char *symbol, st_str *key, setun_error *err)
{
    const st_target *t = &e->target;
    st_str_addf(key, "setun %s image %u launch %u llvm %u codegen %u %" PRId64 " %" PRId64 "\n%s\n%s\n%s\n%s\n",
                SETUN_VERSION, ST_IMAGE_VERSION, SETUN_LAUNCH_ABI, t->llvm_version, ST_CODEGEN_ABI, e->codegen_bytes,
                e->codegen_mtime, t->triple, t->cpu, t->features, symbol);
    st_kir_print(kir, key);
    return key->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for a kernel's text") : SETUN_OK;
}

/* What compiling may take in LLVM's passes before it is tried in a simpler way.  Ordinary kernels take
 * milliseconds. */
#define COMPILE_LIMIT_NS ((int64_t)20 * 1000000000)

/* A kernel on its way to code. */
typedef struct making {
    const st_kir    *kir;
    const char      *symbol;
    st_str           key;
    char            *bytes; /* the image, malloc'ed */
    int64_t          n;
    st_image         image;
    int              cached, interpreted;
    setun_error      note;  /* what is worth a word though nothing failed; text empty: nothing */
    setun_kernel_fn *fn;
} making;

static void drop_image(making *m)
{
    free(m->bytes);
    m->bytes = NULL;
    m->n = 0;
}

static void end_making(making *m)
{
    drop_image(m);
    st_str_free(&m->key);
}

/* The image from the cache, if a whole one is there.  [any] */
static setun_status fetch(const st_kernels *k, making *m, setun_error *err)
{
    ST_TRY(st_kernel_key(k->engine, m->kir, m->symbol, &m->key, err));
    setun_status s = st_cache_get(k->engine->kernels ? k->engine->kernels : k->engine->cache, m->key.text, (int64_t)m->key.len, &m->bytes, &m->n, &m->note);
    if (s == SETUN_OK)
        s = st_image_open(&m->image, m->bytes, m->n, &m->note);
    if (s == SETUN_OK)
        s = st_loader_fits(&m->image, &m->note);
    m->cached = s == SETUN_OK;
    if (!m->cached)
        drop_image(m);
    if (s == SETUN_OK || s == SETUN_DECLINED)
        m->note.text[0] = 0; /* nothing is there: nothing to tell */
    if (s == SETUN_NO_MEMORY && err)
        *err = m->note;
    return s == SETUN_NO_MEMORY ? s : SETUN_OK;
}

setun_status st_kernel_object(const st_engine *e, const st_kir *kir, const char *symbol, char **object, int64_t *n,
                              setun_error *note, setun_error *err)
{
    st_emit how = {ST_EMIT_OBJECT, 0, COMPILE_LIMIT_NS};
    setun_status s = e->codegen->emit(kir, &e->target, symbol, &how, object, n, err);
    if (s != SETUN_FULL)
        return s;
    (void)st_fail(note, SETUN_OK, "%s; it is compiled in a simpler way", err->text);
    how.simple = 1;
    s = e->codegen->emit(kir, &e->target, symbol, &how, object, n, err);
    if (s == SETUN_FULL)
        (void)st_fail(note, SETUN_OK, "%s; it is interpreted", err->text);
    return s;
}

/* The image from the compiler: in the usual way, in a simple way, or none and the interpreter.  [any] */
static setun_status make_image(const st_kernels *k, making *m, setun_error *err)
{
    const st_engine *e = k->engine;
    setun_error why = {0, ""};
    char *object = NULL;
    int64_t n = 0;
    if (!e->codegen) {
        m->interpreted = 1;
        (void)st_fail(&m->note, SETUN_OK, "kernel %s is interpreted: it is not in the cache, and there is no compiler",
                      m->kir->name);
        return SETUN_OK;
    }
    setun_status s = st_kernel_object(e, m->kir, m->symbol, &object, &n, &m->note, &why);
    if (s == SETUN_FULL) {
        m->interpreted = 1;
        return SETUN_OK;
    }
    if (s == SETUN_OK)
        s = st_image_link(object, n, m->symbol, &m->bytes, &m->n, &why);
    free(object);
    if (s == SETUN_OK)
        s = st_image_open(&m->image, m->bytes, m->n, &why);
    if (s != SETUN_OK && err)
        *err = why;
    return s;
}

static setun_status open_compiler(st_kernels *k, setun_error *err)
{
    setun_status s = st_engine_compiler(k->engine, &k->engine->codegen, err);
    return s == SETUN_DECLINED ? SETUN_OK : s;
}

/* The image of one kernel, out of the cache or made now; `without` is the code of the error when it can only be interpreted. */
static setun_status bring(st_kernels *k, making *m, setun_status without, setun_error *err)
{
    ST_TRY(fetch(k, m, err));
    if (m->cached)
        return SETUN_OK;
    ST_TRY(open_compiler(k, err));
    ST_TRY(make_image(k, m, err));
    return m->interpreted ? st_fail(err, without, "%s", m->note.text) : SETUN_OK;
}

setun_status st_kernels_compile(st_kernels *k, const st_kir *kir, const char *symbol, setun_kernel_fn **fn,
                                int *from_cache, setun_error *err)
{
    making m = {.kir = kir, .symbol = symbol};
    setun_status s = bring(k, &m, SETUN_DECLINED, err);
    if (s == SETUN_OK)
        s = st_loader_load(k->engine->loader, &m.image, 1, fn, err);
    if (s == SETUN_OK && !m.cached)
        s = st_cache_put(k->engine->cache, m.key.text, (int64_t)m.key.len, m.bytes, m.n, err);
    *from_cache = m.cached;
    end_making(&m);
    return s;
}

setun_status st_kernel_image(st_kernels *k, const st_kernel *kernel, char **image, int64_t *n, setun_error *err)
{
    making m = {.kir = kernel->kir, .symbol = kernel->symbol};
    setun_status s = bring(k, &m, SETUN_UNKNOWN, err);
    *image = s == SETUN_OK ? m.bytes : NULL;
    *n = s == SETUN_OK ? m.n : 0;
    if (s == SETUN_OK)
        m.bytes = NULL; /* the caller's now */
    end_making(&m);
    return s;
}

/* Built-in operators are pure functions.  Of others infer, lower and fill expect one thread at a time. */
static int is_pure(const setun_op *op)
{
    for (const setun_op *const *own = st_builtin_ops; *own; own++)
        if (*own == op)
            return 1;
    return 0;
}

typedef struct builders {
    st_kernels *k;
    st_pool    *pool;
    making     *m;       /* of kernel first + i */
    int32_t     first;
    setun_status (*step)(struct builders *b, int32_t i);
    atomic_int  next;    /* kernel to be taken */
    atomic_int  limit;   /* the first that failed, or the number of kernels */
    atomic_int  missing; /* kernels that are not in the cache */
} builders;

/* The steps run on any worker and touch nothing but kernel i and its making. */
static setun_status fetch_one(builders *b, int32_t i)
{
    st_kernel *one = b->k->kernel[i];
    making *m = &b->m[i - b->first];
    int64_t start = st_now_ns();
    m->kir = one->kir;
    m->symbol = one->symbol;
    one->status = fetch(b->k, m, &one->why);
    if (one->status == SETUN_OK && !m->cached)
        (void)atomic_fetch_add(&b->missing, 1);
    one->made_ns = st_now_ns() - start;
    return one->status;
}

static setun_status make_one(builders *b, int32_t i)
{
    st_kernel *one = b->k->kernel[i];
    making *m = &b->m[i - b->first];
    int64_t start = st_now_ns();
    if (m->cached)
        return SETUN_OK;
    one->status = make_image(b->k, m, &one->why);
    one->compiled = one->status == SETUN_OK && !m->interpreted;
    one->made_ns += st_now_ns() - start;
    return one->status;
}

/* Only a kernel that has proved itself here is kept. */
static setun_status check_one(builders *b, int32_t i)
{
    st_kernel *one = b->k->kernel[i];
    making *m = &b->m[i - b->first];
    int64_t start = st_now_ns();
    int illegal = 0, alone = b->pool && !is_pure(one->shape.op);
    if (!one->compiled)
        return SETUN_OK;
    if (alone)
        st_pool_lock(b->pool);
    one->status = check_against_eval(b->k, &one->shape, one, &illegal, &one->why);
    if (alone)
        st_pool_unlock(b->pool);
    if (one->status == SETUN_OK && illegal) {
        st_logf(&b->k->engine->log, ST_LOG_WARN, "kernel %s is interpreted: this machine does not know an instruction in it, "
                "though it claims all of %s (--cpu-features can do without)", one->name, st_engine_isa(b->k->engine));
        st_kernel_code(one->kir, st_kir_run, &one->code);
        one->compiled = 0;
        one->interpreted = 1;
    } else if (one->status == SETUN_OK) {
        one->status = st_cache_put(b->k->engine->cache, m->key.text, (int64_t)m->key.len, m->bytes, m->n, &one->why);
    }
    one->checked_ns = st_now_ns() - start;
    return one->status;
}

/* Kernels are taken in order, so all before a failed one have been tried: whatever the threads do, the
 * first failure in the graph's order is found. */
static void build_some(void *arg, int32_t worker)
{
    builders *b = arg;
    (void)worker;
    for (int i; (i = atomic_fetch_add(&b->next, 1)) < atomic_load(&b->limit);) {
        setun_status s = b->step(b, i);
        int limit = atomic_load(&b->limit);
        while (s != SETUN_OK && i < limit && !atomic_compare_exchange_weak(&b->limit, &limit, i))
            ;
    }
}

/* One step of all kernels that have not failed, or come behind one that has. */
static void build_all(builders *b, setun_status (*step)(builders *b, int32_t i))
{
    b->step = step;
    atomic_store(&b->next, b->first);
    if (b->pool && atomic_load(&b->limit) - b->first > 1)
        st_pool_run(b->pool, build_some, b);
    else
        build_some(b, 0);
}

/* All images into one piece of memory. */
static setun_status load_all(builders *b, setun_error *err)
{
    int32_t n = atomic_load(&b->limit) - b->first, loaded = 0;
    st_image *image = calloc((size_t)n + 1, sizeof *image);
    setun_kernel_fn **fn = calloc((size_t)n + 1, sizeof *fn);
    setun_status s = image && fn ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to load kernels");
    for (int32_t i = 0; i < n && s == SETUN_OK; i++)
        if (!b->m[i].interpreted)
            image[loaded++] = b->m[i].image;
    if (s == SETUN_OK)
        s = st_loader_load(b->k->engine->loader, image, loaded, fn, err);
    for (int32_t i = 0, at = 0; i < n && s == SETUN_OK; i++) {
        st_kernel *one = b->k->kernel[b->first + i];
        one->interpreted = b->m[i].interpreted;
        st_kernel_code(one->kir, one->interpreted ? st_kir_run : fn[at++], &one->code);
    }
    free(image);
    free(fn);
    return s;
}

/* The log's order is the graph's, too. */
static void report(const builders *b, int32_t failed)
{
    const st_log *log = &b->k->engine->log;
    for (int32_t i = b->first; i < b->k->n && i < failed; i++) {
        const st_kernel *one = b->k->kernel[i];
        if (b->m[i - b->first].note.text[0])
            st_logf(log, ST_LOG_INFO, "%s", b->m[i - b->first].note.text);
        st_logf(log, ST_LOG_DEBUG, "%s: %s in %.1f ms, checked in %.1f ms", one->name,
                one->interpreted ? "interpreted" : one->compiled ? "compiled" : "loaded", 1e-6 * (double)one->made_ns,
                1e-6 * (double)one->checked_ns);
    }
}

/* All steps; what fails for a kernel is left in the kernel. */
static setun_status build(builders *b, setun_error *err)
{
    build_all(b, fetch_one);
    if (atomic_load(&b->missing)) {
        ST_TRY(open_compiler(b->k, err));
        build_all(b, make_one);
    }
    ST_TRY(load_all(b, err));
    if (atomic_load(&b->missing))
        build_all(b, check_one);
    return SETUN_OK;
}

/* Whoever asks again for a kernel that nobody got to, gets what stood in the way. */
static void give_up(st_kernels *k, int32_t from, setun_status status, const setun_error *why)
{
    for (int32_t i = from; i < k->n; i++)
        if (!k->kernel[i]->code.fn && k->kernel[i]->status == SETUN_OK) {
            k->kernel[i]->status = status;
            k->kernel[i]->why = *why;
        }
}

setun_status st_kernels_build(st_kernels *k, st_pool *pool, setun_error *err)
{
    builders b = {.k = k, .pool = pool, .first = k->n_built};
    setun_error why = {0, ""};
    int32_t n = k->n - k->n_built;
    atomic_init(&b.next, b.first);
    atomic_init(&b.limit, k->n);
    atomic_init(&b.missing, 0);
    k->n_built = k->n;
    if (k->engine->o.interpret)
        for (int32_t i = b.first; i < k->n; i++)
            st_kernel_code(k->kernel[i]->kir, st_kir_run, &k->kernel[i]->code);
    if (k->engine->o.interpret || !n)
        return SETUN_OK;
    b.m = calloc((size_t)n, sizeof *b.m);
    setun_status s = b.m ? build(&b, &why) : st_fail(&why, SETUN_NO_MEMORY, "no memory for kernels");
    int32_t failed = atomic_load(&b.limit);
    if (b.m)
        report(&b, s == SETUN_OK ? failed : b.first);
    for (int32_t i = 0; b.m && i < n; i++)
        end_making(&b.m[i]);
    free(b.m);
    if (s == SETUN_OK && failed == k->n)
        return SETUN_OK;
    if (s == SETUN_OK) {
        const st_kernel *bad = k->kernel[failed];
        s = bad->status;
        why = bad->why;
        give_up(k, failed + 1, s, &why);
        if (bad->where && *bad->where)
            st_wrap(&why, "%s", bad->where);
    } else {
        give_up(k, b.first, s, &why);
    }
    if (err)
        *err = why;
    return s;
}

static setun_status add_kernel(st_kernels *k, const setun_args *shape, const char *where, st_kir *kir, uint64_t hash,
                               st_kernel **out, setun_error *err)
{
    if (k->n == k->cap) {
        int32_t cap = k->cap ? 2 * k->cap : 64;
        st_kernel **more = st_arena_array(k->arena, cap, sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for kernels");
        if (k->n)
            memcpy(more, k->kernel, (size_t)k->n * sizeof *more);
        k->kernel = more;
        k->cap = cap;
    }
    st_kernel *one = st_arena_alloc(k->arena, sizeof *one);
    if (!one || !(one->name = st_arena_printf(k->arena, "%s-%016" PRIx64, shape->op->name, hash)) ||
        !(one->symbol = st_arena_strdup(k->arena, one->name)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a kernel");
    for (char *c = one->symbol; *c; c++)
        if (*c == '-' || *c == '.')
            *c = '_';
    one->kir = kir;
    one->hash = hash;
    one->shape = *shape;
    one->where = where;
    for (uint32_t i = 1; i < kir->n_inst; i++)
        one->writes |= kir->inst[i].op == K_store;
    k->kernel[k->n++] = one;
    *out = one;
    return SETUN_OK;
}

static setun_status find_kernel(st_kernels *k, const setun_args *shape, const char *where, st_kernel **out, setun_error *err)
{
    st_engine *e = k->engine;
    st_kir *kir = NULL;
    *out = NULL;
    if (!shape->op->lower || (!e->compiles && !e->o.interpret))
        return SETUN_DECLINED;
    st_mark mark = st_arena_mark(k->arena);
    setun_status s = st_kir_lower(&kir, shape, &e->target, k->arena, err);
    if (s != SETUN_OK) {
        if (s != SETUN_DECLINED)
            st_wrap(err, "lowering %s", shape->op->name);
        return s;
    }
    uint64_t hash = st_kir_hash(kir);
    for (int32_t i = 0; i < k->n; i++)
        if (k->kernel[i]->hash == hash && strcmp(k->kernel[i]->kir->name, kir->name) == 0) {
            st_arena_rewind(k->arena, mark);
            *out = k->kernel[i];
            return SETUN_OK;
        }
    return add_kernel(k, shape, where, kir, hash, out, err);
}

/* Everything that lower() can see. */
static void question(const setun_args *a, st_str *key)
{
    st_str_addn(key, &a->op, sizeof a->op);
    for (uint32_t i = 0; i < a->n_in + a->n_out; i++) {
        const setun_view *v = argument(a, (int32_t)i);
        st_str_addn(key, &v->dtype, sizeof v->dtype);
        st_str_addn(key, &v->rank, sizeof v->rank);
        st_str_addn(key, v->dim, v->rank * sizeof v->dim[0]);
    }
    for (uint32_t i = 0; i < a->n_attr; i++)
        if (a->op->attr[i].kind == SETUN_ATTR_STRING)
            st_str_addn(key, a->attr[i].s, strlen(a->attr[i].s) + 1);
        else
            st_str_addn(key, &a->attr[i], sizeof a->attr[i]);
    if (a->knob)
        st_str_addn(key, a->knob, a->op->n_knob * sizeof a->knob[0]);
}

setun_status st_kernels_ask(st_kernels *k, const setun_args *shape, const char *where, st_kernel **out, setun_error *err)
{
    st_str key = {0};
    *out = NULL;
    question(shape, &key);
    for (const st_asked *q = k->asked; q && !key.failed; q = q->next)
        if (q->n == key.len && memcmp(q->key, key.text, key.len) == 0) {
            *out = q->kernel;
            st_str_free(&key);
            return SETUN_OK;
        }
    setun_status s = key.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for a kernel")
                                : find_kernel(k, shape, where, out, err);
    if (s == SETUN_OK) {
        st_asked *q = st_arena_alloc(k->arena, sizeof *q);
        char *copy = st_arena_alloc(k->arena, (int64_t)key.len);
        if (q && copy) { /* without memory the question is merely asked again */
            memcpy(copy, key.text, key.len);
            *q = (st_asked){k->asked, *out, key.len, copy};
            k->asked = q;
        }
    }
    st_str_free(&key);
    return s;
}

setun_status st_kernels_get(st_kernels *k, const setun_args *shape, const st_kernel **out, setun_error *err)
{
    st_kernel *one;
    *out = NULL;
    ST_TRY(st_kernels_ask(k, shape, NULL, &one, err));
    ST_TRY(st_kernels_build(k, NULL, err));
    if (one->status != SETUN_OK) { /* it failed when it was built, and would again */
        if (err)
            *err = one->why;
        return one->status;
    }
    *out = one;
    return SETUN_OK;
}

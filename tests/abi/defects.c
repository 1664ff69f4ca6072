/* tests/abi/defects.c -- a plugin with an operator and a backend and one defect of choice. */
#include "tests/abi/defects.h"

#include <string.h>

#include "setun/backend.h"
#include "setun/format.h"
#include "setun/plugin.h"

SETUN_EXPORT void choose_defect(int32_t defect);
SETUN_EXPORT int32_t count_started(void);

static struct {
    int32_t          defect, started; /* started: init less fini */
    setun_plugin     core;
    setun_backend_v1 backend;
    setun_ops_v1     ops;
    setun_format_v1  format;
    setun_op         op;
    const setun_op  *list[2];
    setun_port       in[2], out[2];
    setun_attr       attr[2];
    const char      *cases[2];
} it;

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    (void)host;
    *self = &it;
    if (it.defect == DEFECT_core_init_fails)
        return setun_fail(err, SETUN_FAILED, "no luck today");
    if (it.defect == DEFECT_core_init_mute)
        return SETUN_DECLINED;
    it.started++;
    return SETUN_OK;
}

static void fini(void *self)
{
    (void)self;
    it.started--;
}

static const void *extension(void *self, const char *id)
{
    (void)self;
    if (!strcmp(id, SETUN_EXT_BACKEND))
        return &it.backend;
    if (!strcmp(id, SETUN_EXT_FORMAT))
        return &it.format;
    return strcmp(id, SETUN_EXT_OPS) ? NULL : &it.ops;
}

static setun_status describe(void *self, setun_backend_info *info)
{
    (void)self;
    info->name = it.defect == DEFECT_backend_no_name    ? NULL
                 : it.defect == DEFECT_backend_bad_name ? "a b"
                 : it.defect == N_DEFECTS ? "trace" /* as another plugin calls its own */
                                          : "defect";
    return it.defect == DEFECT_backend_mute ? SETUN_FAILED : SETUN_OK;
}

static setun_status supports(void *self, const setun_step *step, double *seconds)
{
    (void)self; (void)step; (void)seconds;
    return SETUN_DECLINED;
}
static setun_status context_new(void *self, int32_t n, setun_context **c, setun_error *err)
{
    (void)self; (void)n; (void)c; (void)err;
    return SETUN_FAILED;
}
static void context_free(setun_context *c) { (void)c; }
static setun_status buffer_new(setun_context *c, int64_t n, setun_buffer **b, setun_error *err)
{
    (void)c; (void)n; (void)b; (void)err;
    return SETUN_FAILED;
}
static setun_status buffer_wrap(setun_context *c, const void *d, int64_t n, setun_buffer **b,
                                setun_error *err)
{
    (void)c; (void)d; (void)n; (void)b; (void)err;
    return SETUN_FAILED;
}
static void buffer_free(setun_buffer *b) { (void)b; }
static setun_status buffer_write(setun_buffer *b, int64_t o, const void *d, int64_t n,
                                 setun_error *err)
{
    (void)b; (void)o; (void)d; (void)n; (void)err;
    return SETUN_FAILED;
}
static setun_status buffer_read(setun_buffer *b, int64_t o, void *d, int64_t n, setun_error *err)
{
    (void)b; (void)o; (void)d; (void)n; (void)err;
    return SETUN_FAILED;
}
static void *buffer_map(setun_buffer *b) { (void)b; return NULL; }
static setun_status program_new(setun_context *c, const setun_step *s, uint32_t n,
                                setun_program **p, setun_error *err)
{
    (void)c; (void)s; (void)n; (void)p; (void)err;
    return SETUN_FAILED;
}
static void program_free(setun_program *p) { (void)p; }
static setun_status program_run(setun_program *p, const int64_t *size, uint32_t n, setun_error *err)
{
    (void)p; (void)size; (void)n; (void)err;
    return SETUN_FAILED;
}
static setun_status infer(setun_args *a, setun_error *err) { (void)a; (void)err; return SETUN_OK; }
static setun_status eval(const setun_args *a, setun_error *err)
{
    (void)a;
    (void)err;
    return SETUN_OK;
}

static int32_t is_none(void *self, const void *bytes, uint64_t n)
{
    (void)self;
    (void)bytes;
    (void)n;
    return 0;
}

static setun_status open_none(void *self, const void *bytes, uint64_t n, setun_format_file *file, setun_error *err)
{
    (void)self;
    (void)bytes;
    (void)n;
    (void)file;
    return setun_fail(err, SETUN_FAILED, "there are no such files");
}

static setun_status no_rows(void *self, int64_t tensor, int64_t row, int64_t n, void *to, setun_error *err)
{
    (void)self;
    (void)tensor;
    (void)row;
    (void)n;
    (void)to;
    return setun_fail(err, SETUN_FAILED, "there are no rows");
}

int32_t count_started(void)
{
    return it.started;
}

/* Everything right, and then one thing wrong. */
void choose_defect(int32_t defect)
{
    static const setun_plugin core = { sizeof core, SETUN_ABI, "org.setun.test.defects",
                                       "1",         "b",       init,
                                       fini,        extension };
    static const setun_backend_v1 backend = {
        sizeof backend, 0,          describe,    supports,     context_new,
        context_free,   buffer_new, buffer_wrap, buffer_free,  buffer_write,
        buffer_read,    buffer_map, program_new, program_free, program_run,
        NULL,           NULL,       NULL,        NULL,
    };
    int32_t started = it.started;
    memset(&it, 0, sizeof it);
    it.started = started;
    it.defect = defect;
    it.core = core;
    it.backend = backend;
    it.in[0].name = "x";
    it.in[1].name = "z";
    it.out[0].name = "y";
    it.out[1].name = "w";
    it.attr[0] = (setun_attr){ "a", "", SETUN_ATTR_INT, 0, { .i = 1 } };
    it.attr[1] = (setun_attr){ "b", "", SETUN_ATTR_STRING, 0, { .s = "s" } };
    it.cases[0] = "x:f32[1] z:f32[1]";
    it.op = (setun_op){ .size = sizeof it.op,
                        .version = 1,
                        .name = "defect",
                        .doc = "",
                        .in = it.in,
                        .out = it.out,
                        .attr = it.attr,
                        .n_in = 2,
                        .n_out = 2,
                        .n_attr = 2,
                        .infer = infer,
                        .eval = eval,
                        .cases = it.cases };
    it.list[0] = &it.op;
    it.ops = (setun_ops_v1){ sizeof it.ops, 1, it.list };
    it.format = (setun_format_v1){ sizeof it.format, 0, "none", "", is_none, open_none, no_rows, fini };
    switch (defect) {
    case DEFECT_core_short: it.core.size = 12; break;
    case DEFECT_core_no_id: it.core.id = NULL; break;
    case DEFECT_core_bad_id: it.core.id = "a plugin\n"; break;
    case DEFECT_core_no_init: it.core.init = NULL; break;
    case DEFECT_core_no_fini: it.core.fini = NULL; break;
    case DEFECT_core_no_extension: it.core.extension = NULL; break;
    case DEFECT_backend_short: it.backend.size = 40; break;
    case DEFECT_backend_long: it.backend.size = 70000; break;
    case DEFECT_ops_short: it.ops.size = 4; break;
    case DEFECT_ops_many: it.ops.n = 123456789; break;
    case DEFECT_ops_null_list: it.ops.n = 2; it.ops.op = NULL; break;
    case DEFECT_ops_hole: it.ops.n = 2; break;
    case DEFECT_ops_twice: it.ops.n = 2; it.list[1] = &it.op; break;
    case DEFECT_op_short: it.op.size = 16; break;
    case DEFECT_op_long: it.op.size = UINT32_MAX; break;
    case DEFECT_op_no_name: it.op.name = NULL; break;
    case DEFECT_op_bad_name: it.op.name = "a-b"; break;
    case DEFECT_op_no_infer: it.op.infer = NULL; break;
    case DEFECT_op_no_eval: it.op.eval = NULL; break;
    case DEFECT_op_no_cases: it.op.cases = NULL; break;
    case DEFECT_op_empty_cases: it.cases[0] = NULL; break;
    case DEFECT_op_no_output: it.op.n_out = 0; break;
    case DEFECT_op_many_inputs: it.op.n_in = 1000000; break;
    case DEFECT_op_null_inputs: it.op.n_in = 1; it.op.in = NULL; break;
    case DEFECT_op_port_no_name: it.in[0].name = ""; break;
    case DEFECT_op_port_twice: it.out[1].name = "y"; break;
    case DEFECT_op_shares: it.out[0].shares = 7; break;
    case DEFECT_op_attr_null: it.op.attr = NULL; break;
    case DEFECT_op_attr_kind: it.attr[0].kind = 9; break;
    case DEFECT_op_attr_twice: it.attr[1].name = "a"; break;
    case DEFECT_op_attr_default: it.attr[1].fallback.s = NULL; break;
    case DEFECT_op_tolerance: it.op.tolerance = -1; break;
    case DEFECT_format_short: it.format.size = 16; break;
    case DEFECT_format_no_open: it.format.open = NULL; break;
    case DEFECT_format_bad_name: it.format.name = "a format"; break;
    default: break;
    }
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    (void)host_abi;
    return &it.core;
}

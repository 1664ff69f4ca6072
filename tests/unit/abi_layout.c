/* tests/unit/abi_layout.c -- offsets, sizes and numbers that plugins were built with.
 *
 * tests/abi/<header>.layout holds a line for each field of each struct that crosses the plugin ABI.
 * Any difference from the compiled headers is a broken promise, except lines added at the end of a
 * table that has a size.  What the headers say now is then left in the build directory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/str.h"
#include "setun/backend.h"
#include "setun/format.h"
#include "setun/op.h"
#include "setun/plugin.h"
#include "setun/types.h"

typedef struct row {
    const char *type,
        *field; /* field NULL: the size of the whole; type NULL: a number called field */
    int64_t     offset, bytes;
} row;

#define F(T, f) { #T, #f, (int64_t)offsetof(T, f), (int64_t)sizeof(((T *)0)->f) }
#define S(T) { #T, NULL, 0, (int64_t)sizeof(T) }
#define V(v) { NULL, #v, 0, (int64_t)(v) }

static const row types_rows[] = {
    F(setun_error, code), F(setun_error, text), S(setun_error),
    F(setun_view, data), F(setun_view, dtype), F(setun_view, rank), F(setun_view, dim),
    S(setun_view),
    S(setun_value),
    V(SETUN_OK), V(SETUN_DECLINED), V(SETUN_FAILED), V(SETUN_NO_MEMORY), V(SETUN_BAD_ARG),
    V(SETUN_BAD_FILE), V(SETUN_BAD_SHAPE), V(SETUN_UNKNOWN), V(SETUN_FULL), V(SETUN_BAD_SCRIPT),
    V(SETUN_IO), V(SETUN_CANCELLED), V(SETUN_F32), V(SETUN_F16), V(SETUN_BF16), V(SETUN_I8),
    V(SETUN_I16), V(SETUN_I32), V(SETUN_I64), V(SETUN_U8), V(SETUN_T2), V(SETUN_T2_BLOCK),
    V(SETUN_T2_BLOCK_BYTES), V(SETUN_MAX_RANK), V(SETUN_DIM_TOKENS), V(SETUN_DIM_OUTPUTS),
    V(SETUN_Q8), V(SETUN_Q8_BLOCK), V(SETUN_Q8_BLOCK_BYTES),
    V(SETUN_Q4_0), V(SETUN_Q8_0), V(SETUN_Q4_K), V(SETUN_Q6_K),
};
static const row plugin_rows[] = {
    F(setun_host, size), F(setun_host, abi), F(setun_host, version), F(setun_host, build),
    F(setun_host, context), F(setun_host, log), F(setun_host, service), S(setun_host),
    F(setun_plugin, size), F(setun_plugin, abi), F(setun_plugin, id), F(setun_plugin, version),
    F(setun_plugin, build), F(setun_plugin, init), F(setun_plugin, fini),
    F(setun_plugin, extension), S(setun_plugin),
    F(setun_ops_v1, size), F(setun_ops_v1, n), F(setun_ops_v1, op), S(setun_ops_v1),
    V(SETUN_ABI),
};
static const row format_rows[] = {
    F(setun_format_text, size), F(setun_format_text, reserved), F(setun_format_text, name), F(setun_format_text, text),
    F(setun_format_text, n), S(setun_format_text),
    F(setun_format_tensor, size), F(setun_format_tensor, kind), F(setun_format_tensor, name), F(setun_format_tensor, dtype),
    F(setun_format_tensor, rank), F(setun_format_tensor, dim), F(setun_format_tensor, data), F(setun_format_tensor, scale),
    S(setun_format_tensor),
    F(setun_format_file, size), F(setun_format_file, n_texts), F(setun_format_file, text), F(setun_format_file, n_tensors),
    F(setun_format_file, tensor), F(setun_format_file, self), S(setun_format_file),
    F(setun_format_v1, size), F(setun_format_v1, reserved), F(setun_format_v1, name), F(setun_format_v1, doc),
    F(setun_format_v1, is), F(setun_format_v1, open), F(setun_format_v1, rows), F(setun_format_v1, close), S(setun_format_v1),
    V(SETUN_FORMAT_PLAIN), V(SETUN_FORMAT_FLOATS), V(SETUN_FORMAT_TERNARY),
};
static const row backend_rows[] = {
    F(setun_backend_info, size), F(setun_backend_info, wants_code), F(setun_backend_info, name),
    F(setun_backend_info, doc), S(setun_backend_info),
    F(setun_code, size), F(setun_code, launch_abi), F(setun_code, fn), F(setun_code, self),
    F(setun_code, slot), F(setun_code, n_slot), F(setun_code, reserved), F(setun_code, grid),
    F(setun_code, scratch_bytes), S(setun_code),
    F(setun_operand, buffer), F(setun_operand, offset), F(setun_operand, shape), S(setun_operand),
    F(setun_step, size), F(setun_step, n_in), F(setun_step, n_out), F(setun_step, n_attr),
    F(setun_step, op), F(setun_step, in), F(setun_step, out), F(setun_step, attr),
    F(setun_step, code), F(setun_step, label), S(setun_step),
    F(setun_backend_v1, size), F(setun_backend_v1, reserved), F(setun_backend_v1, describe),
    F(setun_backend_v1, supports), F(setun_backend_v1, context_new),
    F(setun_backend_v1, context_free), F(setun_backend_v1, buffer_new),
    F(setun_backend_v1, buffer_wrap), F(setun_backend_v1, buffer_free),
    F(setun_backend_v1, buffer_write), F(setun_backend_v1, buffer_read),
    F(setun_backend_v1, buffer_map), F(setun_backend_v1, program_new),
    F(setun_backend_v1, program_free), F(setun_backend_v1, program_run), F(setun_backend_v1, wait),
    F(setun_backend_v1, program_times), F(setun_backend_v1, program_waits),
    F(setun_backend_v1, program_observe), S(setun_backend_v1),
};
static const row op_rows[] = {
    F(setun_port, name), F(setun_port, doc), F(setun_port, shares), F(setun_port, reserved),
    S(setun_port),
    F(setun_attr, name), F(setun_attr, doc), F(setun_attr, kind), F(setun_attr, required),
    F(setun_attr, fallback), S(setun_attr),
    F(setun_args, size), F(setun_args, n_in), F(setun_args, n_out), F(setun_args, n_attr),
    F(setun_args, op), F(setun_args, in), F(setun_args, out), F(setun_args, attr),
    F(setun_args, knob), S(setun_args),
    F(setun_knob, name), F(setun_knob, doc), F(setun_knob, value), F(setun_knob, n_value),
    F(setun_knob, reserved), S(setun_knob),
    F(setun_cost, int_ops), F(setun_cost, float_ops), F(setun_cost, bytes), S(setun_cost),
    F(setun_counted, size), F(setun_counted, reserved), F(setun_counted, int_ops),
    F(setun_counted, float_ops), F(setun_counted, bytes), F(setun_counted, rows),
    F(setun_counted, row_bytes), S(setun_counted),
    F(setun_op, size), F(setun_op, version), F(setun_op, name), F(setun_op, doc), F(setun_op, in),
    F(setun_op, out), F(setun_op, attr), F(setun_op, n_in), F(setun_op, n_out), F(setun_op, n_attr),
    F(setun_op, reserved), F(setun_op, infer), F(setun_op, eval), F(setun_op, lower),
    F(setun_op, cost), F(setun_op, fill), F(setun_op, cases), F(setun_op, tolerance),
    F(setun_op, knob), F(setun_op, n_knob), F(setun_op, reserved2),
    F(setun_op, counted), S(setun_op),
    F(setun_launch, arg), F(setun_launch, dim), F(setun_launch, self), S(setun_launch),
    F(setun_tile, begin), F(setun_tile, end), F(setun_tile, scratch), S(setun_tile),
    F(setun_slot, arg), F(setun_slot, dim), S(setun_slot),
    F(setun_grid, at), F(setun_grid, granule), S(setun_grid),
    F(setun_builder, size), F(setun_builder, abi), F(setun_builder, emit),
    F(setun_builder, shuffle), F(setun_builder, type_of), F(setun_builder, dim),
    F(setun_builder, grid), F(setun_builder, scratch), F(setun_builder, info),
    F(setun_builder, fail), F(setun_builder, fault), F(setun_builder, line), S(setun_builder),
    F(setun_kernel, b), S(setun_kernel),
    V(SETUN_ATTR_INT), V(SETUN_ATTR_FLOAT), V(SETUN_ATTR_STRING), V(SETUN_LAUNCH_ABI), V(K_I1),
    V(K_I8), V(K_I16), V(K_I32), V(K_I64), V(K_F32), V(K_PTR), V(K_MAX_LANES), V(K_HAS_DOT2),
    V(K_HAS_DOT4), V(K_HAS_LUT16), V(K_VECTOR_BYTES), V(K_N_REGISTERS), V(K_L1_BYTES),
    V(K_L2_BYTES), V(K_HAS_TILES), V(K_HAS_LUT32), V(K_const), V(K_iota), V(K_arg), V(K_local), V(K_scratch), V(K_dim), V(K_begin),
    V(K_end), V(K_load), V(K_store), V(K_gather), V(K_prefetch), V(K_add), V(K_sub), V(K_mul),
    V(K_min), V(K_max), V(K_div), V(K_sqrt), V(K_rint), V(K_abs), V(K_neg), V(K_and), V(K_or),
    V(K_xor), V(K_shl), V(K_shru), V(K_shrs), V(K_udiv), V(K_urem), V(K_eq), V(K_lt), V(K_le),
    V(K_select), V(K_sext), V(K_zext), V(K_trunc), V(K_i2f), V(K_f2i), V(K_h2f), V(K_f2h),
    V(K_cast), V(K_splat), V(K_extract), V(K_slice), V(K_concat), V(K_shuffle), V(K_rsum),
    V(K_rmax), V(K_dot2), V(K_dot4), V(K_lut16), V(K_sign), V(K_opaque), V(K_var), V(K_get),
    V(K_set), V(K_for), V(K_if), V(K_else), V(K_stop),
};

static void print_row(st_str *s, const row *r)
{
    if (!r->type)
        st_str_addf(s, "%s = %lld\n", r->field, (long long)r->bytes);
    else if (!r->field)
        st_str_addf(s, "%s %lld bytes\n", r->type, (long long)r->bytes);
    else
        st_str_addf(s, "%s.%s at %lld, %lld bytes\n", r->type, r->field, (long long)r->offset,
                    (long long)r->bytes);
}

/* Fields follow one another without a hole that alignment does not explain: none was forgotten. */
static void check_complete(const row *r, uint32_t n)
{
    int64_t end = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!r[i].type)
            continue;
        if (r[i].field) {
            if (r[i].offset < end || r[i].offset - end >= 8 ||
                (r[i].offset != end && r[i].offset % 8))
                fail_msg("%s: something lies before %s", r[i].type, r[i].field);
            end = r[i].offset + r[i].bytes;
        } else {
            if (end && (r[i].bytes < end || r[i].bytes - end >= 8))
                fail_msg("%s: something lies behind its last field", r[i].type);
            end = 0;
        }
    }
}

/* Every struct that the header defines has rows. */
static void check_listed(const char *header, const row *r, uint32_t n)
{
    char path[1024], *text = NULL;
    int64_t bytes = 0;
    setun_error e = { 0, "" };
    (void)snprintf(path, sizeof path, "%s/include/setun/%s.h", SETUN_SOURCE_DIR, header);
    assert_int_equal(st_file_read(path, 1 << 20, &text, &bytes, &e), SETUN_OK);
    static const char start[] = "typedef struct setun_";
    int found = 0;
    for (char *p = strstr(text, start); p; p = strstr(p + 1, start)) {
        char *name = p + strlen("typedef struct ");
        size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
        if (strncmp(name + len, " {", 2))
            continue; /* opaque */
        int is_listed = 0;
        for (uint32_t i = 0; i < n; i++)
            is_listed |= r[i].type && !r[i].field && strlen(r[i].type) == len &&
                         !memcmp(r[i].type, name, len);
        if (!is_listed)
            fail_msg("%s.h: %.*s has no rows in this test", header, (int)len, name);
        found++;
    }
    assert_true(found > 1);
    free(text);
}

static void compare(const char *header, const row *r, uint32_t n)
{
    char path[1024], *want = NULL;
    int64_t bytes = 0;
    setun_error e = { 0, "" };
    st_str now = { 0 };
    check_complete(r, n);
    check_listed(header, r, n);
    for (uint32_t i = 0; i < n; i++)
        print_row(&now, &r[i]);
    (void)snprintf(path, sizeof path, "%s/tests/abi/%s.layout", SETUN_SOURCE_DIR, header);
    if (st_file_read(path, 1 << 20, &want, &bytes, &e) != SETUN_OK)
        want = calloc(1, 1);
    assert_non_null(want);
    if (sizeof(void *) == 8 && strcmp(now.text, want)) { /* the files are for 64-bit machines */
        st_out *o = NULL;
        (void)snprintf(path, sizeof path, "%s/%s.layout", SETUN_BINARY_DIR, header);
        if (st_out_open(&o, path, 0, &e) == SETUN_OK) {
            (void)st_out_write(o, now.text, (int64_t)now.len, &e);
            (void)st_out_commit(o, &e);
        }
        const char *a = now.text, *b = want;
        for (;;) { /* the first line that differs */
            size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");
            if (la != lb || memcmp(a, b, la) || !a[la] || !b[lb])
                fail_msg("%s.layout promises \"%.*s\", the header has \"%.*s\" (all of it in %s)",
                         header, (int)lb, b, (int)la, a, path);
            a += la + 1;
            b += lb + 1;
        }
    }
    free(want);
    st_str_free(&now);
}

static void test_types(void **state)
{
    (void)state;
    compare("types", types_rows, SETUN_LEN(types_rows));
}

static void test_plugin(void **state)
{
    (void)state;
    compare("plugin", plugin_rows, SETUN_LEN(plugin_rows));
}

static void test_format(void **state)
{
    (void)state;
    compare("format", format_rows, SETUN_LEN(format_rows));
}

static void test_backend(void **state)
{
    (void)state;
    compare("backend", backend_rows, SETUN_LEN(backend_rows));
}

static void test_op(void **state)
{
    (void)state;
    compare("op", op_rows, SETUN_LEN(op_rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types), cmocka_unit_test(test_plugin), cmocka_unit_test(test_backend), cmocka_unit_test(test_format),
        cmocka_unit_test(test_op),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

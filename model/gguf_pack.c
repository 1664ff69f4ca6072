/* model/gguf_pack.c -- see gguf_pack.h.
 *
 * What is kept of a tensor X, by name:
 *
 *     X                  its codes, T2 [rows, columns]; or
 *     X (transposed)     T2 [columns, rows], for one scale and 8-bit activations alone
 *     X (scales of G)    F32 [rows, 1 or more], where one scale is not enough; G: weights for each, 0: a row
 *     X (decoded)        F32 [rows, columns]
 *     X (in order)       elements or blocks as bytes, rows in the order of a Hugging Face checkpoint
 */
#include "model/gguf_pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/convert.h"
#include "model/unpacked.h"

int64_t st_gguf_pack_bytes(const st_gguf_model *m, int64_t i)
{
    const setun_view *v = &m->tensor[i].view;
    int64_t all = 0, bytes;
    const int64_t part[][2] = {
        { v->dim[0], setun_row_bytes(SETUN_T2, v->dim[1]) },      /* codes */
        { v->dim[1], setun_row_bytes(SETUN_T2, v->dim[0]) },      /* transposed */
        { v->dim[0], 4 * (v->dim[1] / 64 + 1) },                  /* scales, of 64 weights or more */
        { v->dim[0], v->dim[1] > INT64_MAX / 4 ? -1 : 4 * v->dim[1] }, /* decoded */
    };
    for (int k = 0; k < 4; k++)
        if (st_mul_i64(part[k][0], part[k][1], &bytes) || st_add_i64(all, bytes, &all) || st_add_i64(all, 128, &all))
            return -1;
    return all;
}

static const char *named(st_arena *arena, const st_tensor *t, const char *what)
{
    return st_arena_printf(arena, "%s%s", t->name, what);
}

/* ---------------------------------------------------------------- ternary */

static const int32_t groups[] = { 0, 256, 128, 64 };
#define N_GROUPS 4

/* One matrix on its way: what it is called, and what was found or made. */
typedef struct job {
    const st_gguf_model *m;
    st_pack    *pack;
    int64_t     i, rows, cols;
    const char *name, *turned, *scales[N_GROUPS];
    const st_pack_slot *codes, *scale; /* scale NULL: the one in codes->scale */
    int32_t     group;
} job;

static void look(job *j, int across)
{
    j->codes = across ? st_pack_find(j->pack, j->turned, SETUN_T2, j->cols, j->rows) : NULL;
    if (j->codes)
        return;
    j->codes = st_pack_find(j->pack, j->name, SETUN_T2, j->rows, j->cols);
    for (int k = 0; k < N_GROUPS && j->codes && !j->scale; k++) {
        j->scale = st_pack_find(j->pack, j->scales[k], SETUN_F32, j->rows, st_unpacked_scales(groups[k], j->cols));
        j->group = groups[k];
    }
    if (j->codes && !j->scale && across) /* it could be had transposed, and never was */
        j->codes = NULL;
}

static setun_status keep(job *j, const uint8_t *t2, const float *scale, int32_t group, int across, setun_error *err)
{
    uint8_t *room;
    int64_t n = st_unpacked_scales(group, j->cols);
    if (across && group == ST_GROUP_TENSOR) {
        ST_TRY(st_pack_room(j->pack, j->turned, SETUN_T2, j->cols, j->rows, &room, err));
        st_t2_transpose(room, t2, j->rows, j->cols);
        return st_pack_put(j->pack, scale[0], 0, &j->codes, err);
    }
    ST_TRY(st_pack_room(j->pack, j->name, SETUN_T2, j->rows, j->cols, &room, err));
    memcpy(room, t2, (size_t)(j->rows * setun_row_bytes(SETUN_T2, j->cols)));
    ST_TRY(st_pack_put(j->pack, scale[0], 0, &j->codes, err));
    for (int k = 0; k < N_GROUPS; k++) {
        if (groups[k] != group)
            continue;
        ST_TRY(st_pack_room(j->pack, j->scales[k], SETUN_F32, j->rows, n, &room, err));
        memcpy(room, scale, (size_t)(j->rows * n) * sizeof *scale);
        ST_TRY(st_pack_put(j->pack, 0.0f, 0, &j->scale, err));
        j->group = group;
    }
    return SETUN_OK;
}

/* Sizes were multiplied by st_gguf_pack_bytes when the cache was opened. */
static setun_status make(job *j, int across, setun_error *err)
{
    uint8_t *t2 = malloc((size_t)(j->rows * setun_row_bytes(SETUN_T2, j->cols)) + 1);
    float *scale = malloc((size_t)(j->rows * st_gguf_source_scales(j->m, j->i)) * sizeof *scale + 1);
    int32_t group = 0;
    setun_status s = t2 && scale ? st_gguf_source_ternary(j->m, j->i, t2, scale, &group, err)
                                 : st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", j->m->source[j->i].t->name);
    if (s == SETUN_OK)
        s = keep(j, t2, scale, group, across, err);
    free(t2);
    free(scale);
    return s;
}

setun_status st_gguf_pack_ternary(const st_gguf_model *m, st_pack *pack, st_arena *arena, int64_t i, int across, st_ternary *out,
                                  int64_t *bytes, setun_error *err)
{
    const st_tensor *t = &m->tensor[i];
    int weight_only = m->activations == ST_ACTIVATIONS_FLOAT;
    job j = { .m = m, .pack = pack, .i = i, .rows = t->view.dim[0], .cols = t->view.dim[1], .name = t->name,
              .turned = named(arena, t, " (transposed)") };
    float *one = st_arena_alloc(arena, sizeof *one);
    int named_all = j.turned && one;
    for (int k = 0; k < N_GROUPS; k++) {
        j.scales[k] = st_arena_printf(arena, "%s (scales of %d)", t->name, (int)groups[k]);
        named_all &= j.scales[k] != NULL;
    }
    if (!named_all)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", t->name);
    across = across && !weight_only;
    look(&j, across);
    if (!j.codes)
        ST_TRY(make(&j, across, err));
    int turned = strcmp(j.codes->name, j.turned) == 0;
    *one = j.codes->scale;
    *out = (st_ternary){ .across = turned, .weight_only = weight_only, .group = j.scale ? j.group : 0 };
    out->codes = (setun_view){ j.codes->data, SETUN_T2, 2, { j.codes->rows, j.codes->cols, 1, 1 } };
    out->scale = (setun_view){ one, SETUN_F32, 1, { 1, 1, 1, 1 } };
    if (j.scale)
        out->scale = (setun_view){ j.scale->data, SETUN_F32, j.group ? 2 : 1, { j.rows, j.scale->cols, 1, 1 } };
    *bytes = j.codes->bytes + (j.scale ? j.scale->bytes : 0);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- floats */

setun_status st_gguf_pack_floats(const st_gguf_model *m, st_pack *pack, st_arena *arena, int64_t i, uint32_t want,
                                 setun_view *view, setun_error *err)
{
    const st_tensor *t = &m->tensor[i];
    const st_gguf_tensor *in = m->source[i].t;
    uint32_t own = st_gguf_dtype(in);
    int raw = want != SETUN_F32 && own && own != SETUN_F32;
    int64_t rows = t->view.dim[0], cols = raw ? setun_row_bytes(own, t->view.dim[1]) : t->view.dim[1];
    uint32_t kept = raw ? SETUN_U8 : SETUN_F32;
    const char *name = named(arena, t, raw ? " (in order)" : " (decoded)");
    const st_pack_slot *slot = name ? st_pack_find(pack, name, kept, rows, cols) : NULL;
    uint8_t *room;
    if (!name)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", t->name);
    if (!slot) {
        ST_TRY(st_pack_room(pack, name, kept, rows, cols, &room, err));
        st_map_advise(in->data, in->bytes, 1);
        setun_status s = st_gguf_source_rows(m, i, 0, rows, raw, room, err);
        st_map_advise(in->data, in->bytes, 0);
        if (s != SETUN_OK)
            return s;
        ST_TRY(st_pack_put(pack, 0.0f, 0, &slot, err));
    }
    *view = t->view;
    view->data = slot->data;
    view->dtype = raw ? own : SETUN_F32;
    return SETUN_OK;
}

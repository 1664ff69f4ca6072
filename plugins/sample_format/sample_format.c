/* plugins/sample_format/sample_format.c -- a model format from outside: `trits`, a model in one file.
 *
 *     setun convert MODEL.trits DIR --to hf --plugin ./sample_format.so
 *
 * The file begins with lines of text; offsets count from its first byte:
 *
 *     trits 1
 *     text NAME OFFSET BYTES                      a file of the checkpoint, such as config.json
 *     ternary NAME ROWS COLUMNS SCALE OFFSET      rows of five weights in a byte
 *     f32 NAME OFFSET DIMENSION ...               or f16, bf16: elements as they lie, little-endian
 *     end
 *
 * A byte of a ternary row has five weights w0 ... w4 in base 3, and rows begin at whole bytes:
 *
 *     byte = (w0 + 1) + 3 (w1 + 1) + 9 (w2 + 1) + 27 (w3 + 1) + 81 (w4 + 1), 0 to 242
 *
 * The host checks what it is told (bounds, names, shapes, codes); here is checked what only the format knows: the lines,
 * and that the bytes of ternary rows are in the file, for it is this code that reads them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "setun/format.h"
#include "setun/plugin.h"

#define MAGIC     "trits 1\n"
#define MOST_LINE 1024
#define MOST      100000 /* lines */

typedef struct trits {
    const uint8_t       *bytes;
    uint64_t             n;
    setun_format_text   *text;
    setun_format_tensor *tensor;
    const uint8_t      **rows; /* of each ternary tensor: its first byte */
    char               **name; /* all that was allocated, to be freed */
    uint32_t             n_texts;
    int64_t              n_tensors, n_names;
    uint64_t             taken; /* bytes of ternary rows */
} trits;

static setun_status fail(setun_error *err, setun_status s, const char *what, const char *line)
{
    err->code = s;
    (void)snprintf(err->text, sizeof err->text, "%s: '%.200s'", what, line);
    return s;
}

static int32_t is_trits(void *self, const void *bytes, uint64_t n)
{
    (void)self;
    return n >= sizeof MAGIC - 1 && memcmp(bytes, MAGIC, sizeof MAGIC - 1) == 0;
}

static void close_trits(void *file)
{
    trits *t = file;
    for (int64_t i = 0; i < t->n_names; i++)
        free(t->name[i]);
    free(t->name);
    free(t->text);
    free(t->tensor);
    free(t->rows);
    free(t);
}

/* The file's name, kept until it is closed. */
static const char *keep(trits *t, const char *name)
{
    char *copy = malloc(strlen(name) + 1);
    if (!copy)
        return NULL;
    strcpy(copy, name);
    return t->name[t->n_names++] = copy;
}

static setun_status add_text(trits *t, const char *line, setun_error *err)
{
    char name[256];
    uint64_t at, n;
    int used = -1;
    if (sscanf(line, "text %255s %" SCNu64 " %" SCNu64 "%n", name, &at, &n, &used) != 3 || line[used])
        return fail(err, SETUN_BAD_FILE, "wants 'text NAME OFFSET BYTES'", line);
    if (at > t->n || n > t->n - at)
        return fail(err, SETUN_BAD_FILE, "these bytes do not lie in the file", line);
    setun_format_text *x = &t->text[t->n_texts++];
    *x = (setun_format_text){.size = sizeof *x, .name = keep(t, name), .text = (const char *)t->bytes + at, .n = n};
    return x->name ? SETUN_OK : fail(err, SETUN_NO_MEMORY, "no memory", line);
}

static setun_status add_ternary(trits *t, const char *line, setun_error *err)
{
    char name[256];
    uint64_t at;
    int64_t rows, cols;
    double scale;
    int used = -1;
    if (sscanf(line, "ternary %255s %" SCNd64 " %" SCNd64 " %lf %" SCNu64 "%n", name, &rows, &cols, &scale, &at, &used) != 5 || line[used])
        return fail(err, SETUN_BAD_FILE, "wants 'ternary NAME ROWS COLUMNS SCALE OFFSET'", line);
    if (rows < 1 || cols < 1 || at > t->n || (uint64_t)rows > (t->n - at) / ((uint64_t)cols / 5 + (cols % 5 != 0)))
        return fail(err, SETUN_BAD_FILE, "these rows do not lie in the file", line);
    /* Rows that lie in each other would make much of a small file. */
    t->taken += (uint64_t)rows * ((uint64_t)cols / 5 + (cols % 5 != 0));
    if (t->taken > t->n)
        return fail(err, SETUN_BAD_FILE, "ternary rows have more bytes than the file with these", line);
    setun_format_tensor *x = &t->tensor[t->n_tensors];
    *x = (setun_format_tensor){.size = sizeof *x, .kind = SETUN_FORMAT_TERNARY, .name = keep(t, name), .rank = 2, .dim = {rows, cols, 1, 1},
                               .scale = scale};
    t->rows[t->n_tensors++] = t->bytes + at;
    return x->name ? SETUN_OK : fail(err, SETUN_NO_MEMORY, "no memory", line);
}

/* The offset may be any: the host compares it, the shape and the type with the file's size. */
static setun_status add_plain(trits *t, const char *line, uint32_t dtype, setun_error *err)
{
    char name[256];
    uint64_t at;
    int used = -1, more;
    if (sscanf(line, "%*s %255s %" SCNu64 "%n", name, &at, &used) != 2 || used < 0)
        return fail(err, SETUN_BAD_FILE, "wants 'f32 NAME OFFSET DIMENSION ...'", line);
    setun_format_tensor *x = &t->tensor[t->n_tensors++];
    *x = (setun_format_tensor){.size = sizeof *x, .kind = SETUN_FORMAT_PLAIN, .dtype = dtype, .name = keep(t, name), .dim = {1, 1, 1, 1},
                               .data = t->bytes + (at > t->n ? t->n : at)};
    for (line += used; *line; line += more) {
        more = -1;
        if (x->rank == 4 || sscanf(line, " %" SCNd64 "%n", &x->dim[x->rank], &more) != 1 || more < 1)
            return fail(err, SETUN_BAD_FILE, "wants up to four dimensions", line);
        x->rank++;
    }
    return x->name ? SETUN_OK : fail(err, SETUN_NO_MEMORY, "no memory", line);
}

static setun_status add_line(trits *t, const char *line, setun_error *err)
{
    if (strncmp(line, "text ", 5) == 0)
        return add_text(t, line, err);
    if (strncmp(line, "ternary ", 8) == 0)
        return add_ternary(t, line, err);
    if (strncmp(line, "f32 ", 4) == 0)
        return add_plain(t, line, SETUN_F32, err);
    if (strncmp(line, "f16 ", 4) == 0)
        return add_plain(t, line, SETUN_F16, err);
    if (strncmp(line, "bf16 ", 5) == 0)
        return add_plain(t, line, SETUN_BF16, err);
    return fail(err, SETUN_UNKNOWN, "a line begins with text, ternary, f32, f16, bf16 or end", line);
}

/* All lines up to 'end'. */
static setun_status read_lines(trits *t, setun_error *err)
{
    uint64_t at = sizeof MAGIC - 1;
    for (int i = 0; i < MOST; i++) {
        char line[MOST_LINE];
        const uint8_t *from = t->bytes + at, *end = memchr(from, '\n', (size_t)(t->n - at < MOST_LINE ? t->n - at : MOST_LINE));
        if (!end)
            return fail(err, SETUN_BAD_FILE, "the lines end without 'end', or one is longer than 1023 bytes", "");
        memcpy(line, from, (size_t)(end - from));
        line[end - from] = 0;
        if (memchr(line, 0, (size_t)(end - from)))
            return fail(err, SETUN_BAD_FILE, "a line has a zero byte in it, behind", line);
        if (strcmp(line, "end") == 0)
            return SETUN_OK;
        setun_status s = add_line(t, line, err);
        if (s != SETUN_OK)
            return s;
        at += (uint64_t)(end - from) + 1;
    }
    return fail(err, SETUN_FULL, "there are more lines than are read", "");
}

static setun_status open_trits(void *self, const void *bytes, uint64_t n, setun_format_file *file, setun_error *err)
{
    trits *t = calloc(1, sizeof *t);
    (void)self;
    if (!t)
        return fail(err, SETUN_NO_MEMORY, "no memory", "");
    t->bytes = bytes;
    t->n = n;
    t->text = calloc(MOST, sizeof *t->text);
    t->tensor = calloc(MOST, sizeof *t->tensor);
    t->rows = calloc(MOST, sizeof *t->rows);
    t->name = calloc(MOST, sizeof *t->name);
    setun_status s = t->text && t->tensor && t->rows && t->name ? read_lines(t, err) : fail(err, SETUN_NO_MEMORY, "no memory", "");
    if (s != SETUN_OK) {
        close_trits(t);
        return s;
    }
    file->text = t->text;
    file->n_texts = t->n_texts;
    file->tensor = t->tensor;
    file->n_tensors = t->n_tensors;
    file->self = t;
    return SETUN_OK;
}

static setun_status rows_of(void *file, int64_t tensor, int64_t row, int64_t n, void *to, setun_error *err)
{
    const trits *t = file;
    const setun_format_tensor *x = &t->tensor[tensor];
    int64_t cols = x->dim[1], row_bytes = (cols + 4) / 5;
    int8_t *code = to;
    for (int64_t r = row; r < row + n; r++)
        for (int64_t b = 0; b < row_bytes; b++) {
            unsigned byte = t->rows[tensor][r * row_bytes + b];
            if (byte > 242) {
                char text[64];
                (void)snprintf(text, sizeof text, "byte %" PRId64 " is %u", b, byte);
                return fail(err, SETUN_BAD_FILE, "five weights make a byte of at most 242", text);
            }
            for (int64_t c = 5 * b; c < 5 * b + 5 && c < cols; c++, byte /= 3)
                *code++ = (int8_t)(byte % 3 - 1);
        }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the plugin */

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    (void)host;
    (void)err;
    *self = NULL; /* what is open belongs to the file */
    return SETUN_OK;
}

static void fini(void *self)
{
    (void)self;
}

static const void *extension(void *self, const char *id)
{
    static const setun_format_v1 format = {
        .size = sizeof format, .name = "trits", .doc = "a model in one file, five ternary weights in a byte",
        .is = is_trits, .open = open_trits, .rows = rows_of, .close = close_trits,
    };
    (void)self;
    return strcmp(id, SETUN_EXT_FORMAT) ? NULL : &format;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, SETUN_ABI, "org.setun.sample_format", "1", __VERSION__, init, fini, extension,
    };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}

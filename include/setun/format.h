/* setun/format.h -- model files of other programs: what a plugin tells so that `setun convert` can read them.
 *
 * Extension "setun.format/1".  The host maps the file; the plugin says which texts and tensors it holds, under the names that
 * a Hugging Face checkpoint has, and where they lie, or makes their rows when it is asked.  The host checks all of it
 * (bounds, names, sizes, codes), writes a checkpoint of it, reads that as it reads every other, and refuses what it
 * would refuse there.  So a format can hold whatever architecture Setun knows, and a plugin needs to know none.
 *
 *     file -> is -> open -> texts, tensors -> rows ... -> close
 *
 * Bytes are those of the file from its first to its last, read-only, valid until close has returned; nothing says
 * that they are aligned.  Plain tensors are little-endian.  What open makes belongs to the plugin and is freed by close. */
#ifndef SETUN_FORMAT_H
#define SETUN_FORMAT_H

#include "setun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SETUN_EXT_FORMAT "setun.format/1"

/* A file of the checkpoint: config.json (which must be there), generation_config.json, tokenizer.json,
 * tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt, chat_template.jinja or chat_template.json. */
typedef struct setun_format_text {
    uint32_t    size, reserved;
    const char *name;
    const char *text; /* n bytes of UTF-8, from 1 on; need not end with a zero, may lie in the file */
    uint64_t    n;
} setun_format_text;

enum {
    SETUN_FORMAT_PLAIN = 1,  /* elements of dtype at data, rows one behind the other, as a checkpoint has them */
    SETUN_FORMAT_FLOATS = 2, /* rows makes float values */
    SETUN_FORMAT_TERNARY = 3 /* rows makes int8 codes -1, 0, 1 of a matrix "X.weight", to be multiplied with scale */
};

typedef struct setun_format_tensor {
    uint32_t    size, kind;
    const char *name;     /* "model.layers.0.self_attn.q_proj.weight": UTF-8, each once */
    uint32_t    dtype;    /* PLAIN: SETUN_F32, SETUN_F16 or SETUN_BF16 */
    uint32_t    rank;     /* 1 to 4; of a ternary one 2 */
    int64_t     dim[4];   /* outermost first, each from 1 on; a row is the last dimension */
    const void *data;     /* PLAIN: inside the bytes of the file, of which all plain ones together have no more than there are */
    double      scale;    /* TERNARY: finite and above 0 as a float */
} setun_format_tensor;

/* Filled by open.  The arrays are walked by the size that their first elements state. */
typedef struct setun_format_file {
    uint32_t                   size; /* set by the host */
    uint32_t                   n_texts;
    const setun_format_text   *text;
    int64_t                    n_tensors;
    const setun_format_tensor *tensor;
    void                      *self; /* first argument of rows and close */
} setun_format_file;

typedef struct setun_format_v1 {
    uint32_t    size, reserved;
    const char *name;  /* "trits" */
    const char *doc;   /* one line */
    /* [any] Is it a file of this format, by its first bytes?  Must not look at more than it checks n for. */
    int32_t      (*is)(void *self, const void *bytes, uint64_t n);
    /* [owner] Fills *file, or fills err and frees what it made; close follows success alone. */
    setun_status (*open)(void *self, const void *bytes, uint64_t n, setun_format_file *file, setun_error *err);
    /* [owner] n rows of tensor number `tensor` from `row` on: int8_t codes, or floats, n * the last dimension of them. */
    setun_status (*rows)(void *file_self, int64_t tensor, int64_t row, int64_t n, void *to, setun_error *err);
    void         (*close)(void *file_self); /* [owner] */
} setun_format_v1;

#ifdef __cplusplus
}
#endif
#endif

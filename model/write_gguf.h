/* model/write_gguf.h -- a GGUF file, version 3: keys and tensors are named first, then data stream.
 *
 * What may be in a file is the reader's business (gguf.c): whoever writes reads again. */
#ifndef ST_MODEL_WRITE_GGUF_H
#define ST_MODEL_WRITE_GGUF_H

#include "base/file.h"
#include "base/str.h"
#include "model/gguf_types.h"

#define ST_GGUF_ALIGNMENT 32 /* what readers take where a file does not say */

/* Zero-initialise; st_gguf_writer_end when done, also after a failure. */
typedef struct st_gguf_writer {
    st_out  *out;
    st_str   keys, infos;
    uint64_t n_keys, n_tensors;
    int64_t  data_bytes;            /* of all tensors, padded */
    int64_t  header_bytes;
} st_gguf_writer;

/* Memory that is missing is reported by st_gguf_write_header. */
void st_gguf_write_int(st_gguf_writer *w, const char *key, uint32_t type, int64_t v); /* U8 to I64, BOOL */
void st_gguf_write_f32(st_gguf_writer *w, const char *key, float v);
void st_gguf_write_text(st_gguf_writer *w, const char *key, const char *text, size_t n);
void st_gguf_write_value(st_gguf_writer *w, const st_gguf_value *v); /* as it is in another file */
/* n elements as they stand in a file: little-endian numbers, or strings made by st_gguf_add_text. */
void st_gguf_write_array(st_gguf_writer *w, const char *key, uint32_t element, int64_t n, const st_str *bytes);
void st_gguf_add_text(st_str *s, const char *text, size_t n);
void st_gguf_add_u32(st_str *s, uint32_t v);

/* The next tensor; *bytes is what it will take.  -1: its rows are not whole blocks, or it is too large. */
int st_gguf_write_info(st_gguf_writer *w, const char *name, const st_gguf_type *type, uint32_t rank, const int64_t dim[4],
                       int64_t *bytes);

/* Then the header, and each tensor's bytes in the order of the infos, in pieces, padded after the last. */
setun_status st_gguf_write_header(st_gguf_writer *w, const char *path, setun_error *err);
setun_status st_gguf_write_data(st_gguf_writer *w, const void *bytes, int64_t n, setun_error *err);
setun_status st_gguf_write_pad(st_gguf_writer *w, setun_error *err);
/* SETUN_BAD_ARG: the data are not those that were announced. */
setun_status st_gguf_write_commit(st_gguf_writer *w, setun_error *err);
void         st_gguf_writer_end(st_gguf_writer *w);

#endif

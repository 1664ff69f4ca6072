/* model/json.c -- small JSON files beside a model. */
#include "model/json.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

#define FILE_LIMIT (1 << 20)

setun_status st_json_load(const char *path, uint64_t *hash, json_t **root, setun_error *err)
{
    char *text;
    int64_t bytes;
    json_error_t je;
    *root = NULL;
    ST_TRY(st_file_read(path, FILE_LIMIT, &text, &bytes, err));
    *root = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &je);
    if (hash)
        *hash = st_hash(*hash, text, (size_t)bytes);
    free(text);
    return *root ? SETUN_OK : st_fail(err, SETUN_BAD_FILE, "%s: not valid JSON: %s (line %d)", path, je.text, je.line);
}

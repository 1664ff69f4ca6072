/* model/json.c -- JSON files beside a model, as a whole.
 *
 * Not here: tokenizer.json where it is encoded with, whose large members are walked in place (jscan.c). */
#include "model/json.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

setun_status st_json_load(const char *path, int64_t limit, uint64_t *hash, json_t **root, setun_error *err)
{
    char *text;
    int64_t bytes;
    json_error_t je;
    *root = NULL;
    ST_TRY(st_file_read(path, limit, &text, &bytes, err));
    *root = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &je);
    if (hash)
        *hash = st_hash(*hash, text, (size_t)bytes);
    free(text);
    return *root ? SETUN_OK : st_fail(err, SETUN_BAD_FILE, "%s: not valid JSON: %s (line %d)", path, je.text, je.line);
}

/* model/import.h -- a file in a plugin's format as a checkpoint: see setun/format.h. */
#ifndef ST_MODEL_IMPORT_H
#define ST_MODEL_IMPORT_H

#include "model/compare.h"
#include "model/newdir.h"
#include "setun/format.h"

typedef struct st_import {
    const setun_format_v1 *format; /* its table was checked when the plugin was loaded */
    void                  *self;   /* the plugin's */
    const char            *path;   /* of the file */
    const uint8_t         *bytes;  /* all of it */
    int64_t                n;
} st_import;

/* Fills d, which has begun, with config.json, what else the file has, and model.safetensors.  Refuses, naming the file,
 * the text or tensor and the value, whatever of the plugin's answers cannot be so. */
setun_status st_import_write(const st_import *i, const st_newdir *d, st_watch *watch, setun_error *err);

#endif

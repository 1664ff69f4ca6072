/* plugins/host.h -- find, load, negotiate, ask for extensions, refuse with a sentence.
 *
 * The only file that sees <dlfcn.h>.  Plugins are loaded RTLD_NOW | RTLD_LOCAL and stay loaded until
 * the process ends (unloading code that threads may still run is not worth its bugs). */
#ifndef ST_PLUGINS_HOST_H
#define ST_PLUGINS_HOST_H

#include "base/log.h"
#include "setun/backend.h"
#include "setun/format.h"
#include "setun/plugin.h"

typedef struct st_plugins st_plugins;

typedef struct st_plugin_info {
    const char             *file, *id, *version, *build;
    const setun_backend_v1 *backend;      /* NULL: none offered */
    const setun_ops_v1     *ops;          /* NULL: none offered */
    const setun_format_v1  *format;       /* NULL: none offered */
    void                   *self;
    setun_backend_info      backend_info; /* when backend */
} st_plugin_info;

setun_status st_plugins_new(st_plugins **p, const st_log *log, setun_error *err);
void         st_plugins_free(st_plugins *p); /* calls fini; does not unload */
/* Refuses, naming the file: not a shared object, no entry, other ABI, a table that is too short, a
 * missing callback, an id or backend name that is already taken. */
setun_status st_plugins_load(st_plugins *p, const char *file, setun_error *err);
/* Colon-separated files, as --plugin and SETUN_PLUGIN_PATH give them; empty parts are skipped. */
setun_status st_plugins_load_list(st_plugins *p, const char *list, setun_error *err);
int64_t      st_plugins_count(const st_plugins *p);
const st_plugin_info *st_plugins_at(const st_plugins *p, int64_t i);
const st_plugin_info *st_plugins_backend(const st_plugins *p, const char *name); /* NULL when absent */

/* Load a shared object of Setun's own and return one symbol of it (the code generator). */
setun_status st_module_symbol(const char *file, const char *symbol, void **address, setun_error *err);
/* The file of the shared object that has this address. */
setun_status st_module_file(const void *inside, char *path, size_t n, setun_error *err);
/* The code of the shared object that has this address will not be needed for long: its pages may leave the
 * process until it runs again. */
void         st_module_rest(const void *inside);

/* Where this program's own modules and scripts are: found from the library's or program's place. */
setun_status st_install_dirs(char *modules, char *scripts, size_t n, setun_error *err);

#endif

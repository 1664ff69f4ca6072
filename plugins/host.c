/* plugins/host.c -- load plugins, negotiate, validate, refuse.  See host.h.
 *
 *     file -> shared object -> setun_plugin_entry(abi) -> core table -> init -> extensions
 *
 * A plugin is trusted to run, for it is code; it is not trusted to be built right.  Everything it
 * hands over is checked once, here, so that nobody else has to: table sizes, callbacks, names,
 * operator schemas.  Each refusal names the file, what was found, what is wanted and what to do.
 * Checking is by the sizes of revision 1, never by sizeof: tables may grow on either side. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "plugins/host.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"

#define END_OF(T, field) (offsetof(T, field) + sizeof(((T *)0)->field))
#define LARGEST_TABLE 65536u /* no table of functions is larger; such a size is a wild pointer */
#define MOST_PLUGINS 256
#define MOST_OPS 4096u
#define MOST_PORTS 64u
#define MOST_CASES 4096

struct st_plugins {
    st_log          log;
    setun_host      host; /* handed to every plugin; lives as long as they do */
    int64_t         n;
    st_plugin_info *info[MOST_PLUGINS];
    const setun_plugin *core[MOST_PLUGINS];
};

/* ---------------------------------------------------------------- host services */

static void host_log(void *context, int32_t level, const char *text)
{
    const st_plugins *p = (const st_plugins *)context;
    if (text)
        st_logf(&p->log, level < 0 ? 0 : level, "%s", text);
}

/* None yet; asking is allowed and answered, so that plugins can be newer than the host. */
static const void *host_service(void *context, const char *id)
{
    (void)context;
    (void)id;
    return NULL;
}

#if defined(__SANITIZE_ADDRESS__)
#define BUILD "compiler " __VERSION__ ", address sanitizer"
#else
#define BUILD "compiler " __VERSION__
#endif

setun_status st_plugins_new(st_plugins **out, const st_log *log, setun_error *err)
{
    st_plugins *p = calloc(1, sizeof *p);
    *out = p;
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the list of plugins");
    if (log)
        p->log = *log;
    p->host.size = sizeof p->host;
    p->host.abi = SETUN_ABI;
    p->host.version = SETUN_VERSION;
    p->host.build = BUILD;
    p->host.context = p;
    p->host.log = host_log;
    p->host.service = host_service;
    return SETUN_OK;
}

static void free_info(st_plugin_info *info)
{
    if (info)
        free((void *)(uintptr_t)info->file);
    free(info);
}

void st_plugins_free(st_plugins *p)
{
    if (!p)
        return;
    for (int64_t i = p->n - 1; i >= 0; i--) {
        p->core[i]->fini(p->info[i]->self);
        free_info(p->info[i]);
    }
    free(p);
}

/* ---------------------------------------------------------------- checks */

/* Names are printed, compared and typed on command lines: 1 to 100 of the characters that need no
 * quotes.  `more` are those allowed beside letters, digits and underscore. */
static int is_name(const char *s, const char *more)
{
    size_t n = 0;
    if (!s || !s[0])
        return 0;
    for (; s[n]; n++) {
        char c = s[n];
        int plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (n >= 100 || (!plain && !strchr(more, c)))
            return 0;
    }
    return 1;
}

static setun_status check_size(const char *what, uint32_t size, size_t want, setun_error *err)
{
    if (size > LARGEST_TABLE)
        return st_fail(err, SETUN_UNKNOWN,
                       "%s says it is %u bytes long, which no table is; set its size with sizeof",
                       what, (unsigned)size);
    if (size < want)
        return st_fail(err, SETUN_UNKNOWN,
                       "%s has %u bytes, the shortest that was ever valid has %u; "
                       "rebuild the plugin with the headers of this Setun",
                       what, (unsigned)size, (unsigned)want);
    return SETUN_OK;
}

static setun_status check_core(const setun_plugin *c, setun_error *err)
{
    if (c->abi != SETUN_ABI)
        return st_fail(err, SETUN_UNKNOWN,
                       "its table is for plugin ABI %u, this Setun speaks ABI %u; "
                       "use a build of the plugin for ABI %u",
                       (unsigned)c->abi, SETUN_ABI, SETUN_ABI);
    ST_TRY(check_size("its plugin table", c->size, END_OF(setun_plugin, extension), err));
    if (!is_name(c->id, ".-"))
        return st_fail(err, SETUN_UNKNOWN,
                       "its id is missing or has other characters than letters, digits and ._-; "
                       "give it one like \"org.example.name\"");
    if (!c->init || !c->fini || !c->extension)
        return st_fail(err, SETUN_UNKNOWN,
                       "%s has no %s; every plugin must fill in init, fini and extension", c->id,
                       !c->init   ? "init"
                       : !c->fini ? "fini"
                                  : "extension");
    return SETUN_OK;
}

static setun_status check_backend(const st_plugins *p, st_plugin_info *info, setun_error *err)
{
    const setun_backend_v1 *b = info->backend;
    /* All up to program_run are required; wait and program_times are not, nor what comes later. */
    ST_TRY(check_size("its " SETUN_EXT_BACKEND " table", b->size,
                      END_OF(setun_backend_v1, program_run), err));
#define NEED(f)                                                                                    \
    if (!b->f)                                                                                     \
    return st_fail(err, SETUN_UNKNOWN,                                                             \
                   "its " SETUN_EXT_BACKEND " table has no " #f "; a backend must fill in "        \
                   "all but wait and program_times")
    NEED(describe);
    NEED(supports);
    NEED(context_new);
    NEED(context_free);
    NEED(buffer_new);
    NEED(buffer_wrap);
    NEED(buffer_free);
    NEED(buffer_write);
    NEED(buffer_read);
    NEED(buffer_map);
    NEED(program_new);
    NEED(program_free);
    NEED(program_run);
#undef NEED
    memset(&info->backend_info, 0, sizeof info->backend_info);
    info->backend_info.size = sizeof info->backend_info;
    if (b->describe(info->self, &info->backend_info) != SETUN_OK)
        return st_fail(err, SETUN_UNKNOWN, "its backend failed to describe itself");
    if (!is_name(info->backend_info.name, ".-"))
        return st_fail(err, SETUN_UNKNOWN, "its backend has no name that --backend could take; "
                       "use letters, digits and ._-");
    const st_plugin_info *other = st_plugins_backend(p, info->backend_info.name);
    if (other)
        return st_fail(err, SETUN_UNKNOWN,
                       "its backend is called \"%s\", and so is that of %s; rename one",
                       info->backend_info.name, other->file);
    if (!info->backend_info.doc)
        info->backend_info.doc = "";
    return SETUN_OK;
}

static setun_status check_ports(const char *op, const char *kind, const setun_port *port,
                                uint32_t n, uint32_t most_shared, setun_error *err)
{
    if (n > MOST_PORTS || (n && !port))
        return st_fail(err, SETUN_UNKNOWN,
                       "operator %s says it has %u %ss, and %s; at most %u can be", op, (unsigned)n,
                       kind, port ? "that is too many" : "does not list them", MOST_PORTS);
    for (uint32_t i = 0; i < n; i++) {
        if (!is_name(port[i].name, ""))
            return st_fail(err, SETUN_UNKNOWN, "%s %u of operator %s has no proper name", kind,
                           (unsigned)i, op);
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(port[i].name, port[j].name))
                return st_fail(err, SETUN_UNKNOWN, "operator %s has two %ss called %s", op, kind,
                               port[i].name);
        if (port[i].shares > most_shared)
            return st_fail(err, SETUN_UNKNOWN,
                           "%s %s of operator %s shares input %u, which it does not have", kind,
                           port[i].name, op, (unsigned)port[i].shares - 1);
    }
    return SETUN_OK;
}

static setun_status check_attrs(const setun_op *op, setun_error *err)
{
    if (op->n_attr > MOST_PORTS || (op->n_attr && !op->attr))
        return st_fail(err, SETUN_UNKNOWN,
                       "operator %s says it has %u attributes, which it does not list or which are "
                       "more than %u",
                       op->name, (unsigned)op->n_attr, MOST_PORTS);
    for (uint32_t i = 0; i < op->n_attr; i++) {
        const setun_attr *a = &op->attr[i];
        if (!is_name(a->name, ""))
            return st_fail(err, SETUN_UNKNOWN, "attribute %u of operator %s has no proper name",
                           (unsigned)i, op->name);
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(a->name, op->attr[j].name))
                return st_fail(err, SETUN_UNKNOWN, "operator %s has two attributes called %s",
                               op->name, a->name);
        if (a->kind < SETUN_ATTR_INT || a->kind > SETUN_ATTR_STRING)
            return st_fail(err, SETUN_UNKNOWN,
                           "attribute %s of operator %s is of the unknown kind %u", a->name,
                           op->name, (unsigned)a->kind);
        if (a->kind == SETUN_ATTR_STRING && !a->required && !a->fallback.s)
            return st_fail(err, SETUN_UNKNOWN,
                           "attribute %s of operator %s is optional and has no default", a->name,
                           op->name);
    }
    return SETUN_OK;
}

static setun_status check_op(const setun_op *op, setun_error *err)
{
    ST_TRY(check_size("an operator's descriptor", op->size, END_OF(setun_op, tolerance), err));
    if (!is_name(op->name, ""))
        return st_fail(err, SETUN_UNKNOWN,
                       "an operator has no name, or one with other characters than letters, digits "
                       "and underscores");
    ST_TRY(check_ports(op->name, "input", op->in, op->n_in, 0, err));
    ST_TRY(check_ports(op->name, "output", op->out, op->n_out, op->n_in, err));
    ST_TRY(check_attrs(op, err));
    if (!op->n_out)
        return st_fail(err, SETUN_UNKNOWN, "operator %s has no output", op->name);
    if (!op->infer || !op->eval)
        return st_fail(err, SETUN_UNKNOWN, "operator %s has no %s; infer and eval are required",
                       op->name, op->infer ? "eval" : "infer");
    if (!op->cases || !op->cases[0])
        return st_fail(err, SETUN_UNKNOWN,
                       "operator %s has no cases, so nobody can check it; add some", op->name);
    for (int i = 0; op->cases[i]; i++)
        if (i == MOST_CASES)
            return st_fail(err, SETUN_UNKNOWN,
                           "operator %s has more than %d cases; end the list with NULL", op->name,
                           MOST_CASES);
    if (!(op->tolerance >= 0) || !isfinite(op->tolerance))
        return st_fail(err, SETUN_UNKNOWN,
                       "operator %s has a tolerance that is negative or not a number", op->name);
    return SETUN_OK;
}

static setun_status check_ops(const setun_ops_v1 *o, setun_error *err)
{
    ST_TRY(check_size("its " SETUN_EXT_OPS " table", o->size, END_OF(setun_ops_v1, op), err));
    if (o->n > MOST_OPS || (o->n && !o->op))
        return st_fail(err, SETUN_UNKNOWN,
                       "its " SETUN_EXT_OPS
                       " table says it has %u operators, which it does not list "
                       "or which are more than %u",
                       (unsigned)o->n, MOST_OPS);
    for (uint32_t i = 0; i < o->n; i++) {
        if (!o->op[i])
            return st_fail(err, SETUN_UNKNOWN, "operator %u of its %u is missing", (unsigned)i,
                           (unsigned)o->n);
        ST_TRY(check_op(o->op[i], err));
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(o->op[i]->name, o->op[j]->name))
                return st_fail(err, SETUN_UNKNOWN, "it has two operators called %s",
                               o->op[i]->name);
    }
    return SETUN_OK;
}

/* The name is printed and compared: like an operator's, it is one word. */
static setun_status check_format(const setun_format_v1 *f, setun_error *err)
{
    ST_TRY(check_size("its " SETUN_EXT_FORMAT " table", f->size, END_OF(setun_format_v1, close), err));
    if (!f->name || !f->doc || !f->is || !f->open || !f->rows || !f->close)
        return st_fail(err, SETUN_UNKNOWN, "its " SETUN_EXT_FORMAT " table lacks %s; a format must fill in all of it",
                       !f->name ? "name" : !f->doc ? "doc" : !f->is ? "is" : !f->open ? "open" : !f->rows ? "rows" : "close");
    size_t n = strspn(f->name, "abcdefghijklmnopqrstuvwxyz0123456789_-.");
    if (!n || n > 63 || f->name[n])
        return st_fail(err, SETUN_UNKNOWN, "a format's name has 1 to 63 of a-z, 0-9, '_', '-' and '.'");
    return SETUN_OK;
}

/* ---------------------------------------------------------------- load */

/* The file as a shared object; the handle is never closed. */
static setun_status open_module(const char *file, char *path, void **module, setun_error *err)
{
    /* The whole path, for a bare name would be searched for among the system's libraries. */
    if (!st_is_file(file) || !realpath(file, path))
        return st_fail(err, SETUN_IO, st_is_absent(file) ? "there is no file %s" : "%s is not a file that can be loaded", file);
    *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!*module) {
        const char *why = dlerror();
        return st_fail(err, SETUN_BAD_FILE, "%s is not a shared object that can be loaded here: %s",
                       file, why ? why : "the system gives no reason");
    }
    return SETUN_OK;
}

setun_status st_module_symbol(const char *file, const char *symbol, void **address,
                              setun_error *err)
{
    char path[PATH_MAX];
    void *module = NULL;
    *address = NULL;
    ST_TRY(open_module(file, path, &module, err));
    *address = dlsym(module, symbol);
    if (!*address)
        return st_fail(err, SETUN_BAD_FILE, "%s has no symbol %s", file, symbol);
    return SETUN_OK;
}

setun_status st_module_file(const void *inside, char *path, size_t n, setun_error *err)
{
    Dl_info info;
    if (!dladdr(inside, &info) || !info.dli_fname || strlen(info.dli_fname) >= n)
        return st_fail(err, SETUN_FAILED, "cannot find out which file a piece of code is from");
    memcpy(path, info.dli_fname, strlen(info.dli_fname) + 1);
    return SETUN_OK;
}

/* The object is known by an address in it, not by its name, which belongs to the loader: another thread may be
 * loading something.  Segments that are never written are the file's own bytes, so nothing is lost with their
 * pages. */
static int rest(struct dl_phdr_info *o, size_t size, void *inside)
{
    int found = 0;
    (void)size;
    for (int advise = 0; advise <= found; advise++)
        for (int i = 0; i < o->dlpi_phnum; i++) {
            const ElfW(Phdr) *h = &o->dlpi_phdr[i];
            uintptr_t at = o->dlpi_addr + h->p_vaddr;
            if (h->p_type != PT_LOAD || h->p_flags & PF_W)
                continue;
            found |= (uintptr_t)inside - at < h->p_memsz;
            if (advise)
                st_map_advise((const void *)at, (int64_t)h->p_memsz, 0);
        }
    return found;
}

void st_module_rest(const void *inside)
{
    (void)dl_iterate_phdr(rest, (void *)(uintptr_t)inside);
}

/* From the entry point to a core table that can be believed. */
static setun_status negotiate(const st_plugins *p, void *entry, const setun_plugin **out,
                              setun_error *err)
{
    setun_plugin_entry_fn *call;
    /* C has no cast from data to function pointers; POSIX promises the same representation. */
    SETUN_STATIC_ASSERT(sizeof call == sizeof entry, "function pointers are as long as others");
    memcpy(&call, &entry, sizeof call);
    const setun_plugin *core = call(SETUN_ABI);
    if (!core)
        return st_fail(err, SETUN_UNKNOWN, "the plugin does not serve hosts of ABI %u (Setun %s); "
                       "use a build of it for this ABI", SETUN_ABI, SETUN_VERSION);
    ST_TRY(check_core(core, err));
    for (int64_t i = 0; i < p->n; i++)
        if (!strcmp(p->info[i]->id, core->id))
            return st_fail(err, SETUN_UNKNOWN,
                           "its id %s is already taken by %s; name each plugin once", core->id,
                           p->info[i]->file);
    *out = core;
    return SETUN_OK;
}

static setun_status check_extensions(const st_plugins *p, const setun_plugin *core,
                                     st_plugin_info *info, setun_error *err)
{
    info->backend = (const setun_backend_v1 *)core->extension(info->self, SETUN_EXT_BACKEND);
    info->ops = (const setun_ops_v1 *)core->extension(info->self, SETUN_EXT_OPS);
    if (info->backend)
        ST_TRY(check_backend(p, info, err));
    if (info->ops)
        ST_TRY(check_ops(info->ops, err));
    info->format = (const setun_format_v1 *)core->extension(info->self, SETUN_EXT_FORMAT);
    if (info->format)
        ST_TRY(check_format(info->format, err));
    if (!info->backend && !info->ops && !info->format)
        st_logf(&p->log, ST_LOG_WARN, "%s: the plugin %s offers nothing that this Setun knows",
                info->file, info->id);
    return SETUN_OK;
}

static setun_status load(st_plugins *p, st_plugin_info *info, void *entry, setun_error *err)
{
    const setun_plugin *core = NULL;
    setun_error e = { 0, "" };
    ST_TRY(negotiate(p, entry, &core, err));
    info->id = core->id;
    info->version = core->version ? core->version : "";
    info->build = core->build ? core->build : "";
    setun_status s = core->init(&p->host, &info->self, &e);
    if (s != SETUN_OK) {
        e.text[sizeof e.text - 1] = 0;
        return st_fail(err, s < 0 ? s : SETUN_FAILED, "the plugin could not start: %s",
                       e.text[0] ? e.text : "it gives no reason");
    }
    s = check_extensions(p, core, info, err);
    if (s != SETUN_OK) {
        core->fini(info->self);
        return s;
    }
    p->core[p->n] = core;
    p->info[p->n++] = info;
    return SETUN_OK;
}

setun_status st_plugins_load(st_plugins *p, const char *file, setun_error *err)
{
    char path[PATH_MAX];
    void *module = NULL;
    ST_TRY(open_module(file, path, &module, err));
    void *entry = dlsym(module, "setun_plugin_entry");
    if (!entry)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s is no plugin: it exports no setun_plugin_entry (see setun/plugin.h)",
                       file);
    if (p->n == MOST_PLUGINS)
        return st_fail(err, SETUN_FULL, "%s: %d plugins are loaded already", file, MOST_PLUGINS);
    st_plugin_info *info = calloc(1, sizeof *info);
    char *name = strdup(file);
    setun_status s;
    if (!info || !name) {
        free(name);
        s = st_fail(err, SETUN_NO_MEMORY, "no memory");
    } else {
        info->file = name;
        s = load(p, info, entry, err);
    }
    if (s != SETUN_OK) {
        free_info(info);
        st_wrap(err, "%s", file);
        return s;
    }
    st_logf(&p->log, ST_LOG_DEBUG, "%s: loaded %s %s (%s)", file, info->id, info->version,
            info->build);
    return SETUN_OK;
}

setun_status st_plugins_load_list(st_plugins *p, const char *list, setun_error *err)
{
    while (*list) {
        size_t n = strcspn(list, ":");
        if (n) {
            char *file = strndup(list, n);
            if (!file)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for the name of a plugin");
            setun_status s = st_plugins_load(p, file, err);
            free(file);
            ST_TRY(s);
        }
        list += n + (list[n] == ':');
    }
    return SETUN_OK;
}

int64_t st_plugins_count(const st_plugins *p)
{
    return p->n;
}

const st_plugin_info *st_plugins_at(const st_plugins *p, int64_t i)
{
    return p->info[i];
}

const st_plugin_info *st_plugins_backend(const st_plugins *p, const char *name)
{
    for (int64_t i = 0; i < p->n; i++)
        if (p->info[i]->backend && !strcmp(p->info[i]->backend_info.name, name))
            return p->info[i];
    return NULL;
}

/* ---------------------------------------------------------------- install places */

/* The directory of the library or program that holds this code. */
static int own_dir(char *dir)
{
    Dl_info info;
    struct link_map *map = NULL;
    void *here;
    setun_status (*self)(char *, char *, size_t, setun_error *) = st_install_dirs;
    memcpy(&here, &self, sizeof here);
    const char *file = "/proc/self/exe"; /* the program's entry in the list of maps has no name */
    if (dladdr1(here, &info, (void **)&map, RTLD_DL_LINKMAP) && map && map->l_name &&
        map->l_name[0])
        file = map->l_name;
    if (!realpath(file, dir))
        return -1;
    char *slash = strrchr(dir, '/');
    if (!slash)
        return -1;
    slash[slash == dir] = 0;
    return 0;
}

/* The first of the places below dir that is a directory, without dots and links. */
static int find(char *out, size_t n, const char *dir, const char *const *place, const char *inside)
{
    char path[PATH_MAX + 64], real[PATH_MAX];
    for (; *place; place++) {
        (void)snprintf(path, sizeof path, "%s/%s%s", dir, *place, inside);
        if (!st_is_dir(path))
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", dir, *place);
        if (realpath(path, real) && strlen(real) < n) {
            memcpy(out, real, strlen(real) + 1);
            return 0;
        }
    }
    return -1;
}

setun_status st_install_dirs(char *modules, char *scripts, size_t n, setun_error *err)
{
    /* From bin/ or lib/; then lib/<machine>/ as some systems install; the build tree looks like the
     * first, its test programs included. */
    static const char *const module_places[] = { "../lib/setun", "setun", "../lib64/setun", NULL };
    static const char *const script_places[] = { "../share/setun", "../../share/setun", NULL };
    char dir[PATH_MAX];
    if (own_dir(dir))
        return st_fail(err, SETUN_IO, "cannot find out where this program lies");
    if (find(modules, n, dir, module_places, ""))
        return st_fail(
            err, SETUN_IO,
            "Setun's modules are missing: there is no ../lib/setun and no setun beside %s; "
            "install Setun as a whole",
            dir);
    if (find(scripts, n, dir, script_places, "/lib") ||
        find(scripts, n, dir, script_places, "/models"))
        return st_fail(err, SETUN_IO,
                       "Setun's scripts are missing: there is no share/setun with lib and models "
                       "above %s; install Setun as a whole",
                       dir);
    return SETUN_OK;
}

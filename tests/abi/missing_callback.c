/* tests/abi/missing_callback.c -- a backend table of the right length with one hole in it. */
#include <string.h>

#include "setun/backend.h"
#include "setun/plugin.h"

static setun_status describe(void *self, setun_backend_info *info)
{
    (void)self;
    info->name = "holes";
    return SETUN_OK;
}

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    (void)host;
    (void)err;
    *self = NULL;
    return SETUN_OK;
}

static void fini(void *self)
{
    (void)self;
}

static const void *extension(void *self, const char *id)
{
    static const setun_backend_v1 table = { .size = sizeof table, .describe = describe };
    (void)self;
    return strcmp(id, SETUN_EXT_BACKEND) ? NULL : &table;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, SETUN_ABI, "org.setun.test.missing_callback", "1", "", init, fini, extension,
    };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}

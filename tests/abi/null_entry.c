/* tests/abi/null_entry.c -- a plugin that serves no host. */
#include "setun/plugin.h"

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    (void)host_abi;
    return NULL;
}

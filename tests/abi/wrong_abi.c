/* tests/abi/wrong_abi.c -- a plugin for another ABI that does not look at the host's number. */
#include "setun/plugin.h"

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = { sizeof plugin, 7,   "org.setun.test.wrong_abi",
                                         "1",           "",  NULL,
                                         NULL,          NULL };
    (void)host_abi;
    return &plugin;
}

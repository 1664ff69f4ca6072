/* tests/abi/liar.c -- a plugin whose table's size is garbage and whose pointers are worse.
 *
 * A host that reads them before it has looked at the size does not come back. */
#include "setun/plugin.h"

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const union {
        uintptr_t    word[sizeof(setun_plugin) / sizeof(uintptr_t)];
        setun_plugin plugin;
    } garbage = { .plugin = { 0xdeadbeefu, SETUN_ABI, (const char *)8, (const char *)16,
                              (const char *)24, NULL, NULL, NULL } };
    (void)host_abi;
    return &garbage.plugin;
}

/* model/write_safetensors.c -- see write_safetensors.h; docs/formats.md draws the container. */
#include "model/write_safetensors.h"

#include <string.h>

void st_safetensors_header(const st_tensor *t, int64_t n, st_str *out)
{
    int64_t at = 0;
    st_str json = { 0 };
    st_str_add(&json, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int64_t i = 0; i < n; i++) {
        st_str_add(&json, ",");
        st_str_add_json(&json, t[i].name, strlen(t[i].name));
        st_str_addf(&json, ":{\"dtype\":\"%s\",\"shape\":[", t[i].dtype);
        for (uint32_t k = 0; k < t[i].view.rank; k++)
            st_str_addf(&json, "%s%lld", k ? "," : "", (long long)t[i].view.dim[k]);
        st_str_addf(&json, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)(at + t[i].bytes));
        at += t[i].bytes;
    }
    st_str_add(&json, "}");
    while ((json.len + 8) % 64 != 0 && !json.failed) /* spaces are padding */
        st_str_add(&json, " ");
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)json.len >> 8 * i);
    st_str_addn(out, length, sizeof length);
    st_str_addn(out, json.text, json.len);
    out->failed |= json.failed;
    st_str_free(&json);
}

/* tests/fuzz/image.c -- objects that become images of kernels, and images from caches and bundles. */
#include "tests/fuzz/fuzz.h"

#include "codegen/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    setun_error err = {0, ""};
    st_image m;
    char *image = NULL;
    int64_t bytes = 0;
    setun_status s = st_image_link(data, (int64_t)n, "kernel", &image, &bytes, &err);
    if (s == SETUN_OK) { /* what was linked is whole, and small enough to come from this object */
        FUZZ_CHECK(st_image_open(&m, image, bytes, &err) == SETUN_OK);
        FUZZ_CHECK(m.entry < m.bytes && m.launch_abi == SETUN_LAUNCH_ABI);
    } else {
        FUZZ_CHECK(s < 0 && err.text[0] && !image && !bytes);
    }
    free(image);

    memset(&err, 0, sizeof err);
    s = st_image_open(&m, data, (int64_t)n, &err);
    FUZZ_CHECK(s == SETUN_OK || (s == SETUN_BAD_FILE && err.text[0] && !m.code));
    if (s == SETUN_OK) /* what is said of it lies in it */
        FUZZ_CHECK(m.entry < m.bytes && m.code + m.bytes == data + n);
    return 0;
}

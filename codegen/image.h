/* codegen/image.h -- kernels as flat position-independent machine code.
 *
 * What the compiler makes is an ELF relocatable object; what is kept in caches and bundles, and
 * executed, is an image: a header and one blob of code with its constants behind it.  Nothing in the
 * blob depends on where it lies, so loading is copying, and needs neither a linker nor LLVM.
 *
 *     bytes  0..7    "SETUNIMG"
 *            8..11   version of this layout
 *           12..13   machine: e_machine of ELF      14  1: little-, 2: big-endian code      15  0
 *           16..19   launch ABI (SETUN_LAUNCH_ABI)
 *           20..23   entry: offset of the kernel's first instruction in the blob
 *           24..27   alignment of the blob, a power of two, at most ST_IMAGE_ALIGN
 *           28..31   length of the blob
 *           32..39   checksum of bytes 0..31 and the blob (st_checksum, one after the other)
 *           40..63   0
 *           64..     the blob
 *
 * The header's numbers are little-endian on every machine.  An alignment of 4096 is more than a
 * wish: AArch64's ADRP and LoongArch's PCALAU12I compute with pages of 4096 bytes, so their low
 * twelve bits are right only in a blob that starts at such a page. */
#ifndef ST_IMAGE_H
#define ST_IMAGE_H

#include "setun/op.h"

#define ST_IMAGE_VERSION 1u
#define ST_IMAGE_HEADER  64
#define ST_IMAGE_ALIGN   4096
#define ST_IMAGE_MOST    ((int64_t)16 << 20) /* bytes of a blob; a large kernel has 64 KB */

/* ELF's numbers of the machines that are known. */
#define ST_ELF_PPC64     21u
#define ST_ELF_S390      22u
#define ST_ELF_X86_64    62u
#define ST_ELF_AARCH64   183u
#define ST_ELF_RISCV     243u
#define ST_ELF_LOONGARCH 258u

typedef struct st_image {
    uint32_t       machine, big; /* big: 1 for big-endian code */
    uint32_t       launch_abi, entry, align, bytes;
    const uint8_t *code;
} st_image;

/* Lay the code and constants of an ELF relocatable object out as one image, malloc'ed.  symbol is the
 * kernel.  Refused, with a sentence that names kernel, section and relocation: what is malformed, what
 * depends on the address (absolute relocations, global offset tables), what is not there (undefined
 * symbols: kernels call nothing, and a helper of the C library need not round as kir.def says) and what
 * may change (writable data).  [any] */
setun_status st_image_link(const void *object, int64_t n, const char *symbol, char **image, int64_t *image_n,
                           setun_error *err);

/* Check an image completely and point into it. */
setun_status st_image_open(st_image *out, const void *bytes, int64_t n, setun_error *err);
/* The header of an image whose code lies behind it; fills the checksum in. */
void         st_image_seal(const st_image *m, uint8_t header[ST_IMAGE_HEADER]);

#endif

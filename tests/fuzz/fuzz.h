/* tests/fuzz/fuzz.h -- what every fuzz target is written with.
 *
 * A target is one file that defines LLVMFuzzerTestOneInput and lets one reader loose on the bytes it
 * is given; tests/fuzz/NAME.c, tests/fuzz/NAME.dict (words of the format, for libFuzzer) and
 * tests/fuzz/corpus/NAME/ (small valid files, and inputs that once found something) belong together,
 * and the build finds them by name.  Linked with clang's libFuzzer (-DSETUN_FUZZ=ON) a target searches
 * for new inputs; linked with replay.c, in every other build, it goes through its corpus and damages it.
 *
 * Whatever comes in, a reader answers SETUN_OK or a sentence that names the file; crashes, leaks and
 * undefined behaviour are for the sanitizers, endless loops and memory for the limits of the two drivers. */
#ifndef ST_TESTS_FUZZ_H
#define ST_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Says what is wrong and ends the process, so that the driver keeps the input. */
_Noreturn void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define FUZZ_CHECK(what) ((what) ? (void)0 : fuzz_fail("%s:%d: not so: %s", __FILE__, __LINE__, #what))

/* The status and the sentence of a reader.  A refusal is one line of plain UTF-8 with name in it; lack
 * of memory is no answer, since what these inputs can rightly ask for fits. */
void fuzz_judge(setun_status s, const setun_error *err, const char *name);

/* A private directory, below $TMPDIR, /dev/shm or /tmp, removed when the process ends well. */
const char *fuzz_dir(void);
/* Writes dir/name; the path stays valid until the next call of either. */
const char *fuzz_path(const char *name);
const char *fuzz_put(const char *name, const void *bytes, size_t n);

/* Inputs for readers of several files have them one after the other, with this line between them. */
#define FUZZ_CUT "\n=====\n"
typedef struct fuzz_piece {
    const uint8_t *data;
    size_t         n;
} fuzz_piece;
/* The bytes up to the next cut; *rest becomes what is behind it.  0: nothing was left. */
int fuzz_next(fuzz_piece *rest, fuzz_piece *piece);

/* A NUL-terminated copy without zero bytes, or NULL if there is one in it; free it. */
char *fuzz_text(fuzz_piece piece);

#endif

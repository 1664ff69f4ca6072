/* cli/parallel.h -- setun run --parallel: see parallel.c. */
#ifndef CLI_PARALLEL_H
#define CLI_PARALLEL_H

#include "cli.h"

#define PARALLEL_MOST 64

typedef struct parallel {
    const cli            *c;
    const setun_model    *m;
    const setun_sampling *sampling; /* its seed is that of the first text */
    const int32_t        *ids;      /* the prompt */
    int64_t               n_ids;
    long long             n_text, n; /* how many texts; most tokens of each, -1: as many as there is room for */
    int                   ignore_eos, special;
} parallel;

/* Returns an exit code. */
int cli_parallel(const parallel *p);

#endif

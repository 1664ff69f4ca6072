/* bench/sequences.h -- setun bench --sequences: see sequences.c. */
#ifndef BENCH_SEQUENCES_H
#define BENCH_SEQUENCES_H

#include "cli.h"

/* list: "1,4,8"; n: tokens of each sequence per run, behind depth tokens; top: how many of the largest logits
 * are wanted, 0: all; roofline: time per operator, too.  Returns an exit code. */
int bench_sequences(cli *c, const char *model, char *list, long long n, long long depth, long long top, long long n_run,
                    int roofline);

#endif

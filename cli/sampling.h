/* cli/sampling.h -- what every command that generates text shares: how tokens are drawn and how they are written. */
#ifndef CLI_SAMPLING_H
#define CLI_SAMPLING_H

#include "cli.h"

/* A command's own options are below these. */
enum { CLI_TEMP = CLI_OWN + 100, CLI_TOP_K, CLI_TOP_P, CLI_MIN_P, CLI_REPEAT, CLI_REPEAT_LAST, CLI_SEED, CLI_GREEDY };

#define CLI_SAMPLING_OPTIONS \
    {"temp", required_argument, NULL, CLI_TEMP}, {"top-k", required_argument, NULL, CLI_TOP_K}, \
    {"top-p", required_argument, NULL, CLI_TOP_P}, {"min-p", required_argument, NULL, CLI_MIN_P}, \
    {"repeat-penalty", required_argument, NULL, CLI_REPEAT}, {"repeat-last", required_argument, NULL, CLI_REPEAT_LAST}, \
    {"seed", required_argument, NULL, CLI_SEED}, {"greedy", no_argument, NULL, CLI_GREEDY}

#define CLI_SAMPLING_HELP \
    "      --temp T          temperature (default 0.8; 0 is greedy)\n" \
    "      --greedy          the same as --temp 0\n" \
    "      --top-k K --top-p P --min-p P\n" \
    "                        keep K best (40), the smallest set of probability P (0.95), those with at least P\n" \
    "                        times the best one's probability (0)\n" \
    "      --repeat-penalty R --repeat-last N\n" \
    "                        discourage the last N tokens (1: off; 64)\n" \
    "      --seed S          runs with equal seeds are equal (default 1)\n"

/* As cli_common, for the options above. */
int cli_sampling(const cli *c, setun_sampling *s, int opt);

/* What to ask a session for: where few logits decide the next token, the others are not computed.  Status of
 * setun_session_set_screen. */
setun_status cli_want(const cli *c, setun_session *s, const setun_sampler *sampler, int32_t *want, setun_error *err);
/* The next token from what was asked for; -1 with err: the logits are not numbers. */
int32_t cli_pick(setun_sampler *sampler, const setun_session *s, const float *logits, setun_error *err);

/* Whole characters go to out as soon as they are whole. */
typedef struct cli_writer {
    const setun_vocab *v;
    setun_stream       stream;
    int                special; /* write special tokens, too */
    setun_write_fn    *out;
    void              *user;
} cli_writer;
int cli_emit(cli_writer *w, int32_t token, setun_error *err); /* -1 with err: it failed */
int cli_flush(cli_writer *w, setun_error *err);               /* what was left of a character */

double cli_seconds(void);

#endif

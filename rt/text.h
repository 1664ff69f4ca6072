/* rt/text.h -- text in a bundle: its tokenizer, its chat template, and the commands that make text.
 *
 * A tokenizer is the one of model/tokenizer.h, read from bytes instead of from tokenizer.json: what cuts,
 * merges and decodes are the same objects, so the same text has the same tokens.  A template is data
 * (model/turns.h), and tokens are drawn by runtime/sample.c, so the same seed gives the same text.  The other side
 * is runtime/export_text.h. */
#ifndef ST_RT_TEXT_H
#define ST_RT_TEXT_H

#include "model/tokenizer.h"
#include "model/turns.h"
#include "rt/bundle.h"
#include "setun/rt.h"
#include "setun/setun.h"

/* A bundle that is to make text. */
typedef struct st_rt_text {
    setun_rt      *rt;
    setun_rt_info  info;
    st_tokenizer  *tokenizer;
    st_turns      *turns; /* NULL: not asked for */
    setun_sampling sampling;
    setun_sampler *sampler;
    int64_t        n; /* most tokens to make; -1: as many as there is room for */
    int            special, quiet;
} st_rt_text;

/* sampling has to be set.  chat: with its template; without one the sentence says why.  Close it also after a failure. */
setun_status st_rt_text_open(st_rt_text *t, const char *path, int32_t n_threads, int chat, setun_error *err);
void         st_rt_text_close(st_rt_text *t);
/* The next token; -1 with err: the logits are not numbers. */
int32_t      st_rt_pick(st_rt_text *t, const float *logits, setun_error *err);
/* The whole characters of one more token to stdout, at once; token -1: what was left of one.  -1 with err: it failed. */
int          st_rt_emit(const st_rt_text *t, st_detok *d, int32_t token, setun_error *err);

/* Options that run and chat share: in getopt's table, their help, and what one of them says.  1: it was one of
 * them; 0: it was not; -1: what it says is no good, which has been said. */
enum { ST_RT_TEMP = 300, ST_RT_TOP_K, ST_RT_TOP_P, ST_RT_MIN_P, ST_RT_REPEAT, ST_RT_REPEAT_LAST, ST_RT_SEED, ST_RT_GREEDY };
#define ST_RT_TEXT_OPTIONS \
    {"tokens", required_argument, NULL, 'n'}, {"threads", required_argument, NULL, 't'}, {"quiet", no_argument, NULL, 'q'}, \
    {"temp", required_argument, NULL, ST_RT_TEMP}, {"top-k", required_argument, NULL, ST_RT_TOP_K}, \
    {"top-p", required_argument, NULL, ST_RT_TOP_P}, {"min-p", required_argument, NULL, ST_RT_MIN_P}, \
    {"repeat-penalty", required_argument, NULL, ST_RT_REPEAT}, {"repeat-last", required_argument, NULL, ST_RT_REPEAT_LAST}, \
    {"seed", required_argument, NULL, ST_RT_SEED}, {"greedy", no_argument, NULL, ST_RT_GREEDY}
#define ST_RT_TEXT_HELP \
    "      --temp T          temperature (default 0.8; 0 is greedy);  --greedy: the same as --temp 0\n" \
    "      --top-k K --top-p P --min-p P\n" \
    "                        keep K best (40), the smallest set of probability P (0.95), those with at least P\n" \
    "                        times the best one's probability (0)\n" \
    "      --repeat-penalty R --repeat-last N\n" \
    "                        discourage the last N tokens (1: off; 64)\n" \
    "      --seed S          runs with equal seeds are equal, here and with setun (default 1)\n" \
    "  -q, --quiet           no messages besides errors\n" \
    "  -t, --threads N       worker threads (default: one per core)\n" \
    "  -h, --help            this text\n"
int st_rt_text_option(st_rt_text *t, const char *command, int opt, const char *value, int64_t *n_threads);

/* The commands; argv[0] is the command's name.  Return exit codes as setun-rt's other commands do. */
int st_rt_run(int argc, char **argv);
int st_rt_chat(int argc, char **argv);
int st_rt_fail(const setun_error *err);
int st_rt_usage(const char *command, const char *what, const char *value);

#endif

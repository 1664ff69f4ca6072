/* cli/cli.h -- what the commands share: options, output, errors.  Users of setun/setun.h only.
 *
 * Exit codes: 0 done, 1 failed with one sentence on stderr, 2 wrong usage, 130 interrupted. */
#ifndef CLI_H
#define CLI_H

#include <getopt.h>
#include <stdio.h>

#include "setun/setun.h"

#define CLI_FAILED 1
#define CLI_USAGE  2
#define CLI_INTERRUPTED 130

typedef struct cli {
    const char   *command; /* "run" */
    const char   *help;    /* its help text */
    const char   *place;   /* where the options stand, "x.lua, variant 'q8'"; NULL: on the command line */
    setun_options o;
    int           quiet, verbose, json;
    char          cache[4096], plugins[8192];
} cli;

/* Values of long options without a letter start here; a command's own start at CLI_OWN. */
enum { CLI_BACKEND = 256, CLI_PLUGIN, CLI_SCRIPT, CLI_FEATURES, CLI_KV, CLI_NO_CACHE, CLI_CACHE_DIR, CLI_KERNELS, CLI_INTERPRET, CLI_CTX,
       CLI_BATCH, CLI_FULL_HEAD, CLI_DOWN, CLI_JSON, CLI_HELP, CLI_NO_TUNE, CLI_RETUNE, CLI_CANDIDATE,
       CLI_I2S_LAYOUT, CLI_ACTIVATIONS, CLI_PACKING, CLI_FROM_FLOATS, CLI_QUANTIZER, CLI_OWN };

#define CLI_COMMON_LETTERS "t:qvh"
#define CLI_COMMON_OPTIONS \
    {"threads", required_argument, NULL, 't'}, {"backend", required_argument, NULL, CLI_BACKEND}, \
    {"plugin", required_argument, NULL, CLI_PLUGIN}, {"script", required_argument, NULL, CLI_SCRIPT}, \
    {"cpu-features", required_argument, NULL, CLI_FEATURES}, {"kv", required_argument, NULL, CLI_KV}, \
    {"no-cache", no_argument, NULL, CLI_NO_CACHE}, {"cache-dir", required_argument, NULL, CLI_CACHE_DIR}, \
    {"kernels", required_argument, NULL, CLI_KERNELS}, \
    {"interpret", no_argument, NULL, CLI_INTERPRET}, {"ctx", required_argument, NULL, CLI_CTX}, \
    {"batch", required_argument, NULL, CLI_BATCH}, {"full-head", no_argument, NULL, CLI_FULL_HEAD}, \
    {"down", required_argument, NULL, CLI_DOWN}, {"json", no_argument, NULL, CLI_JSON}, \
    {"no-tune", no_argument, NULL, CLI_NO_TUNE}, {"retune", no_argument, NULL, CLI_RETUNE}, \
    {"candidate", required_argument, NULL, CLI_CANDIDATE}, {"i2s-layout", required_argument, NULL, CLI_I2S_LAYOUT}, \
    {"activations", required_argument, NULL, CLI_ACTIVATIONS}, {"packing", required_argument, NULL, CLI_PACKING}, \
    {"from-floats", no_argument, NULL, CLI_FROM_FLOATS}, {"quantizer", required_argument, NULL, CLI_QUANTIZER}, \
    {"quiet", no_argument, NULL, 'q'}, {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}

#define CLI_COMMON_HELP \
    "\nCommon options:\n" \
    "  -t, --threads N        worker threads (default: one per core)\n" \
    "      --backend NAME     cpu (default), reference, or one that a plugin brings\n" \
    "      --plugin FILE      load a plugin (again for more; also SETUN_PLUGIN_PATH)\n" \
    "      --script FILE.lua  another architecture script\n" \
    "      --cpu-features L   what generated code may use, e.g. -avx512f or -avx2,+sse4.1\n" \
    "      --kv TYPE          KV cache: f32, f16 (default), bf16, q8\n" \
    "      --ctx N            positions to make room for (default: the model's, at most 4096)\n" \
    "      --batch N          most tokens in one step of prefill (default 512)\n" \
    "      --full-head        always compute all logits; do without the screened head\n" \
    "      --down HOW         matrices kept by input channel, so that zero inputs cost nothing: auto (default;\n" \
    "                         behind rectified gates), channel (behind any gate), row (none)\n" \
    "      --i2s-layout NAME  how I2_S lies in a GGUF file that does not tell: x86 (most files), arm or rows4\n" \
    "      --activations TYPE in the training of a GGUF file's TQ1_0 or TQ2_0, which does not tell: int8 (BitNet,\n" \
    "                         Falcon3) or float (TriLM, BitCPM)\n" \
    "      --packing FILE     keep ternary weights as FILE.lua declares it (FILE.lua:NAME: one of several)\n" \
    "      --from-floats      into that packing from floats, by its own rule: other alphabets, other scales\n" \
    "      --quantizer NAME   round activations otherwise than the model was trained: int8, int8-group=64, int4,\n" \
    "                         int4-hadamard, topk=0.5, a4.8, none, or FILE.lua\n" \
    "      --interpret        interpret kernels instead of compiling them (very slow)\n" \
    "      --no-tune          use the default kernels;  --retune: measure their candidates again, now\n" \
    "      --candidate I      use candidate I of every kernel: for tests, any gives the same results\n" \
    "      --no-cache         keep nothing on disk;  --cache-dir DIR: keep it there\n" \
    "      --kernels DIR      use these kernels, made by setun compile for this machine, and compile none\n" \
    "  -q, -v                 less, more on stderr\n" \
    "  -h, --help             this text\n"

void cli_init(cli *c, const char *command, const char *help);
/* Handle a common option: 1 done, 0 not one of these, -1 bad (already said), 2 help was printed. */
int  cli_common(cli *c, int opt);
/* After getopt: apply defaults that depend on the environment. */
void cli_finish(cli *c);

int  cli_fail(const setun_error *err);                                       /* prints; returns CLI_FAILED */
int  cli_usage(const cli *c, const char *fmt, ...) SETUN_PRINTF(2, 3);       /* prints; returns CLI_USAGE */
int  cli_write(void *file, const char *text, size_t n);                      /* a setun_write_fn for a FILE */
void cli_json(const char *text, size_t n); /* to stdout, as the inside of a JSON string */
int  cli_close_out(void);  /* flush stdout: a full disk is a failure; returns an exit code */
int  cli_int(const cli *c, const char *name, const char *text, long long min, long long max, long long *out);
int  cli_float(const cli *c, const char *name, const char *text, double min, double max, double *out);
/* Ids separated by commas or spaces; malloc'ed.  Prints when it fails. */
int  cli_ids(const cli *c, const char *text, int32_t **ids, int64_t *n);
/* A whole file or, with path "-", standard input; malloc'ed, NUL-terminated.  Prints when it fails. */
char *cli_read(const char *path, size_t *n);
/* id, tab and the token's text in quotes, all of it printable, with the end of a line; nonzero: *err says why not. */
int   cli_print_piece(const setun_vocab *v, int32_t id, setun_error *err);

/* Ctrl-C: the first one is noted, the second one ends the process.  Every command that works for long calls this
 * or the other one: for a command that makes a model, which would leave a directory of temporary files. There any
 * number of them is noted and none ends the process, so such a command asks cli_interrupted often. */
void cli_catch_interrupt(void);
void cli_catch_interrupt_making(void);
int  cli_interrupted(void);
int  cli_take_interrupt(void); /* the signal that was noted, or 0; forgets it, so that the next one is a first one */
/* setun_model_load with the command's options; an interrupt ends the process here, and is noted from then on. */
setun_status cli_load(const cli *c, const char *path, setun_model **m, setun_error *err);

/* The commands: argv[0] is the command's name. */
int cli_run(int argc, char **argv);
int cli_chat(int argc, char **argv);
int cli_logits(int argc, char **argv);
int cli_tokenize(int argc, char **argv);
int cli_detokenize(int argc, char **argv);
int cli_perplexity(int argc, char **argv);
int cli_info(int argc, char **argv);
int cli_dump(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_plugins(int argc, char **argv);
int cli_synth(int argc, char **argv);
int cli_doc(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_compile(int argc, char **argv);
int cli_export(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_diff(int argc, char **argv);
int cli_embed(int argc, char **argv);
int cli_trace(int argc, char **argv);
int cli_tracediff(int argc, char **argv);
int cli_repl(int argc, char **argv);
int cli_lab(int argc, char **argv);
int cli_card(int argc, char **argv);

#endif

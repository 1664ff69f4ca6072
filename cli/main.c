/* cli/main.c -- the program: find the command, share options, say what went wrong. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "setun/rt.h"

#define MAX_INPUT ((size_t)256 << 20)

static const struct { const char *name; int (*fn)(int, char **); const char *what; } commands[] = {
    {"run", cli_run, "generate text, streamed"},
    {"chat", cli_chat, "a conversation, in the format that the model was taught"},
    {"repl", cli_repl, "look inside a model, edit its scripts, reload them in place"},
    {"logits", cli_logits, "logits of the last or every position, or their hash"},
    {"tokenize", cli_tokenize, "text to token ids"},
    {"detokenize", cli_detokenize, "token ids to text"},
    {"perplexity", cli_perplexity, "perplexity over a text file"},
    {"embed", cli_embed, "vectors of texts, or how alike two texts are"},
    {"bench", cli_bench, "speed, memory, and shares of what the machine can do"},
    {"info", cli_info, "what a model is and what was decided about it"},
    {"doctor", cli_doctor, "is this model whole, and does this machine compute it right?"},
    {"compile", cli_compile, "kernels of a model for another machine"},
    {"export", cli_export, "a model in one file for setun-rt, which needs no compiler and no libraries"},
    {"convert", cli_convert, "a model in another form: Hugging Face directory or GGUF, proved equal"},
    {"diff", cli_diff, "do two files hold the same model?"},
    {"trace", cli_trace, "what every step computes, as NumPy files"},
    {"tracediff", cli_tracediff, "the first tensor in which two traces differ"},
    {"lab", cli_lab, "variants of a model measured side by side, as a file says"},
    {"card", cli_card, "what a packing is, and what can be said for it"},
    {"dump", cli_dump, "graph, plan, kernels, LLVM IR, assembly"},
    {"check", cli_check, "every operator through every witness"},
    {"plugins", cli_plugins, "what is loaded"},
    {"synth", cli_synth, "a model of a known shape with random weights"},
    {"doc", cli_doc, "reference of the operators"},
};

/* The one mutable object of the program: a signal handler has nothing else to reach. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    if (interrupted)
        _exit(CLI_INTERRUPTED);
    interrupted = number;
}

/* Ending here would leave what is half made; the command sees the note soon, and removes it. */
static void on_interrupt_making(int number)
{
    interrupted = number;
}

static void catch_with(void (*handler)(int))
{
    struct sigaction a;
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    memset(&a, 0, sizeof a);
    a.sa_handler = handler;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction now;
        /* What nohup or a shell's & told us to ignore stays ignored. */
        if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &a, NULL);
    }
}

void cli_catch_interrupt(void) { catch_with(on_interrupt); }

void cli_catch_interrupt_making(void) { catch_with(on_interrupt_making); }

int cli_interrupted(void) { return interrupted > 0; }

int cli_take_interrupt(void)
{
    int number = interrupted;
    interrupted = 0;
    return number;
}

setun_status cli_load(const cli *c, const char *path, setun_model **m, setun_error *err)
{
    /* While a model loads there is nothing to finish: -1 makes the first signal end the process. */
    cli_catch_interrupt();
    if (!interrupted)
        interrupted = -1;
    setun_status s = setun_model_load(m, path, &c->o, err);
    if (interrupted < 0)
        interrupted = 0;
    return s;
}

/* ---------------------------------------------------------------- messages and output */

int cli_fail(const setun_error *err)
{
    fflush(stdout);
    if (err->code == SETUN_CANCELLED && !cli_interrupted() && ferror(stdout))
        return cli_close_out(); /* it was our own writer that gave up */
    fprintf(stderr, "setun: %s\n", err->text);
    return err->code == SETUN_CANCELLED ? CLI_INTERRUPTED : CLI_FAILED;
}

int cli_usage(const cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, c->place ? "setun: %s: " : "setun %s: ", c->place ? c->place : c->command);
    vfprintf(stderr, fmt, ap);
    if (c->place)
        fputs("\n", stderr);
    else
        fprintf(stderr, "; see setun %s --help\n", c->command);
    va_end(ap);
    return CLI_USAGE;
}

int cli_write(void *file, const char *text, size_t n)
{
    return fwrite(text, 1, n, file) != n;
}

void cli_json(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            putchar('\\');
        if (c < 32)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
}

int cli_close_out(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "setun: writing the result failed: %s\n", strerror(errno));
        return CLI_FAILED;
    }
    return 0;
}

static void on_log(void *user, int32_t level, const char *text)
{
    (void)user;
    fprintf(stderr, "setun: %s%s\n", level == 0 ? "warning: " : "", text);
}

/* ---------------------------------------------------------------- values */

int cli_int(const cli *c, const char *name, const char *text, long long min, long long max, long long *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max) {
        (void)cli_usage(c, "%s takes a whole number from %lld to %lld, not '%s'", name, min, max, text);
        return -1;
    }
    *out = v;
    return 0;
}

int cli_float(const cli *c, const char *name, const char *text, double min, double max, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (errno || end == text || *end || !isfinite(v) || v < min || v > max) {
        (void)cli_usage(c, "%s takes a number from %g to %g, not '%s'", name, min, max, text);
        return -1;
    }
    *out = v;
    return 0;
}

char *cli_read(const char *path, size_t *n)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    char *text = NULL;
    size_t cap = 0, len = 0, got = 1;
    while (f && got && len <= MAX_INPUT) {
        if (len + 65536 + 1 > cap) {
            cap = cap ? 2 * cap : 1 << 17;
            char *more = realloc(text, cap);
            if (!more) {
                errno = ENOMEM;
                break;
            }
            text = more;
        }
        got = fread(text + len, 1, 65536, f);
        len += got;
    }
    int bad = !f || !text || ferror(f) || got;
    if (bad)
        fprintf(stderr, "setun: cannot read %s: %s\n", path, len > MAX_INPUT ? "more than 256 MiB" : strerror(errno));
    if (f && f != stdin)
        (void)fclose(f);
    if (bad) {
        free(text);
        return NULL;
    }
    text[len] = 0;
    *n = len;
    return text;
}

/* ---------------------------------------------------------------- common options */

void cli_init(cli *c, const char *command, const char *help)
{
    memset(c, 0, sizeof *c);
    c->command = command;
    c->help = help;
    setun_options_init(&c->o);
    c->o.log = on_log;
    /* The cache's place: the user's cache directory. */
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg == '/')
        (void)snprintf(c->cache, sizeof c->cache, "%s/setun", xdg);
    else if (home && *home == '/')
        (void)snprintf(c->cache, sizeof c->cache, "%s/.cache/setun", home);
    c->o.cache_dir = *c->cache ? c->cache : NULL;
    /* Plugins from the environment never reach a program that runs with another user's rights. */
    const char *path = getenv("SETUN_PLUGIN_PATH");
    if (path && getuid() == geteuid() && getgid() == getegid())
        (void)snprintf(c->plugins, sizeof c->plugins, "%s", path);
}

int cli_common(cli *c, int opt)
{
    long long n;
    size_t used;
    /* An empty name is a shell variable that was never set, not a wish. */
    if ((opt == CLI_SCRIPT || opt == CLI_CACHE_DIR || opt == CLI_PLUGIN || opt == CLI_PACKING ||
         opt == CLI_QUANTIZER) && !*optarg) {
        (void)cli_usage(c, "%s needs a name", opt == CLI_SCRIPT ? "--script" : opt == CLI_PLUGIN ? "--plugin"
                                              : opt == CLI_PACKING ? "--packing" : opt == CLI_QUANTIZER ? "--quantizer" : "--cache-dir");
        return -1;
    }
    switch (opt) {
    case 't': if (cli_int(c, "--threads", optarg, 1, 1024, &n)) return -1; c->o.n_threads = (int32_t)n; return 1;
    case CLI_CTX: if (cli_int(c, "--ctx", optarg, 1, 1 << 20, &n)) return -1; c->o.n_ctx = n; return 1;
    case CLI_BATCH: if (cli_int(c, "--batch", optarg, 1, 1 << 16, &n)) return -1; c->o.n_batch = n; return 1;
    case CLI_BACKEND: c->o.backend = optarg; return 1;
    case CLI_SCRIPT: c->o.script = optarg; return 1;
    case CLI_FEATURES: c->o.cpu_features = optarg; return 1;
    case CLI_KV: c->o.kv = optarg; return 1;
    case CLI_NO_CACHE: c->o.cache_dir = NULL; return 1;
    case CLI_CACHE_DIR: c->o.cache_dir = optarg; return 1;
    case CLI_KERNELS: c->o.kernels = optarg; return 1;
    case CLI_INTERPRET: c->o.interpret = 1; return 1;
    case CLI_FULL_HEAD: c->o.full_head = 1; return 1;
    case CLI_DOWN: c->o.down = optarg; return 1;
    case CLI_I2S_LAYOUT: c->o.i2s_layout = optarg; return 1;
    case CLI_ACTIVATIONS: c->o.activations = optarg; return 1;
    case CLI_PACKING: c->o.packing = optarg; return 1;
    case CLI_FROM_FLOATS: c->o.from_floats = 1; return 1;
    case CLI_QUANTIZER: c->o.quantizer = optarg; return 1;
    case CLI_NO_TUNE: c->o.tune = SETUN_TUNE_NEVER; return 1;
    case CLI_RETUNE: c->o.tune = SETUN_TUNE_AGAIN; return 1;
    case CLI_CANDIDATE:
        if (cli_int(c, "--candidate", optarg, 0, 100, &n)) return -1;
        c->o.tune = SETUN_TUNE_FORCE + (int32_t)n;
        return 1;
    case CLI_JSON: c->json = 1; return 1;
    case CLI_PLUGIN:
        used = strlen(c->plugins);
        (void)snprintf(c->plugins + used, sizeof c->plugins - used, "%s%s", used ? ":" : "", optarg);
        return 1;
    case 'q': c->quiet = 1; return 1;
    case 'v': c->verbose++; return 1;
    case 'h': fputs(c->help, stdout); return 2;
    case '?': case ':': fprintf(stderr, "see setun %s --help\n", c->command); return -1; /* getopt said what */
    default: return 0;
    }
}

void cli_finish(cli *c)
{
    c->o.plugins = *c->plugins ? c->plugins : NULL;
    c->o.log_level = c->quiet ? 0 : c->verbose > 1 ? 2 : c->verbose ? 1 : 0;
}

/* ---------------------------------------------------------------- dispatch */

static void print_help(FILE *f)
{
    fputs("setun -- runs natively ternary language models\n\nusage: setun COMMAND [MODEL] [options]\n\n", f);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].what);
    fputs("\nMODEL is a Hugging Face directory (config.json, tokenizer.json, *.safetensors), a GGUF file, or for some\n"
          "commands a bundle of setun export.\n"
          "setun COMMAND --help tells the rest.\n", f);
}

/* Some commands also take a bundle of setun export, and then they are setun-rt's. */
static int is_for_bundle(int argc, char **argv)
{
    static const char *const takes[] = {"logits", "bench", "info", "run", "chat"};
    int known = 0;
    for (size_t i = 0; i < sizeof takes / sizeof takes[0]; i++)
        known |= strcmp(argv[0], takes[i]) == 0;
    for (int i = 1; i < argc && known; i++)
        if (argv[i][0] != '-' && setun_rt_is_bundle(argv[i]))
            return 1;
    return 0;
}

static int run_command(int argc, char **argv)
{
    char name[32], help[] = "--help";
    if (is_for_bundle(argc, argv))
        return setun_rt_main(argc, argv);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[0], commands[i].name) == 0) {
            (void)snprintf(name, sizeof name, "setun %s", commands[i].name);
            argv[0] = name; /* what getopt puts before its messages */
            return commands[i].fn(argc, argv);
        }
    if (strcmp(argv[0], "help") == 0 && argc > 1) {
        char *ask[] = {argv[1], help, NULL};
        return strcmp(argv[1], "help") ? run_command(2, ask) : (print_help(stdout), 0);
    }
    fprintf(stderr, "setun: there is no command '%s'; see setun --help\n", argv[0]);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    int code = 0;
    /* A limit on the size of files is an error of the write that meets it, not a death by signal. */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (strcmp(argv[1], "help") == 0 && argc == 2))
        print_help(stdout);
    else if (strcmp(argv[1], "--version") == 0)
        printf("setun %s\n", setun_version());
    else
        code = run_command(argc - 1, argv + 1);
    return code ? code : cli_close_out(); /* no text may be lost without a word, help included */
}

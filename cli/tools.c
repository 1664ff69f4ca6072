/* cli/tools.c -- info, dump, check, plugins, synth, doc: looking inside, and making test models. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { GRAPH = CLI_OWN, PLAN, KIR, LLVM, ASM, KERNEL, OP, LIKE, CONFIG, SEED, AS, MASTER, SHARD, ZEROS, DENSITY, DOWN_DENSITY,
       STATS, VALUES, TIME, TARGET, VLEN, CASE };

/* Common parsing for commands whose own options all take no part in the loop: 1 go on, else exit code in *code. */
static int common(cli *c, int opt, int *code)
{
    int r = cli_common(c, opt);
    *code = r > 0 ? 0 : CLI_USAGE;
    return r == 1;
}

static const char info_help[] =
    "usage: setun info MODEL [--stats (-f FILE | -p TEXT)] [--json]\n"
    "       setun info FILE.gguf [--values] [--json]\n\n"
    "What a model is, what was decided about it and from what evidence.  Of a GGUF file (also the first of\n"
    "several parts): metadata, tensors, which type a number stands for that several types share, and whether\n"
    "Setun runs it, as what, or why not.\n\n"
    "      --values          decode every tensor of a GGUF file, and tell range, zeros, ternary codes, scales\n"
    "      --stats           instead: run a text through the model and count, layer by layer, open gates of\n"
    "                        relu2, zeros among int8 activations, what neighbouring tokens share, dead neurons\n"
    "  -f, --file FILE       the text (- is standard input)\n"
    "  -p, --prompt TEXT     or this text\n"
    "  -n N                  at most so many of its tokens (2048)\n" CLI_COMMON_HELP;

/* Feed the text in pieces that fit the context; each is a conversation of its own. */
static setun_status count_zeros(const cli *c, setun_session *s, const setun_model *m, const int32_t *ids, int64_t n, setun_error *err)
{
    int64_t most = setun_model_n_ctx(m);
    setun_status status = setun_session_note(s, SETUN_NOTE_DENSITY, err);
    for (int64_t i = 0; i < n && status == SETUN_OK; i += most) {
        int64_t piece = n - i < most ? n - i : most;
        (void)setun_session_rewind(s, 0, NULL);
        status = setun_session_feed(s, ids + i, piece, SETUN_LOGITS_NONE, NULL, err);
    }
    return status == SETUN_OK ? setun_session_density_print(s, c->json, cli_write, stdout, err) : status;
}

static int stats(const cli *c, const setun_model *m, const char *text, size_t n_bytes, long long most)
{
    setun_error err = {0};
    setun_session *s = NULL;
    int32_t *ids = NULL;
    int64_t n = 0;
    setun_status status = setun_vocab_encode(setun_model_vocab(m), text, n_bytes, SETUN_ENCODE_BOS, &ids, &n, &err);
    if (status == SETUN_OK)
        status = setun_session_new(&s, m, &err);
    if (status == SETUN_OK)
        status = count_zeros(c, s, m, ids, n < most ? n : most, &err);
    setun_session_free(s);
    setun_free(ids);
    return status == SETUN_OK ? 0 : cli_fail(&err);
}

int cli_info(int argc, char **argv)
{
    static const struct option options[] = {
        {"stats", no_argument, NULL, STATS}, {"values", no_argument, NULL, VALUES},
        {"file", required_argument, NULL, 'f'}, {"prompt", required_argument, NULL, 'p'},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    const char *file = NULL, *prompt = NULL;
    char *text = NULL;
    size_t n_bytes = 0;
    long long most = 2048;
    int opt, code = 0, want_stats = 0;
    setun_file_options in_file = {.size = sizeof in_file};
    cli_init(&c, "info", info_help);
    while ((opt = getopt_long(argc, argv, "f:p:n:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case STATS: want_stats = 1; break;
        case VALUES: in_file.values = 1; break;
        case 'f': file = optarg; break;
        case 'p': prompt = optarg; break;
        case 'n': if (cli_int(&c, "-n", optarg, 1, 1 << 20, &most)) return CLI_USAGE; break;
        default:
            if (!common(&c, opt, &code))
                return code;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&c, optind == argc ? "a model is missing" : "one model is enough");
    if (!want_stats && (file || prompt))
        return cli_usage(&c, "a text is only of use with --stats");
    if (want_stats && !file == !prompt)
        return cli_usage(&c, "--stats counts what a text does, and what is counted depends on it: give one, with -f FILE or -p TEXT");
    cli_finish(&c);
    if (file && !(text = cli_read(file, &n_bytes)))
        return CLI_FAILED;
    if (want_stats && !(file ? n_bytes : strlen(prompt))) {
        free(text);
        return cli_usage(&c, "the text is empty");
    }
    in_file.json = c.json;
    in_file.i2s_layout = c.o.i2s_layout;
    in_file.activations = c.o.activations;
    setun_status found = want_stats ? SETUN_DECLINED : setun_file_info(argv[optind], &in_file, cli_write, stdout, &err);
    if (found != SETUN_DECLINED)
        return found == SETUN_OK ? cli_close_out() : cli_fail(&err);
    if (in_file.values) {
        free(text);
        return cli_usage(&c, "--values is for GGUF files, and without --stats");
    }
    setun_model *m = NULL;
    if (cli_load(&c, argv[optind], &m, &err) != SETUN_OK ||
        (!want_stats && setun_model_info(m, c.json, cli_write, stdout, &err) != SETUN_OK))
        code = cli_fail(&err);
    else if (want_stats)
        code = stats(&c, m, file ? text : prompt, file ? n_bytes : strlen(prompt), most);
    setun_model_free(m);
    free(text);
    return code ? code : cli_close_out();
}

static const char dump_help[] =
    "usage: setun dump MODEL --graph[=script|dot|html] [--time] | --plan | --kir | --llvm | --asm [--kernel NAME]\n"
    "       setun dump [FILE.lua] [--op NAME] [--case TEXT] --kir | --llvm | --asm\n\n"
    "One stage of a loaded model in its own syntax, or the kernel of one operator.\n\n"
    "      --graph           what is computed, after the rules; =script before them; =dot for Graphviz;\n"
    "                        =html a page for a browser: layers that fold, shapes, bytes\n"
    "      --time            in that page, how long each node takes while tokens are decoded\n"
    "      --plan            order, memory, who runs what\n"
    "      --kir             kernels in Setun's own IR;  --llvm: as LLVM IR;  --asm: as assembly\n"
    "      --kernel NAME     only kernels whose name contains NAME\n"
    "      --op NAME         instead: the operator NAME, of FILE.lua or built in; what a script made names its lines\n"
    "      --case TEXT       for these shapes, such as \"x:f32[n3,256]\" (without: the operator's first case)\n"
    "      --target ARCH     as kernels are made for another machine; --cpu-features are its, and --vlen N is the\n"
    "                        number of bits of its vector registers if it is a riscv64 (see setun compile)\n"
    CLI_COMMON_HELP;

int cli_dump(int argc, char **argv)
{
    static const struct option options[] = {
        {"graph", optional_argument, NULL, GRAPH}, {"plan", no_argument, NULL, PLAN}, {"kir", no_argument, NULL, KIR},
        {"llvm", no_argument, NULL, LLVM}, {"asm", no_argument, NULL, ASM}, {"kernel", required_argument, NULL, KERNEL},
        {"target", required_argument, NULL, TARGET}, {"vlen", required_argument, NULL, VLEN},
        {"time", no_argument, NULL, TIME}, {"op", required_argument, NULL, OP}, {"case", required_argument, NULL, CASE},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    const char *what = NULL, *kernel = NULL, *op = NULL, *text = NULL;
    char graph[32];
    long long vlen;
    int opt, code = 0, timed = 0;
    cli_init(&c, "dump", dump_help);
    while ((opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case GRAPH:
            (void)snprintf(graph, sizeof graph, "graph%s%.20s", optarg ? "=" : "", optarg ? optarg : "");
            what = graph;
            break;
        case PLAN: what = "plan"; break;
        case KIR: what = "kir"; break;
        case LLVM: what = "llvm"; break;
        case ASM: what = "asm"; break;
        case KERNEL: kernel = optarg; break;
        case TIME: timed = 1; break;
        case OP: op = optarg; break;
        case CASE: text = optarg; break;
        case TARGET: c.o.target = optarg; break;
        case VLEN: if (cli_int(&c, "--vlen", optarg, 1, 65536, &vlen)) return CLI_USAGE; c.o.vlen = (int32_t)vlen; break;
        default:
            if (!common(&c, opt, &code))
                return code;
        }
    }
    const char *name = argc > optind ? argv[optind] : "";
    int is_op = op || text || (strlen(name) > 4 && !strcmp(name + strlen(name) - 4, ".lua"));
    if (argc > optind + 1)
        return cli_usage(&c, is_op ? "one file is enough" : "one model is enough");
    if (!is_op && optind == argc)
        return cli_usage(&c, "a model is missing");
    if (is_op && optind == argc && !op)
        return cli_usage(&c, "--case goes with --op or a file that defines an operator");
    if (is_op && (!what || !strcmp(what, "plan") || !strncmp(what, "graph", 5) || kernel || timed))
        return cli_usage(&c, "of an operator there are --kir, --llvm and --asm");
    if (!what)
        return cli_usage(&c, "say which stage: --graph, --plan, --kir, --llvm or --asm");
    if (timed && strcmp(what, "graph=html"))
        return cli_usage(&c, "--time goes with --graph=html");
    if (timed)
        what = "graph=html+time";
    cli_finish(&c);
    if (is_op)
        return setun_op_dump(*name ? name : NULL, op, text, what, &c.o, cli_write, stdout, &err) == SETUN_OK ? cli_close_out()
                                                                                                             : cli_fail(&err);
    setun_model *m = NULL;
    if (cli_load(&c, argv[optind], &m, &err) != SETUN_OK ||
        setun_model_dump(m, what, kernel, cli_write, stdout, &err) != SETUN_OK)
        code = cli_fail(&err);
    setun_model_free(m);
    return code ? code : cli_close_out();
}

static const char check_help[] =
    "usage: setun check [FILE.lua ...] [--op NAME]\n\n"
    "Run every operator's cases through eval, the interpreter, the JIT and every backend, and compare bits.\n"
    "With files, check the operators that they define instead of the built-in ones.\n\n"
    "      --op NAME         only this operator\n"
    CLI_COMMON_HELP;

int cli_check(int argc, char **argv)
{
    static const struct option options[] = {{"op", required_argument, NULL, OP}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    const char *only = NULL;
    int opt, code = 0;
    int64_t failed = 0;
    cli_init(&c, "check", check_help);
    while ((opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1) {
        if (opt == OP)
            only = optarg;
        else if (!common(&c, opt, &code))
            return code;
    }
    cli_finish(&c);
    if (setun_check((const char *const *)argv + optind, argc - optind, only, &c.o, &failed, cli_write, stdout, &err) != SETUN_OK)
        return cli_fail(&err);
    if (failed) {
        fflush(stdout);
        fprintf(stderr, "setun: %lld checks failed\n", (long long)failed);
        return CLI_FAILED;
    }
    return cli_close_out();
}

typedef setun_status printer(const setun_options *o, setun_write_fn *out, void *user, setun_error *err);

static int print_only(int argc, char **argv, const char *name, const char *help, int n_word, printer *print)
{
    static const struct option options[] = {CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    int opt, code = 0;
    cli_init(&c, name, help);
    while ((opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1)
        if (!common(&c, opt, &code))
            return code;
    if (argc - optind != n_word || (n_word && strcmp(argv[optind], "ops")))
        return cli_usage(&c, "that is not how it is used");
    cli_finish(&c);
    if (print(&c.o, cli_write, stdout, &err) != SETUN_OK)
        return cli_fail(&err);
    return cli_close_out();
}

int cli_plugins(int argc, char **argv)
{
    static const char help[] = "usage: setun plugins [--plugin FILE ...]\n\nWhat is loaded: plugins, backends, operators, the code generator.\n"
                               CLI_COMMON_HELP;
    return print_only(argc, argv, "plugins", help, 0, setun_plugins_print);
}

int cli_doc(int argc, char **argv)
{
    static const char help[] = "usage: setun doc ops\n\nReference of all operators, in Markdown, from their descriptors.\n" CLI_COMMON_HELP;
    return print_only(argc, argv, "doc", help, 1, setun_ops_print);
}

static const char synth_help[] =
    "usage: setun synth (--like NAME | --config FILE) --as hf -o DIR [options]\n\n"
    "A model of a known shape with random weights, for benchmarks and tests.\n\n"
    "      --like NAME       a shape that Setun knows (an unknown name lists them)\n"
    "      --config FILE     the shape of a config.json\n"
    "      --as hf           a Hugging Face directory (the only form so far)\n"
    "  -o, --output DIR      where; must not exist\n"
    "      --seed S          equal seeds give equal files (default 1)\n"
    "      --zeros SHARE     share of zero weights (default 0.42)\n"
    "      --relu-density D  about this share of the gates open, 0.01 to 0.5 (default 0.5)\n"
    "      --down-density D  about this share of the int8 inputs of down not 0 (default 0.68 of the above)\n"
    "      --master          bf16 master weights instead of packed ternary ones\n"
    "      --shard-mb N      several files of about N MB\n"
    "  -q, --quiet           no progress\n"
    "  -h, --help            this text\n";

static int on_synth(void *user, int64_t done, int64_t total)
{
    const cli *c = user;
    if (!c->quiet && isatty(2))
        fprintf(stderr, "\rwriting %3d %%%s", total ? (int)(100 * done / total) : 100, done == total ? "\n" : "");
    return cli_interrupted();
}

int cli_synth(int argc, char **argv)
{
    static const struct option options[] = {
        {"like", required_argument, NULL, LIKE}, {"config", required_argument, NULL, CONFIG}, {"seed", required_argument, NULL, SEED},
        {"as", required_argument, NULL, AS}, {"output", required_argument, NULL, 'o'}, {"zeros", required_argument, NULL, ZEROS},
        {"master", no_argument, NULL, MASTER}, {"shard-mb", required_argument, NULL, SHARD}, {"quiet", no_argument, NULL, 'q'},
        {"relu-density", required_argument, NULL, DENSITY}, {"down-density", required_argument, NULL, DOWN_DENSITY},
        {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_synth_options o = {.size = sizeof o, .seed = 1, .zero_share = -1};
    const char *as = NULL;
    int opt;
    long long n;
    cli_init(&c, "synth", synth_help);
    while ((opt = getopt_long(argc, argv, "o:qh", options, NULL)) != -1) {
        switch (opt) {
        case LIKE: o.like = optarg; break;
        case CONFIG: o.config = optarg; break;
        case AS: as = optarg; break;
        case 'o': o.out = optarg; break;
        case MASTER: o.float_master = 1; break;
        case SEED: if (cli_int(&c, "--seed", optarg, 0, INT64_MAX, &n)) return CLI_USAGE; o.seed = (uint64_t)n; break;
        case SHARD: if (cli_int(&c, "--shard-mb", optarg, 1, 1 << 20, &n)) return CLI_USAGE; o.shard_bytes = n * 1000000; break;
        case DENSITY: if (cli_float(&c, "--relu-density", optarg, 0.01, 0.5, &o.relu_density)) return CLI_USAGE; break;
        case DOWN_DENSITY: if (cli_float(&c, "--down-density", optarg, 0.001, 0.5, &o.down_density)) return CLI_USAGE; break;
        case ZEROS: if (cli_float(&c, "--zeros", optarg, 0, 1, &o.zero_share)) return CLI_USAGE; break;
        default: return cli_common(&c, opt) == 1 ? 0 : opt == 'h' ? 0 : CLI_USAGE;
        case 'q': c.quiet = 1; break;
        }
    }
    if (optind != argc)
        return cli_usage(&c, "'%s' is one word too many", argv[optind]);
    if (!o.like == !o.config)
        return cli_usage(&c, "give --like or --config; known names: %s", setun_synth_names());
    if (!o.out || !*o.out)
        return cli_usage(&c, "-o is missing");
    if (!as || strcmp(as, "hf"))
        return cli_usage(&c, "--as takes hf, not '%s'", as ? as : "nothing");
    o.progress = on_synth;
    o.user = &c;
    cli_catch_interrupt_making();
    return setun_synth(&o, &err) == SETUN_OK ? 0 : cli_fail(&err);
}

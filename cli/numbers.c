/* cli/numbers.c -- logits, tokenize, detokenize: the commands whose output is numbers. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { TOKENS = CLI_OWN, ALL, FORMAT, HASH, CHUNK, NO_BOS, PIECES, SPECIAL, NO_SPECIAL };

/* Ids in decimal, separated by commas or white space; malloc'ed. */
int cli_ids(const cli *c, const char *text, int32_t **ids, int64_t *n)
{
    int64_t cap = (int64_t)strlen(text) / 2 + 2;
    *ids = malloc((size_t)cap * sizeof **ids);
    *n = 0;
    while (*ids) {
        text += strspn(text, ", \t\r\n");
        if (!*text)
            return 0;
        char *end;
        long long v = strtoll(text, &end, 10);
        if (end == text || v < 0 || v > INT32_MAX || (*end && !strchr(", \t\r\n", *end))) {
            int shown = (int)strcspn(text, ", \t\r\n");
            (void)cli_usage(c, "'%.*s' is not a token id", shown < 40 ? shown : 40, text);
            break;
        }
        (*ids)[(*n)++] = (int32_t)v;
        text = end;
    }
    if (!*ids)
        fprintf(stderr, "setun: no memory for the token ids\n");
    free(*ids);
    *ids = NULL;
    return -1;
}

/* ---------------------------------------------------------------- logits */

static const char logits_help[] =
    "usage: setun logits MODEL (--tokens 1,2,3 | -p TEXT) [--all] [--format text|f32] [--hash]\n\n"
    "Logits after the last token, or after every one.\n\n"
    "      --tokens IDS      taken as they are; no BOS is added (@FILE reads them from a file)\n"
    "  -p, --prompt TEXT     tokenized, with BOS\n"
    "      --all             a row for every position\n"
    "      --format text     one number a line, %.9g (default);  f32: raw little-endian\n"
    "      --hash            only a hash of the logits' bits: equal on every machine and thread count\n"
    "      --chunk N         feed N tokens at a time (default: all at once)\n"
    CLI_COMMON_HELP;

typedef struct logits_args {
    cli         c;
    const char *tokens, *prompt;
    int         all, raw, hash;
    long long   chunk;
} logits_args;

static int print_rows(const logits_args *a, const float *logits, int64_t rows, int64_t n_vocab, uint64_t *h)
{
    if (a->hash) {
        *h = setun_hash(*h, logits, rows * n_vocab);
        return 0;
    }
    for (int64_t i = 0; i < rows * n_vocab; i++) {
        uint32_t u;
        memcpy(&u, &logits[i], sizeof u);
        const unsigned char le[4] = {(unsigned char)u, (unsigned char)(u >> 8), (unsigned char)(u >> 16), (unsigned char)(u >> 24)};
        if (a->raw ? fwrite(le, 1, 4, stdout) != 4 : printf("%.9g\n", (double)logits[i]) < 0)
            return -1;
    }
    return 0;
}

static int feed_all(const logits_args *a, const setun_model *m, setun_session *s, const int32_t *ids, int64_t n)
{
    setun_error err = {0};
    const float *logits;
    uint64_t h = 0;
    int64_t step = a->chunk ? a->chunk : n;
    if (a->all && step > setun_model_n_outputs(m))
        step = setun_model_n_outputs(m);
    for (int64_t i = 0; i < n; i += step) {
        int64_t k = n - i < step ? n - i : step;
        int want = a->all ? SETUN_LOGITS_ALL : i + k == n ? SETUN_LOGITS_LAST : SETUN_LOGITS_NONE;
        if (cli_interrupted())
            return CLI_INTERRUPTED;
        if (setun_session_feed(s, ids + i, k, want, &logits, &err) != SETUN_OK)
            return cli_fail(&err);
        if (logits && print_rows(a, logits, a->all ? k : 1, setun_model_n_vocab(m), &h)) {
            fprintf(stderr, "setun: writing the logits failed\n");
            return CLI_FAILED;
        }
    }
    if (a->hash)
        printf("%016" PRIx64 "\n", h);
    return cli_close_out();
}

int cli_logits(int argc, char **argv)
{
    static const struct option options[] = {
        {"tokens", required_argument, NULL, TOKENS}, {"prompt", required_argument, NULL, 'p'}, {"all", no_argument, NULL, ALL},
        {"format", required_argument, NULL, FORMAT}, {"hash", no_argument, NULL, HASH}, {"chunk", required_argument, NULL, CHUNK},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    logits_args a = {0};
    setun_error err = {0};
    int opt, code;
    cli_init(&a.c, "logits", logits_help);
    while ((opt = getopt_long(argc, argv, "p:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case TOKENS: a.tokens = optarg; break;
        case 'p': a.prompt = optarg; break;
        case ALL: a.all = 1; break;
        case HASH: a.hash = 1; break;
        case CHUNK: if (cli_int(&a.c, "--chunk", optarg, 1, 1 << 30, &a.chunk)) return CLI_USAGE; break;
        case FORMAT:
            if (strcmp(optarg, "text") && strcmp(optarg, "f32"))
                return cli_usage(&a.c, "--format takes text or f32, not '%s'", optarg);
            a.raw = optarg[0] == 'f';
            break;
        default:
            code = cli_common(&a.c, opt);
            if (code != 1)
                return code == 2 ? 0 : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&a.c, optind == argc ? "a model is missing" : "one model is enough");
    if (!a.tokens == !a.prompt)
        return cli_usage(&a.c, "give --tokens or -p");
    cli_finish(&a.c);
    if (a.all)
        a.c.o.n_outputs = 64; /* rows at a time: bounds memory for large vocabularies */
    setun_model *m = NULL;
    setun_session *s = NULL;
    int32_t *ids = NULL;
    int64_t n = 0;
    size_t n_file;
    char *file = NULL;
    if (a.tokens && a.tokens[0] == '@' && !(file = cli_read(a.tokens + 1, &n_file)))
        return CLI_FAILED;
    if (a.tokens && cli_ids(&a.c, file ? file : a.tokens, &ids, &n)) {
        free(file);
        return CLI_USAGE;
    }
    free(file);
    if (cli_load(&a.c, argv[optind], &m, &err) != SETUN_OK ||
        (a.prompt && setun_vocab_encode(setun_model_vocab(m), a.prompt, strlen(a.prompt), SETUN_ENCODE_BOS, &ids, &n, &err) != SETUN_OK) ||
        setun_session_new(&s, m, &err) != SETUN_OK)
        code = cli_fail(&err);
    else if (n == 0)
        code = cli_usage(&a.c, "there are no tokens");
    else
        code = feed_all(&a, m, s, ids, n);
    setun_session_free(s);
    setun_model_free(m);
    setun_free(ids);
    return code;
}

/* ---------------------------------------------------------------- tokenize, detokenize */

static const char tokenize_help[] =
    "usage: setun tokenize MODEL [-p TEXT] [--no-bos] [--pieces] [--special | --no-special]\n\n"
    "Token ids of a text (standard input without -p), separated by spaces.  MODEL may be a GGUF file with nothing\n"
    "but a vocabulary.\n\n"
    "      --no-bos      without what the tokenizer puts around a text\n"
    "      --pieces      one token a line: id, tab, text as a quoted string\n"
    "      --special     recognise special tokens written in the text\n"
    "      --no-special  special tokens written in the text are only text (default)\n"
    "  -v                what the tokenizer of a GGUF file is, on stderr\n"
    "  -h, --help        this text\n";

static const char detokenize_help[] =
    "usage: setun detokenize MODEL IDS... [--no-special]\n\n"
    "Text of token ids (arguments, or standard input); bytes that are not UTF-8 become U+FFFD.\n\n"
    "      --no-special  leave special tokens out\n"
    "  -h, --help        this text\n";

int cli_print_piece(const setun_vocab *v, int32_t id, setun_error *err)
{
    const char *bytes;
    size_t n;
    if (setun_vocab_piece(v, id, 1, &bytes, &n, err) != SETUN_OK)
        return -1;
    printf("%d\t\"", id);
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)bytes[i];
        if (b == '"' || b == '\\')
            printf("\\%c", b);
        else if (b >= 0x20 && b < 0x7f)
            putchar(b);
        else
            printf("\\x%02x", b);
    }
    puts("\"");
    return 0;
}

int cli_tokenize(int argc, char **argv)
{
    static const struct option options[] = {
        {"prompt", required_argument, NULL, 'p'}, {"no-bos", no_argument, NULL, NO_BOS}, {"pieces", no_argument, NULL, PIECES},
        {"special", no_argument, NULL, SPECIAL}, {"no-special", no_argument, NULL, NO_SPECIAL}, {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    const char *prompt = NULL;
    int opt, code = 0, pieces = 0;
    uint32_t flags = SETUN_ENCODE_BOS;
    cli_init(&c, "tokenize", tokenize_help);
    while ((opt = getopt_long(argc, argv, "p:vh", options, NULL)) != -1) {
        switch (opt) {
        case 'p': prompt = optarg; break;
        case NO_BOS: flags &= ~SETUN_ENCODE_BOS; break;
        case PIECES: pieces = 1; break;
        case 'v': c.verbose = 1; break;
        case SPECIAL: flags |= SETUN_ENCODE_SPECIAL; break;
        case NO_SPECIAL: flags &= ~SETUN_ENCODE_SPECIAL; break;
        default: return cli_common(&c, opt) == 2 ? 0 : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&c, optind == argc ? "a model is missing" : "one model is enough");
    size_t n_text = prompt ? strlen(prompt) : 0;
    char *text = prompt ? NULL : cli_read("-", &n_text);
    if (!prompt && !text)
        return CLI_FAILED;
    setun_vocab *v = NULL;
    int32_t *ids = NULL;
    int64_t n = 0;
    if (setun_vocab_open(&v, argv[optind], &err) != SETUN_OK ||
        setun_vocab_encode(v, prompt ? prompt : text, n_text, flags, &ids, &n, &err) != SETUN_OK)
        code = cli_fail(&err);
    else if (c.verbose && setun_vocab_about(v))
        fprintf(stderr, "setun: %s\n", setun_vocab_about(v));
    for (int64_t i = 0; i < n && code == 0; i++) {
        if (!pieces)
            printf("%s%d", i ? " " : "", ids[i]);
        else if (cli_print_piece(v, ids[i], &err))
            code = cli_fail(&err);
    }
    if (!pieces && code == 0)
        putchar('\n');
    setun_free(ids);
    setun_vocab_free(v);
    free(text);
    return code ? code : cli_close_out();
}

int cli_detokenize(int argc, char **argv)
{
    static const struct option options[] = {{"no-special", no_argument, NULL, NO_SPECIAL}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    int opt, code = 0, special = 1;
    cli_init(&c, "detokenize", detokenize_help);
    while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (opt == NO_SPECIAL)
            special = 0;
        else
            return cli_common(&c, opt) == 2 ? 0 : CLI_USAGE;
    }
    if (optind == argc)
        return cli_usage(&c, "a model is missing");
    const char *path = argv[optind++];
    size_t n_text = 0;
    char *text = NULL;
    if (optind == argc) {
        text = cli_read("-", &n_text);
    } else {
        size_t total = 1;
        for (int i = optind; i < argc; i++)
            total += strlen(argv[i]) + 1;
        text = calloc(1, total);
        for (int i = optind; text && i < argc; i++) {
            strcat(text, argv[i]);
            strcat(text, " ");
        }
    }
    if (!text)
        return CLI_FAILED;
    int32_t *ids = NULL;
    int64_t n = 0;
    setun_vocab *v = NULL;
    setun_stream stream = {{0}, 0};
    if (cli_ids(&c, text, &ids, &n))
        code = CLI_USAGE;
    else if (setun_vocab_open(&v, path, &err) != SETUN_OK)
        code = cli_fail(&err);
    else
        setun_stream_start(&stream, v);
    for (int64_t i = 0; i < n && code == 0; i++) {
        const char *bytes;
        size_t m = 0;
        char *out = NULL;
        if (setun_vocab_piece(v, ids[i], special, &bytes, &m, &err) != SETUN_OK)
            code = cli_fail(&err);
        else if (m && (out = malloc(4 * (m + 8)))) {
            m = setun_stream_push(&stream, bytes, m, out);
            (void)fwrite(out, 1, m, stdout);
        } else if (m) {
            fprintf(stderr, "setun: no memory for a piece of text\n");
            code = CLI_FAILED;
        }
        free(out);
    }
    if (code == 0) {
        char tail[64];
        size_t m = setun_stream_push(&stream, NULL, 0, tail);
        (void)fwrite(tail, 1, m, stdout);
    }
    setun_free(ids);
    setun_vocab_free(v);
    free(text);
    return code ? code : cli_close_out();
}

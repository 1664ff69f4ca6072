/* cli/chat.c -- chat: a conversation on a terminal, or one message per line of a pipe.
 *
 * Answers go to stdout, everything else to stderr.  The terminal does the line editing.  Ctrl-C ends an answer,
 * and where there is none to end the program; a pipe has nobody to go on for, so there it ends the program. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sampling.h"

enum { TEMPLATE = CLI_OWN, THINK, NO_THINK, DATE };

#define MOST_BYTES ((size_t)16 << 20) /* of one message */

static const char help[] =
    "usage: setun chat MODEL [-s TEXT] [options]\n\n"
    "A conversation with a model, in the format that it was taught.  Standard input has a message per line;\n"
    "a line that ends with \\ goes on in the next one, and lines between \"\"\" and \"\"\" are one message.\n"
    "Lines that begin with / are commands (/help lists them); // begins a message with a /.\n"
    "Ctrl-C ends an answer, a second one the program.\n\n"
    "  -s, --system TEXT     what the model is told first\n"
    "      --template NAME   a format other than the one that the model's files ask for\n"
    "      --think, --no-think\n"
    "                        tell a model to think before it answers, or not to, if its format can\n"
    "      --date TEXT       the day, for formats that tell it (26 Jul 2024)\n"
    "  -n, --tokens N        most tokens of an answer (default: as many as the context holds)\n"
    CLI_SAMPLING_HELP
    "      --json            an object per answer: text, why it ended, numbers of tokens\n"
    CLI_COMMON_HELP;

static const char commands[] =
    "/help            this list\n"
    "/system [TEXT]   tell the model something else first, or nothing; earlier turns stay\n"
    "/clear           forget all turns; the system message stays\n"
    "/save FILE       write the conversation as JSON\n"
    "/load FILE       go on with one that was saved\n"
    "/stats           tokens, memory, the format\n"
    "/exit            end (also Ctrl-D)\n";

typedef struct talk {
    cli                c;
    setun_sampling     sampling;
    setun_chat_options o;
    const char        *system;
    long long          n;
    setun_model       *m;
    setun_session     *s;
    setun_sampler     *sampler;
    setun_chat        *chat;
    char              *line; /* the message that was read */
    size_t             n_line, cap;
    int                tty, failed;
    long long          n_answer;
    double             answer_s;
} talk;

/* Returns -1 to go on, else an exit code. */
static int parse(talk *t, int argc, char **argv)
{
    static const struct option options[] = {
        {"system", required_argument, NULL, 's'}, {"template", required_argument, NULL, TEMPLATE}, {"think", no_argument, NULL, THINK},
        {"no-think", no_argument, NULL, NO_THINK}, {"date", required_argument, NULL, DATE}, {"tokens", required_argument, NULL, 'n'},
        CLI_SAMPLING_OPTIONS, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, r;
    while ((opt = getopt_long(argc, argv, "s:n:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case 's': t->system = optarg; break;
        case TEMPLATE: t->o.template_name = optarg; break;
        case THINK: t->o.think = SETUN_THINK_ON; break;
        case NO_THINK: t->o.think = SETUN_THINK_OFF; break;
        case DATE: t->o.date = optarg; break;
        case 'n': if (cli_int(&t->c, "-n", optarg, -1, 1 << 30, &t->n)) return CLI_USAGE; break;
        default:
            if ((r = cli_sampling(&t->c, &t->sampling, opt)) == 0)
                r = cli_common(&t->c, opt);
            if (r != 1)
                return r == 2 ? 0 : r == 0 ? cli_usage(&t->c, "unknown option") : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&t->c, optind == argc ? "a model is missing" : "one model is enough");
    cli_finish(&t->c);
    return -1;
}

/* A mistake that the next message may do better: said, and remembered for the exit code of a pipe. */
static void complain(talk *t, const char *text)
{
    fprintf(stderr, "setun: %s\n", text);
    t->failed = 1;
}

/* ---------------------------------------------------------------- reading */

/* Append a character to the message; 0, or -1 when it would be too long. */
static int put(talk *t, int c)
{
    if (t->n_line + 2 > t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 1024;
        char *more = cap > MOST_BYTES ? NULL : realloc(t->line, cap);
        if (!more) {
            fprintf(stderr, "setun: a message of more than %zu MiB\n", MOST_BYTES >> 20);
            return -1;
        }
        t->line = more;
        t->cap = cap;
    }
    t->line[t->n_line++] = (char)c;
    t->line[t->n_line] = 0;
    return 0;
}

/* Append one line without its end.  1: there was one; 0: the input has ended; -1: interrupted or broken. */
static int read_line(talk *t, const char *ask)
{
    if (t->tty && isatty(2))
        fputs(ask, stderr);
    for (int c; (c = getchar()) != '\n';) {
        if (c == EOF && ferror(stdin)) {
            if (!cli_interrupted())
                fprintf(stderr, "setun: cannot read standard input: %s\n", strerror(errno));
            return -1;
        }
        if (c == EOF)
            return t->n_line > 0;
        if (put(t, c))
            return -1;
    }
    return 1;
}

/* Lines up to one that ends with """, which was begun.  Alone on their lines, both leave no empty line behind. */
static int read_block(talk *t)
{
    memmove(t->line, t->line + 3, t->n_line - 2);
    t->n_line -= 3;
    for (int begun = t->n_line > 0;; begun = 1) {
        if (t->n_line >= 3 && memcmp(t->line + t->n_line - 3, "\"\"\"", 3) == 0) {
            t->n_line -= 3;
            t->n_line -= t->n_line && t->line[t->n_line - 1] == '\n';
            t->line[t->n_line] = 0;
            return 1;
        }
        if (begun && put(t, '\n'))
            return -1;
        size_t had = t->n_line;
        int r = read_line(t, "... ");
        if (r < 0)
            return r;
        if (t->n_line == had && feof(stdin)) {
            complain(t, "the input ended inside \"\"\"");
            return 0;
        }
    }
}

/* One message; its first line decides how it goes on. */
static int read_message(talk *t)
{
    t->n_line = 0;
    int r = read_line(t, "> ");
    if (r > 0 && t->n_line >= 3 && memcmp(t->line, "\"\"\"", 3) == 0)
        return read_block(t);
    while (r > 0 && t->n_line && t->line[t->n_line - 1] == '\\' && !feof(stdin)) {
        t->line[t->n_line - 1] = '\n';
        r = read_line(t, "... ");
    }
    return r;
}

/* ---------------------------------------------------------------- answers */

static int on_progress(void *user, int64_t done, int64_t total)
{
    const talk *t = user;
    if (!t->c.quiet && t->tty && isatty(2) && total > 512)
        fprintf(stderr, "\rprompt %3d %%%s", (int)(100 * done / total), done == total ? "\r          \r" : "");
    return cli_interrupted();
}

/* Text appears as it is made, in JSON inside a string. */
static int write_answer(void *user, const char *text, size_t n)
{
    const talk *t = user;
    if (t->c.json)
        cli_json(text, n);
    else if (fwrite(text, 1, n, stdout) != n)
        return 1;
    return (!t->c.json && fflush(stdout) != 0) || ferror(stdout);
}

/* The tokens of an answer, from the logits of its prompt on.  *ended: "end", "length", "full" or "interrupted". */
static setun_status generate(talk *t, const float *logits, int32_t *ids, int64_t most, int64_t *made, const char **ended, setun_error *err)
{
    cli_writer w = {setun_model_vocab(t->m), {{0}, 0}, 0, write_answer, t};
    int32_t want = 0;
    setun_status s = SETUN_OK;
    *ended = NULL;
    while (s == SETUN_OK && !*ended) {
        int32_t token = cli_pick(t->sampler, t->s, logits, err);
        if (token < 0)
            return SETUN_FAILED;
        if (setun_chat_is_end(t->chat, token)) {
            *ended = "end";
            break;
        }
        ids[(*made)++] = token;
        setun_sampler_accept(t->sampler, token);
        if (cli_emit(&w, token, err))
            return SETUN_FAILED;
        if (cli_interrupted())
            *ended = "interrupted";
        else if (*made == most)
            *ended = most == t->n ? "length" : "full";
        else if ((s = cli_want(&t->c, t->s, t->sampler, &want, err)) == SETUN_OK)
            s = setun_session_feed(t->s, &token, 1, want, &logits, err);
        if (s == SETUN_CANCELLED) {
            *ended = "interrupted";
            s = SETUN_OK;
        }
    }
    return s == SETUN_OK && cli_flush(&w, err) ? SETUN_FAILED : s;
}

static void end_answer(const talk *t, const char *ended, int64_t made)
{
    setun_chat_stats st = {.size = sizeof st};
    setun_chat_get_stats(t->chat, &st);
    if (t->c.json)
        printf("\", \"end\": \"%s\", \"tokens\": %lld, \"prompt_tokens\": %lld, \"reused_tokens\": %lld, \"forgotten_messages\": %lld}", ended,
               (long long)made, (long long)st.prompt, (long long)st.reused, (long long)st.forgotten);
    putchar('\n');
    (void)fflush(stdout);
    if (t->c.quiet || strcmp(ended, "end") == 0)
        return;
    fprintf(stderr, "(%s)\n", strcmp(ended, "length") == 0 ? "cut: -n tokens were made"
                             : strcmp(ended, "full") == 0 ? "cut: the context is full (--ctx)" : "interrupted");
}

/* Answer the last message.  Returns an exit code. */
static int answer(talk *t)
{
    setun_error err = {0};
    const float *logits;
    const char *ended = NULL;
    int64_t made = 0, n_ctx = setun_model_n_ctx(t->m), room = n_ctx / 8 < 256 ? n_ctx / 8 : 256, last = setun_chat_count(t->chat) - 1;
    int32_t want = 0, *ids;
    if (t->n >= 0 && t->n < room)
        room = t->n;
    setun_status s = cli_want(&t->c, t->s, t->sampler, &want, &err);
    if (s == SETUN_OK)
        s = setun_chat_feed(t->chat, room, want, &logits, &err);
    if (s != SETUN_OK) {
        if (t->tty && isatty(2) && s == SETUN_CANCELLED)
            fputs("\r(interrupted)\n", stderr);
        else if (s != SETUN_CANCELLED)
            complain(t, err.text);
        return setun_chat_remove(t->chat, last, 1, &err) == SETUN_OK ? 0 : cli_fail(&err);
    }
    (void)on_progress(t, 1024, 1024);
    setun_chat_stats st = {.size = sizeof st};
    setun_chat_get_stats(t->chat, &st);
    if (st.forgotten && !t->c.quiet)
        fprintf(stderr, "(the context is full: the oldest %lld messages are forgotten)\n", (long long)st.forgotten);
    int64_t most = n_ctx - st.prompt;
    if (t->n >= 0 && t->n < most)
        most = t->n;
    if (!(ids = malloc((size_t)(most + 1) * sizeof *ids))) {
        (void)snprintf(err.text, sizeof err.text, "no memory for an answer of %lld tokens", (long long)most);
        return cli_fail(&err);
    }
    double t0 = cli_seconds();
    if (t->c.json)
        fputs("{\"text\": \"", stdout);
    if (most < 1)
        ended = "length";
    else
        s = generate(t, logits, ids, most, &made, &ended, &err);
    t->answer_s += cli_seconds() - t0;
    t->n_answer += made;
    if (s == SETUN_OK) {
        end_answer(t, ended, made);
        s = setun_chat_answer(t->chat, ids, made, &err);
    }
    free(ids);
    return s == SETUN_OK ? 0 : cli_fail(&err);
}

/* ---------------------------------------------------------------- commands */

/* The system message becomes text, or goes. */
static setun_status set_system(talk *t, const char *text, setun_error *err)
{
    setun_message m = {.size = sizeof m};
    int has = setun_chat_count(t->chat) > 0 && setun_chat_get(t->chat, 0, &m, err) == SETUN_OK && strcmp(m.role, "system") == 0;
    setun_status s = *text ? setun_chat_insert(t->chat, 0, "system", text, strlen(text), err) : SETUN_OK;
    return s == SETUN_OK && has ? setun_chat_remove(t->chat, *text ? 1 : 0, 1, err) : s;
}

static setun_status clear(talk *t, setun_error *err)
{
    setun_message m = {.size = sizeof m};
    int64_t n = setun_chat_count(t->chat), first = n && setun_chat_get(t->chat, 0, &m, err) == SETUN_OK && strcmp(m.role, "system") == 0;
    return setun_chat_remove(t->chat, first, n - first, err);
}

/* What is loaded must be able to go on: it ends with an answer. */
static setun_status load(talk *t, const char *path, setun_error *err)
{
    setun_message m = {.size = sizeof m};
    setun_status s = setun_chat_load(t->chat, path, err);
    int64_t n = setun_chat_count(t->chat);
    if (s != SETUN_OK || n == 0 || setun_chat_get(t->chat, n - 1, &m, err) != SETUN_OK || strcmp(m.role, "user"))
        return s;
    fprintf(stderr, "(the last message has no answer, and is left out)\n");
    return setun_chat_remove(t->chat, n - 1, 1, err);
}

static void stats(const talk *t)
{
    setun_chat_stats st = {.size = sizeof st};
    setun_model_stats ms = {.size = sizeof ms};
    setun_chat_get_stats(t->chat, &st);
    setun_model_get_stats(t->m, &ms);
    fprintf(stderr, "template  %s: %s\n", setun_chat_template(t->chat), setun_chat_evidence(t->chat));
    fprintf(stderr, "messages  %lld\n", (long long)setun_chat_count(t->chat));
    fprintf(stderr, "context   %lld of %lld positions\n", (long long)setun_session_position(t->s), (long long)setun_model_n_ctx(t->m));
    fprintf(stderr, "prompts   %lld tokens fed; the last has %lld, of which %lld were remembered\n", (long long)st.all_fed,
            (long long)st.prompt, (long long)st.reused);
    fprintf(stderr, "answers   %lld tokens, %.1f tokens/s\n", t->n_answer, t->answer_s > 0 ? (double)t->n_answer / t->answer_s : 0.0);
    fprintf(stderr, "memory    %.0f MB; %s, %d threads\n", 1e-6 * (double)ms.resident_bytes, ms.isa, ms.n_threads);
}

/* A line that begins with one slash.  Returns 1 to end, else 0. */
static int command(talk *t, char *line)
{
    setun_error err = {0};
    setun_status s = SETUN_OK;
    char *rest = line + strcspn(line, " \t");
    while (*rest == ' ' || *rest == '\t')
        *rest++ = 0;
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0)
        return 1;
    if (strcmp(line, "/help") == 0)
        fputs(commands, stderr);
    else if (strcmp(line, "/stats") == 0)
        stats(t);
    else if (strcmp(line, "/clear") == 0)
        s = clear(t, &err);
    else if (strcmp(line, "/system") == 0)
        s = set_system(t, rest, &err);
    else if (strcmp(line, "/save") == 0 && *rest)
        s = setun_chat_save(t->chat, rest, &err);
    else if (strcmp(line, "/load") == 0 && *rest)
        s = load(t, rest, &err);
    else {
        int known = strcmp(line, "/save") == 0 || strcmp(line, "/load") == 0;
        (void)snprintf(err.text, sizeof err.text, known ? "%.60s needs the name of a file" : "there is no command '%.60s'; /help lists "
                       "them, and // begins a message with a /", line);
        s = SETUN_UNKNOWN;
    }
    if (s != SETUN_OK)
        complain(t, err.text);
    return 0;
}

/* ---------------------------------------------------------------- the conversation */

/* Returns an exit code. */
static int converse(talk *t)
{
    setun_error err = {0};
    int code = 0, r;
    while (code == 0 && (r = read_message(t)) != 0) {
        if (r < 0)
            return cli_interrupted() ? CLI_INTERRUPTED : CLI_FAILED;
        char *text = t->line;
        size_t n = t->n_line;
        if (!n)
            continue;
        if (text[0] == '/' && text[1] != '/') {
            if (command(t, text))
                break;
            continue;
        }
        text += text[0] == '/';
        n -= text != t->line;
        if (setun_chat_insert(t->chat, setun_chat_count(t->chat), "user", text, n, &err) != SETUN_OK) {
            complain(t, err.text);
            continue;
        }
        code = answer(t);
        int number = cli_take_interrupt();
        if (number && (!t->tty || number != SIGINT)) /* only Ctrl-C at a terminal is for the answer alone */
            return CLI_INTERRUPTED;
    }
    if (t->tty && isatty(2) && code == 0)
        fputc('\n', stderr);
    return code;
}

static setun_status start(talk *t, const char *path, setun_error *err)
{
    setun_status s = cli_load(&t->c, path, &t->m, err);
    if (s == SETUN_OK)
        s = setun_session_new(&t->s, t->m, err);
    if (s == SETUN_OK)
        s = setun_sampler_new(&t->sampler, &t->sampling, setun_model_n_vocab(t->m), err);
    if (s == SETUN_OK)
        s = setun_chat_new(&t->chat, t->m, t->s, &t->o, err);
    if (s == SETUN_OK && t->system)
        s = set_system(t, t->system, err);
    if (s == SETUN_OK)
        setun_session_on_progress(t->s, on_progress, t);
    return s;
}

int cli_chat(int argc, char **argv)
{
    talk t = {.n = -1, .o = {.size = sizeof t.o, .forget = 1}};
    setun_error err = {0};
    cli_init(&t.c, "chat", help);
    setun_sampling_init(&t.sampling);
    int code = parse(&t, argc, argv);
    if (code >= 0)
        return code;
    t.tty = isatty(0);
    if (start(&t, argv[optind], &err) != SETUN_OK) {
        code = cli_fail(&err);
    } else {
        if (t.tty && !t.c.quiet)
            fprintf(stderr, "%s, template %s (%s); /help lists commands\n", argv[optind], setun_chat_template(t.chat),
                    setun_chat_evidence(t.chat));
        code = converse(&t);
        if (code == 0)
            code = cli_close_out();
        if (code == 0 && t.failed && !t.tty)
            code = CLI_FAILED;
    }
    setun_chat_free(t.chat);
    setun_sampler_free(t.sampler);
    setun_session_free(t.s);
    setun_model_free(t.m);
    free(t.line);
    return code;
}

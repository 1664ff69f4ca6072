/* rt/chat.c -- chat of setun-rt: a conversation, one message per line, as setun chat has it.
 *
 * The template is the bundle's table of turns; what is fed and what is remembered is model/dialog.c, which setun chat uses
 * as well.  Answers go to stdout, everything else to stderr.  Ctrl-C ends an answer, and where there is none the program. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "model/dialog.h"
#include "rt/text.h"

#define INTERRUPTED 130

static const char help[] =
    "usage: setun-rt chat BUNDLE [-s TEXT] [options]\n\n"
    "A conversation with a model, in the format that it was taught.  Standard input has a message per line; a line that\n"
    "ends with \\ goes on in the next one.  Lines that begin with / are commands (/help lists them); // begins a message\n"
    "with a /.  Ctrl-C ends an answer, a second one the program.\n\n"
    "  -s, --system TEXT     what the model is told first\n"
    "  -n, --tokens N        most tokens of an answer (default: as many as the context holds)\n" ST_RT_TEXT_HELP;

static const char commands[] =
    "/help            this list\n"
    "/system [TEXT]   tell the model something else first, or nothing; earlier turns stay\n"
    "/clear           forget all turns; the system message stays\n"
    "/stats           tokens, the template\n"
    "/exit, /quit     end (also Ctrl-D)\n";

typedef struct talk {
    st_rt_text  t;
    const char *system, *path;
    int64_t     n_threads;
    st_dialog  *dialog;
    char       *line; /* getline's */
    size_t      cap;
    int         tty, failed;
    int64_t     n_answer, answer_ns;
} talk;

/* A handler can reach nothing else.  Set by the first signal; the second one ends the process. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    if (interrupted)
        _exit(INTERRUPTED);
    interrupted = 1;
}

/* Returns -1 to go on, else an exit code. */
static int parse(talk *t, int argc, char **argv)
{
    static const struct option options[] = {
        {"system", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, ST_RT_TEXT_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, r;
    while ((opt = getopt_long(argc, argv, "s:n:t:qh", options, NULL)) != -1) {
        switch (opt) {
        case 's': t->system = optarg; break;
        case 'h': return fputs(help, stdout) < 0;
        default:
            r = st_rt_text_option(&t->t, "chat", opt, optarg, &t->n_threads);
            if (r != 1)
                return r ? 2 : st_rt_usage("chat", "unknown option", "");
        }
    }
    if (optind + 1 != argc)
        return st_rt_usage("chat", optind == argc ? "a bundle is missing" : "one bundle is enough", "");
    t->path = argv[optind];
    return -1;
}

/* A mistake that the next message may do better: said, and remembered for the exit code of a pipe. */
static void complain(talk *t, const char *text)
{
    (void)fprintf(stderr, "setun-rt: %s\n", text);
    t->failed = 1;
}

/* ---------------------------------------------------------------- what a dialog needs */

static setun_status render(void *user, const st_message *list, int64_t n, int prompt, st_dialog_add *add, void *to, setun_error *err)
{
    return st_turns_render(((const talk *)user)->t.turns, list, n, prompt, add, to, err);
}

static int64_t position(void *user) { return setun_rt_position(((const talk *)user)->t.rt); }

static setun_status rewind_to(void *user, int64_t at, setun_error *err) { return setun_rt_rewind(((const talk *)user)->t.rt, at, err); }

static setun_status feed(void *user, const int32_t *ids, int64_t n, int32_t want, const float **logits, setun_error *err)
{
    return setun_rt_feed(((const talk *)user)->t.rt, ids, n, want ? logits : NULL, err);
}

static setun_status start(talk *t, setun_error *err)
{
    ST_TRY(st_rt_text_open(&t->t, t->path, (int32_t)t->n_threads, 1, err));
    const st_turns *turns = t->t.turns;
    const st_dialog_host host = {t, t->t.tokenizer, t->t.info.n_ctx, *turns->bos ? turns->bos : NULL, turns->add_bos, 1, turns->control,
                                 turns->n_control, render, position, rewind_to, feed};
    ST_TRY(st_dialog_new(&t->dialog, &host, err));
    return t->system && *t->system ? st_dialog_insert(t->dialog, 0, "system", t->system, strlen(t->system), err) : SETUN_OK;
}

static int has_system(const talk *t)
{
    return st_dialog_count(t->dialog) > 0 && strcmp(st_dialog_messages(t->dialog)[0].role, "system") == 0;
}

/* ---------------------------------------------------------------- answers */

static int ends_answer(const talk *t, int32_t token)
{
    for (int64_t i = 0; i < t->t.turns->n_stop; i++)
        if (t->t.turns->stop[i] == token)
            return 1;
    return setun_rt_is_end(t->t.rt, token);
}

/* The tokens of an answer, from the logits of its prompt on.  *ended: NULL by itself, else why. */
static setun_status generate(talk *t, const float *logits, int32_t *ids, int64_t most, int64_t *made, const char **ended, setun_error *err)
{
    st_detok d = {.drop = 0};
    for (*ended = NULL; !*ended;) {
        int32_t token = st_rt_pick(&t->t, logits, err);
        if (token < 0)
            return SETUN_FAILED;
        if (ends_answer(t, token))
            break;
        ids[(*made)++] = token;
        setun_sampler_accept(t->t.sampler, token);
        if (st_rt_emit(&t->t, &d, token, err))
            return SETUN_FAILED;
        if (interrupted)
            *ended = "interrupted";
        else if (*made == most)
            *ended = most == t->t.n ? "cut: -n tokens were made" : "cut: the context is full";
        else
            ST_TRY(setun_rt_feed(t->t.rt, &token, 1, &logits, err));
    }
    if (st_rt_emit(&t->t, &d, -1, err))
        return SETUN_FAILED;
    if (fputc('\n', stdout) == EOF || fflush(stdout) != 0)
        return st_fail(err, SETUN_IO, "writing the text failed: %s", strerror(errno));
    if (*ended && !t->t.quiet)
        (void)fprintf(stderr, "(%s)\n", *ended);
    return SETUN_OK;
}

/* Answer the last message.  Returns an exit code. */
static int answer(talk *t)
{
    setun_error err = {0};
    const float *logits;
    const char *ended;
    int64_t n_ctx = t->t.info.n_ctx, room = n_ctx / 8 < 256 ? n_ctx / 8 : 256, made = 0, last = st_dialog_count(t->dialog) - 1;
    if (t->t.n >= 0 && t->t.n < room)
        room = t->t.n;
    if (st_dialog_feed(t->dialog, room, 1, &logits, &err) != SETUN_OK) {
        complain(t, err.text);
        return st_dialog_remove(t->dialog, last, 1, &err) == SETUN_OK ? 0 : st_rt_fail(&err);
    }
    st_dialog_stats st = st_dialog_get_stats(t->dialog);
    if (st.forgotten && !t->t.quiet)
        (void)fprintf(stderr, "(the context is full: the oldest %lld messages are forgotten)\n", (long long)st.forgotten);
    int64_t most = n_ctx - st.prompt;
    if (t->t.n >= 0 && t->t.n < most)
        most = t->t.n;
    int32_t *ids = malloc((size_t)(most + 1) * sizeof *ids);
    int64_t begin = st_now_ns();
    setun_status s = ids ? SETUN_OK : st_fail(&err, SETUN_NO_MEMORY, "no memory for an answer of %lld tokens", (long long)most);
    if (s == SETUN_OK && most > 0)
        s = generate(t, logits, ids, most, &made, &ended, &err);
    else if (s == SETUN_OK && (fputc('\n', stdout) == EOF || fflush(stdout) != 0))
        s = st_fail(&err, SETUN_IO, "writing the text failed: %s", strerror(errno));
    t->answer_ns += st_now_ns() - begin;
    t->n_answer += made;
    if (s == SETUN_OK)
        s = st_dialog_answer(t->dialog, ids, made, &err);
    free(ids);
    return s == SETUN_OK ? 0 : st_rt_fail(&err);
}

/* ---------------------------------------------------------------- commands */

static setun_status set_system(talk *t, const char *text, setun_error *err)
{
    int had = has_system(t);
    ST_TRY(*text ? st_dialog_insert(t->dialog, 0, "system", text, strlen(text), err) : SETUN_OK);
    return had ? st_dialog_remove(t->dialog, *text ? 1 : 0, 1, err) : SETUN_OK;
}

static void stats(const talk *t)
{
    st_dialog_stats st = st_dialog_get_stats(t->dialog);
    (void)fprintf(stderr, "template  %s\nmessages  %lld\ncontext   %lld of %lld positions\n", t->t.turns->name,
                  (long long)st_dialog_count(t->dialog), (long long)setun_rt_position(t->t.rt), (long long)t->t.info.n_ctx);
    (void)fprintf(stderr, "prompts   %lld tokens fed; the last has %lld, of which %lld were remembered\n", (long long)st.all_fed,
                  (long long)st.prompt, (long long)st.reused);
    (void)fprintf(stderr, "answers   %lld tokens, %.1f tokens/s\n", (long long)t->n_answer,
                  t->answer_ns > 0 ? 1e9 * (double)t->n_answer / (double)t->answer_ns : 0.0);
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
        (void)fputs(commands, stderr);
    else if (strcmp(line, "/stats") == 0)
        stats(t);
    else if (strcmp(line, "/clear") == 0)
        s = st_dialog_remove(t->dialog, has_system(t), st_dialog_count(t->dialog) - has_system(t), &err);
    else if (strcmp(line, "/system") == 0)
        s = set_system(t, rest, &err);
    else
        s = st_fail(&err, SETUN_UNKNOWN, "there is no command '%.60s'; /help lists them, and // begins a message with a /", line);
    if (s != SETUN_OK)
        complain(t, err.text);
    return 0;
}

/* ---------------------------------------------------------------- the conversation */

/* One message: lines as long as they end with \, which becomes the end of a line.  1: there is one; 0: the input has ended;
 * -1: interrupted or broken. */
static int read_message(talk *t, st_str *message)
{
    message->len = 0;
    for (const char *ask = "> ";; ask = "... ") {
        if (t->tty && isatty(2))
            (void)fputs(ask, stderr);
        ssize_t n = getline(&t->line, &t->cap, stdin);
        if (n < 0 && !feof(stdin)) {
            if (!interrupted)
                (void)fprintf(stderr, "setun-rt: cannot read standard input: %s\n", strerror(errno));
            return -1;
        }
        if (n < 0)
            return message->len > 0;
        n -= t->line[n - 1] == '\n';
        int more = n > 0 && t->line[n - 1] == '\\' && !feof(stdin);
        st_str_addn(message, t->line, (size_t)(n - more));
        st_str_add(message, more ? "\n" : "");
        if (message->failed || message->len > ST_DIALOG_TEXT) {
            (void)fprintf(stderr, "setun-rt: a message of more than %zu bytes\n", message->failed ? message->len : ST_DIALOG_TEXT);
            return -1;
        }
        if (!more)
            return 1;
    }
}

/* Returns an exit code. */
static int converse(talk *t)
{
    setun_error err = {0};
    st_str message = {0};
    int code = 0, r;
    while (code == 0 && (r = read_message(t, &message)) != 0) {
        if (r < 0) {
            code = interrupted ? INTERRUPTED : 1;
            break;
        }
        char *text = message.text;
        if (!message.len)
            continue;
        if (text[0] == '/' && text[1] != '/') {
            if (command(t, text))
                break;
            continue;
        }
        size_t skip = text[0] == '/';
        if (st_dialog_insert(t->dialog, st_dialog_count(t->dialog), "user", text + skip, message.len - skip, &err) != SETUN_OK) {
            complain(t, err.text);
            continue;
        }
        code = answer(t);
        if (interrupted && code == 0 && !t->tty)
            code = INTERRUPTED; /* a pipe has nobody to go on for */
        interrupted = 0;
    }
    st_str_free(&message);
    if (t->tty && isatty(2) && code == 0)
        (void)fputc('\n', stderr);
    return code;
}

int st_rt_chat(int argc, char **argv)
{
    talk t = {.t = {.n = -1}};
    setun_error err = {0};
    setun_sampling_init(&t.t.sampling);
    int code = parse(&t, argc, argv);
    if (code >= 0)
        return code;
    t.tty = isatty(0);
    if (start(&t, &err) == SETUN_OK) {
        const struct sigaction act = {.sa_handler = on_interrupt}; /* without SA_RESTART: reading is interrupted, too */
        (void)sigaction(SIGINT, &act, NULL);
        if (t.tty && !t.t.quiet)
            (void)fprintf(stderr, "%s, template %s; /help lists commands\n", t.path, t.t.turns->name);
        code = converse(&t);
        if (code == 0 && t.failed && !t.tty)
            code = 1;
    } else {
        code = st_rt_fail(&err);
    }
    st_dialog_free(t.dialog);
    st_rt_text_close(&t.t);
    free(t.line);
    return code;
}

/* runtime/choices.c -- see choices.h. */
#include "runtime/choices.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/str.h"

#define TITLE "setun choices 1\n"
#define MAX_FILE (1 << 20)
#define MAX_ROWS 4096
#define SUM_LINE 21 /* "sum ", 16 digits, line end */

const st_choice *st_choices_find(const st_choices *c, const char *question)
{
    for (int64_t i = 0; i < c->n; i++)
        if (strcmp(c->row[i].question, question) == 0)
            return &c->row[i];
    return NULL;
}

setun_status st_choices_put(st_choices *c, const char *question, const char *choice, int64_t gain, setun_error *err)
{
    st_choice *row = (st_choice *)(uintptr_t)st_choices_find(c, question);
    if (!row && c->n == MAX_ROWS)
        return st_fail(err, SETUN_FULL, "more than %d choices are kept in %s", MAX_ROWS, c->path ? c->path : "memory");
    if (!row && c->n == c->cap) {
        int64_t cap = c->cap ? 2 * c->cap : 32;
        st_choice *more = st_arena_array(c->arena, cap, sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for what was tuned");
        if (c->n)
            memcpy(more, c->row, (size_t)c->n * sizeof *more);
        c->row = more;
        c->cap = cap;
    }
    st_choice one = {st_arena_strdup(c->arena, question), st_arena_strdup(c->arena, choice), gain};
    if (!one.question || !one.choice)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for what was tuned");
    if (row)
        *row = one;
    else
        c->row[c->n++] = one;
    return SETUN_OK;
}

/* The next line of a text that is known to end with one; its end becomes 0. */
static char *next_line(char **at, const char *end)
{
    char *line = *at, *stop = *at < end ? memchr(line, '\n', (size_t)(end - line)) : NULL;
    if (!stop)
        return NULL;
    *stop = 0;
    *at = stop + 1;
    return line;
}

/* Add the rows of a file's text that are not there yet.  Returns why the file is no good, or NULL. */
static const char *parse(st_choices *c, char *text, int64_t bytes, setun_error *err, setun_status *status)
{
    char sum[SUM_LINE + 1], *at = text, *line;
    int64_t body = bytes - SUM_LINE;
    if (body < (int64_t)strlen(TITLE) || memcmp(text, TITLE, strlen(TITLE)))
        return "it is not a list of choices of this version";
    if (memchr(text, 0, (size_t)bytes))
        return "it is no text";
    (void)snprintf(sum, sizeof sum, "sum %016" PRIx64 "\n", st_checksum(text, (size_t)body));
    if (memcmp(text + body, sum, SUM_LINE) || text[body - 1] != '\n')
        return "its checksum does not fit";
    (void)next_line(&at, text + body);
    line = next_line(&at, text + body);
    if (!line || strcmp(line, c->identity))
        return "it is of another machine with the same hash";
    while ((line = next_line(&at, text + body))) {
        char *question = strchr(line, '\t'), *choice = question ? strchr(question + 1, '\t') : NULL;
        int64_t gain;
        if (!choice)
            return "a line has no choice";
        *question++ = 0;
        *choice++ = 0;
        if (st_parse_i64(line, -1000, 1000000, &gain))
            return "a line has no gain";
        if (st_choices_find(c, question))
            continue;
        *status = st_choices_put(c, question, choice, gain, err);
        if (*status != SETUN_OK)
            return "it has too many lines";
    }
    return NULL;
}

/* Lack of memory fails; everything else is a file that does not count. */
static setun_status read_file(st_choices *c, const st_log *log, setun_error *err)
{
    char *text = NULL;
    const char *why = NULL;
    int64_t bytes = 0, n = c->n;
    setun_error no = {0};
    setun_status s = SETUN_OK;
    if (!c->path || !st_is_file(c->path))
        return SETUN_OK;
    if (st_file_read(c->path, MAX_FILE, &text, &bytes, &no) == SETUN_OK)
        why = parse(c, text, bytes, err, &s);
    else
        why = no.text;
    if (why) {
        c->n = n;
        if (log)
            st_logf(log, ST_LOG_WARN, "%s is written anew: %s", c->path, why);
    }
    free(text);
    return s == SETUN_NO_MEMORY ? s : SETUN_OK;
}

setun_status st_choices_open(st_choices *c, const char *dir, const char *identity, st_arena *arena, const st_log *log,
                             setun_error *err)
{
    memset(c, 0, sizeof *c);
    c->arena = arena;
    c->identity = st_arena_strdup(arena, identity);
    if (dir)
        c->path = st_arena_printf(arena, "%s/choices-%016" PRIx64 ".txt", dir,
                                  st_hash(ST_HASH_INIT, identity, strlen(identity)));
    if (!c->identity || (dir && !c->path))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for what was tuned");
    return read_file(c, log, err);
}

setun_status st_choices_save(st_choices *c, setun_error *err)
{
    st_str text = {0};
    st_out *out;
    if (!c->path)
        return SETUN_OK;
    ST_TRY(read_file(c, NULL, err));
    st_str_addf(&text, TITLE "%s\n", c->identity);
    for (int64_t i = 0; i < c->n; i++)
        st_str_addf(&text, "%" PRId64 "\t%s\t%s\n", c->row[i].gain, c->row[i].question, c->row[i].choice);
    if (!text.failed)
        st_str_addf(&text, "sum %016" PRIx64 "\n", st_checksum(text.text, text.len));
    setun_status s = text.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for what was tuned") : SETUN_OK;
    if (s == SETUN_OK)
        s = st_out_open(&out, c->path, 0, err);
    if (s == SETUN_OK) {
        s = st_out_write(out, text.text, (int64_t)text.len, err);
        if (s == SETUN_OK)
            s = st_out_commit(out, err);
        else
            st_out_abort(out);
    }
    st_str_free(&text);
    return s;
}

/* runtime/choices.h -- what the tuner found on this machine, kept in a small text file.
 *
 * One file per identity (processor, features, caches, threads, Setun):
 *
 *     setun choices 1
 *     IDENTITY
 *     GAIN <tab> QUESTION <tab> CHOICE            one line each; GAIN in tenths of a per cent
 *     sum CHECKSUM                                of all bytes before it, 16 hexadecimal digits
 *
 * A file that is damaged, too long or of another identity counts as absent, and is written anew.  Its
 * contents only ever select among candidates that an operator lists; whoever reads it checks that. */
#ifndef ST_RUNTIME_CHOICES_H
#define ST_RUNTIME_CHOICES_H

#include "base/arena.h"
#include "base/log.h"
#include "setun/types.h"

typedef struct st_choice {
    const char *question, *choice; /* without tabs and line ends */
    int64_t     gain;
} st_choice;

typedef struct st_choices {
    st_arena   *arena;
    const char *path, *identity; /* path NULL: nothing is kept */
    st_choice  *row;
    int64_t     n, cap;
} st_choices;

/* dir NULL: start empty and keep nothing.  Only lack of memory fails. */
setun_status st_choices_open(st_choices *c, const char *dir, const char *identity, st_arena *arena, const st_log *log,
                             setun_error *err);
const st_choice *st_choices_find(const st_choices *c, const char *question); /* NULL when absent */
/* Texts are copied. */
setun_status st_choices_put(st_choices *c, const char *question, const char *choice, int64_t gain, setun_error *err);
/* Rows that other processes wrote meanwhile stay; of the same question ours counts. */
setun_status st_choices_save(st_choices *c, setun_error *err);

#endif

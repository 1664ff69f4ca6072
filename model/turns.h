/* model/turns.h -- a chat template as a table: what stands between two messages, for each pair that can follow each other.
 *
 * Most templates write a text before and behind each message that depends on who speaks and on what came before, and
 * nothing else.  Such a template is a table, and rendering it needs no script:
 *
 *     START ---------> FIRST ----> ANSWER <--> USER         an edge is the marker that is written there; every
 *       \                 \          ^  \        \          state but the ends writes its message, with or without
 *        -> SYSTEM -> AFTER ---------'   `-> END  `-> PROMPT    the white space around it
 *
 * PROMPT, with which an answer begins, follows every question.  Tables are made from templates by
 * runtime/export_text.c, which also finds out which templates are none. */
#ifndef ST_MODEL_TURNS_H
#define ST_MODEL_TURNS_H

#include "base/bytes.h"
#include "base/message.h"
#include "setun/types.h"

enum { ST_TURN_START, ST_TURN_SYSTEM, ST_TURN_FIRST, ST_TURN_AFTER, ST_TURN_ANSWER, ST_TURN_USER, ST_TURN_PROMPT, ST_TURN_END,
       ST_N_TURNS };

#define ST_TURNS_TOKENS 32
#define ST_TRIM_LEFT  1
#define ST_TRIM_RIGHT 2

typedef struct st_turns {
    char    *name;                  /* "llama3" */
    char    *why;                   /* not "": there is no table, and this is why */
    char    *edge[ST_N_TURNS][ST_N_TURNS]; /* NULL: nothing goes this way */
    uint8_t  trim[ST_N_TURNS];
    char    *bos;                   /* the text of the token that begins a prompt, or "" */
    int      add_bos;               /* it is written in front, because the tokenizer puts none there */
    int32_t  control[ST_TURNS_TOKENS], stop[ST_TURNS_TOKENS]; /* ids that nobody can type, ids that end an answer */
    int64_t  n_control, n_stop;
} st_turns;

/* Can the table ever go from a to b? */
int st_turns_is_edge(int a, int b);

/* Gives the pieces in order: of message i, or of a marker with i = -1.  prompt: end with what an answer begins
 * with.  The list is one that st_message_check likes.  Refused: an edge that the template does not have. */
typedef setun_status st_turns_add(void *user, int64_t i, const char *text, int64_t n, setun_error *err);
setun_status st_turns_render(const st_turns *t, const st_message *list, int64_t n, int prompt, st_turns_add *add, void *user,
                             setun_error *err);

void         st_turns_free(st_turns *t); /* and the struct itself; NULL is allowed */
void         st_turns_put(const st_turns *t, st_str *out);
/* name begins what is said of the bytes; token ids are not checked here, see st_turns_check. */
setun_status st_turns_load(st_turns **t, const void *bytes, int64_t n, const char *name, setun_error *err);
/* Are all ids those of a vocabulary of so many? */
setun_status st_turns_check(const st_turns *t, int64_t n_vocab, const char *name, setun_error *err);

#endif

/* model/dialog.h -- a conversation and what a session remembers of it: messages become prompts, and only what is new is fed. */
#ifndef ST_MODEL_DIALOG_H
#define ST_MODEL_DIALOG_H

#include "base/message.h"
#include "model/tokenizer.h"

#define ST_DIALOG_TEXT ((size_t)64 << 20) /* bytes of a prompt, or of a message; no context comes near */

/* Gets a rendered conversation in pieces: of message i, or of a marker with i = -1. */
typedef setun_status st_dialog_add(void *to, int64_t i, const char *text, int64_t n, setun_error *err);

/* Who renders, and who is fed.  position NULL: there is no session. */
typedef struct st_dialog_host {
    void               *user;
    const st_tokenizer *tokenizer;
    int64_t             n_ctx;
    const char         *bos;     /* the text of the token that begins a prompt, or NULL */
    int                 add_bos; /* it is written in front, because the tokenizer puts none there */
    int                 forget;  /* where the context is too small, the oldest turns are removed */
    const int32_t      *control; /* ids that nobody can type */
    int64_t             n_control;
    setun_status      (*render)(void *user, const st_message *list, int64_t n, int prompt, st_dialog_add *add, void *to, setun_error *err);
    int64_t           (*position)(void *user);
    setun_status      (*rewind)(void *user, int64_t position, setun_error *err);
    setun_status      (*feed)(void *user, const int32_t *ids, int64_t n, int32_t want, const float **logits, setun_error *err);
} st_dialog_host;

typedef struct st_dialog_stats {
    int64_t prompt, reused, forgotten, all_fed; /* as in setun_chat_stats */
} st_dialog_stats;

typedef struct st_dialog st_dialog;

/* The functions are those of setun/setun.h with "chat" in their names, and do what is said there. */
setun_status      st_dialog_new(st_dialog **d, const st_dialog_host *host, setun_error *err); /* the host is copied */
void              st_dialog_free(st_dialog *d);
int64_t           st_dialog_count(const st_dialog *d);
const st_message *st_dialog_messages(const st_dialog *d);
setun_status      st_dialog_insert(st_dialog *d, int64_t i, const char *role, const char *text, size_t n, setun_error *err);
setun_status      st_dialog_remove(st_dialog *d, int64_t i, int64_t n, setun_error *err);
setun_status      st_dialog_feed(st_dialog *d, int64_t room, int32_t want, const float **logits, setun_error *err);
setun_status      st_dialog_answer(st_dialog *d, const int32_t *ids, int64_t n, setun_error *err);
st_dialog_stats   st_dialog_get_stats(const st_dialog *d);

#endif

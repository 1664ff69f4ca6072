/* base/message.h -- one message of a conversation: what files, templates and sessions hand to each other. */
#ifndef ST_MESSAGE_H
#define ST_MESSAGE_H

#include <stdint.h>

#include "setun/types.h"

/* Text is UTF-8 without zero bytes and belongs to whoever made the list. */
typedef struct st_message {
    const char *role; /* "system", "user", "assistant" */
    const char *text;
    int64_t     n;
} st_message;

/* "system" at most at the first place, then "user" and "assistant" by turns?  who names the whole in errors. */
const char  *st_message_role(const char *role); /* the constant of that text; NULL: there is no such role */
setun_status st_message_check(const st_message *list, int64_t n, const char *who, setun_error *err);

/* text[*begin .. *end) without white space at its beginning (left) and end (right): what str.strip removes in the
 * language that chat templates were written for. */
void         st_message_trim(const char *text, int64_t *begin, int64_t *end, int left, int right);

#endif

/* base/message.h -- one message of a conversation: what files, templates and sessions hand to each other. */
#ifndef ST_MESSAGE_H
#define ST_MESSAGE_H

#include <stdint.h>

/* Text is UTF-8 without zero bytes and belongs to whoever made the list. */
typedef struct st_message {
    const char *role; /* "system", "user", "assistant" */
    const char *text;
    int64_t     n;
} st_message;

#endif

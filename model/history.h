/* model/history.h -- a conversation in a file: {"setun_chat": 1, "messages": [{"role", "content"}, ...]}. */
#ifndef ST_MODEL_HISTORY_H
#define ST_MODEL_HISTORY_H

#include "base/arena.h"
#include "base/message.h"
#include "setun/types.h"

#define ST_HISTORY_BYTES ((int64_t)64 << 20)
#define ST_HISTORY_MESSAGES 65536

/* Strings live in arena.  Anything else in the file is refused, naming the message. */
setun_status st_history_read(const char *path, st_arena *arena, const st_message **list, int64_t *n, setun_error *err);
setun_status st_history_write(const char *path, const st_message *list, int64_t n, setun_error *err);

#endif

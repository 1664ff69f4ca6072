/* base/log.h -- progress and warnings go to a sink that is passed in, never to a global. */
#ifndef ST_LOG_H
#define ST_LOG_H

#define ST_LOG_WARN 0
#define ST_LOG_INFO 1
#define ST_LOG_DEBUG 2

typedef struct st_log {
    void (*write)(void *user, int level, const char *text); /* NULL: silent */
    void *user;
    int   level; /* messages above it are dropped */
} st_log;

void st_logf(const st_log *log, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif

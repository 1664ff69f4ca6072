/* base/log.c -- format one message and hand it to the sink.  See log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void st_logf(const st_log *log, int level, const char *fmt, ...)
{
    char text[1024]; /* longer messages are cut: logging must work when memory is gone */
    va_list ap;
    if (!log || !log->write || level > log->level)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log->write(log->user, level, text);
}

/* base/guard.c -- see guard.h.
 *
 * Signal handlers belong to the process, ways back to a thread: these are two of the few variables of Setun
 * that are neither constant nor anybody's own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static struct {
    pthread_mutex_t  lock;
    int              users;
    struct sigaction before;
} guard = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local sigjmp_buf *way_back;

static void caught(int sig)
{
    if (way_back)
        siglongjmp(*way_back, 1);
    (void)sigaction(sig, &guard.before, NULL); /* not ours: the instruction is met again, and treated as before */
}

static void enter(void)
{
    (void)pthread_mutex_lock(&guard.lock);
    if (guard.users++ == 0) {
        struct sigaction a = { .sa_handler = caught };
        (void)sigemptyset(&a.sa_mask);
        (void)sigaction(SIGILL, &a, &guard.before);
    }
    (void)pthread_mutex_unlock(&guard.lock);
}

static void leave(void)
{
    (void)pthread_mutex_lock(&guard.lock);
    if (--guard.users == 0)
        (void)sigaction(SIGILL, &guard.before, NULL);
    (void)pthread_mutex_unlock(&guard.lock);
}

int st_guard_illegal(void (*fn)(void *arg), void *arg)
{
    sigjmp_buf here, *outer = way_back;
    volatile int met = 1;
    enter();
    if (sigsetjmp(here, 1) == 0) {
        way_back = &here;
        fn(arg);
        met = 0;
    }
    way_back = outer;
    leave();
    return met;
}

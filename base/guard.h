/* base/guard.h -- try code that may hold an instruction this processor does not have. */
#ifndef ST_GUARD_H
#define ST_GUARD_H

/* Call fn(arg) once.  1: it met an illegal instruction and was left there, so it should own nothing; 0: it
 * returned.  SIGILL has a handler as long as any thread is in here, and then the one that it had before; of
 * threads that are not, the signal goes where it went.  [any] */
int st_guard_illegal(void (*fn)(void *arg), void *arg);

#endif

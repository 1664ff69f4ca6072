/* rt/main.c -- setun-rt: see program.c. */
#include <signal.h>

#include "setun/rt.h"

int main(int argc, char **argv)
{
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit on files is an error of the write that meets it */
    return setun_rt_main(argc - 1, argv + 1);
}

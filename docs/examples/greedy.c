/* docs/examples/greedy.c -- a program that has a model in it: the most likely tokens behind some given ones.
 *
 *     cc greedy.c -lsetun_rt -lpthread -lm -o greedy && ./greedy BUNDLE 1 2 3
 */
#include <setun/rt.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    setun_rt *rt;
    setun_error err;
    const float *logits;

    if (argc < 3)
        return 2;
    if (setun_rt_open(&rt, argv[1], 0, &err) != SETUN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        int32_t token = atoi(argv[i]);
        if (setun_rt_feed(rt, &token, 1, &logits, &err) != SETUN_OK) {
            fprintf(stderr, "%s\n", err.text);
            setun_rt_close(rt);
            return 1;
        }
    }
    for (int i = 0; i < 8; i++) {
        int32_t token = setun_rt_best(rt, logits);
        printf("%d\n", token);
        if (setun_rt_is_end(rt, token) || setun_rt_feed(rt, &token, 1, &logits, &err) != SETUN_OK)
            break;
    }
    setun_rt_close(rt);
    return 0;
}

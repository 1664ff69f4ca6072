/* model/jscan.h -- walk JSON text in place, for the two large members of tokenizer.json.
 *
 * A DOM of 400,000 strings takes a third of a second and 100 MB; this takes neither.  Everything else
 * is read with the ordinary JSON library. */
#ifndef ST_MODEL_JSCAN_H
#define ST_MODEL_JSCAN_H

#include <stddef.h>
#include <stdint.h>

/* After the first mistake bad is 1, p is at end, and every call fails. */
typedef struct st_jscan {
    const char *p, *end;
    char       *scratch; /* at least end - p + 1 bytes: strings with escapes are decoded here */
    int         bad;
} st_jscan;

/* The next character that is not white space, not consumed; 0 at the end. */
char st_jscan_peek(st_jscan *j);
/* Consume c, or fail. */
int  st_jscan_take(st_jscan *j, char c);
/* A string; *s points into the text, or into scratch until the next call.  U+0000 is refused. */
int  st_jscan_string(st_jscan *j, const char **s, size_t *n);
/* A whole number from 0 to max. */
int  st_jscan_whole(st_jscan *j, int64_t max, int64_t *v);
/* Step over one value of any kind, nested at most depth deep; checks brackets and strings only. */
int  st_jscan_skip(st_jscan *j, int depth);

#endif

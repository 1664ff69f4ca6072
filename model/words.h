/* model/words.h -- word characters and white space next to a place in a text, as Rust's regular expressions
 * have them: tokenizers that wrote tokenizer.json look for \w and \s there. */
#ifndef ST_MODEL_WORDS_H
#define ST_MODEL_WORDS_H

#include "model/chars.h"

/* Every character that \w is; by a library, so a bundle carries the set. */
setun_status st_word_chars(st_chars *words, setun_error *err);

/* text is valid UTF-8, at a place between two characters.  Does a word character end or begin there? */
int     st_word_before(const st_chars *words, const char *text, int64_t at);
int     st_word_after(const st_chars *words, const char *text, int64_t n, int64_t at);
/* Where the white space begins that ends at `at`, `from` at the earliest, and where that ends which begins there. */
int64_t st_space_before(const char *text, int64_t from, int64_t at);
int64_t st_space_after(const char *text, int64_t n, int64_t at);

#endif

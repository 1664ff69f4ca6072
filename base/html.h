/* base/html.h -- text inside pages of HTML that are well-formed XML besides. */
#ifndef ST_HTML_H
#define ST_HTML_H

#include "base/str.h"

/* Everything of text up to `most` characters; what is cut off ends with an ellipsis.  Text may come from scripts and
 * files: what marks up is escaped, and what XML does not allow becomes U+FFFD. */
void st_html_text(st_str *out, const char *text, size_t most);

#endif

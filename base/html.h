/* base/html.h -- text inside pages of HTML that are well-formed XML besides. */
#ifndef ST_HTML_H
#define ST_HTML_H

#include "base/str.h"

/* Everything of text up to `most` characters; what is cut off ends with an ellipsis.  Text may come from scripts and
 * files: what marks up is escaped, and what XML does not allow becomes U+FFFD. */
void st_html_text(st_str *out, const char *text, size_t most);

/* Up to the title as a heading, the body open; style: rules besides those of all pages.  A policy in the page forbids
 * the browser scripts and everything from elsewhere, so that this holds whatever text gets into the page. */
void st_html_begin(st_str *out, const char *title, const char *style);

/* A drawing, which shrinks with a narrow window; what it is of is text that is known here, not a stranger's. */
void st_html_drawing(st_str *out, const char *title, int width, int height);

#endif

/* tests/fuzz/template.c -- the text of a chat template and, behind cuts, tokenizer_config.json and
 * chat_template.json; and a conversation by whichever format the text stands for.
 *
 * An empty piece is a file that is not there. */
#include "tests/fuzz/fuzz.h"

#include "graph/registry.h"
#include "model/template.h"
#include "scripts/host.h"

static const char question[] = "  {{ bos_token }}<|eot_id|> \xe2\x82\xac\n", answer[] = "<think>\nyes\n</think>\n\nno ";

/* Pieces of messages are cut out of them, markers are text, and nothing else is written. */
static setun_status add(void *user, int64_t i, const char *text, int64_t n, setun_error *err)
{
    const st_chat *c = user;
    (void)err;
    FUZZ_CHECK(i >= -1 && i < c->n && n >= 0 && (text || !n));
    FUZZ_CHECK(i < 0 || !n || memmem(c->message[i].text, (size_t)c->message[i].n, text, (size_t)n));
    FUZZ_CHECK(!n || st_utf8_valid(text, (size_t)n) == (size_t)n);
    return SETUN_OK;
}

/* With and without a system message, as far as a question or an answer. */
static void converse(st_script *s, const st_template *t)
{
    const st_message all[] = {{"system", "Be brief.", 9}, {"user", question, sizeof question - 1},
                              {"assistant", answer, sizeof answer - 1}, {"user", "", 0}};
    for (int i = 0; i < 8; i++) {
        int from = i & 1, prompt = i >> 1 & 1;
        setun_error err = {0, ""};
        st_chat c = {&all[from], prompt ? 4 - from : 3 - from, prompt, i % 3 - 1, t->bos, t->eos, i & 4 ? "1 Jan 2025" : NULL};
        fuzz_judge(st_script_template_render(s, &c, add, &c, &err), &err, "");
    }
}

static void check(const st_template *t)
{
    setun_error err = {0, ""};
    const st_script_template *found = NULL;
    st_registry *r = NULL;
    st_script *s = NULL;
    st_arena *a = st_arena_new();
    FUZZ_CHECK(t->n_mark >= 0 && t->n_mark <= ST_TEMPLATE_MARKS && t->n <= ST_TEMPLATE_LIMIT && strlen(t->text) == (size_t)t->n);
    for (int64_t i = 0; i < t->n_mark; i++) {
        FUZZ_CHECK(*t->mark[i] && st_utf8_valid(t->mark[i], strlen(t->mark[i])) == strlen(t->mark[i]));
        for (int64_t k = 0; k < i; k++)
            FUZZ_CHECK(strcmp(t->mark[i], t->mark[k]) != 0);
    }
    FUZZ_CHECK(a && st_registry_new(&r, &err) == SETUN_OK);
    fuzz_judge(st_script_open(&s, SETUN_SOURCE_DIR "/scripts", r, a, NULL, &err), &err, "never");
    setun_status st = st_script_template_find(s, NULL, "LlamaForCausalLM", t->mark, t->n_mark, &found, &err);
    fuzz_judge(st, &err, "");
    FUZZ_CHECK((st == SETUN_OK) == (found != NULL) && (found || err.code == SETUN_UNKNOWN));
    if (found)
        converse(s, t);
    st_script_close(s);
    st_registry_free(r);
    st_arena_free(a);
}

static void put(const char *name, fuzz_piece piece)
{
    if (piece.n)
        (void)fuzz_put(name, piece.data, piece.n);
    else
        (void)remove(fuzz_path(name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_piece rest = {data, n}, text, tokens = {data, 0}, other = {data, 0};
    st_template t = {.n = 0}, file = {.n = 0};
    setun_error err = {0, ""};
    st_arena *a = st_arena_new();
    FUZZ_CHECK(a && fuzz_next(&rest, &text));
    (void)fuzz_next(&rest, &tokens);
    (void)fuzz_next(&rest, &other);
    setun_status s = st_template_parse((const char *)text.data, (int64_t)text.n, "the text", a, &t, &err);
    fuzz_judge(s, &err, "the text");
    put("chat_template.jinja", text);
    put("tokenizer_config.json", tokens);
    put("chat_template.json", other);
    setun_status of = st_template_open(&file, fuzz_dir(), a, &err);
    if (of != SETUN_DECLINED)
        fuzz_judge(of, &err, fuzz_dir());
    if (of == SETUN_OK)
        check(&file);
    else if (s == SETUN_OK)
        check(&t);
    FUZZ_CHECK(st_arena_bytes(a) < ((int64_t)64 << 20));
    st_arena_free(a);
    return 0;
}

/* tests/unit/templates.c -- chat templates: what their texts can write, which format that is, and what it renders.
 *
 * The expected conversations are written out here as the reference renders the published texts; those texts
 * are here in full where they are short, and otherwise with their tool branches cut down. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "graph/registry.h"
#include "model/history.h"
#include "model/template.h"
#include "runtime/export_text.h"
#include "scripts/host.h"
#include "tests/unit/gguf_files.h"

/* ---------------------------------------------------------------- texts */

#define ALTERNATE "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"

static const char bitnet[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = message['role'] | capitalize + ': '+ "
    "message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";
static const char bitnet_wrong[] =
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{% if message['role'] == 'user' %}{{ 'Human: ' + "
    "message['content'] + '\\n\\nBITNETAssistant: ' + eos_token }}{% elif message['role'] == 'assistant' %}{{ message['content'] + "
    "eos_token }}{% endif %}{% endfor %}";
static const char chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
static const char qwen2[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}\n";
#define QWEN25(system) \
    "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {{- \"# Tools\\n\" }}\n    {%- for tool in tools %}\n        {{- tool | tojson }}\n" \
    "    {%- endfor %}\n{%- else %}\n    {%- if messages[0]['role'] == 'system' %}\n        {{- '<|im_start|>system\\n' + " \
    "messages[0]['content'] + '<|im_end|>\\n' }}\n    {%- else %}\n        {{- '<|im_start|>system\\n" system "<|im_end|>\\n' }}\n" \
    "    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n    {%- if (message.role == \"user\") or (message.role == \"system\" " \
    "and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}\n        {{- '<|im_start|>' + message.role + " \
    "'\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- elif message.role == \"assistant\" %}\n        {{- '<|im_start|>' + " \
    "message.role }}\n        {%- for tool_call in message.tool_calls %}\n            {{- '<tool_call>' }}\n        {%- endfor %}\n" \
    "        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\" %}\n        {{- '<tool_response>' }}\n    {%- endif %}\n" \
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
static const char qwen3[] =
    "{%- if tools %}{{- 'tools' }}{%- else %}{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + "
    "'<|im_end|>\\n' }}{%- endif %}{%- endif %}\n{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n{%- if ns.multi_step_tool and message.role == \"user\" and not("
    "message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n{%- set ns.multi_step_tool = "
    "false %}{%- endif %}{%- endfor %}\n{%- for message in messages %}{%- if (message.role == \"user\") or (message.role == \"system\" and "
    "not loop.first) %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- elif message.role == "
    "\"assistant\" %}{%- set content = message.content %}{%- set reasoning_content = '' %}{%- if '</think>' in message.content %}"
    "{%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}{%- set reasoning_content = message.content.split("
    "'</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- endif %}{%- if loop.index0 > ns.last_query_index %}{{- "
    "'<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}{%- if message.tool_calls %}{{- '<tool_call>' }}"
    "{%- endif %}{{- '<|im_end|>\\n' }}{%- elif message.role == \"tool\" %}{{- '<tool_response>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";
static const char llama3[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
static const char llama31[] =
    "{{- bos_token }}\n{%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n"
    "{%- if not tools_in_user_message is defined %}\n    {%- set tools_in_user_message = true %}\n{%- endif %}\n"
    "{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n        {%- set date_string = strftime_now(\"%d %b %Y\") %}\n"
    "    {%- else %}\n        {%- set date_string = \"26 Jul 2024\" %}\n    {%- endif %}\n{%- endif %}\n{%- if not tools is defined %}\n"
    "    {%- set tools = none %}\n{%- endif %}\n\n{#- The system message. #}\n{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content']|trim %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n\n"
    "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}\n{%- if builtin_tools is defined or tools is not none %}\n"
    "    {{- \"Environment: ipython\\n\" }}\n{%- endif %}\n{{- \"Cutting Knowledge Date: December 2023\\n\" }}\n"
    "{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{%- if tools is not none and not tools_in_user_message %}\n    {{- \"Functions\" }}\n"
    "{%- endif %}\n{{- system_message }}\n{{- \"<|eot_id|>\" }}\n\n{%- if tools_in_user_message and not tools is none %}\n"
    "    {{- \"Given the following functions\" }}\n{%- endif %}\n\n{%- for message in messages %}\n"
    "    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n"
    "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n"
    "    {%- elif 'tool_calls' in message %}\n        {{- '{\"name\": \"' }}\n    {%- elif message.role == \"tool\" or message.role == \"ipython\" %}\n"
    "        {{- \"ipython\" }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n";
static const char llama2[] =
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}" ALTERNATE
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
    "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + "
    "'[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}";
static const char falcon3[] =
    "{%- if tools %}\n{{- '<|system|>\\n' }}\n{{- 'You are a Falcon assistant skilled in function calling.' }}\n{%- else %}\n"
    "{%- for message in messages %}\n{%- if message['role'] == 'system' %}\n{{- '<|system|>\\n' + message['content'] + '\\n' }}\n"
    "{%- elif message['role'] == 'user' %}\n{{- '<|user|>\\n' + message['content'] + '\\n' }}\n{%- elif message['role'] == 'assistant' %}\n"
    "{%- if not loop.last %}\n{{- '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}\n{%- else %}\n"
    "{{- '<|assistant|>\\n' + message['content'] + eos_token }}\n{%- endif %}\n{%- endif %}\n{%- if loop.last and add_generation_prompt %}\n"
    "{{- '<|assistant|>\\n' }}\n{%- endif %}\n{%- endfor %}\n{%- endif %}";
static const char gemma3[] =
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n"
    "    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = \"\" -%}\n"
    "    {%- set loop_messages = messages -%}\n{%- endif -%}\n{%- for message in loop_messages -%}\n    " ALTERNATE "\n"
    "    {%- if (message['role'] == 'assistant') -%}\n        {%- set role = \"model\" -%}\n    {%- else -%}\n"
    "        {%- set role = message['role'] -%}\n    {%- endif -%}\n    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if "
    "loop.first else \"\") }}\n    {%- for item in message['content'] -%}\n        {%- if item['type'] == 'image' -%}\n"
    "            {{ '<start_of_image>' }}\n        {%- elif item['type'] == 'text' -%}\n            {{ item['text'] | trim }}\n"
    "        {%- endif -%}\n    {%- endfor -%}\n    {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n"
    "    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n";
static const char gemma2[] =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}" ALTERNATE "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = "
    "message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";

/* Relatives that render otherwise. */
static const char zephyr[] =
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
static const char mistral[] =
    "{{ bos_token }}{% for message in messages %}" ALTERNATE "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' "
    "[/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}";
static const char bitnet_prefixed[] =
    "System: Be kind.<|eot_id|>{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] | trim + "
    "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";
static const char chatml_trim[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
/* The newline behind }} is written: only blocks swallow theirs. */
static const char chatml_lines[] =
    "{% for message in messages %}\n{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n\\n'}}\n"
    "{% endfor %}\n{% if add_generation_prompt %}\n{{ '<|im_start|>assistant\\n' }}\n{% endif %}\n";

/* ---------------------------------------------------------------- the world */

typedef struct world {
    st_arena    *arena;
    st_registry *registry;
    st_script   *script;
} world;

static world open_world(void)
{
    world w;
    setun_error err;
    assert_non_null(w.arena = st_arena_new());
    assert_int_equal(st_registry_new(&w.registry, &err), SETUN_OK);
    if (st_script_open(&w.script, SETUN_SOURCE_DIR "/scripts", w.registry, w.arena, NULL, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return w;
}

static void close_world(world *w)
{
    st_script_close(w->script);
    st_registry_free(w->registry);
    st_arena_free(w->arena);
}

static setun_status parse(world *w, const char *text, st_template *t, setun_error *err)
{
    return st_template_parse(text, (int64_t)strlen(text), "the text", w->arena, t, err);
}

/* ---------------------------------------------------------------- marks */

/* All marks of a text, each in brackets. */
static void marks(world *w, const char *text, const char *want)
{
    st_template t;
    setun_error err;
    st_str got = {0};
    if (parse(w, text, &t, &err) != SETUN_OK)
        fail_msg("%s\nin %s", err.text, text);
    for (int64_t i = 0; i < t.n_mark; i++)
        st_str_addf(&got, "[%s]", t.mark[i]);
    assert_string_equal(got.text ? got.text : "", want);
    st_str_free(&got);
}

static void what_is_written(void **state)
{
    world w = open_world();
    (void)state;
    marks(&w, "", "");
    marks(&w, "{{ 'a' }}{{ \"b\" }}{{ 'a' }}", "[a][b]");
    marks(&w, "{{ 'a' + 'b' ~ 'c' + x + 'd' }}", "[abc][d]");
    marks(&w, "{{ 'it\\'s\\n\\t\\\\ \\%' }}", "[it's\n\t\\ \\%]");
    marks(&w, "{{ x['a'] + x[0]['b'] + y()['c'] + ['d'][0] }}", "[{y()}][d]");
    marks(&w, "{{ 'a' if x == 'b' else 'c' }}{{ 'd' if 'e' in x }}{{ 'f' if 'g' not in x }}", "[a][c][d][f]");
    marks(&w, "{% if x == 'a' %}{% elif 'b' in x %}{% endif %}", "");
    marks(&w, "{{ x | trim }}{{ x|upper }}{{ x.strip() }}{{ x.split('a')[0].lstrip('b') }}{{ x.f('a', 'b') }}",
          "[{|trim}][{|upper}][{.strip()}][{.split(\"a\")}][{.lstrip(\"b\")}][{.f()}][a][b]");
    marks(&w, "{{ bos_token + x.eos_token + eos_token }}{{ now('t') }}{{ raise_exception('no ' + f('x')) }}{{ 'b' }}",
          "[{bos_token}][{eos_token}][{now()}][t][b]");
    marks(&w, "{# 'a' #}{#- b -#}{% set a = 'c' %}{% set ns = namespace(x='d') %}", "[c][d]");
    /* A mark cannot pretend to be another: a string that looks like a variable has one more bracket. */
    marks(&w, "{{ '{bos_token}' }}{{ '{' }}", "[{{bos_token}][{{]");
    /* White space around tags: blocks take the spaces before them on their line and the newline behind. */
    marks(&w, "a\n  {% if x %}\nb\n  {{ x }}\n{% endif %}", "[a\n][b\n  ][\n]");
    marks(&w, "a \n {%- if x -%} \n b \n {{- x -}} \n c \n{% endif %}", "[a][b][c \n]");
    marks(&w, "a {%+ if x %}b{% endif %}\n\nc\n", "[a ][b][\nc]");
    marks(&w, "a  {% if x +%}\nb{% endif %}", "[a  ][\nb]");
    marks(&w, "a {# b #} c", "[a ][ c]");
    close_world(&w);
}

/* Without tools some branches cannot run; what is in doubt can. */
static void what_can_run(void **state)
{
    world w = open_world();
    static const char *const no[] = {
        "tools", "tools is defined", "tools is not none", "x and tools", "tools or builtin_tools", "not (x or tools is none)",
        "message.tool_calls", "message['tool_calls']", "'tool_calls' in message", "message.role == 'tool'", "message['role'] == \"ipython\"",
        "tools is not none and not tools_in_user_message", "tools_in_user_message and not tools is none", "not not tools",
        "(tools)", "(x and (tools or custom_tools is defined)) and y == 'a'",
    };
    static const char *const perhaps[] = {
        "x", "not x", "tools_in_user_message", "tools or x", "tools == 1", "tools | length > 0", "message.role == 'user'",
        "message.role != 'user'", "x == 'tool'", "x.tools.y", "message.role == x", "(tools) == x", "message.role in ['tool']", "toolsmith",
    };
    static const char *const yes[] = {
        "not tools", "tools is none", "tools is not defined", "not tools is defined", "'tool_calls' not in message", "message.role != 'tool'",
        "x or not tools", "not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message)",
    };
    char text[300];
    (void)state;
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        (void)snprintf(text, sizeof text, "{%% if %s %%}a{%% else %%}b{%% endif %%}", no[i]);
        marks(&w, text, "[b]");
    }
    for (size_t i = 0; i < sizeof perhaps / sizeof *perhaps; i++) {
        (void)snprintf(text, sizeof text, "{%% if %s %%}a{%% else %%}b{%% endif %%}", perhaps[i]);
        marks(&w, text, "[a][b]");
    }
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        (void)snprintf(text, sizeof text, "{%% if %s %%}a{%% elif x %%}c{%% else %%}b{%% endif %%}", yes[i]);
        marks(&w, text, "[a]");
    }
    marks(&w, "{% if tools %}a{% elif x %}b{% elif tools %}c{% elif not tools %}d{% else %}e{% endif %}f", "[b][d][f]");
    marks(&w, "{% if tools %}{% if x %}a{% else %}b{% endif %}{% for t in x %}c{% endfor %}{% endif %}d", "[d]");
    marks(&w, "{% for t in tools %}a{% endfor %}{% for t in message.tool_calls %}b{% endfor %}{% for t in tools_x %}c{% endfor %}", "[c]");
    marks(&w, "{% if tools %}{% macro x %}{% endif %}a", "[a]");
    close_world(&w);
}

static void damaged_texts(void **state)
{
    static const char *const bad[][2] = {
        {"{{ 'a", "a string without an end at byte 5"}, {"{{ a", "a tag without an end"}, {"{% if x %}", "a block without an end"},
        {"{% endif %}", "a block that ends but was not begun"}, {"{% if x %}{% endfor %}", "a block that ends but was not begun"},
        {"{% else %}", "a branch outside of an if"}, {"{% for x in y %}{% elif z %}{% endfor %}", "a branch outside of an if"},
        {"{# a", "a comment without an end"}, {"{{ '\\x41' }}", "an escape that is not known"}, {"{% macro a() %}", "the tag 'macro' is not known"},
        {"{% raw %}", "the tag 'raw' is not known"}, {"{%%}", "the tag '' is not known"}, {"\xff", "not valid UTF-8"},
        {"{% include 'x' %}", "the tag 'include' is not known"},
    };
    world w = open_world();
    st_template t;
    setun_error err;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(parse(&w, bad[i][0], &t, &err), SETUN_OK);
        if (!strstr(err.text, bad[i][1]) || strncmp(err.text, "the text: ", 10))
            fail_msg("'%s' gives '%s'", bad[i][0], err.text);
    }
    assert_int_not_equal(st_template_parse("a\0b", 3, "the text", w.arena, &t, &err), SETUN_OK);
    /* Every beginning of a real text is read or refused, without reading beyond it. */
    const char *const long_ones[] = {llama31, qwen3, gemma3};
    for (size_t i = 0; i < 3; i++)
        for (size_t n = 0; n <= strlen(long_ones[i]); n++) {
            char *exact = malloc(n + !n);
            assert_non_null(exact);
            memcpy(exact, long_ones[i], n);
            (void)st_template_parse(exact, (int64_t)n, "the text", w.arena, &t, &err);
            free(exact);
        }
    /* Deep and wide texts. */
    st_str s = {0};
    for (int i = 0; i < 70; i++)
        st_str_add(&s, "{% if x %}");
    assert_int_not_equal(parse(&w, s.text, &t, &err), SETUN_OK);
    assert_non_null(strstr(err.text, "nested too deeply"));
    s.len = 0;
    for (int i = 0; i < 300; i++)
        st_str_addf(&s, "{{ 'a%d' }}", i);
    assert_int_not_equal(parse(&w, s.text, &t, &err), SETUN_OK);
    assert_non_null(strstr(err.text, "more than 256 different things"));
    s.len = 0;
    st_str_add(&s, "{% if ");
    for (int i = 0; i < 400; i++)
        st_str_add(&s, i < 200 ? "(" : "not ");
    st_str_add(&s, "tools %}a{% endif %}");
    assert_int_equal(parse(&w, s.text, &t, &err), SETUN_OK);
    s.len = 0;
    while (s.len <= ST_TEMPLATE_LIMIT)
        st_str_add(&s, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_int_not_equal(parse(&w, s.text, &t, &err), SETUN_OK);
    st_str_free(&s);
    close_world(&w);
}

/* ---------------------------------------------------------------- recognition */

static void known_formats(void **state)
{
    static const struct { const char *text, *arch, *want; } rows[] = {
        {bitnet, "BitNetForCausalLM", "bitnet"}, {bitnet, NULL, "bitnet"}, {bitnet_wrong, "BitNetForCausalLM", "bitnet"}, {chatml, NULL, "chatml"},
        {qwen2, "BitNetForCausalLM", "qwen2"}, {QWEN25("You are a helpful assistant."), NULL, "qwen2"},
        {QWEN25("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), NULL, "qwen2.5"}, {qwen3, NULL, "qwen3"},
        {llama3, NULL, "llama3"}, {llama31, NULL, "llama3.1"}, {llama2, NULL, "llama2"}, {falcon3, NULL, "falcon3"}, {gemma3, NULL, "gemma3"},
        {gemma2, NULL, "gemma2"},
    };
    static const struct { const char *text, *why; } strangers[] = {
        {zephyr, "falcon3, its nearest, does not write '<|assistant|>'"}, {mistral, "not a format that Setun knows"},
        {bitnet_prefixed, "bitnet, its nearest, does not write 'System: Be kind.<|eot_id|>'"},
        {chatml_trim, "chatml, its nearest, does not write '{|trim}'"}, {chatml_lines, "not a format that Setun knows"},
        {QWEN25("You are Robin."), "You are Robin."}, {bitnet_wrong, "bitnet, chatml, falcon3, gemma2, gemma3, llama2, llama3, llama3.1, plain, qwen2, qwen2.5, qwen3"},
        {"{{ messages }}", "one would have to be asked for (--template NAME): bitnet, chatml"},
    };
    world w = open_world();
    const st_script_template *f;
    st_template t;
    setun_error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (parse(&w, rows[i].text, &t, &err) != SETUN_OK ||
            st_script_template_find(w.script, NULL, rows[i].arch, t.mark, t.n_mark, &f, &err) != SETUN_OK)
            fail_msg("%s: %s", rows[i].want, err.text);
        assert_string_equal(f->name, rows[i].want);
        assert_true((*f->repairs != 0) == (rows[i].text == bitnet_wrong));
    }
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        assert_int_equal(parse(&w, strangers[i].text, &t, &err), SETUN_OK);
        setun_status s = st_script_template_find(w.script, NULL, "LlamaForCausalLM", t.mark, t.n_mark, &f, &err);
        if (s != SETUN_UNKNOWN || f || !strstr(err.text, strangers[i].why))
            fail_msg("row %zu: '%s'", i, s == SETUN_OK ? "taken" : err.text);
    }
    assert_int_equal(st_script_template_find(w.script, "llama4", NULL, NULL, 0, &f, &err), SETUN_UNKNOWN);
    assert_string_equal(err.text, "there is no chat template 'llama4'; there are bitnet, chatml, falcon3, gemma2, gemma3, llama2, llama3, "
                                  "llama3.1, plain, qwen2, qwen2.5, qwen3");
    close_world(&w);
}

/* ---------------------------------------------------------------- rendering */

static const st_message talk[] = {
    {"system", " Be  brief. ", 12}, {"user", "\n Hi <|im_end|>\xe3\x80\x80", 18}, {"assistant", " Hello! ", 8}, {"user", "Why?", 4}};
static const st_message thought[] = {
    {"user", "1?", 2}, {"assistant", "<think>\nhm\n</think>\n\nOne.", 25}, {"user", "2?", 2}};

/* Markers as they are, texts in braces. */
static setun_status add(void *user, int64_t i, const char *text, int64_t n, setun_error *err)
{
    (void)err;
    st_str_addf(user, i < 0 ? "%.*s" : "{%.*s}", (int)n, text);
    return SETUN_OK;
}

typedef struct row {
    const char *name;
    const st_message *m;
    int         n, prompt, think;
    const char *want;
} row;

static const row rows[] = {
    {"bitnet", talk, 4, 1, -1, "System: {Be  brief.}<|eot_id|>User: {Hi <|im_end|>}<|eot_id|>Assistant: {Hello!}<|eot_id|>User: {Why?}<|eot_id|>Assistant: "},
    {"bitnet", talk + 1, 1, 1, -1, "User: {Hi <|im_end|>}<|eot_id|>Assistant: "},
    {"bitnet", talk, 3, 0, -1, "System: {Be  brief.}<|eot_id|>User: {Hi <|im_end|>}<|eot_id|>Assistant: {Hello!}<|eot_id|>"},
    {"chatml", talk, 4, 1, -1,
     "<|im_start|>system\n{ Be  brief. }<|im_end|>\n<|im_start|>user\n{\n Hi <|im_end|>\xe3\x80\x80}<|im_end|>\n"
     "<|im_start|>assistant\n{ Hello! }<|im_end|>\n<|im_start|>user\n{Why?}<|im_end|>\n<|im_start|>assistant\n"},
    {"chatml", talk + 3, 1, 1, -1, "<|im_start|>user\n{Why?}<|im_end|>\n<|im_start|>assistant\n"},
    {"qwen2", talk + 3, 1, 1, -1, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{Why?}<|im_end|>\n<|im_start|>assistant\n"},
    {"qwen2", talk, 2, 0, -1, "<|im_start|>system\n{ Be  brief. }<|im_end|>\n<|im_start|>user\n{\n Hi <|im_end|>\xe3\x80\x80}<|im_end|>\n"},
    {"qwen2.5", talk + 3, 1, 1, -1,
     "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n{Why?}<|im_end|>\n"
     "<|im_start|>assistant\n"},
    {"qwen3", talk, 4, 1, -1,
     "<|im_start|>system\n{ Be  brief. }<|im_end|>\n<|im_start|>user\n{\n Hi <|im_end|>\xe3\x80\x80}<|im_end|>\n"
     "<|im_start|>assistant\n{ Hello! }<|im_end|>\n<|im_start|>user\n{Why?}<|im_end|>\n<|im_start|>assistant\n"},
    {"qwen3", talk, 3, 0, -1,
     "<|im_start|>system\n{ Be  brief. }<|im_end|>\n<|im_start|>user\n{\n Hi <|im_end|>\xe3\x80\x80}<|im_end|>\n"
     "<|im_start|>assistant\n<think>\n\n</think>\n\n{ Hello! }<|im_end|>\n"},
    {"qwen3", thought, 3, 1, 1, "<|im_start|>user\n{1?}<|im_end|>\n<|im_start|>assistant\n{One.}<|im_end|>\n<|im_start|>user\n{2?}<|im_end|>\n<|im_start|>assistant\n"},
    {"qwen3", thought, 3, 1, 0,
     "<|im_start|>user\n{1?}<|im_end|>\n<|im_start|>assistant\n{One.}<|im_end|>\n<|im_start|>user\n{2?}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"},
    {"qwen3", thought, 2, 0, -1, "<|im_start|>user\n{1?}<|im_end|>\n<|im_start|>assistant\n<think>\n{hm}\n</think>\n\n{One.}<|im_end|>\n"},
    {"llama3", talk, 4, 1, -1,
     "<|start_header_id|>system<|end_header_id|>\n\n{Be  brief.}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{Hi <|im_end|>}<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n{Hello!}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{Why?}<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"llama3.1", talk, 4, 1, -1,
     "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 1 May 2025\n\n{Be  brief.}<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\n{Hi <|im_end|>}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{Hello!}<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\n{Why?}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"llama3.1", talk + 3, 1, 1, -1,
     "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 1 May 2025\n\n<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\n{Why?}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"llama2", talk, 4, 1, -1, "<s>[INST] <<SYS>>\n{ Be  brief. }\n<</SYS>>\n\n{\n Hi <|im_end|>} [/INST] {Hello!} </s><s>[INST] {Why?} [/INST]"},
    {"llama2", talk + 1, 3, 1, -1, "<s>[INST] {Hi <|im_end|>} [/INST] {Hello!} </s><s>[INST] {Why?} [/INST]"},
    {"falcon3", talk, 4, 1, -1,
     "<|system|>\n{ Be  brief. }\n<|user|>\n{\n Hi <|im_end|>\xe3\x80\x80}\n<|assistant|>\n{ Hello! }</s>\n<|user|>\n{Why?}\n<|assistant|>\n"},
    {"falcon3", talk, 3, 0, -1, "<|system|>\n{ Be  brief. }\n<|user|>\n{\n Hi <|im_end|>\xe3\x80\x80}\n<|assistant|>\n{ Hello! }</s>"},
    {"gemma3", talk, 4, 1, -1,
     "<start_of_turn>user\n{ Be  brief. }\n\n{Hi <|im_end|>}<end_of_turn>\n<start_of_turn>model\n{Hello!}<end_of_turn>\n"
     "<start_of_turn>user\n{Why?}<end_of_turn>\n<start_of_turn>model\n"},
    {"gemma2", talk + 1, 3, 1, -1,
     "<start_of_turn>user\n{Hi <|im_end|>}<end_of_turn>\n<start_of_turn>model\n{Hello!}<end_of_turn>\n"
     "<start_of_turn>user\n{Why?}<end_of_turn>\n<start_of_turn>model\n"},
    {"plain", talk, 4, 1, -1, "{Be  brief.}\n\nUser: {Hi <|im_end|>}\nAssistant: {Hello!}\nUser: {Why?}\nAssistant:"},
};

static void conversations(void **state)
{
    world w = open_world();
    const st_script_template *f;
    setun_error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const st_chat chat = {rows[i].m, rows[i].n, rows[i].prompt, rows[i].think, "<s>", "</s>", "1 May 2025"};
        st_str got = {0};
        if (st_script_template_find(w.script, rows[i].name, NULL, NULL, 0, &f, &err) != SETUN_OK ||
            st_script_template_render(w.script, &chat, add, &got, &err) != SETUN_OK)
            fail_msg("%s: %s", rows[i].name, err.text);
        if (strcmp(got.text, rows[i].want))
            fail_msg("%s, row %zu:\n%s\ninstead of\n%s", rows[i].name, i, got.text, rows[i].want);
        st_str_free(&got);
    }
    close_world(&w);
}

/* The same, from the table that a bundle has: every format but one is a table. */
static void tables(void **state)
{
    world w = open_world();
    setun_error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        st_format f = {.arena = w.arena, .script = w.script, .file = {.bos = "<s>", .eos = "</s>"}};
        st_turns *t = calloc(1, sizeof *t), *back;
        st_str bytes = {0}, got = {0};
        assert_non_null(t);
        t->name = strdup(r->name);
        t->why = strdup("");
        t->bos = strdup("<s>");
        assert_int_equal(st_script_template_find(w.script, r->name, NULL, NULL, 0, &f.t, &err), SETUN_OK);
        setun_status s = st_export_turns(&f, t, &err);
        if (strcmp(r->name, "qwen3") == 0) { /* shows an answer without its thoughts */
            assert_int_equal(s, SETUN_UNKNOWN);
            assert_non_null(strstr(err.text, "depends on more"));
            st_turns_free(t);
            continue;
        }
        if (s != SETUN_OK)
            fail_msg("%s: %s", r->name, err.text);
        st_turns_put(t, &bytes);
        if (st_turns_load(&back, bytes.text, (int64_t)bytes.len, "a bundle", &err) != SETUN_OK)
            fail_msg("%s: %s", r->name, err.text);
        /* Tables have no way to end behind a question, and nobody asks for one; and they have the date of those who give none. */
        int ends = r->prompt || strcmp(r->m[r->n - 1].role, "assistant") == 0, dated = strcmp(r->name, "llama3.1") == 0;
        s = st_turns_render(back, r->m, r->n, r->prompt, add, &got, &err);
        assert_int_equal(s, ends ? SETUN_OK : SETUN_BAD_ARG);
        if (dated)
            assert_non_null(strstr(got.text, "Today Date: 26 Jul 2024\n\n"));
        else if (ends && strcmp(got.text, r->want))
            fail_msg("%s, row %zu:\n%s\ninstead of\n%s", r->name, i, got.text, r->want);
        /* Gemma's first template refuses a system message, and so does its table. */
        st_str_free(&got);
        if (strcmp(r->name, "gemma2") == 0) {
            assert_int_equal(st_turns_render(back, talk, 4, 1, add, &got, &err), SETUN_BAD_ARG);
            assert_non_null(strstr(err.text, "has no system prompt"));
            st_str_free(&got);
        }
        st_str_free(&bytes);
        st_turns_free(t);
        st_turns_free(back);
    }
    close_world(&w);
}

/* Tables of strangers: cut short, or with a byte changed, they are refused or are a table. */
static void damaged_tables(void **state)
{
    st_turns t = {.name = "x", .why = "", .bos = "<s>", .control = {7}, .n_control = 1, .stop = {3, 9}, .n_stop = 2}, *back;
    st_str bytes = {0};
    setun_error err;
    uint64_t r = 11;
    (void)state;
    t.edge[ST_TURN_START][ST_TURN_FIRST] = "U:";
    t.edge[ST_TURN_FIRST][ST_TURN_PROMPT] = "A:";
    st_turns_put(&t, &bytes);
    assert_int_equal(st_turns_load(&back, bytes.text, (int64_t)bytes.len, "a bundle", &err), SETUN_OK);
    assert_int_equal(st_turns_check(back, 10, "a bundle", &err), SETUN_OK);
    assert_int_equal(st_turns_check(back, 9, "a bundle", &err), SETUN_BAD_FILE);
    st_turns_free(back);
    for (size_t n = 0; n < bytes.len; n++) {
        assert_int_equal(st_turns_load(&back, bytes.text, (int64_t)n, "a bundle", &err), SETUN_BAD_FILE);
        assert_null(back);
        assert_int_equal(strncmp(err.text, "a bundle: ", 10), 0);
    }
    for (int round = 0; round < 2000; round++) {
        size_t at = next_random(&r) % bytes.len;
        char old = bytes.text[at];
        bytes.text[at] = (char)next_random(&r);
        if (st_turns_load(&back, bytes.text, (int64_t)bytes.len, "a bundle", &err) == SETUN_OK) {
            st_str got = {0};
            (void)st_turns_render(back, talk + 1, 3, 1, add, &got, &err);
            st_str_free(&got);
            st_turns_free(back);
        }
        bytes.text[at] = old;
    }
    st_str_free(&bytes);
}

/* The format that docs/chat.md shows works in a directory of its own. */
static void the_one_in_the_documents(void **state)
{
    char *dir = temp_dir(), *templates = join(dir, "templates"), *doc, *begin, *end;
    int64_t n;
    world w;
    const st_script_template *f;
    st_template t;
    setun_error err;
    st_str got = {0};
    (void)state;
    assert_int_equal(st_file_read(SETUN_SOURCE_DIR "/docs/chat.md", 1 << 20, &doc, &n, &err), SETUN_OK);
    assert_non_null(begin = strstr(doc, "```lua\n"));
    assert_non_null(end = strstr(begin, "\n```\n"));
    assert_int_equal(st_make_dirs(templates, 0, &err), SETUN_OK);
    put_file(templates, "robin.lua", begin + 7, (size_t)(end - begin - 7));
    assert_non_null(w.arena = st_arena_new());
    assert_int_equal(st_registry_new(&w.registry, &err), SETUN_OK);
    assert_int_equal(st_script_open(&w.script, dir, w.registry, w.arena, NULL, &err), SETUN_OK);
    assert_int_equal(parse(&w, "{{ '<|user|>' }}{{ '<|robin|>' }}{{ x | trim }}{{ '<|end|>' }}", &t, &err), SETUN_OK);
    if (st_script_template_find(w.script, NULL, NULL, t.mark, t.n_mark, &f, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_string_equal(f->token[0], "<|end|>");
    assert_null(f->token[1]);
    const st_chat chat = {talk + 1, 3, 1, -1, NULL, NULL, ""};
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_OK);
    assert_string_equal(got.text, "<|user|>{Hi <|im_end|>}<|end|><|robin|>{Hello!}<|end|><|user|>{Why?}<|end|><|robin|>");
    st_str_free(&got);
    /* Two that fit are one too many; and what is no template is said to be none. */
    put_file(templates, "twin.lua", begin + 7, (size_t)(end - begin - 7));
    assert_int_equal(st_script_template_find(w.script, NULL, NULL, t.mark, t.n_mark, &f, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "more than one chat template fits"));
    static const char *const bad[][2] = {
        {"return 1", "a chat template ends with return setun.template {...}"},
        {"return setun.template { name = 'a' }", "render must be a function"},
        {"return setun.template { name = 'a', colour = 1, render = print }", "there is no field 'colour'"},
        {"return setun.template { name = 'a', must = 'x', render = print }", "must must be a list of strings"},
        {"return setun.template { name = 'a', repairs = { must = {} }, render = print }", "repairs needs the lists"},
        {"return setun.template 'a'", "setun.template wants a table"}, {"x(", "twin.lua:1:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text(templates, "twin.lua", bad[i][0]);
        setun_status s = st_script_template_find(w.script, "robin", NULL, NULL, 0, &f, &err);
        if (s != SETUN_BAD_SCRIPT || !strstr(err.text, bad[i][1]))
            fail_msg("%s gives %d '%s'", bad[i][0], s, err.text);
    }
    /* What a template keeps is closed when its rendering is over. */
    put_text(templates, "twin.lua", "local kept return setun.template { name = 'keep', render = function(c)\n"
             "if kept then kept.chat:text(kept.m) end kept = { chat = c, m = c.messages[1] } end }");
    assert_int_equal(st_script_template_find(w.script, "keep", NULL, NULL, 0, &f, &err), SETUN_OK);
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_OK);
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "twin.lua:2: the conversation is gone after render"));
    st_str_free(&got);
    free(doc);
    free(templates);
    close_world(&w);
    drop_dir(dir);
}

/* White space is what the reference's language says it is. */
static void trimming(void **state)
{
    static const char *const spaces[] = {" ", "\t", "\n", "\v", "\f", "\r", "\x1c", "\x1f", "\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\x80",
                                         "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    static const char *const not_spaces[] = {"\x1b", "\x21", "\xe2\x80\x8b", "\xe1\x9a\x81", "\xef\xbb\xbf", "\xc2\x86", "\xc3\xa0", "\xe4\x80\x80"};
    world w = open_world();
    const st_script_template *f;
    setun_error err;
    (void)state;
    assert_int_equal(st_script_template_find(w.script, "bitnet", NULL, NULL, 0, &f, &err), SETUN_OK);
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces + sizeof not_spaces / sizeof *not_spaces; i++) {
        int is_space = i < sizeof spaces / sizeof *spaces;
        const char *s = is_space ? spaces[i] : not_spaces[i - sizeof spaces / sizeof *spaces];
        char text[64], want[100];
        st_str got = {0};
        (void)snprintf(text, sizeof text, "%s \n%sa%sb%s\n%s", s, s, s, s, s);
        (void)snprintf(want, sizeof want, is_space ? "User: {a%sb}<|eot_id|>" : "User: {%s}<|eot_id|>", is_space ? s : text);
        const st_message m = {"user", text, (int64_t)strlen(text)};
        const st_chat chat = {&m, 1, 0, -1, NULL, NULL, ""};
        assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_OK);
        assert_string_equal(got.text, want);
        st_str_free(&got);
    }
    const st_message blank = {"user", " \n\xe3\x80\x80 ", 6};
    const st_chat chat = {&blank, 1, 0, -1, NULL, NULL, ""};
    st_str got = {0};
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_OK);
    assert_string_equal(got.text, "User: <|eot_id|>");
    st_str_free(&got);
    close_world(&w);
}

static setun_status refuse_second(void *user, int64_t i, const char *text, int64_t n, setun_error *err)
{
    (void)i; (void)text; (void)n;
    return ++*(int *)user < 2 ? SETUN_OK : st_fail(err, SETUN_FULL, "no more than one piece");
}

static void what_rendering_refuses(void **state)
{
    world w = open_world();
    const st_script_template *f;
    setun_error err;
    int count = 0;
    st_str got = {0};
    st_chat chat = {talk, 4, 1, -1, NULL, NULL, ""};
    (void)state;
    assert_int_equal(st_script_template_find(w.script, "gemma2", NULL, NULL, 0, &f, &err), SETUN_OK);
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "the template gemma2 has no system prompt"));
    assert_int_equal(st_script_template_find(w.script, "llama2", NULL, NULL, 0, &f, &err), SETUN_OK);
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_BAD_SCRIPT);
    assert_non_null(strstr(err.text, "the template needs the text of bos, which the model's files do not tell"));
    chat.bos = chat.eos = "";
    assert_int_equal(st_script_template_render(w.script, &chat, refuse_second, &count, &err), SETUN_FULL);
    assert_string_equal(err.text, "no more than one piece");
    st_str_free(&got);
    close_world(&w);
}

/* A message can be longer than any string of a script. */
static void long_messages(void **state)
{
    world w = open_world();
    const st_script_template *f;
    setun_error err;
    st_str text = {0}, got = {0};
    (void)state;
    while (text.len < 3000000)
        st_str_add(&text, " \xe3\x80\x80word");
    const st_message m = {"user", text.text, (int64_t)text.len};
    const st_chat chat = {&m, 1, 0, -1, NULL, NULL, ""};
    assert_int_equal(st_script_template_find(w.script, "bitnet", NULL, NULL, 0, &f, &err), SETUN_OK);
    assert_int_equal(st_script_template_render(w.script, &chat, add, &got, &err), SETUN_OK);
    assert_int_equal(got.len, text.len - 4 + strlen("User: {}<|eot_id|>"));
    st_str_free(&text);
    st_str_free(&got);
    close_world(&w);
}

/* ---------------------------------------------------------------- files */

static void template_files(void **state)
{
    char *dir = temp_dir();
    st_arena *arena = st_arena_new();
    st_template t;
    setun_error err;
    (void)state;
    assert_int_equal(st_template_open(&t, dir, arena, &err), SETUN_DECLINED);
    put_text(dir, "tokenizer_config.json", "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\", \"lstrip\": false}}");
    assert_int_equal(st_template_open(&t, dir, arena, &err), SETUN_DECLINED);
    assert_string_equal(t.bos, "<s>");
    assert_string_equal(t.eos, "</s>");
    put_text(dir, "tokenizer_config.json", "{\"bos_token\": null, \"chat_template\": \"{{ 'a' }}\"}");
    assert_int_equal(st_template_open(&t, dir, arena, &err), SETUN_OK);
    assert_string_equal(t.mark[0], "a");
    assert_null(t.bos);
    assert_non_null(strstr(t.from, "/tokenizer_config.json"));
    put_text(dir, "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"{{ 'b' }}\"}, "
             "{\"name\": \"default\", \"template\": \"{{ 'c' }}\"}], \"eos_token\": \"<e>\"}");
    assert_int_equal(st_template_open(&t, dir, arena, &err), SETUN_OK);
    assert_string_equal(t.mark[0], "c");
    put_text(dir, "chat_template.json", "{\"chat_template\": \"{{ 'd' }}\"}");
    assert_int_equal(st_template_open(&t, dir, arena, &err), SETUN_OK);
    assert_string_equal(t.mark[0], "d");
    assert_string_equal(t.eos, "<e>");
    put_text(dir, "chat_template.jinja", "{{ 'e' }}\n");
    assert_int_equal(st_template_open(&t, dir, arena, &err), SETUN_OK);
    assert_string_equal(t.mark[0], "e");
    assert_int_equal(t.n_mark, 1);
    assert_string_equal(t.eos, "<e>");
    drop_dir(dir);
    dir = temp_dir();
    static const char *const bad[][2] = {
        {"{", "not valid JSON"}, {"[]", "not a JSON object"}, {"{\"chat_template\": 1}", "neither a text nor a list"},
        {"{\"chat_template\": [{\"name\": \"rag\", \"template\": \"\"}]}", "none of the 1 templates is called 'default'"},
        {"{\"chat_template\": [1]}", "an element is not a name and a template"}, {"{\"chat_template\": \"{{\"}", "a tag without an end"},
        {"{\"chat_template\": \"a\\u0000b\"}", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text(dir, "tokenizer_config.json", bad[i][0]);
        setun_status s = st_template_open(&t, dir, arena, &err);
        if (s >= SETUN_OK || !strstr(err.text, bad[i][1]) || !strstr(err.text, "tokenizer_config.json"))
            fail_msg("%s gives %d '%s'", bad[i][0], s, err.text);
    }
    drop_dir(dir);
    st_arena_free(arena);
}

static void gguf_files(void **state)
{
    char *dir = temp_dir(), *path = join(dir, "m.gguf");
    st_arena *arena = st_arena_new();
    st_template t;
    setun_error err;
    (void)state;
    for (int with = 0; with < 3; with++) {
        gguf_maker m = {.alignment = 0};
        st_str file = {0};
        kv_text(&m, "general.architecture", "bitnet-b1.58");
        kv_u32(&m, "tokenizer.ggml.bos_token_id", 128000);
        kv_u32(&m, "tokenizer.ggml.eos_token_id", 128001);
        if (with == 1)
            kv_text(&m, "tokenizer.chat_template", bitnet_wrong);
        if (with == 2)
            kv_u32(&m, "tokenizer.chat_template", 7);
        gguf_bytes(&m, &file);
        put_file(dir, "m.gguf", file.text, file.len);
        st_str_free(&file);
        setun_status s = st_template_open(&t, path, arena, &err);
        if (with == 2 && (s != SETUN_BAD_FILE || !strstr(err.text, "not a string")))
            fail_msg("%d '%s'", s, err.text);
        if (with < 2 && s != (with ? SETUN_OK : SETUN_DECLINED))
            fail_msg("%d '%s'", s, err.text);
        assert_int_equal(t.bos_id, 128000);
        assert_int_equal(t.eos_id, 128001);
        if (with == 1) {
            assert_non_null(strstr(t.from, "tokenizer.chat_template of "));
            assert_int_equal(t.n_mark, 4);
            assert_string_equal(t.mark[2], "\n\nBITNETAssistant: ");
        }
    }
    drop_dir(dir);
    free(path);
    st_arena_free(arena);
}

static void histories(void **state)
{
    static const char *const bad[][2] = {
        {"", "not valid JSON"}, {"[]", "not a conversation"}, {"{\"messages\": []}", "not a conversation"},
        {"{\"setun_chat\": 2, \"messages\": []}", "not a conversation"}, {"{\"setun_chat\": 1, \"messages\": [], \"x\": 1}", "not a conversation"},
        {"{\"setun_chat\": 1, \"messages\": [1]}", "message 1 is not"},
        {"{\"setun_chat\": 1, \"messages\": [{\"role\": \"user\", \"content\": 1}]}", "message 1 is not"},
        {"{\"setun_chat\": 1, \"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}", "message 1 has the role 'tool'"},
        {"{\"setun_chat\": 1, \"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "message 1 is of 'assistant', but 'user' is next"},
        {"{\"setun_chat\": 1, \"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"a\"}]}",
         "message 2 is of 'system', but 'assistant' is next"},
        {"{\"setun_chat\": 1, \"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000\"}]}", "not valid JSON"},
        {"{\"setun_chat\": 1, \"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}", "not valid JSON"},
    };
    char *dir = temp_dir(), path[400];
    st_arena *arena = st_arena_new();
    const st_message *list;
    int64_t n;
    setun_error err;
    (void)state;
    (void)snprintf(path, sizeof path, "%s/h.json", dir);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text(dir, "h.json", bad[i][0]);
        setun_status s = st_history_read(path, arena, &list, &n, &err);
        if (s >= SETUN_OK || !strstr(err.text, bad[i][1]))
            fail_msg("%s gives %d '%s'", bad[i][0], s, err.text);
    }
    /* What is written comes back byte by byte. */
    static const char odd[] = "\"\\\n\t\x01\x7f \xc2\x85 \xe6\x97\xa5 \xf0\x9f\x99\x82 <|eot_id|>";
    const st_message m[] = {{"system", "", 0}, {"user", odd, sizeof odd - 1}, {"assistant", "b", 1}};
    assert_int_equal(st_history_write(path, m, 3, &err), SETUN_OK);
    if (st_history_read(path, arena, &list, &n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(n, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(list[i].role, m[i].role);
        assert_int_equal(list[i].n, m[i].n);
        assert_string_equal(list[i].text, m[i].text);
    }
    /* Writing that fails leaves the old file. */
    (void)snprintf(path, sizeof path, "%s/none/h.json", dir);
    assert_int_not_equal(st_history_write(path, m, 3, &err), SETUN_OK);
    drop_dir(dir);
    st_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written), cmocka_unit_test(what_can_run), cmocka_unit_test(damaged_texts),
        cmocka_unit_test(known_formats), cmocka_unit_test(conversations), cmocka_unit_test(tables), cmocka_unit_test(damaged_tables), cmocka_unit_test(the_one_in_the_documents),
        cmocka_unit_test(trimming), cmocka_unit_test(what_rendering_refuses), cmocka_unit_test(long_messages),
        cmocka_unit_test(template_files), cmocka_unit_test(gguf_files), cmocka_unit_test(histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/fields.c -- every number in a header at 0, at its maximum and off by one.
 *
 * One number at a time is replaced in a small file; the whole is then either refused in a sentence that
 * says where, or means something else that is whole.  Which of the two is decided here a second time, by
 * rules that share nothing with the readers.  Memory is limited, so a count that is believed shows. */
#include "tests/unit/gguf_read.h"

#include <sys/resource.h>
#include <time.h>

#include "model/safetensors.h"
#include "model/tokenizer.h"
#include "setun/setun.h"

__extension__ typedef __int128 wide; /* products of sizes, which cannot overflow it here */

#define MEMORY ((rlim_t)256 << 20)
#define SECONDS 10 /* of one file, on a busy machine and with a sanitizer */

/* Where there is a sanitizer, address space says nothing; it is told to refuse large allocations instead. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=64";
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double began;

static void begin(void) { began = now(); }

/* expected: 1 success, 0 refusal, -1 either.  A refusal is one line that has one of the words of says,
 * which '|' separates. */
static void judge(const char *what, const char *to, setun_status s, const setun_error *err, int expected, const char *says)
{
    char words[256], *word, *rest = words;
    int found = 0;
    if (now() - began > SECONDS)
        fail_msg("%s is %s: %g seconds", what, to, now() - began);
    if (strcmp(to, "-0") == 0)
        expected = -1; /* the whole number 0, or a number that is no size: readers of JSON differ */
    if (expected >= 0 && (s == SETUN_OK) != expected)
        fail_msg("%s is %s: %s", what, to, s == SETUN_OK ? "taken, but it should not be" : err->text);
    if (s == SETUN_OK)
        return;
    (void)snprintf(words, sizeof words, "%s", says);
    while ((word = strsep(&rest, "|")))
        found |= strstr(err->text, word) != NULL;
    if (s > 0 || s == SETUN_NO_MEMORY || s != err->code || strpbrk(err->text, "\n\r\x1b") || !found)
        fail_msg("%s is %s: status %d, '%s', which has none of %s", what, to, s, err->text, says);
}

/* ---------------------------------------------------------------- GGUF */

/* Values and bytes of a block of the types that tests of places use; the others are not predicted. */
static int block_of(uint64_t id, uint64_t *values, uint64_t *bytes)
{
    static const struct { uint64_t id, values, bytes; } rows[] = {
        { 0, 1, 4 },      { 1, 1, 2 },    { 30, 1, 2 },     { 2, 32, 18 },   { 3, 32, 20 },    { 6, 32, 22 },
        { 7, 32, 24 },    { 8, 32, 34 },  { 10, 256, 84 },  { 11, 256, 110 }, { 12, 256, 144 }, { 13, 256, 176 },
        { 14, 256, 210 }, { 24, 1, 1 },   { 25, 1, 2 },     { 26, 1, 4 },    { 27, 1, 8 },     { 28, 1, 8 },
        { 34, 256, 54 },  { 35, 256, 66 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].id == id) {
            *values = rows[i].values;
            *bytes = rows[i].bytes;
            return 1;
        }
    return 0;
}

enum { N_INFOS = 5 };
typedef struct info {
    uint64_t rank, dim[4], id, offset;
} info;

/* Is it right that these tensors lie in data bytes as they say?  1, 0, or -1: a type not known here. */
static int infos_fit(const info *t, uint64_t data)
{
    for (int i = 0; i < N_INFOS; i++) {
        wide values = 1, need;
        uint64_t block, bytes, end = i + 1 < N_INFOS ? t[i + 1].offset : data;
        if (t[i].rank > 4 || (i == 0 && t[i].offset) || t[i].offset % 32 || t[i].offset > end || end > data)
            return 0;
        for (uint64_t k = 0; k < t[i].rank; k++) {
            if (t[i].dim[k] > INT64_MAX)
                return 0;
            values *= (wide)t[i].dim[k];
            if (values > INT64_MAX)
                return 0;
        }
        if (!block_of(t[i].id, &block, &bytes))
            return -1;
        if ((t[i].rank ? t[i].dim[0] : 1) % block)
            return 0;
        need = values / block * bytes;
        uint64_t extent = end - t[i].offset;
        if (need > extent || (need + 31) / 32 * 32 < extent)
            return 0;
    }
    return 1;
}

/* The numbers of tensor i begin behind its name, which has one letter. */
static void write_infos(const info *t, st_str *out)
{
    memset(out, 0, sizeof *out);
    st_str_add(out, "GGUF");
    put_le(out, 3, 4);
    put_le(out, N_INFOS, 8);
    put_le(out, 1, 8);
    put_le(out, 20, 8);
    st_str_add(out, "general.architecture");
    put_le(out, KV_STRING, 4);
    put_le(out, 5, 8);
    st_str_add(out, "llama");
    for (int i = 0; i < N_INFOS; i++) {
        put_le(out, 1, 8);
        st_str_addn(out, &(char){ (char)('a' + i) }, 1);
        put_le(out, t[i].rank, 4);
        for (uint64_t k = 0; k < t[i].rank && k < 4; k++)
            put_le(out, t[i].dim[k], 8);
        put_le(out, t[i].id, 4);
        put_le(out, t[i].offset, 8);
    }
    pad_to(out, 32);
}

static const info good_infos[N_INFOS] = {
    { 1, { 16 }, 0, 0 },           /* F32, 64 bytes */
    { 0, { 0 }, 1, 64 },           /* F16, a number, 2 bytes */
    { 2, { 0, 5 }, 0, 96 },        /* F32, nothing */
    { 3, { 32, 2, 2 }, 8, 96 },    /* Q8_0, 136 bytes */
    { 4, { 256, 1, 1, 2 }, 35, 256 }, /* TQ2_0, 132 bytes, then padding */
};

static size_t near_values(uint64_t was, int bytes, uint64_t out[16])
{
    uint64_t most = bytes == 8 ? UINT64_MAX : UINT32_MAX;
    const uint64_t v[] = { 0, 1, was - 1, was + 1, was / 2, was * 2, most, most - 1, most / 2, most / 2 + 1,
                           (uint64_t)1 << 31, 1 << 30, 32, (uint64_t)1 << 60 };
    size_t n = 0;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        if ((v[i] & most) != was)
            out[n++] = v[i] & most;
    return n;
}

static void test_gguf_infos(void **state)
{
    (void)state;
    static const char *const what[] = { "rank", "dimension 0", "dimension 1", "dimension 2", "dimension 3", "type", "offset" };
    int tried = 0, taken = 0;
    for (int i = 0; i < N_INFOS; i++)
        for (int f = 0; f < 7; f++) {
            info t[N_INFOS];
            memcpy(t, good_infos, sizeof t);
            uint64_t *slot = f == 0 ? &t[i].rank : f < 5 ? &t[i].dim[f - 1] : f == 5 ? &t[i].id : &t[i].offset, values[16];
            if (f > 0 && f < 5 && (uint64_t)f > t[i].rank)
                continue;
            size_t n = near_values(*slot, f == 0 || f == 5 ? 4 : 8, values);
            for (size_t k = 0; k < n; k++) {
                st_str s;
                setun_error err = { 0, "" };
                char to[32], says[64], name[64];
                *slot = values[k];
                write_infos(t, &s);
                size_t data = 256 + 132;
                for (size_t b = 0; b < data; b++)
                    st_str_addn(&s, b % 66 < 64 ? "\x55" : "\x3c", 1);
                /* Another rank moves all that follows it. */
                int expected = f == 0 ? (t[i].rank > 4 ? 0 : -1) : infos_fit(t, data);
                (void)snprintf(to, sizeof to, "%llu", (unsigned long long)values[k]);
                (void)snprintf(name, sizeof name, "%s of tensor %c", what[f], 'a' + i);
                (void)snprintf(says, sizeof says, f == 0 ? "test.gguf: tensor %c|test.gguf: the name of tensor|test.gguf: tensor" :
                               "test.gguf: tensor %c", 'a' + i);
                begin();
                setun_status st = parse(s.text, s.len, &err);
                /* A wrong offset may show at the tensor before it, which ends there. */
                if (f == 6 && i > 0)
                    (void)snprintf(says, sizeof says, "test.gguf: tensor %c|test.gguf: tensor %c", 'a' + i, 'a' + i - 1);
                judge(name, to, st, &err, expected, says);
                tried++;
                taken += st == SETUN_OK;
                st_str_free(&s);
            }
        }
    assert_true(tried > 200 && taken > 5);
}

/* Each type of value, as a value and in an array, with counts, lengths and types that are not so. */
static void test_gguf_values(void **state)
{
    (void)state;
    static const int bytes_of[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    for (uint32_t type = KV_U8; type <= KV_F64; type++)
        for (int in_array = 0; in_array < 2; in_array++) {
            gguf_maker m;
            st_str s;
            setun_error err = { 0, "" };
            uint64_t values[16];
            if (type == KV_ARRAY)
                continue;
            make(&m, &s, "llama", -1);
            size_t first = (size_t)m.n_fields;
            if (type == KV_STRING && in_array)
                kv_array(&m, "last", type, 2, "\1\0\0\0\0\0\0\0x\2\0\0\0\0\0\0\0yz", 19);
            else if (type == KV_STRING)
                kv_text(&m, "last", "text");
            else if (in_array)
                kv_array(&m, "last", type, 2, "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1", 2 * (size_t)bytes_of[type]);
            else
                kv(&m, "last", type, 1, bytes_of[type]);
            size_t behind = (size_t)m.n_fields;
            gguf_tensor(&m, "t", 0, 1, (const int64_t[]){ 8 }, "01234567890123456789012345678901", 32);
            gguf_bytes(&m, &s);
            begin();
            assert_int_equal(parse(s.text, s.len, &err), SETUN_OK);
            for (size_t f = first; f < behind; f++) {
                uint64_t was = 0;
                for (int b = m.field[f].bytes - 1; b >= 0; b--)
                    was = was << 8 | (uint8_t)s.text[m.field[f].at + (size_t)b];
                size_t n = near_values(was, m.field[f].bytes, values);
                for (size_t k = 0; k < n; k++) {
                    char to[64];
                    int is_type = strncmp(m.field[f].what, "type", 4) == 0;
                    for (int b = 0; b < m.field[f].bytes; b++)
                        s.text[m.field[f].at + (size_t)b] = (char)(values[k] >> 8 * b);
                    (void)snprintf(to, sizeof to, "%llu (type %u%s)", (unsigned long long)values[k], type, in_array ? ", array" : "");
                    /* What follows is read at another place then; only another type can be whole, one of the same size. */
                    int expected = !is_type ? 0 : values[k] > KV_F64 ? 0 : -1;
                    err.text[0] = 0;
                    begin();
                    judge(m.field[f].what, to, parse(s.text, s.len, &err), &err, expected,
                          "test.gguf: key l|test.gguf: last|test.gguf: the name of key 1|test.gguf: the name of tensor 0|test.gguf: tensor ");
                }
                for (int b = 0; b < m.field[f].bytes; b++)
                    s.text[m.field[f].at + (size_t)b] = (char)(was >> 8 * b);
            }
            st_str_free(&s);
        }
}

/* Values of the keys that the reader itself goes by. */
static void test_gguf_keys(void **state)
{
    (void)state;
    static const struct { const char *key; uint32_t type; int bytes; uint64_t value; int taken; } cases[] = {
        { "general.alignment", KV_U32, 4, 0, 0 },          { "general.alignment", KV_U32, 4, 1, 1 },
        { "general.alignment", KV_U32, 4, 31, 0 },         { "general.alignment", KV_U32, 4, 33, 0 },
        { "general.alignment", KV_U32, 4, 64, 1 },         { "general.alignment", KV_U32, 4, UINT32_MAX, 0 },
        { "general.alignment", KV_U32, 4, 1u << 31, 1 },   { "general.alignment", KV_U64, 8, 32, 0 },
        { "general.alignment", KV_I32, 4, 32, 0 },         { "general.file_type", KV_U32, 4, UINT32_MAX, 1 },
        { "general.file_type", KV_I32, 4, UINT32_MAX, 0 }, { "general.file_type", KV_U64, 8, UINT64_MAX, 0 },
        { "general.file_type", KV_U64, 8, INT64_MAX, 1 },  { "general.file_type", KV_F32, 4, 0, 0 },
        { "general.file_type", KV_BOOL, 1, 1, 1 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        gguf_maker m;
        st_str s;
        setun_error err = { 0, "" };
        char to[32], says[64];
        make(&m, &s, "llama", -1);
        kv(&m, cases[k].key, cases[k].type, cases[k].value, cases[k].bytes);
        gguf_bytes(&m, &s);
        (void)snprintf(to, sizeof to, "%llu", (unsigned long long)cases[k].value);
        (void)snprintf(says, sizeof says, "test.gguf: key %s", cases[k].key);
        begin();
        judge(cases[k].key, to, parse(s.text, s.len, &err), &err, cases[k].taken, says);
        st_str_free(&s);
    }
}

/* What stands before everything else. */
static void test_gguf_counts(void **state)
{
    (void)state;
    static const struct { const char *what, *says; size_t at; int bytes; } fields[] = {
        { "version", "version|big-endian", 4, 4 },
        { "number of tensors", "tensors do not fit|the name of tensor|tensor |behind the header", 8, 8 },
        { "number of keys", "keys do not fit|the name of key|the name of tensor|key |tensor |general.architecture is missing", 16, 8 },
    };
    st_str s;
    write_infos(good_infos, &s);
    for (size_t b = 0; b < 256 + 132; b++)
        st_str_addn(&s, "", 1);
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        uint64_t values[16], was = (uint64_t)(f == 0 ? 3 : f == 1 ? N_INFOS : 1);
        size_t n = near_values(was, fields[f].bytes, values);
        for (size_t k = 0; k < n; k++) {
            setun_error err = { 0, "" };
            char to[32];
            for (int b = 0; b < fields[f].bytes; b++)
                s.text[fields[f].at + (size_t)b] = (char)(values[k] >> 8 * b);
            (void)snprintf(to, sizeof to, "%llu", (unsigned long long)values[k]);
            begin();
            judge(fields[f].what, to, parse(s.text, s.len, &err), &err, f == 0 && values[k] == 2, fields[f].says);
        }
        for (int b = 0; b < fields[f].bytes; b++)
            s.text[fields[f].at + (size_t)b] = (char)(was >> 8 * b);
    }
    st_str_free(&s);
}

/* ---------------------------------------------------------------- safetensors */

/* A number as a file spells it, and what it is if it is a whole number of 63 bits. */
typedef struct spelling {
    const char *text;
    int64_t     value; /* -1: no size */
} spelling;

static size_t spellings(int64_t was, spelling out[32], char room[8][32])
{
    static const spelling fixed[] = {
        { "0", 0 },           { "-0", -1 },
        { "1", 1 },           { "-1", -1 },       { "2147483647", INT32_MAX },
        { "2147483648", (int64_t)1 << 31 },       { "4294967295", UINT32_MAX },
        { "4294967296", (int64_t)1 << 32 },       { "9007199254740993", ((int64_t)1 << 53) + 1 },
        { "4611686018427387904", (int64_t)1 << 62 }, { "9223372036854775807", INT64_MAX },
        { "9223372036854775808", -1 },            { "-9223372036854775808", -1 },
        { "18446744073709551616", -1 },           { "1e308", -1 },
        { "0.5", -1 },        { "1e999", -1 },    { "null", -1 },      { "true", -1 },
        { "\"1\"", -1 },      { "[]", -1 },       { "{}", -1 },
    };
    size_t n = 0;
    for (; n < sizeof fixed / sizeof *fixed; n++)
        out[n] = fixed[n];
    (void)snprintf(room[0], 32, "%lld", (long long)was + 1);
    (void)snprintf(room[1], 32, "%lld", (long long)was - 1);
    (void)snprintf(room[2], 32, "%lld.0", (long long)was);
    (void)snprintf(room[3], 32, "%lld", (long long)was * 2);
    out[n++] = (spelling){ room[0], was + 1 };
    out[n++] = (spelling){ room[1], was - 1 };
    out[n++] = (spelling){ room[2], -1 };
    out[n++] = (spelling){ room[3], was * 2 };
    return n;
}

enum { N_ENTRIES = 4 };
typedef struct entry {
    char        name;
    const char *dtype;
    int         bits, rank;
    int64_t     dim[4], place[2];
} entry;
static const entry good_entries[N_ENTRIES] = {
    { 'w', "U8", 8, 2, { 2, 3 }, { 0, 6 } },
    { 's', "BF16", 16, 1, { 1 }, { 6, 8 } },
    { 'e', "F32", 32, 2, { 0, 7 }, { 8, 8 } },
    { 'x', "I64", 64, 3, { 1, 1, 1 }, { 8, 16 } },
};
#define DATA 16

/* Are the spans those of the shapes, and do they tile the data? */
static int entries_fit(const entry *t)
{
    int64_t at = 0;
    for (int i = 0; i < N_ENTRIES; i++) {
        wide bits = t[i].bits;
        for (int k = 0; k < t[i].rank; k++) {
            if (t[i].dim[k] < 0)
                return 0;
            bits *= t[i].dim[k];
            if (bits > INT64_MAX)
                return 0;
        }
        if (t[i].place[0] != at || bits % 8 || at + bits / 8 != t[i].place[1])
            return 0;
        at = t[i].place[1];
    }
    return at == DATA;
}

/* Entry i, number f of it, is written as text; f: 0 to 3 dimensions, 4 and 5 the places. */
static void write_entries(const entry *t, int i, int f, const char *text, st_str *json)
{
    for (int e = 0; e < N_ENTRIES; e++) {
        st_str_addf(json, "%s\"%c\":{\"dtype\":\"%s\",\"shape\":[", e ? "," : "{", t[e].name, t[e].dtype);
        for (int k = 0; k < 6; k++) {
            if (k == 4)
                st_str_add(json, "],\"data_offsets\":[");
            if (k < 4 && k >= t[e].rank)
                continue;
            if (k != 0 && k != 4)
                st_str_add(json, ",");
            if (e == i && k == f)
                st_str_add(json, text);
            else
                st_str_addf(json, "%lld", (long long)(k < 4 ? t[e].dim[k] : t[e].place[k - 4]));
        }
        st_str_add(json, "]}");
    }
    st_str_add(json, "}");
}

static setun_status parse_safetensors(const st_str *json, uint64_t said, size_t data, setun_error *err)
{
    st_safetensors s = { 0 };
    st_arena *a = st_arena_new();
    uint64_t hash = 0;
    size_t n = 8 + json->len + data;
    uint8_t *file = calloc(1, n);
    assert_true(a && file);
    s.arena = a;
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(said >> 8 * i);
    memcpy(file + 8, json->text, json->len);
    setun_status st = st_safetensors_parse(&s, "test.safetensors", file, (int64_t)n, &hash, err);
    st_safetensors_close(&s);
    st_arena_free(a);
    free(file);
    return st;
}

static void test_safetensors_numbers(void **state)
{
    (void)state;
    int tried = 0, taken = 0;
    for (int i = 0; i < N_ENTRIES; i++)
        for (int f = 0; f < 6; f++) {
            entry t[N_ENTRIES];
            memcpy(t, good_entries, sizeof t);
            int64_t *slot = f < 4 ? &t[i].dim[f] : &t[i].place[f - 4], was = *slot;
            spelling to[32];
            char room[8][32];
            if (f < 4 && f >= t[i].rank)
                continue;
            size_t n = spellings(was, to, room);
            for (size_t k = 0; k < n; k++) {
                st_str json = { 0 };
                setun_error err = { 0, "" };
                char what[64];
                *slot = to[k].value;
                write_entries(t, i, f, to[k].text, &json);
                (void)snprintf(what, sizeof what, "number %d of tensor %c", f, t[i].name);
                int expected = to[k].value >= 0 && entries_fit(t);
                begin();
                setun_status st = parse_safetensors(&json, json.len, DATA, &err);
                /* What is no JSON number at all has a place in the text instead of a name. */
                judge(what, to[k].text, st, &err, expected, "test.safetensors: tensor |test.safetensors: the header is not valid JSON");
                tried++;
                taken += st == SETUN_OK;
                st_str_free(&json);
            }
            *slot = was;
        }
    assert_true(tried > 300 && taken > 10); /* the empty tensor may be empty in other ways */
}

static void test_safetensors_length(void **state)
{
    (void)state;
    st_str json = { 0 };
    write_entries(good_entries, -1, 0, "", &json);
    const uint64_t values[] = { 0, 1, 2, json.len - 1, json.len, json.len + 1, json.len + DATA, json.len + DATA + 1, INT64_MAX,
                                (uint64_t)INT64_MAX + 1, UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 8, (uint64_t)1 << 32, 16u << 20 };
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
        setun_error err = { 0, "" };
        char to[32];
        (void)snprintf(to, sizeof to, "%llu", (unsigned long long)values[k]);
        begin();
        judge("the header's length", to, parse_safetensors(&json, values[k], DATA, &err), &err, values[k] == json.len,
              "test.safetensors: the header");
    }
    for (size_t data = DATA - 1; data <= DATA + 1; data++) {
        setun_error err = { 0, "" };
        begin();
        judge("the data's length", data < DATA ? "short" : "long", parse_safetensors(&json, json.len, data, &err), &err, data == DATA,
              "test.safetensors: tensor x|test.safetensors: 1 bytes after the last tensor");
    }
    /* A header above the limit is refused before it is looked at. */
    st_str large = { 0 };
    setun_error err = { 0, "" };
    st_str_add(&large, "{");
    while (large.len <= ST_SAFETENSORS_HEADER_LIMIT)
        st_str_add(&large, "                                                                ");
    begin();
    judge("the header's length", "above the limit", parse_safetensors(&large, large.len, 0, &err), &err, 0, "above the limit");
    st_str_free(&large);
    st_str_free(&json);
}

/* ---------------------------------------------------------------- files of a model */

/* The first `from` in the text is replaced by `to`. */
static void put_changed(const char *dir, const char *name, const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    st_str s = { 0 };
    if (!at)
        fail_msg("%s has no %s", name, from);
    st_str_addn(&s, text, (size_t)(at - text));
    st_str_add(&s, to);
    st_str_add(&s, at + strlen(from));
    put_file(dir, name, s.text, s.len);
    st_str_free(&s);
}

static void test_index(void **state)
{
    (void)state;
    static const struct { const char *from, *to; int taken; } cases[] = {
        { "9", "0", 1 }, { "9", "9223372036854775808", 0 }, { "9", "-1", 1 }, /* total_size is for people */
        { "\"a.safetensors\"", "0", 0 }, { "\"a.safetensors\"", "null", 0 }, { "\"a.safetensors\"", "[\"a.safetensors\"]", 0 },
        { "\"a.safetensors\"", "\"\"", 0 }, { "\"a.safetensors\"", "\"b.safetensors\"", 0 }, { "\"a.safetensors\"", "\".\"", 0 },
        { "{\"w\"", "{\"v\"", 0 }, { "{\"w\"", "{\"\"", 0 }, { "\"weight_map\":{", "\"weight_map\":[],\"x\":{", 0 },
        { "\"weight_map\"", "\"weight_maps\"", 0 },
    };
    static const char index[] = "{\"metadata\":{\"total_size\":9},\"weight_map\":{\"w\":\"a.safetensors\"}}";
    char *dir = temp_dir();
    maker m = { 0 };
    make_tensor(&m, "w", "U8", "[3,3]", "123456789", 9);
    make_file(&m, dir, "a.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        st_safetensors s = { 0 };
        st_arena *a = st_arena_new();
        setun_error err = { 0, "" };
        put_changed(dir, "model.safetensors.index.json", index, cases[k].from, cases[k].to);
        begin();
        judge(cases[k].from, cases[k].to, st_safetensors_open(&s, dir, a, &err), &err, cases[k].taken, "model.safetensors.index.json: ");
        st_safetensors_close(&s);
        st_arena_free(a);
    }
    drop_dir(dir);
}

static const char config[] =
    "{\"architectures\":[\"BitNetForCausalLM\"],\"model_type\":\"bitnet\",\"hidden_act\":\"relu2\",\"tie_word_embeddings\":true,"
    "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":320,\"max_position_embeddings\":96,\"rms_norm_eps\":0.001,\"rope_theta\":10000.5,\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"torch_dtype\":\"bfloat16\",\"quantization_config\":{\"quant_method\":\"bitnet\","
    "\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}}";

typedef struct world {
    char *dir, *model, *config, *tokenizer;
} world;

static char *read_text(const char *dir, const char *name)
{
    char *path = join(dir, name), *text = NULL;
    int64_t n;
    assert_int_equal(st_file_read(path, 1 << 20, &text, &n, NULL), SETUN_OK);
    free(path);
    return text;
}

static int make_world(void **state)
{
    world *w = calloc(1, sizeof *w);
    setun_error err = { 0, "" };
    assert_non_null(w);
    w->dir = temp_dir();
    w->model = join(w->dir, "model");
    put_text(w->dir, "shape.json", config);
    char *shape = join(w->dir, "shape.json");
    setun_synth_options o = { .size = sizeof o, .config = shape, .out = w->model, .seed = 1, .zero_share = -1 };
    if (setun_synth(&o, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    free(shape);
    w->config = strdup(config);
    w->tokenizer = read_text(w->model, "tokenizer.json");
    *state = w;
    return 0;
}

static int drop_world(void **state)
{
    world *w = *state;
    drop_dir(w->dir);
    free(w->model);
    free(w->config);
    free(w->tokenizer);
    free(w);
    return 0;
}

static setun_status load(const world *w, setun_error *err)
{
    setun_options o;
    setun_model *m = NULL;
    setun_options_init(&o);
    o.n_threads = 1;
    o.interpret = 1;
    o.n_ctx = 8;
    o.n_batch = 1;
    setun_status s = setun_model_load(&m, w->model, &o, err);
    setun_model_free(m);
    return s;
}

/* Numbers of config.json: what the tensors contradict is refused; what they do not say has a range.
 * (bos_token_id says nothing here: what stands before a text is the tokenizer's business.) */
static void test_config(void **state)
{
    const world *w = *state;
    static const struct {
        const char *key;
        int64_t     was, least, most; /* whole numbers that are taken; most < least: only `was` */
        int         null, empty;      /* may it be null, or an empty list? */
        const char *says;
    } keys[] = {
        { "hidden_size", 64, 1, 0, 0, 0, "hidden_size|token_embd" },
        { "intermediate_size", 128, 1, 0, 0, 0, "intermediate_size|ffn_" },
        { "num_hidden_layers", 2, 1, 0, 0, 0, "num_hidden_layers|model.layers.|blk." },
        { "num_attention_heads", 4, 1, 0, 0, 0, "num_attention_heads|heads|attn_" },
        { "num_key_value_heads", 2, 1, 0, 0, 0, "num_key_value_heads|heads|attn_" },
        { "vocab_size", 320, 1, 0, 0, 0, "vocab_size|token_embd" },
        { "max_position_embeddings", 96, 8, INT64_MAX, 1, 0, "max_position_embeddings" },
        { "eos_token_id", 2, 0, 319, 1, 1, "eos_token_id" },
    };
    int tried = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        spelling to[32];
        char room[8][32], from[64], with[64], says[128];
        size_t n = spellings(keys[i].was, to, room);
        (void)snprintf(from, sizeof from, "\"%s\":%lld", keys[i].key, (long long)keys[i].was);
        (void)snprintf(says, sizeof says, "%s|config.json: not valid JSON", keys[i].says);
        for (size_t k = 0; k < n; k++) {
            setun_error err = { 0, "" };
            (void)snprintf(with, sizeof with, "\"%s\":%s", keys[i].key, to[k].text);
            put_changed(w->model, "config.json", w->config, from, with);
            int expected = to[k].value >= keys[i].least && (to[k].value <= keys[i].most || to[k].value == keys[i].was);
            if (strcmp(to[k].text, "null") == 0)
                expected = keys[i].null;
            if (strcmp(to[k].text, "[]") == 0)
                expected = keys[i].empty;
            begin();
            judge(keys[i].key, to[k].text, load(w, &err), &err, expected, says);
            tried++;
        }
    }
    assert_true(tried > 180);
    put_text(w->model, "config.json", w->config);
}

/* Two numbers with a fraction: one above 0 that a float can hold, one from 1 to 1e15 or absent. */
static void test_config_floats(void **state)
{
    const world *w = *state;
    static const struct { const char *text; int taken[2]; } cases[] = {
        { "1e-6", { 1, 0 } },  { "1", { 1, 1 } },        { "0", { 0, 0 } },    { "-0.0", { 0, 0 } },   { "-1e-6", { 0, 0 } },
        { "1e15", { 1, 1 } },  { "1e16", { 1, 0 } },     { "1e29", { 1, 0 } }, { "1e30", { 0, 0 } },
        { "1e39", { 0, 0 } },   { "1e-320", { 0, 0 } },
        { "1e999", { 0, 0 } }, { "\"1\"", { 0, 0 } },    { "true", { 0, 0 } }, { "[1]", { 0, 0 } },    { "{}", { 0, 0 } },
        { "null", { 0, 1 } },  { "0.99999", { 1, 0 } },  { "1e-45", { 1, 0 } },
    };
    static const char *const keys[] = { "rms_norm_eps", "rope_theta" }, *const from[] = { "0.001", "10000.5" };
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            setun_error err = { 0, "" };
            char says[64];
            put_changed(w->model, "config.json", w->config, from[i], cases[k].text);
            (void)snprintf(says, sizeof says, "%s|config.json: not valid JSON", keys[i]);
            begin();
            judge(keys[i], cases[k].text, load(w, &err), &err, cases[k].taken[i], says);
        }
    put_text(w->model, "config.json", w->config);
}

/* ---------------------------------------------------------------- tokenizer.json */

static setun_status open_tokenizer(const world *w, const char *from, const char *with, setun_error *err)
{
    st_tokenizer *t = NULL;
    put_changed(w->model, "tokenizer.json", w->tokenizer, from, with);
    begin();
    setun_status s = st_tokenizer_open(&t, w->model, err);
    st_tokenizer_close(t);
    return s;
}

#define MAX_ID ((1 << 22) - 1) /* the largest id that is taken */

/* Ids are whole, from 0 to a limit, and all different; those of the post-processor are ids of tokens. */
static void test_tokenizer(void **state)
{
    const world *w = *state;
    static const struct { const char *before; int may_be_new; const char *says; } places[] = {
        { "true},\n    {\"id\": ", 1, "added_tokens|id " },
        { "\"ids\": [", 0, "post_processor|ids|token" },
        { "\"!\": ", 1, "model.vocab|id |two ids" },
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *at = strstr(w->tokenizer, places[i].before);
        char from[64], with[64], room[8][32], *end, says[128];
        spelling to[32];
        if (!at)
            fail_msg("tokenizer.json has no %s", places[i].before);
        int64_t was = strtoll(at + strlen(places[i].before), &end, 10);
        (void)snprintf(from, sizeof from, "%.*s", (int)(end - at), at);
        (void)snprintf(says, sizeof says, "%s|JSON", places[i].says);
        size_t n = spellings(was, to, room);
        for (size_t k = 0; k < n; k++) {
            setun_error err = { 0, "" };
            int is_used = to[k].value >= 0 && to[k].value < 320;
            int expected = to[k].value >= 0 && to[k].value <= MAX_ID && (to[k].value == was || is_used != places[i].may_be_new);
            (void)snprintf(with, sizeof with, "%s%s", places[i].before, to[k].text);
            judge(places[i].before, to[k].text, open_tokenizer(w, from, with, &err), &err, expected, says);
            if (err.text[0] && !strstr(err.text, "tokenizer.json"))
                fail_msg("the file is not named: %s", err.text);
        }
    }
    put_text(w->model, "tokenizer.json", w->tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_infos),  cmocka_unit_test(test_gguf_values),         cmocka_unit_test(test_gguf_keys),
        cmocka_unit_test(test_gguf_counts), cmocka_unit_test(test_safetensors_numbers), cmocka_unit_test(test_safetensors_length),
        cmocka_unit_test(test_index),       cmocka_unit_test(test_config),              cmocka_unit_test(test_config_floats),
        cmocka_unit_test(test_tokenizer),
    };
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    (void)setrlimit(RLIMIT_DATA, &(struct rlimit){ MEMORY, MEMORY });
#endif
    return cmocka_run_group_tests(tests, make_world, drop_world);
}

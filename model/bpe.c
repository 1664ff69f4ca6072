/* model/bpe.c -- merge pairs of symbols, lowest rank first, leftmost among equals.
 *
 * Tokens are kept as the bytes they stand for, so that neither encoding nor decoding sees the byte
 * to character map of the file.  Merges are a hash of (left id, right id) to (rank, merged id).
 *
 * A short piece is merged by scanning an array of ranks; a long one with a heap and a linked list,
 * in O(n log n): a megabyte of letters is one piece.  Both do the same merges in the same order.
 *
 * Vocabularies of the SentencePiece kind merge characters instead of bytes, and a whole text is one
 * piece.  It may be cut before every U+2581 that follows another character, unless some merge joins
 * such a pair: no merge crosses the cut, so both sides are merged as if the other were not there.
 * Which merges do is noted by the last byte of their left side.  Tokens for bytes, and the unknown
 * one, are spelled otherwise than the text they stand for: if their last byte is noted, all are.
 *
 * A file may have scores instead of merges: then any two neighbours whose union is a token merge,
 * the highest score first, leftmost among equals.  That is a list of merges as well, every way to
 * cut a token in two, and tokens of equal scores share a rank.  A part may be a character that is
 * no token itself: such "loose" characters get numbers above all ids while they are merged. */
#include "model/bpe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/str.h"

#define SHORT 48
#define SPACE "\xe2\x96\x81" /* U+2581, which stands for a space */
#define MAX_SCORED 256            /* bytes of a token: reading it takes their square */

/* Merges wait here for each other: looking up the tokens of many at once hides the time that memory
 * takes, which is most of the time to read a large vocabulary. */
#define WAITING (ST_TABLE_MANY / 3)
#define MAX_MERGE 512

struct st_waiting {
    int    n;
    char   bytes[WAITING][MAX_MERGE];
    size_t n_left[WAITING], n_both[WAITING];
};

/* ---------------------------------------------------------------- pairs */

/* Ids come from files of strangers; the seed keeps them from choosing collisions. */
static uint64_t pair_slot(const st_bpe *b, uint64_t key)
{
    uint64_t h = (key ^ b->seed) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
    return (h ^ h >> 32) & b->mask;
}

static const st_pair_slot *find_pair(const st_bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint64_t at = pair_slot(b, key);; at = (at + 1) & b->mask)
        if (b->pair[at].key == key || b->pair[at].key == ST_BPE_NO_PAIR)
            return &b->pair[at];
}

static uint32_t rank_of(const st_bpe *b, int32_t left, int32_t right)
{
    const st_pair_slot *p = find_pair(b, left, right);
    return p->key == ST_BPE_NO_PAIR ? UINT32_MAX : p->rank;
}

/* Room for pairs pairs, half of it free. */
static setun_status grow_pairs(st_bpe *b, int64_t pairs, const char *path, setun_error *err)
{
    uint64_t old = b->pair ? b->mask + 1 : 0, room = 1024;
    while (room < 2 * (uint64_t)pairs)
        room *= 2;
    st_pair_slot *from = b->pair, *to = malloc((size_t)room * sizeof *to);
    if (!to)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the merges of %s", path);
    memset(to, 0xff, (size_t)room * sizeof *to);
    b->pair = to;
    b->mask = room - 1;
    for (uint64_t i = 0; i < old; i++)
        if (from[i].key != ST_BPE_NO_PAIR) {
            uint64_t at = pair_slot(b, from[i].key);
            while (to[at].key != ST_BPE_NO_PAIR)
                at = (at + 1) & b->mask;
            to[at] = from[i];
        }
    free(from);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- reading */

/* Of the character of valid UTF-8 at s. */
static int64_t char_bytes(const char *s)
{
    uint8_t c = (uint8_t)*s;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Printable bytes stand for themselves; the other 68, in order, for U+0100 and up. */
static int is_printable(int b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

int64_t st_bpe_map(const char *bytes, size_t n, char *out)
{
    int64_t made = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (uint8_t)bytes[i], u = c;
        if (!is_printable(c)) /* 00-20 are the first 33, 7f-a0 the next 34, ad the last */
            u = 0x100 + (c <= 0x20 ? c : c <= 0xa0 ? c - 0x7f + 33 : 67);
        if (u >= 0x80) {
            out[made++] = (char)(0xc0 | u >> 6);
            u = 0x80 | (u & 63);
        }
        out[made++] = (char)u;
    }
    return made;
}

int64_t st_bpe_unmap(const char *text, size_t n, char *out)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    int64_t made = 0;
    while (p < end) {
        int u = *p++;
        if (u >= 0x80) {
            if (u < 0xc2 || u > 0xc5 || p == end)
                return -1;
            u = (u & 31) << 6 | (*p++ & 63);
        }
        if (u >= 0x100 && u < 0x144)
            u = u < 0x121 ? u - 0x100 : u < 0x143 ? u - 0x121 + 0x7f : 0xad;
        else if (u > 0xff || !is_printable(u))
            return -1;
        out[made++] = (char)u;
    }
    return made;
}

setun_status st_bpe_add(st_bpe *b, int64_t id, const char *bytes, int64_t n, const char *path,
                        setun_error *err)
{
    if (id < 0 || id > ST_BPE_MAX_ID)
        return st_fail(err, SETUN_BAD_FILE, "%s: token id %lld is not from 0 to %d", path,
                       (long long)id, ST_BPE_MAX_ID);
    if (id >= b->n_tokens) {
        int64_t room = 1024, have = b->n_tokens;
        while (room <= id)
            room *= 2;
        int64_t old = 1024;
        while (old < have)
            old *= 2;
        if (!b->token || room > old) {
            st_token *t = realloc(b->token, (size_t)room * sizeof *t);
            if (!t)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld tokens", (long long)room);
            b->token = t;
        }
        memset(b->token + have, 0, (size_t)(id + 1 - have) * sizeof *b->token);
        b->n_tokens = id + 1;
    }
    st_token *t = &b->token[id];
    if (t->bytes)
        return st_fail(err, SETUN_BAD_FILE, "%s: two tokens have the id %lld", path, (long long)id);
    t->bytes = bytes;
    t->n = (int32_t)n;
    return SETUN_OK;
}

/* "<0x41>" is the byte 41; -1 when it is not of that form. */
static int byte_of(const char *s, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *high = n == 6 ? memchr(digits, s[3], 16) : NULL,
               *low = n == 6 ? memchr(digits, s[4], 16) : NULL;
    return high && low && memcmp(s, "<0x", 3) == 0 && s[5] == '>'
               ? (int)(high - digits) << 4 | (int)(low - digits)
               : -1;
}

int64_t st_bpe_spell(const st_bpe *b, const char *s, size_t n, char *out)
{
    int byte = b->decode_bytes ? byte_of(s, n) : -1;
    int64_t made = 0;
    if (byte >= 0) {
        out[0] = (char)byte;
        return 1;
    }
    for (size_t i = 0; i < n; i++)
        if (b->decode_space && n - i >= 3 && memcmp(s + i, SPACE, 3) == 0) {
            out[made++] = ' ';
            i += 2;
        } else {
            out[made++] = s[i];
        }
    return made;
}

setun_status st_bpe_begin(st_bpe *b, int64_t entries, int64_t bytes, int64_t merges, const char *path,
                          setun_error *err)
{
    b->pool = malloc((size_t)bytes * (b->chars ? 2 : 1) + 1); /* spelled and decoded */
    b->by_bytes = st_table_new(entries);
    b->waiting = calloc(1, sizeof *b->waiting);
    if (!b->pool || !b->by_bytes || !b->waiting)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the vocabulary of %s", path);
    return st_bpe_begin_pairs(b, merges < ST_BPE_MAX_PAIRS ? merges : ST_BPE_MAX_PAIRS, path, err);
}

setun_status st_bpe_entry(st_bpe *b, int64_t id, const char *s, size_t n, int literal,
                          const char *path, setun_error *err)
{
    char *bytes = b->pool + b->n_pool;
    int64_t old, len = b->chars || literal ? -1 : st_bpe_unmap(s, n, bytes);
    int mapped = b->chars ? !literal : len > 0;
    /* One that is not of the map stands for its own text and cannot be merged: special tokens of some
     * files. */
    if (len <= 0) {
        memcpy(bytes, s, n);
        len = (int64_t)n;
    }
    char *decoded = b->chars ? bytes + len : bytes;
    int64_t n_decoded = b->chars ? st_bpe_spell(b, bytes, n, decoded) : len;
    b->n_pool += len + (b->chars ? n_decoded : 0);
    ST_TRY(st_bpe_add(b, id, decoded, n_decoded, path, err));
    if (!mapped)
        return SETUN_OK;
    if (st_table_get(b->by_bytes, bytes, (size_t)len, &old))
        return st_fail(err, SETUN_BAD_FILE, "%s: ids %lld and %lld of the vocabulary are the same token",
                       path, (long long)old, (long long)id);
    if (st_table_put(b->by_bytes, bytes, (size_t)len, id))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the vocabulary of %s", path);
    return SETUN_OK;
}

static setun_status vocab_entry(st_bpe *b, st_jscan *j, const char *path, setun_error *err)
{
    const char *s; /* stays until the next string is read */
    size_t n;
    int64_t id;
    if (!st_jscan_string(j, &s, &n))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.vocab is not valid JSON", path);
    if (!st_jscan_take(j, ':') || !st_jscan_whole(j, INT32_MAX, &id))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.vocab: the id of %.*s is not a whole number",
                       path, n > 60 ? 60 : (int)n, s);
    return st_bpe_entry(b, id, s, n, 0, path, err);
}

setun_status st_bpe_vocab(st_bpe *b, st_jscan *j, const char *path, setun_error *err)
{
    ST_TRY(st_bpe_begin(b, (j->end - j->p) / 16, j->end - j->p, (j->end - j->p) / 8, path, err));
    if (!st_jscan_take(j, '{'))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.vocab is not an object", path);
    for (char c = st_jscan_peek(j) == '}' ? '}' : ','; c == ','; c = st_jscan_peek(j)) {
        if (b->n_tokens && !st_jscan_take(j, ','))
            break;
        ST_TRY(vocab_entry(b, j, path, err));
    }
    if (!st_jscan_take(j, '}'))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.vocab is not valid JSON", path);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- merges */

/* The pair is not there yet; merges[i] of a file has rank i. */
static setun_status put_pair(st_bpe *b, int64_t left, int64_t right, uint32_t rank, int64_t merged,
                             const char *path, setun_error *err)
{
    if (b->n_pairs == ST_BPE_MAX_PAIRS)
        return st_fail(err, SETUN_FULL, "%s: more than %d merges are not supported", path, ST_BPE_MAX_PAIRS);
    if (2 * (uint64_t)b->n_pairs >= b->mask)
        ST_TRY(grow_pairs(b, 2 * b->n_pairs, path, err));
    st_pair_slot *p = (st_pair_slot *)(uintptr_t)find_pair(b, (int32_t)left, (int32_t)right);
    *p = (st_pair_slot){ (uint64_t)left << 32 | (uint64_t)right, rank, (int32_t)merged };
    b->n_pairs++;
    return SETUN_OK;
}

/* Looking up needs no test for an empty table: there always is one. */
setun_status st_bpe_begin_pairs(st_bpe *b, int64_t pairs, const char *path, setun_error *err)
{
    b->seed = (uint64_t)(uintptr_t)b * 0x9e3779b97f4a7c15u ^ (uint64_t)st_now_ns();
    return grow_pairs(b, pairs, path, err);
}

setun_status st_bpe_pair(st_bpe *b, const st_pair_slot *p, const char *path, setun_error *err)
{
    int64_t left = (int64_t)(p->key >> 32), right = (int64_t)(uint32_t)p->key;
    if (find_pair(b, (int32_t)left, (int32_t)right)->key != ST_BPE_NO_PAIR)
        return st_fail(err, SETUN_BAD_FILE, "%s: a merge is there twice", path);
    return put_pair(b, left, right, p->rank, p->merged, path, err);
}

/* Over characters, at[split] begins the right part. */
static void note_crossing(st_bpe *b, const char *at, size_t split, size_t n)
{
    if (split > 0 && n - split >= 3 && memcmp(at + split, SPACE, 3) == 0 &&
        (split < 3 || memcmp(at + split - 3, SPACE, 3) != 0))
        b->crosses[(uint8_t)at[split - 1]] = 1;
}

static setun_status add_waiting(st_bpe *b, const char *path, setun_error *err)
{
    struct st_waiting *w = b->waiting;
    const char *key[3 * WAITING];
    size_t n[3 * WAITING];
    int64_t id[3 * WAITING];
    for (int i = 0; i < w->n; i++) {
        key[3 * i] = key[3 * i + 2] = w->bytes[i];
        key[3 * i + 1] = w->bytes[i] + w->n_left[i];
        n[3 * i] = w->n_left[i];
        n[3 * i + 1] = w->n_both[i] - w->n_left[i];
        n[3 * i + 2] = w->n_both[i];
    }
    st_table_get_many(b->by_bytes, 3 * w->n, key, n, id);
    for (int i = 0; i < w->n; i++) {
        const int64_t *t = id + 3 * i;
        if (t[0] < 0 || t[1] < 0 || t[2] < 0)
            return st_fail(err, SETUN_BAD_FILE, "%s: merge %lld is not made of tokens", path, (long long)b->n_pairs);
        if (find_pair(b, (int32_t)t[0], (int32_t)t[1])->key != ST_BPE_NO_PAIR)
            return st_fail(err, SETUN_BAD_FILE, "%s: merge %lld is there twice", path, (long long)b->n_pairs);
        ST_TRY(put_pair(b, t[0], t[1], (uint32_t)b->n_pairs, t[2], path, err));
    }
    w->n = 0;
    return SETUN_OK;
}

setun_status st_bpe_merge(st_bpe *b, const char *text, size_t n, size_t split, const char *path,
                          setun_error *err)
{
    struct st_waiting *w = b->waiting;
    const char *right = text + split + 1;
    int64_t n_left = -1, n_right = -1;
    char *bytes = w->bytes[w->n];
    if (n <= MAX_MERGE && b->chars) {
        n_left = (int64_t)split;
        n_right = (int64_t)(n - split) - 1;
        memcpy(bytes, text, split);
        memcpy(bytes + split, right, n - split - 1);
        note_crossing(b, bytes, split, n - 1);
    } else if (n <= MAX_MERGE) {
        n_left = st_bpe_unmap(text, split, bytes);
        n_right = n_left > 0 ? st_bpe_unmap(right, n - split - 1, bytes + n_left) : -1;
    }
    if (n_left <= 0 || n_right <= 0) {
        ST_TRY(add_waiting(b, path, err)); /* the first mistake is told */
        return st_fail(err, SETUN_BAD_FILE, "%s: merge %lld is not made of tokens", path, (long long)b->n_pairs);
    }
    w->n_left[w->n] = (size_t)n_left;
    w->n_both[w->n++] = (size_t)(n_left + n_right);
    return w->n == WAITING ? add_waiting(b, path, err) : SETUN_OK;
}

/* "a b", or ["a", "b"]: both forms are in use. */
static setun_status merge_entry(st_bpe *b, st_jscan *j, const char *path, setun_error *err)
{
    char text[512];
    const char *s;
    size_t n, split;
    if (st_jscan_peek(j) == '"') {
        if (st_jscan_string(j, &s, &n)) {
            const char *space = memchr(s, ' ', n);
            /* A token with a space in it needs the other form. */
            if (space && !memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
                return st_bpe_merge(b, s, n, (size_t)(space - s), path, err);
        }
    } else if (st_jscan_take(j, '[') && st_jscan_string(j, &s, &n) && n < sizeof text) {
        memcpy(text, s, n);
        split = n;
        text[n] = ' ';
        if (st_jscan_take(j, ',') && st_jscan_string(j, &s, &n) && n < sizeof text - split - 1) {
            memcpy(text + split + 1, s, n);
            if (st_jscan_take(j, ']'))
                return st_bpe_merge(b, text, split + 1 + n, split, path, err);
        }
    }
    return st_fail(err, SETUN_BAD_FILE, "%s: merge %lld is not a pair of tokens", path,
                   (long long)b->n_pairs + b->waiting->n);
}

setun_status st_bpe_merges(st_bpe *b, st_jscan *j, const char *path, setun_error *err)
{
    if (!st_jscan_take(j, '['))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.merges is not a list", path);
    int any = 0;
    for (char c = st_jscan_peek(j) == ']' ? ']' : ','; c == ','; c = st_jscan_peek(j)) {
        if (any && !st_jscan_take(j, ','))
            break;
        any = 1;
        ST_TRY(merge_entry(b, j, path, err));
    }
    if (!st_jscan_take(j, ']'))
        return st_fail(err, SETUN_BAD_FILE, "%s: model.merges is not valid JSON", path);
    return SETUN_OK;
}

/* Fills in byte_id, ascii and unk.  Valid UTF-8 never has C0, C1 or F5 to FF; every other byte must
 * be a token where bytes are what is merged, or what is left. */
setun_status st_bpe_ready(st_bpe *b, const char *unk, const char *path, setun_error *err)
{
    ST_TRY(add_waiting(b, path, err));
    for (int i = 0; i < 256; i++) {
        char byte[8] = { (char)i };
        int64_t id = -1;
        if (b->chars)
            (void)snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)i);
        int there = st_table_get(b->by_bytes, byte, b->chars ? 6 : 1, &id);
        if (!there && (!b->chars || b->byte_fallback) && i != 0xc0 && i != 0xc1 && i < 0xf5)
            return st_fail(err, SETUN_BAD_FILE, "%s: the vocabulary has no token for the byte 0x%02x",
                           path, (unsigned)i);
        b->byte_id[i] = (int32_t)id;
        byte[0] = (char)i;
        id = -1;
        if (i < 128)
            b->ascii[i] = st_table_get(b->by_bytes, byte, 1, &id) ? (int32_t)id : -1;
    }
    int64_t id = -1;
    /* Over bytes, or with a token for each of them, nothing is unknown. */
    if (unk && b->chars && !b->byte_fallback && !st_table_get(b->by_bytes, unk, strlen(unk), &id))
        return st_fail(err, SETUN_BAD_FILE, "%s: the unknown token %s is not in the vocabulary", path, unk);
    b->unk = (int32_t)id;
    if (b->crosses['>'] || (unk && unk[0] && b->crosses[(uint8_t)unk[strlen(unk) - 1]]) ||
        !st_table_get(b->by_bytes, SPACE, 3, &id))
        memset(b->crosses, 1, sizeof b->crosses);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- scores */

/* A token that takes part in merging by score. */
typedef struct scored {
    const char *s;
    size_t      n;
    int64_t     id;
    float       score;
} scored;

/* Highest score first; of equals the lower id, so that nothing depends on the sort. */
static int compare_scored(const void *a, const void *c)
{
    const scored *x = a, *y = c;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* What a part of a token is while merging: a token that takes part, a loose character, or -1, which
 * no symbol ever is.  *bad: no memory. */
static int64_t part_of(st_bpe *b, const float *score, const char *s, size_t n, int *bad)
{
    int64_t id;
    if (st_table_get(b->by_bytes, s, n, &id))
        return isnan(score[id]) ? -1 : id;
    if (char_bytes(s) != (int64_t)n)
        return -1;
    if (!st_table_get(b->loose, s, n, &id)) {
        id = st_table_count(b->loose);
        *bad |= st_table_put(b->loose, s, n, id);
    }
    return ST_BPE_LOOSE + id;
}

static setun_status split_token(st_bpe *b, const float *score, const scored *t, uint32_t rank,
                                const char *path, setun_error *err)
{
    int bad = 0;
    if (t->n > MAX_SCORED)
        return st_fail(err, SETUN_UNKNOWN, "%s: token %lld has %zu bytes; with scores at most %d are supported",
                       path, (long long)t->id, t->n, MAX_SCORED);
    for (size_t at = (size_t)char_bytes(t->s); at < t->n; at += (size_t)char_bytes(t->s + at)) {
        int64_t left = part_of(b, score, t->s, at, &bad), right = -1;
        if (left >= 0)
            right = part_of(b, score, t->s + at, t->n - at, &bad);
        if (bad)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the merges of %s", path);
        if (right < 0)
            continue;
        note_crossing(b, t->s, at, t->n);
        ST_TRY(put_pair(b, left, right, rank, t->id, path, err));
    }
    return SETUN_OK;
}

setun_status st_bpe_scores(st_bpe *b, const float *score, const char *path, setun_error *err)
{
    int64_t n = st_table_count(b->by_bytes), k = 0;
    scored *list = malloc((size_t)(n + 1) * sizeof *list);
    b->loose = st_table_new(16);
    if (!list || !b->loose) {
        free(list);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the merges of %s", path);
    }
    for (int64_t i = 0; i < n; i++) {
        const void *s;
        size_t len;
        int64_t id;
        st_table_at(b->by_bytes, i, &s, &len, &id);
        if (len > 0 && !isnan(score[id]) && char_bytes(s) < (int64_t)len)
            list[k++] = (scored){ s, len, id, score[id] };
    }
    qsort(list, (size_t)k, sizeof *list, compare_scored);
    setun_status st = SETUN_OK;
    uint32_t rank = 0;
    for (int64_t i = 0; i < k && st == SETUN_OK; i++) {
        rank += i > 0 && list[i].score < list[i - 1].score;
        st = split_token(b, score, &list[i], rank, path, err);
    }
    free(list);
    return st;
}

void st_bpe_free(st_bpe *b)
{
    st_table_free(b->loose);
    free(b->waiting);
    free(b->token);
    free(b->pool);
    st_table_free(b->by_bytes);
    free(b->pair);
    memset(b, 0, sizeof *b);
}

/* ---------------------------------------------------------------- merging */

setun_status st_ids_add(st_ids *ids, int32_t id, setun_error *err)
{
    if (ids->n == ids->cap) {
        int64_t cap = ids->cap ? 2 * ids->cap : 64;
        int32_t *more = realloc(ids->id, (size_t)cap * sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld tokens", (long long)cap);
        ids->id = more;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return SETUN_OK;
}

/* The symbols that are left, first to last.  A loose character is its bytes, or unknown: then
 * neighbours that are unknown are one, as symbols() has it. */
static setun_status emit(const st_bpe *b, int32_t id, int64_t start, st_ids *out, setun_error *err)
{
    const void *s;
    size_t n;
    int64_t index;
    if (!b->loose || (id < ST_BPE_LOOSE && (b->byte_fallback || id != b->unk)))
        return st_ids_add(out, id, err);
    if (!b->byte_fallback)
        return b->unk < 0 ? st_fail(err, SETUN_BAD_ARG, "the tokenizer has no token for a character of the text")
               : out->n > start && out->id[out->n - 1] == b->unk ? SETUN_OK
                                                                 : st_ids_add(out, b->unk, err);
    st_table_at(b->loose, id - ST_BPE_LOOSE, &s, &n, &index);
    for (size_t i = 0; i < n; i++)
        ST_TRY(st_ids_add(out, b->byte_id[((const uint8_t *)s)[i]], err));
    return SETUN_OK;
}

/* Destroys id. */
static setun_status merge_short(const st_bpe *b, int32_t *id, int n, st_ids *out, setun_error *err)
{
    uint32_t rank[SHORT]; /* of symbol i with the next; none for the last */
    for (int i = 0; i + 1 < n; i++)
        rank[i] = rank_of(b, id[i], id[i + 1]);
    rank[n - 1] = UINT32_MAX;
    for (;;) {
        int best = 0;
        for (int i = 1; i < n; i++)
            if (rank[i] < rank[best]) /* strictly: the leftmost of equals stays */
                best = i;
        if (rank[best] == UINT32_MAX)
            break;
        id[best] = find_pair(b, id[best], id[best + 1])->merged;
        n--;
        memmove(id + best + 1, id + best + 2, (size_t)(n - best - 1) * sizeof *id);
        memmove(rank + best, rank + best + 1, (size_t)(n - best) * sizeof *rank);
        rank[best] = best + 1 < n ? rank_of(b, id[best], id[best + 1]) : UINT32_MAX;
        if (best > 0)
            rank[best - 1] = rank_of(b, id[best - 1], id[best]);
    }
    int64_t start = out->n;
    for (int i = 0; i < n; i++)
        ST_TRY(emit(b, id[i], start, out, err));
    return SETUN_OK;
}

/* A symbol of a long piece; dead ones have id -1. */
typedef struct symbol {
    int32_t  id, before, after; /* neighbours; -1 at the ends */
    uint32_t rank;              /* with the one after; UINT32_MAX: none */
} symbol;

/* Keys are rank << 32 | position, so that the least is the leftmost of the lowest rank.  Entries are
 * not removed when their pair disappears: a popped key that is not the pair's rank now is skipped.
 */
typedef struct heap {
    uint64_t *key;
    int64_t   n;
} heap;

static void push(heap *h, uint64_t key)
{
    int64_t i = h->n++;
    for (; i > 0 && h->key[(i - 1) / 2] > key; i = (i - 1) / 2)
        h->key[i] = h->key[(i - 1) / 2];
    h->key[i] = key;
}

static uint64_t pop(heap *h)
{
    uint64_t least = h->key[0], last = h->key[--h->n];
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->key[child + 1] < h->key[child])
            child++;
        if (h->key[child] >= last)
            break;
        h->key[i] = h->key[child];
        i = child;
    }
    h->key[i] = last;
    return least;
}

static void rate(const st_bpe *b, symbol *s, int32_t i, heap *h)
{
    s[i].rank = s[i].after < 0 ? UINT32_MAX : rank_of(b, s[i].id, s[s[i].after].id);
    if (s[i].rank != UINT32_MAX)
        push(h, (uint64_t)s[i].rank << 32 | (uint32_t)i);
}

static setun_status merge_long(const st_bpe *b, const int32_t *id, int64_t n, st_ids *out,
                               setun_error *err)
{
    /* n - 1 pairs at first, and every merge, of which there are at most n - 1, rates two. */
    symbol *s = malloc((size_t)n * sizeof *s);
    heap h = { malloc((size_t)n * 3 * sizeof *h.key), 0 };
    setun_status st = SETUN_OK;
    if (!s || !h.key)
        st = st_fail(err, SETUN_NO_MEMORY, "no memory to encode a word of %lld symbols",
                     (long long)n);
    for (int64_t i = 0; st == SETUN_OK && i < n; i++)
        s[i] = (symbol){ id[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1,
                         UINT32_MAX };
    for (int64_t i = 0; st == SETUN_OK && i + 1 < n; i++)
        rate(b, s, (int32_t)i, &h);
    while (st == SETUN_OK && h.n > 0) {
        uint64_t key = pop(&h);
        int32_t i = (int32_t)(uint32_t)key;
        if (s[i].id < 0 || s[i].rank != key >> 32)
            continue;
        int32_t gone = s[i].after;
        s[i].id = find_pair(b, s[i].id, s[gone].id)->merged;
        s[i].after = s[gone].after;
        s[gone].id = -1;
        if (s[i].after >= 0)
            s[s[i].after].before = i;
        rate(b, s, i, &h);
        if (s[i].before >= 0)
            rate(b, s, s[i].before, &h);
    }
    int64_t start = out->n;
    for (int32_t i = 0; st == SETUN_OK && i >= 0; i = s[i].after)
        st = emit(b, s[i].id, start, out, err);
    free(s);
    free(h.key);
    return st;
}

/* The symbols of a text over characters: *n of them, at most as many as bytes.  A character that is
 * no token is loose, or its bytes, or unknown; fuse_unk makes one of neighbours. */
static setun_status symbols(const st_bpe *b, const char *text, int64_t bytes, int32_t *id, int64_t *n,
                            setun_error *err)
{
    int64_t made = 0, found, len;
    int was_unknown = 0;
    for (int64_t at = 0; at < bytes; at += len) {
        uint8_t c = (uint8_t)text[at];
        int unknown = 0;
        len = char_bytes(text + at);
        if (c < 0x80 && b->ascii[c] >= 0) {
            id[made++] = b->ascii[c];
        } else if (c >= 0x80 && st_table_get(b->by_bytes, text + at, (size_t)len, &found)) {
            id[made++] = (int32_t)found;
        } else if (b->loose && st_table_get(b->loose, text + at, (size_t)len, &found)) {
            id[made++] = ST_BPE_LOOSE + (int32_t)found;
        } else if (b->byte_fallback) {
            for (int64_t i = 0; i < len; i++)
                id[made++] = b->byte_id[(uint8_t)text[at + i]];
        } else if (b->unk < 0) {
            return st_fail(err, SETUN_BAD_ARG, "the tokenizer has no token for the character '%.*s'",
                           (int)len, text + at);
        } else {
            unknown = 1;
            if (!was_unknown || !b->fuse_unk)
                id[made++] = b->unk;
        }
        was_unknown = unknown;
    }
    *n = made;
    return SETUN_OK;
}

/* One stretch that no merge leaves. */
static setun_status merge(const st_bpe *b, const char *text, int64_t bytes, st_ids *out,
                          setun_error *err)
{
    int32_t few[SHORT], *id = bytes <= SHORT ? few : NULL;
    int64_t n = bytes;
    if (bytes > INT32_MAX) /* positions are 32 bits */
        return st_fail(err, SETUN_FULL, "a word of %lld bytes is too long", (long long)bytes);
    if (!id && !(id = malloc((size_t)bytes * sizeof *id)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory to encode a word of %lld bytes",
                       (long long)bytes);
    setun_status st = SETUN_OK;
    if (b->chars)
        st = symbols(b, text, bytes, id, &n, err);
    else
        for (int64_t i = 0; i < n; i++)
            id[i] = b->byte_id[(uint8_t)text[i]];
    if (st == SETUN_OK)
        st = n <= SHORT ? merge_short(b, id, (int)n, out, err) : merge_long(b, id, n, out, err);
    if (id != few)
        free(id);
    return st;
}

setun_status st_bpe_piece(const st_bpe *b, const char *piece, int64_t n, st_ids *out,
                          setun_error *err)
{
    int64_t id, start = 0;
    if (n == 1 && !b->chars)
        return st_ids_add(out, b->byte_id[(uint8_t)piece[0]], err);
    /* A special token is never made from plain text, even if it is spelled like one piece. */
    if (b->ignore_merges && st_table_get(b->by_bytes, piece, (size_t)n, &id) && !b->token[id].added)
        return st_ids_add(out, (int32_t)id, err);
    /* Cut before each U+2581 that does not follow another one; the first bytes of a text are no cut. */
    for (int64_t at = 3; b->chars && at + 3 <= n; at++) {
        if (piece[at] != SPACE[0] || b->crosses[(uint8_t)piece[at - 1]] || memcmp(piece + at, SPACE, 3) != 0 ||
            memcmp(piece + at - 3, SPACE, 3) == 0)
            continue;
        ST_TRY(merge(b, piece + start, at - start, out, err));
        start = at;
    }
    return merge(b, piece + start, n - start, out, err);
}

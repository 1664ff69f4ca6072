/* model/tokenizer_load.c -- a tokenizer from bytes; tokenizer_bytes.h says which.  Nothing but a C library is needed.
 *
 * The bytes may come from a stranger.  Whatever encoding relies on is checked here: ids have tokens, merges are of tokens,
 * texts are UTF-8, sets are in order.  What was merely written down wrongly (a merge that is none) gives other
 * tokens than the file it came from, and no more. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/tokenizer_bytes.h"
#include "model/tokenizer_inside.h"

typedef struct reader {
    st_tokenizer *t;
    st_bytes      in;
    const char   *name;
    setun_error  *err;
} reader;

static setun_status no_memory(const reader *r)
{
    return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the tokenizer of %s", r->name);
}

/* Every part ends with this: what did the reader turn bad in? */
static setun_status judge(const reader *r, const char *part)
{
    return r->in.bad ? st_fail(r->err, SETUN_BAD_FILE, "%s: the tokenizer's %s are damaged", r->name, part) : SETUN_OK;
}

/* An id that has a token, or with none also ST_TB_NONE, which is -1. */
static int32_t take_id(reader *r, int none)
{
    uint32_t id = st_take_u32(&r->in);
    if (none && id == ST_TB_NONE)
        return -1;
    r->in.bad |= id >= (uint64_t)r->t->bpe.n_tokens || !r->t->bpe.token[id].bytes;
    return r->in.bad ? 0 : (int32_t)id;
}

/* Text with something in it. */
static const char *take_utf8(reader *r, int64_t *n)
{
    const char *s = st_take_text(&r->in, n);
    r->in.bad |= *n == 0 || st_utf8_valid(s, (size_t)*n) != (size_t)*n;
    return r->in.bad ? NULL : s;
}

static setun_status take_tokens(reader *r)
{
    st_bpe *b = &r->t->bpe;
    uint32_t n = st_take_count(&r->in, 4);
    const uint8_t *about = (const uint8_t *)st_take_bytes(&r->in, 4 * (int64_t)n);
    st_bytes heads = {about, about ? about + 4 * (size_t)n : NULL, !about};
    r->in.bad |= n == 0 || n > ST_BPE_MAX_ID + 1u;
    for (uint32_t i = 0; i < n && !r->in.bad; i++) {
        uint32_t head = st_take_u32(&heads);
        if (head == ST_TB_NONE) {
            r->in.bad |= i + 1 == n; /* the last one would not count */
            continue;
        }
        const char *bytes = st_take_bytes(&r->in, head >> 2);
        if (!bytes)
            break;
        ST_TRY(st_bpe_add(b, i, bytes, head >> 2, r->name, r->err));
        b->token[i].added = (head & 2) != 0;
        b->token[i].special = (head & 1) != 0;
    }
    return judge(r, "tokens");
}

static setun_status take_spelled(reader *r, int has_loose)
{
    st_bpe *b = &r->t->bpe;
    uint32_t n = st_take_count(&r->in, 8);
    if (!(b->by_bytes = st_table_new(n)))
        return no_memory(r);
    for (uint32_t i = 0; i < n && !r->in.bad; i++) {
        int32_t id = take_id(r, 0);
        int64_t len;
        const char *s = st_take_text(&r->in, &len);
        if (!r->in.bad && len == 0) {
            s = b->token[id].bytes;
            len = b->token[id].n;
        }
        if (!r->in.bad && st_table_put(b->by_bytes, s, (size_t)len, id))
            return no_memory(r);
    }
    r->in.bad |= st_table_count(b->by_bytes) != n; /* two tokens that are spelled alike */
    n = st_take_count(&r->in, 4);
    r->in.bad |= n > 0 && !has_loose;
    if (has_loose && !(b->loose = st_table_new(n)))
        return no_memory(r);
    for (uint32_t i = 0; i < n && !r->in.bad; i++) {
        int64_t len;
        const char *s = take_utf8(r, &len);
        if (s && st_table_put(b->loose, s, (size_t)len, i))
            return no_memory(r);
    }
    r->in.bad |= has_loose && st_table_count(b->loose) != n;
    return judge(r, "spellings");
}

/* Valid UTF-8 never has C0, C1 or F5 to FF; every other byte has to be a token where bytes are what is merged, or left. */
static setun_status take_single(reader *r)
{
    st_bpe *b = &r->t->bpe;
    for (int i = 0; i < 256; i++)
        b->byte_id[i] = take_id(r, (b->chars && !b->byte_fallback) || i == 0xc0 || i == 0xc1 || i >= 0xf5);
    for (int i = 0; i < 128; i++)
        b->ascii[i] = take_id(r, 1);
    const uint8_t *crosses = (const uint8_t *)st_take_bytes(&r->in, 32);
    for (int i = 0; crosses && i < 256; i++)
        b->crosses[i] = crosses[i / 8] >> i % 8 & 1;
    return judge(r, "single characters");
}

/* One side of a merge: a token, or a loose character. */
static int32_t take_side(reader *r)
{
    const st_bpe *b = &r->t->bpe;
    uint32_t id = st_take_u32(&r->in);
    int64_t n_loose = b->loose ? st_table_count(b->loose) : 0;
    r->in.bad |= id < ST_BPE_LOOSE ? id >= (uint64_t)b->n_tokens || !b->token[id].bytes : id - ST_BPE_LOOSE >= (uint64_t)n_loose;
    return r->in.bad ? 0 : (int32_t)id;
}

static setun_status take_pairs(reader *r)
{
    uint32_t n = st_take_count(&r->in, 16);
    r->in.bad |= n > ST_BPE_MAX_PAIRS;
    if (!r->in.bad)
        ST_TRY(st_bpe_begin_pairs(&r->t->bpe, n, r->name, r->err));
    for (uint32_t i = 0; i < n && !r->in.bad; i++) {
        int32_t left = take_side(r), right = take_side(r);
        uint32_t rank = st_take_up_to(&r->in, ST_BPE_MAX_PAIRS);
        int32_t merged = take_id(r, 0);
        const st_pair_slot pair = {(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, merged};
        if (!r->in.bad)
            ST_TRY(st_bpe_pair(&r->t->bpe, &pair, r->name, r->err));
    }
    return judge(r, "merges");
}

static setun_status take_added_set(reader *r, st_added_set *set)
{
    uint32_t n = st_take_count(&r->in, 12);
    if (!(set->item = st_arena_array(r->t->arena, (int64_t)n + 1, sizeof *set->item)))
        return no_memory(r);
    for (uint32_t i = 0; i < n && !r->in.bad; i++) {
        st_added *a = &set->item[set->n++];
        a->text = take_utf8(r, &a->n);
        a->id = take_id(r, 0);
        uint32_t flags = st_take_up_to(&r->in, 15);
        if (r->in.bad)
            break;
        a->special = (flags & ST_TB_SPECIAL) != 0;
        a->alone = (flags & ST_TB_ALONE) != 0;
        a->left = (flags & ST_TB_LEFT) != 0;
        a->right = (flags & ST_TB_RIGHT) != 0;
        set->first[(uint8_t)a->text[0]] = 1;
        r->in.bad |= i > 0 && st_added_compare(a - 1, a) >= 0;
    }
    return SETUN_OK;
}

static setun_status take_added(reader *r)
{
    st_tokenizer *t = r->t;
    uint32_t n = st_take_count(&r->in, 8);
    if (!(t->names = st_table_new(n)))
        return no_memory(r);
    for (uint32_t i = 0; i < n && !r->in.bad; i++) {
        int64_t len;
        const char *s = take_utf8(r, &len);
        int32_t id = take_id(r, 0);
        if (!r->in.bad && st_table_put(t->names, s, (size_t)len, id))
            return no_memory(r);
    }
    ST_TRY(take_added_set(r, &t->set[0]));
    ST_TRY(take_added_set(r, &t->set[1]));
    return judge(r, "added tokens");
}

static void take_ids(reader *r, int32_t *id, int64_t *n, uint32_t most)
{
    *n = st_take_up_to(&r->in, most);
    for (int64_t i = 0; i < *n; i++)
        id[i] = take_id(r, 0);
}

static setun_status load(reader *r)
{
    st_tokenizer *t = r->t;
    const char *magic = st_take_bytes(&r->in, 8);
    if (!magic || memcmp(magic, ST_TB_MAGIC, 8) != 0)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: there is no tokenizer where one should be", r->name);
    uint32_t version = st_take_u32(&r->in), flags = st_take_u32(&r->in);
    ST_TRY(judge(r, "first bytes"));
    if (version != ST_TB_VERSION || flags & ~ST_TB_ALL)
        return st_fail(r->err, SETUN_UNKNOWN, "%s: a tokenizer of version %u with flags %u; this Setun reads version %d", r->name, version,
                       flags, ST_TB_VERSION);
    t->bpe.chars = (flags & ST_TB_CHARS) != 0;
    t->bpe.byte_fallback = (flags & ST_TB_BYTE_FALLBACK) != 0;
    t->bpe.fuse_unk = (flags & ST_TB_FUSE_UNK) != 0;
    t->bpe.ignore_merges = (flags & ST_TB_IGNORE_MERGES) != 0;
    t->strip = (int32_t)st_take_up_to(&r->in, ST_TOK_MAX_STRIP);
    uint32_t unk = st_take_u32(&r->in);
    ST_TRY(take_tokens(r));
    r->in.bad |= unk != ST_TB_NONE && (unk >= (uint64_t)t->bpe.n_tokens || !t->bpe.token[unk].bytes);
    t->bpe.unk = unk == ST_TB_NONE ? -1 : (int32_t)unk;
    ST_TRY(take_spelled(r, (flags & ST_TB_LOOSE) != 0));
    ST_TRY(take_single(r));
    ST_TRY(take_pairs(r));
    ST_TRY(st_chars_take(&t->words, &r->in, r->err));
    ST_TRY(take_added(r));
    take_ids(r, t->before, &t->n_before, ST_TOKENIZER_AROUND);
    take_ids(r, t->after, &t->n_after, ST_TOKENIZER_AROUND);
    take_ids(r, t->end, &t->n_end, ST_TOKENIZER_ENDS);
    ST_TRY(judge(r, "template tokens"));
    ST_TRY(st_normal_take(&t->normal, &r->in, r->err));
    ST_TRY(judge(r, "rules"));
    ST_TRY(st_pretok_take(&t->pretok, &r->in, r->err));
    /* Symbols are bytes where the pieces are, else characters; nothing stands behind the last part. */
    r->in.bad |= r->in.at != r->in.end || t->pretok->bytes == t->bpe.chars;
    return judge(r, "expressions");
}

setun_status st_tokenizer_load(st_tokenizer **out, const void *bytes, int64_t n, const char *name, setun_error *err)
{
    reader r = {calloc(1, sizeof *r.t), {bytes, (const uint8_t *)bytes + n, 0}, name, err};
    *out = NULL;
    setun_status s = r.t && (r.t->arena = st_arena_new()) && (r.t->path = st_arena_strdup(r.t->arena, name)) ? SETUN_OK : no_memory(&r);
    if (s == SETUN_OK)
        s = load(&r);
    if (s != SETUN_OK) {
        st_tokenizer_close(r.t);
        return s;
    }
    *out = r.t;
    return SETUN_OK;
}

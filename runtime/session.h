/* runtime/session.h -- the inside of a session, for the files that fill one in and those that watch it.
 *
 * session.c: one conversation.  batch.c: the machinery of several that decode together is a session,
 * too, without a state or a position of its own; it has peers, whose states it uses:
 *
 *     node                              one session      with peers a, b, c
 *     ternary_matmul (q, w)             n rows           one step, 3 rows
 *     kv_append (x, cache, positions)   n rows           one row of x each into a's, b's, c's cache */
#ifndef ST_RUNTIME_SESSION_H
#define ST_RUNTIME_SESSION_H

#include "runtime/model.h"

#define ST_MAX_SEGMENTS 64

/* Whom a backend calls back when steps are watched. */
typedef struct st_watch {
    setun_session *s;
    int            which; /* program */
    uint32_t       first; /* the segment's first step */
} st_watch;

typedef struct st_segment {
    uint32_t       backend, first, n; /* steps */
    setun_program *program;
    const setun_step *fetch; /* before it runs, the rows of the head that are listed must be there; NULL: no */
    int64_t        listed;   /* where in the temporary buffer their ids are */
    st_watch       watch;
} st_segment;

/* What one step did, summed over the runs that were counted. */
typedef struct st_tally {
    double  stored;    /* bytes of constants and of the cache: from memory */
    double  temp;      /* bytes of temporaries */
    double  int_ops, float_ops;
    double  rows, row_bytes; /* picked by a list */
    double  units;     /* of the kernel's grid */
    int32_t class_of;  /* whom the stored bytes belong to */
} st_tally;

typedef struct st_runner {
    st_segment  seg[ST_MAX_SEGMENTS];
    uint32_t    n_seg;
    setun_step *step;
    uint32_t   *of;    /* per step that runs: which step of the plan */
    uint32_t    n_run_step;
    int64_t     at[3]; /* places of the results in the temporary buffer: logits and embedding, or ids, count, values */
    /* Notes, per step that runs; NULL until the first setun_session_note. */
    int64_t    *ns, *waits;
    st_tally   *tally;
    int64_t     n_run, n_timed, n_counted, timed_rows, counted_rows;
} st_runner;

struct st_density; /* runtime/density.c */
struct st_trace;   /* runtime/trace.h */

struct setun_session {
    st_arena          *arena;
    const setun_model *m;
    const st_program  *program[ST_N_PROGRAM]; /* NULL: not one of this session's */
    int64_t            n_tokens, n_outputs;   /* most rows of the inputs */
    setun_session    **peer;
    int32_t            n_peer;
    setun_context     *context[2];
    setun_buffer     **buffer[2]; /* per value of the simplified graph's CONST, STATE (of each peer) and INPUT */
    setun_buffer      *temp[2];
    uint32_t           n_buffer;
    const char       **buffer_name;
    st_runner          run[ST_N_PROGRAM];
    int32_t           *tokens, *positions, *outputs; /* host side of the inputs */
    setun_buffer      *tokens_b, *positions_b, *outputs_b, *n_top_b, *noise_b;
    setun_buffer      *row_b[2];  /* with peers: each one's position, ST_ROW bytes apart, as the backends see it */
    setun_screen       screen;    /* what is wanted of the screened head */
    int64_t            mapped;    /* estimate: bytes of the full head's pages that were touched */
    char              *rows;      /* address space for the full head, filled with rows as they come; NULL: it is read where it is */
    int32_t           *place;     /* per row of the head: 1 + where among the fetched ones it lies; 0: it was not fetched */
    int32_t            n_fetched;
    setun_buffer      *place_b[2]; /* what stands for the list of ids where the fetched rows stand for the head */
    setun_top          top;       /* of the last feed that wanted them */
    float              top_logit[SETUN_MAX_TOP];
    int32_t            top_id[SETUN_MAX_TOP];
    char              *temp_host;
    int64_t            position;
    int              (*progress)(void *, int64_t, int64_t);
    void              *progress_user;
    uint32_t           note;      /* SETUN_NOTE_... */
    int                again;     /* the run repeats tokens that were already counted */
    struct st_density *density;
    struct st_trace   *trace;
};

/* A bit of `note` that is not SETUN_NOTE_...: runtime/trace.c's. */
#define ST_NOTE_TRACE (1u << 31)

/* Operands begin at multiples of this: what backends are promised. */
#define ST_ROW 64

/* A session with room for n_tokens rows and no programs; `session_build` makes all that those filled
 * in meanwhile need.  After a failure it is still to be freed. */
setun_status st_session_alloc(setun_session **s, const setun_model *m, int64_t n_tokens, int64_t n_outputs, setun_error *err);
setun_status st_session_build(setun_session *s, setun_error *err);

/* Run a program on rows that are in s->tokens, positions and outputs. */
setun_status st_session_run(setun_session *s, int which, int64_t n, int64_t n_out, setun_error *err);
/* A chunk of n <= n_batch tokens; their rows first .. first + n_out - 1 give results.  Afterwards the position is
 * n on, and *logits points at the logits, if the program makes them. */
setun_status st_session_chunk(setun_session *s, const int32_t *tokens, int64_t n, int64_t first, int64_t n_out, int which,
                              const float **logits, setun_error *err);
/* Tokens that can be fed now: their number and their ids. */
setun_status st_session_check(const setun_session *s, const int32_t *tokens, int64_t n, setun_error *err);
/* Refuses models that make embeddings alone. */
setun_status st_session_predicts(const setun_session *s, setun_error *err);
/* The full row of logits after one token; afterwards the position is one on. */
setun_status st_session_full(setun_session *s, int32_t token, const float **row, setun_error *err);
/* Keep what s->screen wants for setun_session_top: of row `row` of a screened run of `from`, which may say
 * 0: its list will not do; or of a full row. */
int          st_session_screened(setun_session *s, setun_session *from, int which, int64_t row);
void         st_session_sorted(setun_session *s, const float *row);
/* The number of the buffer of an input, constant, or the first peer's state; -1: none has this name. */
int64_t      st_session_buffer(const setun_session *s, const char *name);
/* Where a value is.  row >= 0: of what has a row per sequence this one's, of states this peer's. */
setun_status st_session_operand(const setun_session *s, const st_program *p, uint32_t backend, st_value_id v, int64_t row,
                                setun_operand *o, setun_error *err);
/* Is the state a cache [heads, positions, dim]: written by kv_append and by nothing else? */
int          st_is_cache(const st_graph *g, st_value_id state);
/* Does the node read or write a state? */
int          st_uses_state(const st_graph *g, st_node_id n);

static inline const setun_backend_v1 *st_session_api(const setun_session *s, uint32_t b)
{
    return s->m->backend[b]->backend;
}

/* runtime/note.c: whom the bytes of a value belong to (SETUN_CLASS_...), temporaries and inputs alike. */
int32_t st_class_of(const st_value *v);
/* Before and after each run of a program, while there is something to note. */
void st_note_begin(setun_session *s, int which);
void st_note_end(setun_session *s, int which, int64_t n_token);

/* runtime/density.c: gates and activations of a step that has just run. */
setun_status st_density_start(setun_session *s, setun_error *err);
void         st_density_see(setun_session *s, int which, st_node_id n, const setun_args *a);
/* runtime/trace.c: the same of what the step made. */
void         st_trace_see(setun_session *s, int which, st_node_id n, const setun_args *a);

#endif

/* scripts/bind.h -- what host.c, bind_graph.c and bind_kernel.c share; nobody else includes it.
 *
 * Lua raises errors by longjmp, so every binding keeps one order: first read all arguments (may
 * raise), then call the core (never raises), then push results (may raise, holding nothing).
 * What must outlive a raise belongs to a userdata or to the arena. */
#ifndef ST_SCRIPTS_BIND_H
#define ST_SCRIPTS_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "scripts/host.h"

/* The longest string a script may make.  Comparing or searching a string costs time that the step
 * counter does not see, so strings are short. */
#define ST_SCRIPT_STRING 65536
/* The largest single block of memory: nothing the library does in one call is slow below it. */
#define ST_SCRIPT_BLOCK (64 << 20)

typedef struct st_script_kernel st_script_kernel; /* what lower sees (bind_kernel.c) */

/* One form of a type, "f32[n,256]" (bind_schema.c). */
#define ST_SCRIPT_FORMS 8
typedef struct st_script_form {
    uint32_t dtype; /* 0: that of the input it is like */
    uint32_t rank;
    int32_t  any;   /* [...]: any rank */
    int64_t  dim[SETUN_MAX_RANK]; /* a size, or -1 - letter */
} st_script_form;

struct st_script_port {
    const char    *text;
    int32_t        like; /* outputs: 1 + index of an input, or 0 */
    uint32_t       n_form;
    st_script_form form[ST_SCRIPT_FORMS];
};

/* What an operation costs, and what a step really did: sums of products. */
enum { ST_COST_INT, ST_COST_FLOAT, ST_COST_BYTES, ST_N_COST, ST_COST_ROWS = ST_N_COST, ST_COST_ROW_BYTES, ST_N_COUNTED };
typedef struct st_script_term {
    double   factor;
    uint32_t n;
    uint16_t what[6]; /* a letter's size, or from 26 on what is asked of an input: its elements, or their sum ... */
} st_script_term;
typedef struct st_script_sum {
    uint32_t       n;
    st_script_term term[8];
} st_script_sum;

/* An operator defined by setun.op.  Lives in the arena: graphs point to it after the script closed. */
typedef struct st_script_op {
    setun_op             op; /* first, so that a callback's args->op leads here */
    st_script           *s;  /* NULL once the script is closed */
    struct st_script_op *next;
    const char          *file;
    int                  ref; /* registry: a copy of the script's table */
    int                  by_element; /* eval and not eval_all */
    int                  has_infer;  /* the script looks at shapes, too */
    setun_error          fill_error; /* fill cannot fail: eval, which follows it, does */
    st_script_sum        cost[ST_N_COST], counted[ST_N_COUNTED];
    struct st_script_port *in, *out;
    st_script_kernel    *k;       /* while lower runs */
    int                  map_fn;  /* stack index, while k:map runs */
} st_script_op;

struct st_script {
    lua_State     *L;
    st_registry   *registry;
    st_arena      *arena;
    const char    *lib_dir;
    const char    *file;      /* base name of the file being run, for messages without a line */
    st_script_op  *ops;       /* all of them, newest first */
    int64_t        n_ops;
    st_script_packing *packings; /* all of them, newest first */
    const st_script_lab *lab;     /* the experiment that setun.lab described, or NULL */
    st_script_quantizer *quantizer; /* that g:quantize uses; NULL: the model's own by its weights */
    int            quantizing;   /* inside its apply */
    char           place[80];  /* of the callback, while none of its lines is running */
    int            callback;   /* inside eval, lower or quantise: graphs and setun.op are out of reach */
    int64_t        generation; /* raised when eval or lower ends: objects of older ones are dead */

    int64_t        used, limit, soft; /* bytes; above soft the next instruction raises, limit is never passed */
    int64_t        steps, steps_left; /* VM instructions per call from outside */
    int64_t        deadline;          /* ns; a backstop for what one instruction can cost */
    int            single;            /* the hook is set for every step, not for every STRIDE steps */
    int64_t        big_string;        /* bytes of a string that was too long, until it is reported */
    int64_t        arena_base;        /* bytes of the arena that are not the scripts' */
    int64_t        arena_paused;
    int            depth;             /* calls from outside that are running, nested ones included */
    int            broken;            /* a limit was passed: no pcall may catch it */

    void         (*print)(void *user, const char *text);
    void          *print_user;
    int          (*stop)(void *user); /* asked now and then; nonzero ends what runs.  NULL: nobody is asked */
    void          *stop_user;
    st_script_file *files;            /* all that were read, newest first */
    const st_console *console;        /* bind_console.c; NULL: this is none */
};

/* One graph under construction; a userdata. */
typedef struct st_build {
    st_graph              *g;
    const st_script_model *m;    /* NULL: a graph made by setun.graph() */
    int                    open; /* 0: over, g and m may be gone */
    int64_t                last; /* hyperparameter that was found last: lists are read in order */
    /* user value 1: names table or nil; 2: file tensor -> the name it was taken for, and the id of a
     * ternary scale -> 2 * group + weight_only */
    uint8_t                read[]; /* one per hyperparameter: a script asked for it */
} st_build;

/* A graph (or scope of it), a value, or a table of hyperparameters. */
typedef struct st_handle {
    st_build   *b;
    st_value_id id;     /* values only */
    char        text[]; /* scope, or prefix of keys with its dot */
} st_handle;

st_script *st_bind_script(lua_State *L);

/* Raise "file.lua:12: sentence".  The place is the innermost line of a script that is not a library
 * of lib/, so that a mistake in a model is shown where the model made it.  Formats as
 * lua_pushfstring does: %s %d %I %f %%. */
int st_bind_fail(lua_State *L, const char *fmt, ...);
/* Raise an error of the core with the place in front. */
int st_bind_error(lua_State *L, const setun_error *err);
/* The line of that place: short_src and currentline.  0: no script is running. */
int  st_bind_line(lua_State *L, lua_Debug *line);
/* The place alone, "file.lua:12" or ""; raises nothing. */
void st_bind_where(lua_State *L, char *out, size_t cap);
/* Raise inside eval, lower or quantise.  Their caller may rewind the arena afterwards, so nothing that lives
 * there may be made in between. */
void st_bind_no_callback(lua_State *L, const char *what);
/* Raise if this call from outside has lasted too long; for library functions that may be slow. */
void st_bind_tick(lua_State *L);
/* Raise if what scripts put into the arena, with bytes more, passes the memory limit. */
void st_bind_charge(lua_State *L, int64_t bytes);
/* Time and arena memory spent in the host's callbacks (packing weights) are not the script's. */
int64_t st_bind_pause(st_script *s);
void    st_bind_resume(st_script *s, int64_t since);

/* The file's name for a canonical one, with the names table or nil at the top: "blk.3.attn_q" is looked up as
 * "blk.%d.attn_q", and the number goes back in.  Of an entry that is a list the first that the file has is
 * taken.  Pushes the result. */
const char *st_bind_file_name(lua_State *L, const st_script_model *m, const char *name);

/* Run fn(L) with one light userdata argument, protected: limits start anew unless a call from
 * outside is already running.  fn's results are dropped.  what names the file for messages without
 * a line. */
setun_status st_bind_call(st_script *s, lua_CFunction fn, void *arg, const char *what, setun_error *err);

/* Load and run path (a text chunk); leaves its first result on the stack.  Raises. */
void st_bind_file(lua_State *L, const char *path, const char *chunk);

/* The string at index i, without NUL bytes, or an error that calls it what. */
const char *st_bind_text(lua_State *L, int i, const char *what);

#define ST_CLASS_GRAPH "setun.graph"
/* A build on an empty graph, and a handle to a build that lies at build_index; both are pushed. */
st_build  *st_bind_push_build(lua_State *L, const st_script_model *m);
st_handle *st_bind_push_handle(lua_State *L, const char *class, st_build *b, int build_index, st_value_id id,
                               const char *text);

/* Each adds its functions to the table `setun` at the top of the stack and makes its metatables. */
void st_bind_graph_open(lua_State *L);
void st_bind_model_open(lua_State *L);
void st_bind_template_open(lua_State *L);
void st_bind_op_open(lua_State *L);
void st_bind_packing_open(lua_State *L);
void st_bind_lab_open(lua_State *L);
void st_bind_quantizer_open(lua_State *L);
/* Use the quantizer at index i, a name or a setun.quantizer, from now on; one that a script asks for (not from_outside)
 * only if none is in use, and never from a file.  Returns its name with its value, in the arena.  Raises. */
const char *st_bind_quantizer_use(lua_State *L, int i, int from_outside);
/* Call apply of the one that is used on the graph and the value at these indices; pushes what it gives, and returns how
 * many that are. */
int  st_bind_quantizer_apply(lua_State *L, int graph, int x, const char *name);
/* A packing's kernel, the function at index fn, as the text of setun/packing_steps.h, which is pushed.  Raises. */
void st_bind_steps(lua_State *L, int fn, uint32_t digits);
void st_bind_steps_open(lua_State *L);
/* The packing at index i, or NULL. */
const st_script_packing *st_bind_packing(lua_State *L, int i);
/* Makes metatables only. */
void st_bind_kernel_open(lua_State *L);
/* Operators defined by this script can no longer call it. */
void st_bind_op_close(st_script *s);

/* Parse a type as bind_schema.c describes them; for an output, in and n_in are the inputs that it may be like.
 * 0: it is none. */
int          st_bind_parse_type(const char *text, struct st_script_port *t, const setun_port *in, uint32_t n_in);
/* Does any input have a dimension with this letter, -1 - letter? */
int          st_bind_knows_letter(const st_script_op *so, int64_t dim);
/* Parse a cost of an operator whose inputs are known; with_data: it may ask for what inputs hold.  0: it is none. */
int          st_bind_parse_cost(const char *text, const st_script_op *so, int with_data, st_script_sum *sum);
void         st_bind_cost(const setun_args *a, setun_cost *c);
void         st_bind_counted(const setun_args *a, setun_counted *c); /* needs no Lua: the script may be closed */
/* Match the inputs with the schema and make the outputs; sizes of an output [...] stay open: rank 0. */
setun_status st_bind_infer_schema(setun_args *a, const st_script_op *so, setun_error *err);

/* The lower of every scripted operator; DECLINED if the script's returns false. */
setun_status st_bind_lower(setun_kernel *k, const setun_args *a, setun_error *err);
/* The function at the top of the stack is the callback that runs now: errors found in its result are
 * shown at its first line. */
void st_bind_place(lua_State *L);
/* A table of attributes by name. */
void st_bind_push_attrs(lua_State *L, const setun_args *a);

/* A new metatable `name` with __index = its methods (or index when not NULL), closed to scripts. */
void st_bind_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction index);

#endif

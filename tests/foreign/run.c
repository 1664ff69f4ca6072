/* tests/foreign/run.c -- the other half of cases.c: runs its table and compares, on a machine without
 * anything: no C library, two system calls.  Exit code 0 and a line with the number of kernels if all agree. */
#include "launch.h"

typedef struct out {
    const uint8_t *got, *want;
    int64_t        bytes, kind; /* 4: binary32, 2: a 16-bit float, 1: bytes */
} out;
typedef struct test {
    void (*fn)(const launch *, const tile *);
    void *const   *arg;
    const int64_t *dim;
    const out     *outs;
    int64_t        n_out, units;
    const char    *name;
} test;

extern const test cases_begin[] __attribute__((visibility("hidden"))), cases_end[] __attribute__((visibility("hidden")));
extern uint8_t scratch[] __attribute__((visibility("hidden")));

/* Linux's convention: number and arguments in registers, one instruction. */
#if defined(__x86_64__)
static long call(long n, long a, long b, long c)
{
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
enum { WRITE = 1, EXIT = 231 };
#else
#if defined(__aarch64__)
#define REGISTERS "x8", "x0", "x1", "x2"
#define TRAP "svc 0"
enum { WRITE = 64, EXIT = 94 };
#elif defined(__riscv)
#define REGISTERS "a7", "a0", "a1", "a2"
#define TRAP "ecall"
enum { WRITE = 64, EXIT = 94 };
#elif defined(__powerpc64__)
#define REGISTERS "r0", "r3", "r4", "r5"
#define TRAP "sc"
enum { WRITE = 4, EXIT = 234 };
#elif defined(__s390x__)
#define REGISTERS "r1", "r2", "r3", "r4"
#define TRAP "svc 0"
enum { WRITE = 4, EXIT = 248 };
#elif defined(__loongarch__)
#define REGISTERS "a7", "a0", "a1", "a2"
#define TRAP "syscall 0"
enum { WRITE = 64, EXIT = 94 };
#endif
#define IN_TURN(number, first, second, third)                                                                   \
    register long n_ __asm__(number) = n, a_ __asm__(first) = a, b_ __asm__(second) = b, c_ __asm__(third) = c; \
    __asm__ volatile(TRAP : "+r"(a_), "+r"(n_), "+r"(b_), "+r"(c_) : : "memory", "cc");                         \
    return a_
#define EXPAND(...) IN_TURN(__VA_ARGS__)
static long call(long n, long a, long b, long c) { EXPAND(REGISTERS); }
#endif

static void print(const char *s)
{
    long n = 0;
    while (s[n])
        n++;
    (void)call(WRITE, 1, (long)(uintptr_t)s, n);
}

static void print_number(int64_t x)
{
    char s[24];
    int i = sizeof s - 1;
    s[i] = 0;
    do
        s[--i] = (char)('0' + x % 10);
    while (x /= 10);
    print(s + i);
}

static int is_nan(const uint8_t *p, int64_t kind)
{
    if (kind == 4) {
        uint32_t x;
        __builtin_memcpy(&x, p, 4);
        return (x & 0x7fffffffu) > 0x7f800000u;
    }
    return 0;
}

/* Which NaN comes out is open. */
static int64_t first_difference(const out *o)
{
    for (int64_t i = 0; i < o->bytes; i++)
        if (o->got[i] != o->want[i]) {
            int64_t at = i / o->kind * o->kind;
            if (!is_nan(o->got + at, o->kind) || !is_nan(o->want + at, o->kind))
                return i;
        }
    return -1;
}

__attribute__((used)) void begin(void);
void begin(void)
{
    int64_t n = 0, bad = 0;
    for (const test *t = cases_begin; t < cases_end; t++, n++) {
        launch l = { t->arg, t->dim, 0 };
        tile half = { 0, t->units / 2, scratch };
        if (half.begin < half.end)
            t->fn(&l, &half);
        half.begin = half.end;
        half.end = t->units;
        if (half.begin < half.end)
            t->fn(&l, &half);
        for (int64_t o = 0; o < t->n_out; o++) {
            int64_t at = first_difference(&t->outs[o]);
            if (at < 0)
                continue;
            bad++;
            print("differs at byte ");
            print_number(at);
            print(" of output ");
            print_number(o);
            print(": ");
            print(t->name);
            print("\n");
        }
    }
    print_number(n - bad);
    print(" of ");
    print_number(n);
    print(" agree\n");
    (void)call(EXIT, bad != 0 || n == 0, 0, 0);
}

/* The stack as the system leaves it is aligned; functions expect what a call leaves. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start: call begin\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: bl begin\n");
#elif defined(__riscv)
__asm__(".globl _start\n_start: call begin\n");
#elif defined(__powerpc64__)
__asm__(".globl _start\n.type _start,@function\n_start: lis 2, .TOC.@ha\n addi 2, 2, .TOC.@l\n stdu 1, -64(1)\n bl begin\n nop\n");
#elif defined(__s390x__)
__asm__(".globl _start\n_start: aghi %r15, -160\n brasl %r14, begin\n");
#elif defined(__loongarch__)
__asm__(".globl _start\n_start: bl begin\n");
#endif

/* What the machine itself can do: reading memory, clock rate, peak of double-precision FMA.
 *
 * Here: the yardsticks that benchmarks divide by. Never here: a kernel; nothing of the package
 * calls this.
 */
#include "measure_memory.h"

#include <string.h>
#include <time.h>

#include "parallel.h"

typedef uint64_t line __attribute__((vector_size(64)));

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PATH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_PATH
#endif

enum { LINE_BYTES = 64, STREAMS = 16, COLUMN_BLOCK_BYTES = 256 * 4 };

/* [first, last) of every row, sixteen rows at once: what a kernel over columns does. */
static EVERY_PATH uint64_t read_streams(const char *const *rows, int64_t count, int64_t first,
                                        int64_t last) {
    line sum = {0};
    for (int64_t group = 0; group < count; group += STREAMS) {
        int64_t end = group + STREAMS < count ? group + STREAMS : count;
        for (int64_t at = first; at + LINE_BYTES <= last; at += LINE_BYTES) {
            for (int64_t row = group; row < end; row++) {
                line value;
                memcpy(&value, rows[row] + at, sizeof value);
                sum ^= value;
            }
        }
    }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

/* The same bytes, 1 KB of one row after 1 KB of another. */
static EVERY_PATH uint64_t read_blocks(const char *const *rows, int64_t count, int64_t first,
                                       int64_t last) {
    line sum = {0}, other = {0};
    for (int64_t block = first; block < last; block += COLUMN_BLOCK_BYTES) {
        int64_t end = block + COLUMN_BLOCK_BYTES < last ? block + COLUMN_BLOCK_BYTES : last;
        for (int64_t row = 0; row < count; row++) {
            int64_t at = block;
            for (; at + 2 * LINE_BYTES <= end; at += 2 * LINE_BYTES) {
                line value, next;
                memcpy(&value, rows[row] + at, sizeof value);
                memcpy(&next, rows[row] + at + LINE_BYTES, sizeof next);
                sum ^= value;
                other ^= next;
            }
            for (; at + LINE_BYTES <= end; at += LINE_BYTES) {
                line value;
                memcpy(&value, rows[row] + at, sizeof value);
                sum ^= value;
            }
        }
    }
    sum ^= other;
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

typedef struct {
    const char *const *rows;
    int64_t count, size, span;
    int blocked;
    uint64_t sum;
} reading;

static void read_span(void *context, size_t index) {
    reading *work = context;
    int64_t first = (int64_t)index * work->span;
    int64_t last = first + work->span < work->size ? first + work->span : work->size;
    uint64_t sum = (work->blocked ? read_blocks : read_streams)(work->rows, work->count, first, last);
    __atomic_fetch_xor(&work->sum, sum, __ATOMIC_RELAXED);
}

uint64_t measure_read(const char *const *rows, int64_t count, int64_t size, int blocked,
                      int threads) {
    int64_t span = (size + threads - 1) / threads;
    reading work = {rows, count, size, (span + 4095) / 4096 * 4096, blocked, 0};
    parallel_spans(read_span, &work, (size_t)((size + work.span - 1) / work.span), threads);
    return work.sum;
}

/* CPU time of this thread: other programs on the machine take none of it. */
static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A chain of additions, each waiting for the one before: one a cycle on every CPU we know. */
double measure_clock_hz(void) {
    enum { ROUNDS = 1 << 20, CHAIN = 8 };
    uint64_t x = 1;
    double start = seconds();
    for (int i = 0; i < ROUNDS; i++) {
#if defined(__x86_64__)
        __asm__ volatile("add %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\t"
                         "add %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\tadd %0, %0"
                         : "+r"(x));
#elif defined(__aarch64__)
        __asm__ volatile("add %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0\n\t"
                         "add %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0"
                         : "+r"(x));
#endif
    }
    return (double)ROUNDS * CHAIN / (seconds() - start);
}

#if defined(__x86_64__)

/* Twelve chains in registers 0 to 11, more than any CPU's latency times throughput. Assembly,
 * because a compiler may keep them in memory. */
#define CHAIN(r, i) "vfmadd231pd %%" #r "12, %%" #r "13, %%" #r #i "\n\t"
#define CHAINS(r)                                                                                  \
    CHAIN(r, 0) CHAIN(r, 1) CHAIN(r, 2) CHAIN(r, 3) CHAIN(r, 4) CHAIN(r, 5) CHAIN(r, 6)            \
    CHAIN(r, 7) CHAIN(r, 8) CHAIN(r, 9) CHAIN(r, 10) CHAIN(r, 11)
#define FMA_PEAK(name, r, lanes)                                                                   \
    static double name(void) {                                                                     \
        enum { ROUNDS = 1 << 19, EACH = 2 * 12 * (lanes) };                                        \
        int64_t left = ROUNDS;                                                                     \
        double start = seconds();                                                                  \
        __asm__ volatile("vzeroall\n1:\n\t" CHAINS(r) "dec %0\n\tjnz 1b\n\tvzeroupper"           \
                         : "+r"(left)                                                              \
                         :                                                                         \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",   \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");  \
        return (double)ROUNDS * EACH / (seconds() - start);                                        \
    }
FMA_PEAK(peak_avx2, ymm, 4)
FMA_PEAK(peak_avx512, zmm, 8)
#undef FMA_PEAK
#undef CHAINS
#undef CHAIN

double measure_fma_peak(void) {
    double best = 0.0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        best = peak_avx2();
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        double wide = peak_avx512();
        best = wide > best ? wide : best;
    }
    return best;
}
#else
double measure_fma_peak(void) { return 0.0; } /* no figure here: the share is then left out */
#endif

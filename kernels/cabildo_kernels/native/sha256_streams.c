/* SHA-256 with the SHA instructions of x86-64, two streams interleaved. */
#include "sha256.h"

#include <string.h>

#include "parallel.h"

static const uint32_t INITIAL[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

void sha256_start(sha256_stream *stream) {
    memcpy(stream->state, INITIAL, sizeof INITIAL);
    stream->size = 0;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

static const uint32_t ROUND[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

int sha256_supported(void) {
    unsigned a, b, c, d;
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (b >> 29 & 1u);
}

/* `width` streams over the same number of blocks. The instructions want the state as ABEF, CDGH. */
#define COMPRESS(name, width)                                                                      \
    static SHA_TARGET void name(sha256_stream *const *streams, const uint8_t *const *data,         \
                                uint64_t blocks) {                                                 \
        const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);               \
        __m128i abef[width], cdgh[width], m[width][4];                                             \
        for (int s = 0; s < width; s++) {                                                          \
            __m128i dcba = _mm_loadu_si128((const __m128i *)streams[s]->state);                    \
            __m128i hgfe = _mm_loadu_si128((const __m128i *)streams[s]->state + 1);                \
            __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);    \
            abef[s] = _mm_alignr_epi8(cdab, efgh, 8);                                              \
            cdgh[s] = _mm_blend_epi16(efgh, cdab, 0xf0);                                           \
        }                                                                                          \
        for (uint64_t block = 0; block < blocks; block++) {                                        \
            __m128i abef_before[width], cdgh_before[width];                                        \
            for (int s = 0; s < width; s++) {                                                      \
                const __m128i *words = (const __m128i *)(data[s] + 64 * block);                    \
                for (int i = 0; i < 4; i++) {                                                      \
                    m[s][i] = _mm_shuffle_epi8(_mm_loadu_si128(words + i), swap);                  \
                }                                                                                  \
                abef_before[s] = abef[s];                                                          \
                cdgh_before[s] = cdgh[s];                                                          \
            }                                                                                      \
            _Pragma("GCC unroll 16") for (int g = 0; g < 16; g++) {                                \
                const __m128i constants = _mm_load_si128((const __m128i *)ROUND + g);              \
                _Pragma("GCC unroll 2") for (int s = 0; s < width; s++) {                          \
                    __m128i *w = m[s];                                                             \
                    __m128i sum = _mm_add_epi32(w[g & 3], constants);                              \
                    cdgh[s] = _mm_sha256rnds2_epu32(cdgh[s], abef[s], sum);                        \
                    sum = _mm_shuffle_epi32(sum, 0x0e);                                            \
                    abef[s] = _mm_sha256rnds2_epu32(abef[s], cdgh[s], sum);                        \
                    if (g < 12) { /* the four words sixteen rounds on */                           \
                        __m128i next = _mm_sha256msg1_epu32(w[g & 3], w[(g + 1) & 3]);             \
                        __m128i seven = _mm_alignr_epi8(w[(g + 3) & 3], w[(g + 2) & 3], 4);        \
                        w[g & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(next, seven),                \
                                                        w[(g + 3) & 3]);                           \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
            for (int s = 0; s < width; s++) {                                                      \
                abef[s] = _mm_add_epi32(abef[s], abef_before[s]);                                  \
                cdgh[s] = _mm_add_epi32(cdgh[s], cdgh_before[s]);                                  \
            }                                                                                      \
        }                                                                                          \
        for (int s = 0; s < width; s++) {                                                          \
            __m128i feba = _mm_shuffle_epi32(abef[s], 0x1b);                                       \
            __m128i dchg = _mm_shuffle_epi32(cdgh[s], 0xb1);                                       \
            _mm_storeu_si128((__m128i *)streams[s]->state, _mm_blend_epi16(feba, dchg, 0xf0));     \
            _mm_storeu_si128((__m128i *)streams[s]->state + 1, _mm_alignr_epi8(dchg, feba, 8));    \
        }                                                                                          \
    }
COMPRESS(compress_one, 1)
COMPRESS(compress_two, 2)
#undef COMPRESS

#else /* another architecture: hashlib is used, nothing calls these */

int sha256_supported(void) { return 0; }
static void compress_one(sha256_stream *const *streams, const uint8_t *const *data,
                         uint64_t blocks) {
    (void)streams, (void)data, (void)blocks;
}
#define compress_two compress_one
#endif

/* Complete and use up the block that an earlier call left unfinished. */
static void join_rest(sha256_feed *feed) {
    sha256_stream *stream = feed->stream;
    uint64_t held = stream->size % 64;
    stream->size += feed->size;
    if (held == 0) {
        return;
    }
    uint64_t taken = feed->size < 64 - held ? feed->size : 64 - held;
    memcpy(stream->rest + held, feed->data, taken);
    feed->data += taken;
    feed->size -= taken;
    if (held + taken == 64) {
        const uint8_t *block = stream->rest;
        compress_one(&stream, &block, 1);
    }
}

static void keep_rest(sha256_feed *feed) { memcpy(feed->stream->rest, feed->data, feed->size); }

static void advance(sha256_feed *feed, uint64_t blocks) {
    feed->data += 64 * blocks;
    feed->size -= 64 * blocks;
}

/* Every `step`-th feed from `first` on: two are under way, and the next one replaces the one that
 * ends. */
static void update_some(sha256_feed *feeds, int64_t count, int64_t first, int64_t step) {
    sha256_feed *pair[2];
    int active = 0;
    int64_t next = first;
    for (;;) {
        for (; active < 2 && next < count; next += step) {
            join_rest(&feeds[next]);
            if (feeds[next].size >= 64) {
                pair[active++] = &feeds[next];
            } else if (feeds[next].size > 0) {
                keep_rest(&feeds[next]);
            }
        }
        if (active == 0) {
            return;
        }
        uint64_t blocks = pair[0]->size / 64;
        if (active == 2 && pair[1]->size / 64 < blocks) {
            blocks = pair[1]->size / 64;
        }
        sha256_stream *streams[2] = {pair[0]->stream, pair[active - 1]->stream};
        const uint8_t *data[2] = {pair[0]->data, pair[active - 1]->data};
        (active == 2 ? compress_two : compress_one)(streams, data, blocks);
        int left = 0;
        for (int i = 0; i < active; i++) {
            advance(pair[i], blocks);
            if (pair[i]->size >= 64) {
                pair[left++] = pair[i];
            } else {
                keep_rest(pair[i]);
            }
        }
        active = left;
    }
}

void sha256_update(sha256_feed *feeds, int64_t count) { update_some(feeds, count, 0, 1); }

typedef struct {
    sha256_feed *feeds;
    int64_t count, step;
} shared_feeds;

static void update_share(void *context, size_t index) {
    shared_feeds *shared = context;
    update_some(shared->feeds, shared->count, (int64_t)index, shared->step);
}

void sha256_update_threads(sha256_feed *feeds, int64_t count, int threads) {
    shared_feeds shared = {feeds, count, threads < 1 ? 1 : threads};
    parallel_spans(update_share, &shared, (size_t)shared.step, (int)shared.step);
}

void sha256_digest(const sha256_stream *stream, uint8_t digest[32]) {
    sha256_stream last = *stream, *only = &last;
    uint8_t tail[128] = {0};
    uint64_t held = stream->size % 64, bits = stream->size * 8;
    uint64_t blocks = held < 56 ? 1 : 2;
    memcpy(tail, stream->rest, held);
    tail[held] = 0x80;
    for (int i = 0; i < 8; i++) {
        tail[64 * blocks - 1 - (uint64_t)i] = (uint8_t)(bits >> (8 * i));
    }
    const uint8_t *data = tail;
    compress_one(&only, &data, blocks);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 4; j++) {
            digest[4 * i + j] = (uint8_t)(last.state[i] >> (24 - 8 * j));
        }
    }
}

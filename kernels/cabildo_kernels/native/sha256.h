/* SHA-256 of several streams at once (FIPS 180-4).
 *
 * Here: the state of a stream and feeding many of them. Never here: a portable implementation;
 * where the CPU has no SHA instructions, Python's hashlib does the work.
 */
#ifndef CABILDO_SHA256_H
#define CABILDO_SHA256_H

#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t size; /* bytes fed so far */
    uint8_t rest[64];
} sha256_stream;

typedef struct {
    sha256_stream *stream;
    const uint8_t *data;
    uint64_t size;
} sha256_feed;

int sha256_supported(void);
void sha256_start(sha256_stream *stream);
/* Feed every stream its data, two streams side by side: one round instruction waits for the one
 * before it in the same stream, so a second stream costs next to nothing. */
void sha256_update(sha256_feed *feeds, int64_t count);
void sha256_digest(const sha256_stream *stream, uint8_t digest[32]);
/* sha256_update on several threads; the feeds are dealt out in turn. */
void sha256_update_threads(sha256_feed *feeds, int64_t count, int threads);

#endif

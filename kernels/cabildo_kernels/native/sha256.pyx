"""SHA-256 of several streams at once.

Here: the stream object and buffers to pointers, the GIL released. Never here: the choice between
this and hashlib; that is `cabildo_kernels.digests`.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc


cdef extern from "sha256.h":
    ctypedef struct sha256_stream:
        pass
    ctypedef struct sha256_feed:
        sha256_stream *stream
        const uint8_t *data
        uint64_t size

    int sha256_supported() nogil
    void sha256_start(sha256_stream *stream) nogil
    void sha256_update_threads(sha256_feed *feeds, int64_t count, int threads) nogil
    void sha256_digest(const sha256_stream *stream, uint8_t *digest) nogil


# Asked once: on a virtual machine each question stops the CPU and goes to the host.
cdef bint HAS_INSTRUCTIONS = sha256_supported() != 0


def supported() -> bool:
    """Return whether this CPU has the SHA instructions; without them nothing here may be called."""
    return HAS_INSTRUCTIONS


cdef class Sha256:
    """One stream; the methods are hashlib's. It has no lock: one thread at a time may use it."""

    cdef sha256_stream stream

    digest_size = 32
    block_size = 64
    name = "sha256"

    def __cinit__(self):
        sha256_start(&self.stream)

    def update(self, data) -> None:
        """Feed bytes."""
        update_many((self,), (data,), threads=1)

    def digest(self) -> bytes:
        """Return the digest of what was fed so far."""
        cdef uint8_t result[32]
        sha256_digest(&self.stream, result)
        return result[:32]

    def hexdigest(self) -> str:
        """Return the digest as hexadecimal text."""
        return self.digest().hex()

    def copy(self) -> Sha256:
        """Return a stream that goes on from here on its own."""
        cdef Sha256 other = Sha256()
        other.stream = self.stream
        return other


def update_many(streams, buffers, *, int threads) -> None:
    """Feed every stream its buffer. The streams are distinct objects of this module."""
    # Ours while the lock is released: another thread may empty the caller's lists.
    streams, buffers = tuple(streams), tuple(buffers)
    cdef int64_t count = len(streams), held = 0, i
    if len(buffers) != count:
        raise ValueError("a buffer for each stream")
    cdef sha256_feed *feeds = <sha256_feed *> malloc(max(count, 1) * sizeof(sha256_feed))
    cdef Py_buffer *views = <Py_buffer *> malloc(max(count, 1) * sizeof(Py_buffer))
    try:
        if feeds == NULL or views == NULL:
            raise MemoryError
        for i in range(count):
            PyObject_GetBuffer(buffers[i], &views[i], PyBUF_SIMPLE)
            held += 1
            feeds[i].stream = &(<Sha256?> streams[i]).stream
            feeds[i].data = <const uint8_t *> views[i].buf
            feeds[i].size = <uint64_t> views[i].len
        with nogil:
            sha256_update_threads(feeds, count, threads)
    finally:
        for i in range(held):
            PyBuffer_Release(&views[i])
        free(feeds)
        free(views)

"""Calls into the softmax family's C code.

Here: buffers to pointers, the GIL released. Never here: checks of shapes or types (the callers
have done them: every array is C-contiguous but for the leading strides of attention), choices.
"""

from cpython.buffer cimport (
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int64_t


cdef extern from "softmax.h":
    ctypedef struct attention_strides:
        int64_t batch, head, row

    ctypedef struct attention_shape:
        int64_t query_heads, key_heads, queries, keys, features
        float scale
        int causal
        attention_strides q, k, v, out

    enum:
        OUT_OF_MEMORY
    int64_t run_sparse_softmax(
        int path, int threads, const float *data, const int64_t *indptr, int64_t rows, float *out
    ) nogil
    int64_t run_moe_topk(
        int path, int threads, const float *logits, int64_t rows, int64_t experts, int64_t k,
        int renormalise, float *weights, int64_t *indices
    ) nogil
    int64_t run_attention(
        int path, int threads, int decode, const float *q, const float *k, const float *v,
        float *out, const attention_shape *shape, int64_t batches
    ) nogil
    void run_small_matmul(
        int path, const float *a, const float *b, float *out, int64_t m, int64_t k, int64_t n
    ) nogil
    void run_exponentials(int path, const float *t, float *out, int64_t size) nogil


cdef class _Buffer:
    """An array's memory, held while this lives."""

    cdef Py_buffer view

    def __cinit__(self, array, bint writable=False):
        PyObject_GetBuffer(array, &self.view, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef int64_t size(self, int axis) noexcept:
        return self.view.shape[axis]

    cdef attention_strides strides(self) noexcept:
        return attention_strides(
            self.view.strides[0] // 4, self.view.strides[1] // 4, self.view.strides[2] // 4
        )


cdef bint _no_bad_row(int64_t result) except -1:
    if result == OUT_OF_MEMORY:
        raise MemoryError("no memory for a thread's scratch space")
    return result == 0


def sparse_softmax(data, indptr, out, *, int path, int threads) -> bool:
    """Write the softmax of CSR rows to `out`; False where a row holds NaN or +inf."""
    cdef _Buffer values = _Buffer(data), rows = _Buffer(indptr), result = _Buffer(out, True)
    cdef int64_t bad
    with nogil:
        bad = run_sparse_softmax(
            path, threads, <const float *> values.view.buf, <const int64_t *> rows.view.buf,
            rows.view.shape[0] - 1, <float *> result.view.buf,
        )
    return _no_bad_row(bad)


def moe_topk(logits, weights, indices, *, bint renormalise, int path, int threads) -> bool:
    """Write the best experts and their weights; False where a row cannot have them."""
    cdef _Buffer values = _Buffer(logits), best = _Buffer(weights, True)
    cdef _Buffer chosen = _Buffer(indices, True)
    cdef int64_t bad
    with nogil:
        bad = run_moe_topk(
            path, threads, <const float *> values.view.buf, values.view.shape[0],
            values.view.shape[1], best.view.shape[1], renormalise, <float *> best.view.buf,
            <int64_t *> chosen.view.buf,
        )
    return _no_bad_row(bad)


def attention(q, k, v, out, *, float scale, bint causal, bint decode, int path,
              int threads) -> bool:
    """Write softmax(q k' scale) v to `out`; False where a result is not finite."""
    cdef _Buffer a = _Buffer(q), b = _Buffer(k), c = _Buffer(v), d = _Buffer(out, True)
    cdef attention_shape shape
    cdef int64_t bad
    shape.query_heads, shape.key_heads = a.size(1), b.size(1)
    shape.queries, shape.keys, shape.features = a.size(2), b.size(2), a.size(3)
    shape.scale, shape.causal = scale, causal
    shape.q, shape.k, shape.v, shape.out = a.strides(), b.strides(), c.strides(), d.strides()
    with nogil:
        bad = run_attention(
            path, threads, decode, <const float *> a.view.buf, <const float *> b.view.buf,
            <const float *> c.view.buf, <float *> d.view.buf, &shape, a.view.shape[0],
        )
    return _no_bad_row(bad)


def small_matmul(a, b, out, *, int path) -> None:
    """Write a @ b to `out`; inner and last size at most 16."""
    cdef _Buffer x = _Buffer(a), y = _Buffer(b), z = _Buffer(out, True)
    run_small_matmul(
        path, <const float *> x.view.buf, <const float *> y.view.buf, <float *> z.view.buf,
        x.view.shape[0], x.view.shape[1], y.view.shape[1],
    )


def exponentials(t, out, *, int path) -> None:
    """Write exp(t) to `out`, for t <= 0: what the tests measure the error on."""
    cdef _Buffer x = _Buffer(t), y = _Buffer(out, True)
    run_exponentials(path, <const float *> x.view.buf, <float *> y.view.buf, x.view.shape[0])

"""Calls into the softmax family's C code.

Here: buffers to pointers, the GIL released. Never here: checks of shapes or types (the callers
have done them, but for attention and tiny products, which answer None to what they do not take).
"""

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int64_t

from numpy import empty, float32

cdef enum:
    TINY = 16  # products.OWN_AXIS


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
    float attention_scale(const double *given, int64_t features) nogil
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
        cdef int flags = PyBUF_STRIDES | PyBUF_FORMAT
        PyObject_GetBuffer(array, &self.view, flags | (PyBUF_WRITABLE if writable else 0))

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


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


cdef bint _in_place(Py_buffer *view) noexcept:
    """Four axes of float32 whose last one has no gaps."""
    return (
        view.ndim == 4
        and view.format[0] == b"f"
        and view.format[1] == 0
        and view.strides[3] == 4
        and (view.strides[0] | view.strides[1] | view.strides[2]) % 4 == 0
        and <size_t> view.buf % 4 == 0
    )


cdef bint _fit(Py_buffer *q, Py_buffer *k, Py_buffer *v, bint causal) noexcept:
    return (
        _in_place(q)
        and _in_place(k)
        and _in_place(v)
        and k.shape[0] == v.shape[0] == q.shape[0]
        and k.shape[1] == v.shape[1] > 0
        and q.shape[1] % k.shape[1] == 0
        and k.shape[2] == v.shape[2] > 0
        and k.shape[3] == v.shape[3] == q.shape[3] > 0
        and (not causal or q.shape[2] == 1 or q.shape[2] == k.shape[2])
    )


cdef attention_strides _strides(Py_buffer *view) noexcept:
    return attention_strides(
        view.strides[0] // 4, view.strides[1] // 4, view.strides[2] // 4
    )


def attention(q, k, v, *, scale, bint causal, bint decode, int path, int threads):
    """Return softmax(q k' scale) v, or None where it is not to be had so.

    None: arguments that are no float32 arrays [batch, heads, sequence, features] that fit each
    other, or a result that is not finite. The caller then looks closer.
    """
    cdef _Buffer a, b, c, d
    cdef attention_shape shape
    cdef double given
    cdef int64_t bad
    try:
        a, b, c = _Buffer(q), _Buffer(k), _Buffer(v)
    except (BufferError, ValueError):  # dates have no buffer
        return None
    if not _fit(&a.view, &b.view, &c.view, causal):
        return None
    out = empty((a.view.shape[0], a.view.shape[1], a.view.shape[2], a.view.shape[3]), float32)
    d = _Buffer(out, True)
    shape.query_heads, shape.key_heads = a.view.shape[1], b.view.shape[1]
    shape.queries, shape.keys, shape.features = a.view.shape[2], b.view.shape[2], a.view.shape[3]
    if scale is not None:
        given = scale
    shape.scale = attention_scale(NULL if scale is None else &given, shape.features)
    # The one query is the last of the sequence: it sees every key.
    shape.causal = causal and shape.queries > 1
    shape.q, shape.k = _strides(&a.view), _strides(&b.view)
    shape.v, shape.out = _strides(&c.view), _strides(&d.view)
    with nogil:
        bad = run_attention(
            path, threads, decode, <const float *> a.view.buf, <const float *> b.view.buf,
            <const float *> c.view.buf, <float *> d.view.buf, &shape, a.view.shape[0],
        )
    return out if _no_bad_row(bad) else None


def exponentials(t, out, *, int path) -> None:
    """Write exp(t) to `out`, for t <= 0: what the tests measure the error on."""
    cdef _Buffer x = _Buffer(t), y = _Buffer(out, True)
    run_exponentials(path, <const float *> x.view.buf, <float *> y.view.buf, x.view.shape[0])


cdef bint _tiny(Py_buffer *view) noexcept:
    return (
        view.ndim == 2
        and view.format[0] == b"f"
        and view.format[1] == 0
        and 0 < view.shape[0] <= TINY
        and 0 < view.shape[1] <= TINY
        and view.strides[1] == 4
        and view.strides[0] == 4 * view.shape[1]
        and <size_t> view.buf % 4 == 0
    )


def tiny_matmul(a, b, *, int path):
    """Return a @ b where both are contiguous float32 matrices of at most TINY by TINY, else None."""
    cdef Py_buffer x, y, z
    cdef object out = None
    try:
        PyObject_GetBuffer(a, &x, PyBUF_STRIDES | PyBUF_FORMAT)
    except (BufferError, ValueError):  # a type that no buffer has, as dates
        return None
    try:
        PyObject_GetBuffer(b, &y, PyBUF_STRIDES | PyBUF_FORMAT)
    except (BufferError, ValueError):
        PyBuffer_Release(&x)
        return None
    if _tiny(&x) and _tiny(&y) and x.shape[1] == y.shape[0]:
        out = empty((x.shape[0], y.shape[1]), float32)
        PyObject_GetBuffer(out, &z, PyBUF_SIMPLE | PyBUF_WRITABLE)
        run_small_matmul(
            path, <const float *> x.buf, <const float *> y.buf, <float *> z.buf,
            x.shape[0], x.shape[1], y.shape[1],
        )
        PyBuffer_Release(&z)
    PyBuffer_Release(&y)
    PyBuffer_Release(&x)
    return out

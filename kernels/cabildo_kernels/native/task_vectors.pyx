"""Task vectors in C: pointers in, counts and bits out.

Here: buffers to pointers, the GIL released. The arguments were checked by
`cabildo_kernels.task_vectors`; what is checked again is what would read or write past a buffer.
"""

import numpy as np

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t, uintptr_t

cdef extern from "task_vectors.h":
    ctypedef struct tv_pair:
        const void *row
        int kind
        const void *base
        int base_kind

    ctypedef struct tv_combination:
        int n
        int64_t start
        const void *const *rows
        const int *kinds
        const void *base
        int base_kind
        const double *weights
        const double *votes
        const uint32_t *keep_bits
        const int64_t *keep_stop
        const uint32_t *drop_bits
        const int64_t *drop_stop
        const double *const *factors
        const uint8_t *columns
        int elect
        int normalise
        double scale
        void *out
        int out_kind

    enum:
        TV_HIGH_BINS
        TV_LOW_BINS
    int tv_histogram(int path, const tv_pair *pair, int64_t size, int64_t prefix,
                     uint64_t *counts) nogil
    int64_t tv_find(int path, const tv_pair *pair, int64_t size, uint32_t bits, int64_t nth,
                    int64_t *seen) nogil
    void tv_combine(int path, const tv_combination *job, int64_t size, int threads,
                    uint64_t *bad_rows, int *bad_base) nogil


cdef enum:
    ROWS_MOST = 64


cdef int check_size(array, int kind, int64_t size) except -1:
    """Elements of 4, 2 or 8 bytes: TV_F32, TV_BF16 or TV_F64."""
    if kind not in (0, 1, 2) or array.nbytes != size * (4, 2, 8)[kind]:
        raise ValueError("an array has another size or type")
    return 0


cdef void *address(array):
    return <void *><uintptr_t>(0 if array is None else array.ctypes.data)


cdef tv_pair pair_of(row, int kind, base, int base_kind) except *:
    cdef tv_pair pair
    check_size(row, kind, row.size)
    if base is not None:
        check_size(base, base_kind, row.size)
    pair.row = address(row)
    pair.kind = kind
    pair.base = address(base)
    pair.base_kind = base_kind
    return pair


def histogram(row, int kind, base, int base_kind, int64_t prefix, uint64_t[::1] counts, int path):
    """Add the magnitudes' leading bits (prefix < 0) or the low bits after `prefix` to `counts`."""
    cdef tv_pair pair = pair_of(row, kind, base, base_kind)
    cdef int64_t size = row.size
    cdef int failed
    if counts.shape[0] != (TV_HIGH_BINS if prefix < 0 else TV_LOW_BINS):
        raise ValueError("a count for each bin")
    with nogil:
        failed = tv_histogram(path, &pair, size, prefix, &counts[0])
    if failed:
        raise MemoryError("no memory for the tables of counts")


def find(row, int kind, base, int base_kind, uint32_t bits, int64_t nth, int path):
    """Return (index of the nth magnitude equal to `bits` or -1, how many there were before it)."""
    cdef tv_pair pair = pair_of(row, kind, base, base_kind)
    cdef int64_t size = row.size, seen = 0, index
    with nogil:
        index = tv_find(path, &pair, size, bits, nth, &seen)
    return index, seen


def combine(rows, kinds, base, int base_kind, int64_t start, const double[::1] weights,
            const double[::1] votes, bounds, factors, columns, int elect, bint normalise,
            double scale, out, int out_kind, int path, int threads):
    """Fill `out`; return (bit mask of the rows that are not finite, whether the base is not)."""
    cdef const uint32_t[::1] keep_bits = bounds[0]
    cdef const int64_t[::1] keep_stop = bounds[1]
    cdef const uint32_t[::1] drop_bits = bounds[2]
    cdef const int64_t[::1] drop_stop = bounds[3]
    cdef uintptr_t[::1] row_pointers = np.array([row.ctypes.data for row in rows], dtype=np.uintp)
    cdef int[::1] row_kinds = np.array(kinds, dtype=np.intc)
    cdef uintptr_t[::1] factor_pointers = np.zeros(len(rows), dtype=np.uintp)
    cdef tv_combination job
    cdef int64_t size = out.size
    cdef uint64_t bad_rows = 0
    cdef int bad_base = 0
    if not 1 <= len(rows) <= ROWS_MOST:
        raise ValueError("between 1 and 64 rows")
    if not (len(kinds) == len(rows) == weights.shape[0] == votes.shape[0] == keep_bits.shape[0]
            == keep_stop.shape[0] == drop_bits.shape[0] == drop_stop.shape[0]):
        raise ValueError("a kind, weight, vote and bound for each row")
    for row, kind in zip(rows, kinds):
        check_size(row, kind, size)
    check_size(base, base_kind, size)
    check_size(out, out_kind, size)
    if columns is not None and columns.nbytes != size:
        raise ValueError("a byte of the mask for each column")
    if factors is not None:
        if len(factors) != len(rows):
            raise ValueError("factors for each row")
        for row, factor in enumerate(factors):
            if factor is not None:
                check_size(factor, 2, size)
            factor_pointers[row] = 0 if factor is None else factor.ctypes.data
    job.n = len(rows)
    job.start = start
    job.rows = <const void *const *>&row_pointers[0]
    job.kinds = &row_kinds[0]
    job.base = address(base)
    job.base_kind = base_kind
    job.weights, job.votes = &weights[0], &votes[0]
    job.keep_bits, job.keep_stop = &keep_bits[0], &keep_stop[0]
    job.drop_bits, job.drop_stop = &drop_bits[0], &drop_stop[0]
    job.factors = NULL
    if factors is not None:
        job.factors = <const double *const *>&factor_pointers[0]
    job.columns = <const uint8_t *>address(columns)
    job.elect, job.normalise, job.scale = elect, normalise, scale
    job.out = address(out)
    job.out_kind = out_kind
    with nogil:
        tv_combine(path, &job, size, threads, &bad_rows, &bad_base)
    return bad_rows, bool(bad_base)

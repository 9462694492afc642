"""The compiled paths of many small eigenvalue problems: buffers to addresses, lots to threads.

Here: filling in `struct eigen_task` and running it without the GIL. The arguments were checked by
`cabildo_kernels.linear_algebra`; what is checked again is what would read or write past a buffer.
"""

from libc.stdint cimport int16_t
from libc.string cimport memset


cdef extern from "linear_algebra.h" nogil:
    enum: AT_ONCE
    ctypedef struct eigen_task "struct eigen_task":
        size_t count
        int size
        int sweeps
        const double *matrices
        const double *gram
        const int16_t *subsets
        int n
        double *values
        double *vectors
        int failed
    ctypedef void (*eigen_path)(eigen_task *, size_t) noexcept nogil
    const eigen_path eigen_baseline, eigen_avx2, eigen_avx512, eigen_neon


cdef extern from "parallel.h" nogil:
    ctypedef void (*span_function)(void *, size_t) noexcept nogil
    void parallel_spans(span_function run, void *context, size_t count, int threads)


cdef struct Work:
    eigen_task task
    eigen_path path


cdef void run_lot(void *context, size_t index) noexcept nogil:
    cdef Work *work = <Work *>context
    work.path(&work.task, index)


cdef eigen_path compiled_path(int index) except *:
    cdef eigen_path path = NULL
    if index == 0:
        path = eigen_baseline
    elif index == 1:
        path = eigen_avx2
    elif index == 2:
        path = eigen_avx512
    elif index == 3:
        path = eigen_neon
    if path == NULL:
        raise ValueError(f"path {index} is not in this build")
    return path


cdef bint solve(Work *work, int threads) except -1:
    with nogil:
        parallel_spans(run_lot, work, (work.task.count + AT_ONCE - 1) // AT_ONCE, threads)
    if work.task.failed == 2:
        raise MemoryError("no memory for eigenvalues")
    return work.task.failed == 0


def eigen(int path, const double[:, :, ::1] matrices, double[:, ::1] values,
          double[:, :, ::1] vectors=None, *, int sweeps, int threads=1):
    """Write the eigenvalues and, where asked for, the vectors; return whether all converged."""
    cdef Work work
    cdef Py_ssize_t count = matrices.shape[0], size = matrices.shape[1]
    if matrices.shape[2] != size or values.shape[0] != count or values.shape[1] != size:
        raise ValueError("square matrices, a value for each row")
    if vectors is not None and (vectors.shape[0] != count or vectors.shape[1] != size
                                or vectors.shape[2] != size):
        raise ValueError("vectors as the matrices")
    if count == 0 or size == 0:
        return True
    memset(&work, 0, sizeof(work))
    work.path = compiled_path(path)
    work.task.count = <size_t>count
    work.task.size = <int>size
    work.task.sweeps = sweeps
    work.task.matrices = &matrices[0, 0, 0]
    work.task.values = &values[0, 0]
    if vectors is not None:
        work.task.vectors = &vectors[0, 0, 0]
    return bool(solve(&work, threads))


def top_of_subsets(int path, const double[:, ::1] gram, const int16_t[:, ::1] subsets,
                   double[::1] values, *, int sweeps, int threads=1):
    """Write the largest covariance eigenvalue of each subset; return whether all converged."""
    cdef Work work
    cdef Py_ssize_t count = subsets.shape[0], size = subsets.shape[1], i, j
    if gram.shape[0] != gram.shape[1] or values.shape[0] != count:
        raise ValueError("a square matrix, a value for each subset")
    if count == 0 or size == 0:
        return True
    for i in range(count):
        for j in range(size):
            if not 0 <= subsets[i, j] < gram.shape[0]:
                raise ValueError("a subset names a row that is not there")
    memset(&work, 0, sizeof(work))
    work.path = compiled_path(path)
    work.task.count = <size_t>count
    work.task.size = <int>size
    work.task.sweeps = sweeps
    work.task.gram = &gram[0, 0]
    work.task.subsets = &subsets[0, 0]
    work.task.n = <int>gram.shape[0]
    work.task.values = &values[0]
    return bool(solve(&work, threads))

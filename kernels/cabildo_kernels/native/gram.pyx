"""The Gram matrix' compiled paths: buffers to addresses, superblocks to threads.

Here: filling in `struct gram_task` and running it without the GIL. The arguments were checked by
`cabildo_kernels.gram_matrix`; what is checked again is what would read or write past a buffer.
"""

from cpython.buffer cimport PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memset


cdef extern from "gram.h" nogil:
    enum: GRAM_MOST_ROWS
    enum: GRAM_SUPERBLOCK
    ctypedef struct gram_vector "struct gram_vector":
        const char *data
        int type
    ctypedef struct gram_task "struct gram_task":
        int rows
        size_t columns
        gram_vector *row
        gram_vector base
        gram_vector vector
        size_t first
        double *sums
    ctypedef void (*gram_path)(const gram_task *, size_t, void *) noexcept nogil
    const gram_path gram_baseline, gram_avx2, gram_avx512, gram_avx512_halves, gram_neon


cdef extern from "gram_run.h" nogil:
    int gram_halves_preferred()
    int gram_run(const gram_task *task, gram_path path, size_t count, int threads)
    void gram_add(double *total, const double *sums, size_t count, size_t size)


# The AVX-512 path has two bodies, at 512 and at 256 bits; index 2 takes what suits this CPU, and
# these take one of them.
WIDE = 4
NARROW = 5
cdef bint HALVES = gram_halves_preferred()


cdef gram_path compiled_path(int index) except *:
    cdef gram_path path = NULL
    if index == 0:
        path = gram_baseline
    elif index == 1:
        path = gram_avx2
    elif index == 2:
        path = gram_avx512_halves if HALVES else gram_avx512
    elif index == 3:
        path = gram_neon
    elif index == 4:
        path = gram_avx512
    elif index == 5:
        path = gram_avx512_halves
    if path == NULL:
        raise ValueError(f"path {index} is not in this build")
    return path


cdef int take(object array, int type, Py_ssize_t columns, Py_buffer *buffer,
              gram_vector *vector) except -1:
    PyObject_GetBuffer(array, buffer, PyBUF_ND)
    if buffer.len != columns * (4 if type == 0 else 2):
        PyBuffer_Release(buffer)
        raise ValueError("rows, base and vector of one length")
    vector.data = <const char *>buffer.buf
    vector.type = type
    return 0


def run(int path, tuple rows, bytes types, Py_ssize_t columns, Py_ssize_t first,
        double[::1] sums, *, object base=None, int base_type=0, object vector=None,
        int vector_type=0, int threads=1):
    """Write the sums of superblocks first, first + 1, ... : as many as `sums` has room for.

    `sums` holds n * n numbers a superblock, or n where there is a `vector`.
    """
    cdef gram_task task
    cdef gram_path function = compiled_path(path)
    cdef Py_buffer buffers[GRAM_MOST_ROWS + 2]
    cdef int held = 0, i, failed = 0, n = <int>len(rows)
    cdef Py_ssize_t count
    if not 1 <= n <= GRAM_MOST_ROWS or len(types) != n:
        raise ValueError("between 1 and 64 rows, a type for each")
    count = sums.shape[0] // (n if vector is not None else n * n)
    if first < 0 or (first + count) > (columns + GRAM_SUPERBLOCK - 1) // GRAM_SUPERBLOCK:
        raise ValueError("superblocks that are not there")
    if count == 0:
        return
    memset(&task, 0, sizeof(task))
    task.rows = n
    task.columns = <size_t>columns
    task.first = <size_t>first
    task.sums = &sums[0]
    try:
        for i in range(n):
            take(rows[i], types[i], columns, &buffers[held], &task.row[i])
            held += 1
        if base is not None:
            take(base, base_type, columns, &buffers[held], &task.base)
            held += 1
        if vector is not None:
            take(vector, vector_type, columns, &buffers[held], &task.vector)
            held += 1
        with nogil:
            failed = gram_run(&task, function, <size_t>count, threads)
    finally:
        for i in range(held):
            PyBuffer_Release(&buffers[i])
    if failed:
        raise MemoryError("no memory for the workspaces of the Gram matrix")


def add(double[::1] total, double[::1] sums):
    """Add `sums`, superblock after superblock, to `total` in place: as fallback.gram.added."""
    cdef size_t size = <size_t>total.shape[0], count
    if size == 0 or sums.shape[0] % size:
        raise ValueError("sums of whole superblocks, each as large as the total")
    count = <size_t>sums.shape[0] // size
    if count == 0:
        return
    with nogil:
        gram_add(&total[0], &sums[0], count, size)

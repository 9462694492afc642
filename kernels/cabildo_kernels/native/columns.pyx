"""The column rules' compiled paths: buffers to addresses, superblocks to threads.

Here: filling in `struct columns_task` and running it without the GIL. The arguments were checked by
`cabildo_kernels.columns`; what is checked again is what would read or write past a buffer.
"""

from cpython.buffer cimport (
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport uint8_t
from libc.string cimport memset


cdef extern from "columns.h" nogil:
    enum: ROWS_MOST
    enum: SUPERBLOCK
    ctypedef enum element_type "enum element_type":
        F32
    ctypedef enum column_rule "enum column_rule":
        MEDIAN
    ctypedef struct columns_task "struct columns_task":
        column_rule rule
        int rows
        int all_f32
        size_t columns
        const void **row
        uint8_t *type
        int trim
        int keep
        int outputs
        const double *weights
        double divisor
        void *out
        element_type out_type
        int suspect
    ctypedef void (*columns_path)(columns_task *, size_t, size_t) noexcept nogil
    const columns_path columns_baseline, columns_avx2, columns_avx512, columns_neon


cdef extern from "parallel.h" nogil:
    ctypedef void (*span_function)(void *, size_t) noexcept nogil
    void parallel_spans(span_function run, void *context, size_t count, int threads)


cdef struct Work:
    columns_task task
    columns_path path


cdef void run_superblock(void *context, size_t index) noexcept nogil:
    cdef Work *work = <Work *>context
    cdef size_t begin = index * SUPERBLOCK
    cdef size_t end = min(begin + SUPERBLOCK, work.task.columns)
    work.path(&work.task, begin, end)


cdef columns_path compiled_path(int index) except *:
    cdef columns_path path = NULL
    if index == 0:
        path = columns_baseline
    elif index == 1:
        path = columns_avx2
    elif index == 2:
        path = columns_avx512
    elif index == 3:
        path = columns_neon
    if path == NULL:
        raise ValueError(f"path {index} is not in this build")
    return path


def run(int path, int rule, tuple rows, bytes types, Py_ssize_t columns, out, int out_type, *,
        int threads=1, int trim=0, int keep=0, const double[:, ::1] weights=None,
        double divisor=1.0):
    """Run one rule over all columns; return whether a sum over a column was not finite."""
    cdef Work work
    cdef Py_buffer buffers[ROWS_MOST + 1]
    cdef int held = 0
    cdef int i
    cdef Py_ssize_t width
    if not 1 <= len(rows) <= ROWS_MOST or len(types) != len(rows):
        raise ValueError("between 1 and 64 rows, a type for each")
    memset(&work, 0, sizeof(work))
    work.path = compiled_path(path)
    work.task.rule = <column_rule>rule
    work.task.rows = <int>len(rows)
    work.task.all_f32 = not any(types)
    work.task.columns = <size_t>columns
    work.task.trim = trim
    work.task.keep = keep
    work.task.outputs = 1
    work.task.divisor = divisor
    work.task.out_type = <element_type>out_type
    if weights is not None:
        if weights.shape[1] != len(rows) or not 1 <= weights.shape[0] <= ROWS_MOST:
            raise ValueError("a weight for each row")
        work.task.outputs = <int>weights.shape[0]
        work.task.weights = &weights[0, 0]
    try:
        for i in range(work.task.rows):
            PyObject_GetBuffer(rows[i], &buffers[i], PyBUF_ND)
            held += 1
            width = 2 if types[i] else 4
            if buffers[i].len != columns * width:
                raise ValueError("rows of one length")
            work.task.row[i] = buffers[i].buf
            work.task.type[i] = types[i]
        PyObject_GetBuffer(out, &buffers[held], PyBUF_ND | PyBUF_WRITABLE)
        held += 1
        width = 2 if out_type else 4
        if buffers[held - 1].len != columns * width * work.task.outputs:
            raise ValueError("the output has another size")
        work.task.out = buffers[held - 1].buf
        with nogil:
            parallel_spans(
                run_superblock,
                &work,
                (work.task.columns + SUPERBLOCK - 1) // SUPERBLOCK,
                threads,
            )
    finally:
        for i in range(held):
            PyBuffer_Release(&buffers[i])
    return work.task.suspect != 0

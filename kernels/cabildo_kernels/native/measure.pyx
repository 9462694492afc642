"""Yardsticks for benchmarks: reading memory, clock rate, peak of double-precision FMA.

Never here: a kernel; nothing of the package calls this.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t


cdef extern from "measure_memory.h":
    uint64_t measure_read(
        const char **rows, int64_t count, int64_t size, int blocked, int threads
    ) nogil
    double measure_clock_hz() nogil
    double measure_fma_peak() nogil


def read(rows, *, bint blocked, int threads) -> int:
    """Read rows of equal size once: 16 of them at a time, or 256 columns after 256 columns."""
    cdef const char *pointers[64]
    cdef Py_buffer views[64]
    cdef int64_t size = 0, count = 0
    cdef uint64_t result
    try:
        for row in rows[:64]:
            PyObject_GetBuffer(row, &views[count], PyBUF_SIMPLE)
            pointers[count] = <const char *> views[count].buf
            size = views[count].len if count == 0 else min(size, views[count].len)
            count += 1
        with nogil:
            result = measure_read(pointers, count, size, blocked, threads)
    finally:
        for i in range(count):
            PyBuffer_Release(&views[i])
    return result


def clock_hz() -> float:
    """Return the clock rate of this core now."""
    return measure_clock_hz()


def fma_peak() -> float:
    """Return double-precision operations a second of one core, 0 where it is not known."""
    return measure_fma_peak()

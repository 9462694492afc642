"""IEEE defaults around NumPy's work: a library in the process may have switched denormals off.

Here: setting and restoring the calling thread's floating-point environment through the C library.
NumPy's elementwise operations run in the calling thread, so this reaches all of them. Never here:
arithmetic beyond the one product that shows whether denormals are kept.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from cabildo_kernels.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

# FE_DFL_ENV of glibc and musl; fenv_t is 32 bytes at most there.
DEFAULT_ENVIRONMENT: Final = ctypes.c_void_p(-1)
ENVIRONMENT_BYTES: Final = 256


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "fesetenv"):
        return None
    library.fesetenv.argtypes = [ctypes.c_void_p]
    library.fegetenv.argtypes = [ctypes.c_void_p]
    return library


def denormals_kept() -> bool:
    """Return whether this thread's arithmetic keeps denormal operands and results."""
    least = np.array([2.0**-1022, 2.0**-1074])
    return bool((least * np.array([0.5, 2.0]) != 0.0).all())


@contextmanager
def default_environment() -> Iterator[None]:
    """Round to nearest and keep denormals within the block; the caller's environment afterwards.

    Where the C library cannot set the environment, the caller's rounding mode stays in force.

    Raises:
        KernelError: Denormals are flushed in this thread, and the C library cannot switch that off.
    """
    library = _library()
    saved = ctypes.create_string_buffer(ENVIRONMENT_BYTES)
    if library is not None:
        library.fegetenv(saved)
    try:  # also around the change: a signal's exception may come right after it
        if library is not None:
            library.fesetenv(DEFAULT_ENVIRONMENT)
        if not denormals_kept():
            raise KernelError(
                "denormals are flushed to zero in this thread, which changes results: unload the"
                " library that does it (one linked with -ffast-math), or install compiled kernels"
            )
        with np.errstate(all="ignore"):
            yield
    finally:
        if library is not None:
            library.fesetenv(saved)

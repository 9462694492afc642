"""A thread whose floating-point unit flushes denormals, as a library built with -ffast-math does.

Here: switching it on for a block. Never here: what must survive it.
"""

from __future__ import annotations

import ctypes
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where fenv_t of the C library holds the control word, and its bits that flush.
WORDS = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}


def denormals_flushed() -> bool:
    """Return whether this thread's arithmetic makes zeros of denormals."""
    return bool((np.array([1e-38], dtype=np.float32) * np.float32(0.25))[0] == 0.0)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormals within the block."""
    library = ctypes.CDLL(None)
    saved = ctypes.create_string_buffer(256)
    library.fegetenv(saved)
    flushing = ctypes.create_string_buffer(saved.raw, 256)
    offset, bits = WORDS[platform.machine()]
    word = ctypes.c_uint32.from_buffer(flushing, offset)
    word.value |= bits
    library.fesetenv(flushing)
    try:
        assert denormals_flushed()
        yield
        assert denormals_flushed(), "the caller's environment was not restored"
    finally:
        library.fesetenv(saved)

"""A thread that rounds otherwise than to nearest, as a library may leave it.

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

# What <fenv.h> calls FE_UPWARD, FE_DOWNWARD and FE_TOWARDZERO.
DIRECTIONS = {
    "x86_64": {"upward": 0x800, "downward": 0x400, "toward zero": 0xC00},
    "aarch64": {"upward": 0x400000, "downward": 0x800000, "toward zero": 0xC00000},
}[platform.machine()]
# 1 / 3 is above its rounding, -1 / 3 below, 0.3 / 1.1 below: each direction misses one of them.
NEAREST = [1.0 / 3.0, -1.0 / 3.0, 0.3 / 1.1]


def _rounds_to_nearest() -> bool:
    thirds = np.array([1.0, -1.0, 0.3]) / np.array([3.0, 3.0, 1.1])
    return thirds.tolist() == NEAREST


@contextmanager
def rounding(direction: str) -> Iterator[None]:
    """Round so within the block."""
    library = ctypes.CDLL(None)
    before = library.fegetround()
    assert library.fesetround(DIRECTIONS[direction]) == 0
    try:
        assert not _rounds_to_nearest()
        yield
        assert library.fegetround() == DIRECTIONS[direction], "the caller's mode was not restored"
    finally:
        library.fesetround(before)

"""Arrays whose memory lies otherwise than NumPy lays it out.

Here: the same values off their alignment. Never here: what a kernel makes of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def misaligned(array: NDArray[Any], *, offset: int = 1) -> NDArray[Any]:
    """Return the same values, contiguous, `offset` bytes behind their alignment."""
    memory = np.zeros(array.nbytes + offset, dtype=np.uint8)
    shifted = memory[offset:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted

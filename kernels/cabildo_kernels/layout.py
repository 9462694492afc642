"""How an array lies in memory, where compiled code asks for one piece on its natural alignment.

Here: the copy that is made where it does not; np.ascontiguousarray keeps an array that starts at
any byte, and np.require takes microseconds to look. Never here: checks of shapes or types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def in_one_piece(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array itself if it is in C order and aligned, else a copy that is."""
    plain = np.asarray(array)  # of a subclass, its base
    flags = plain.flags
    return plain if flags.c_contiguous and flags.aligned else np.array(plain, order="C")

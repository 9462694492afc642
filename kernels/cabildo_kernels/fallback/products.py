"""The product of two tiny matrices in NumPy, with the bits of the compiled paths.

Here: sums in the order of the inner axis. Never here: large products; those are np.matmul's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cabildo_kernels.fallback.lanes import Floats


def small_matmul(a: Floats, b: Floats) -> Floats:
    """Return a @ b, each sum taken in order from +0."""
    total = np.zeros((a.shape[0], b.shape[1]), dtype=np.float32)
    for inner in range(a.shape[1]):
        total = total + a[:, inner, None] * b[None, inner, :]
    return total

"""Gram matrices of one tensor (or one layer) at a time: for merges that weigh every layer apart.

Here: one pass that yields a small fp64 matrix for each tensor, or inner products with a gradient.
Never here: what angles mean. Next: `spherical.py`, `model_stock.py`, `soups.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cabildo_kernels as kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session
    from cabildo_trainer.consensus.sources import ModelSource


def tensor_grams(
    session: Session, *, base: ModelSource | None
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields (name, <x_i - base, x_j - base>) for every floating tensor; one pass in all.

    Args:
        session: The rows.
        base: What is subtracted first; None subtracts nothing.
    """
    name, total = "", None
    for chunk in session.chunks():
        if chunk.name != name and total is not None:
            yield name, total
            total = None
        name = chunk.name
        with chunk.naming():
            total = kernels.gram(
                chunk.rows(),
                base=None if base is None else chunk.read_float32(base),
                initial=total,
                dtype=[chunk.dtype] * session.n,
                threads=session.context.threads,
            )
    if total is not None:
        yield name, total


def tensor_dots(
    session: Session, vector: ModelSource, *, base: ModelSource | None
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields (name, <x_i - base, vector>) for every floating tensor; one pass in all."""
    name, total = "", None
    for chunk in session.chunks():
        if chunk.name != name and total is not None:
            yield name, total
            total = None
        name = chunk.name
        with chunk.naming():
            total = kernels.dots(
                chunk.rows(),
                chunk.read_float32(vector),
                base=None if base is None else chunk.read_float32(base),
                initial=total,
                dtype=[chunk.dtype] * session.n,
                threads=session.context.threads,
            )
    if total is not None:
        yield name, total

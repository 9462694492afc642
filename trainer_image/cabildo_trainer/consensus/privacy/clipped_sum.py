"""The sum of clipped updates as integers: what the noise is added to, and what can be verified.

An update is u = x - start in float32, as the Gram matrix takes it. It is scaled by min(1, B / |u|),
divided by the grid's step and cut to an integer TOWARDS ZERO: so no rounding ever makes it longer,
and one participant moves the sum by at most C / step in Euclidean norm, whatever it sent. B is
C (1 - 2^-30); the rest pays for the rounding of |u| (relative 1e-10 at 10^10 elements), of the
products, and for the 1/12 that tells a discrete Gaussian from a continuous one.

The step is sigma C / 2^24: the noise has the standard deviation 2^24 in steps, and cutting costs a
participant less than 2^-24 of the noise in each element.

A sum of private data must not be published under a plain digest: who knows all other updates could
try values for the last one. The result holds an HMAC under a derived key, the opening; whoever gets
the opening and the models can check it.

Here: factors, integers, commitment. Never here: noise. Next: `noisy_sum.py` adds it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

import cabildo_kernels as kernels
from cabildo_trainer.consensus.manifests.canonical_json import canonical_json
from cabildo_trainer.consensus.privacy.discrete_gaussian import SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.chunks import Chunk
    from cabildo_trainer.consensus.passes import Session

SLACK: Final = 1.0 - 2.0**-30
TILE: Final = 8192
"""Elements at a time, so that what is between the rows and the sum stays in the cache."""
COMMITMENT: Final = "hmac-sha256:"
_VERSION: Final = "cabildo/clipped-sum/v1"


@dataclass(frozen=True, slots=True)
class Grid:
    """The lattice that updates, their sum and the noise live on.

    Attributes:
        clip_norm: C.
        noise_multiplier: sigma: the noise's standard deviation is sigma C.
    """

    clip_norm: float
    noise_multiplier: float

    @property
    def step(self) -> float:
        """The distance of neighbouring points, in the model's units."""
        return self.noise_multiplier * self.clip_norm / SCALE

    @property
    def bound(self) -> float:
        """The norm that updates are clipped to: a hair below C."""
        return self.clip_norm * SLACK


def scales(norms: Sequence[float], *, grid: Grid) -> tuple[float, ...]:
    """Returns what each update is multiplied with to be clipped and in steps of the grid."""
    factors = [1.0 if norm <= grid.bound else grid.bound / norm for norm in norms]
    return tuple(factor / grid.step for factor in factors)


def norms_of(session: Session) -> tuple[float, ...]:
    """Returns |x_i - start| of every participant; one pass."""
    return tuple(math.sqrt(float(value)) for value in session.gram().squared_norms())


def integer_sum(chunk: Chunk, weights: Sequence[float]) -> NDArray[np.int64]:
    """Returns the sum of the clipped updates of a chunk, in steps of the grid: exact integers."""
    origin, rows = chunk.origin(), chunk.rows_float32()
    total = np.zeros(chunk.size, dtype=np.int64)
    scaled, cut = np.empty(TILE, dtype=np.float64), np.empty(TILE, dtype=np.int64)
    for start in range(0, chunk.size, TILE):
        tile = slice(start, min(start + TILE, chunk.size))
        size = tile.stop - tile.start
        for row, weight in zip(rows, weights, strict=True):
            scaled[:size] = row[tile] - origin[tile]
            scaled[:size] *= weight
            # The conversion to int64 cuts towards zero; below 2^53 it is exact.
            np.copyto(cut[:size], scaled[:size], casting="unsafe")
            total[tile] += cut[:size]
    return total


def commit(session: Session, weights: Sequence[float], *, grid: Grid, opening: bytes) -> str:
    """Returns the commitment to the clipped sum: HMAC-SHA256 under the opening; one pass."""
    header = {
        "version": _VERSION,
        "gridVersion": kernels.GRID_VERSION,
        "clipNorm": grid.clip_norm,
        "step": grid.step,
    }
    state = hmac.new(opening, canonical_json(header), hashlib.sha256)
    for chunk in session.chunks():
        if chunk.start == 0:
            name = chunk.name.encode()
            state.update(len(name).to_bytes(8, "big") + name + chunk.spec.size.to_bytes(8, "big"))
        state.update(integer_sum(chunk, weights).astype("<i8", copy=False).tobytes())
    return COMMITMENT + state.hexdigest()

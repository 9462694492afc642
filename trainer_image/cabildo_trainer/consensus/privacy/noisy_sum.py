"""The pass that makes a private model: start + (clipped sum + noise) * step / expected count.

Sum and noise are integers, so adding them loses nothing; the result is divided once in fp64 and
rounded once. Everything after the noise is post-processing and costs no privacy.

The clip factors tell how long each update was, which is private: they are in the recipe under a
seal that the noise key opens. Who replays the recipe must hold the key. How many they are is
private too where participants are drawn, so the sealed text has one length for any number of them.

Here: one recipe. Never here: how its numbers were found. Next: `dp_fed_avg.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from cabildo_api.consensus_limits import MAXIMUM_PARTICIPANTS
from cabildo_trainer.consensus.errors import DigestMismatch, MissingInput
from cabildo_trainer.consensus.privacy.clipped_sum import integer_sum
from cabildo_trainer.consensus.privacy.discrete_gaussian import NoiseStream
from cabildo_trainer.consensus.recipes import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.chunks import Chunk
    from cabildo_trainer.consensus.privacy.noise_key import NoiseKey


_SCALES: Final = struct.Struct(f"<Q{MAXIMUM_PARTICIPANTS}d")
"""The number of scales, then the scales, then zeros."""


@dataclass(frozen=True, slots=True)
class NoisySum(Recipe):
    """start + (sum_i trunc(scale_i (x_i - start)) + noise) * step / divisor.

    Attributes:
        sealed: The scales, in the order of keys, with their number under the noise key's seal.
        commitment: To the clipped sum; the noise's stream is derived from it.
        step: Of the grid.
        divisor: The fixed expected count.
    """

    kind: ClassVar[str] = "noisySum"
    sealed: str
    commitment: str
    step: float
    divisor: float

    @classmethod
    def of(
        cls,
        scales: Sequence[float],
        *,
        key: NoiseKey,
        commitment: str,
        step: float,
        divisor: float,
    ) -> NoisySum:
        """Returns the recipe for scales, which it seals."""
        padding = (0.0,) * (MAXIMUM_PARTICIPANTS - len(scales))
        text = _SCALES.pack(len(scales), *scales, *padding)
        sealed = key.seal(text, label=commitment.encode())
        return cls(sealed=sealed, commitment=commitment, step=step, divisor=divisor)

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Sums, adds the noise, divides."""
        if chunk.context.privacy is None:
            raise MissingInput("the recipe adds noise, and no noise key was given")
        key = chunk.context.privacy.key
        total = integer_sum(chunk, self._scales(key, count=len(chunk.keys)))
        stream = NoiseStream(key.derive(b"noise", self.commitment.encode(), chunk.name.encode()))
        total += stream.draw(chunk.start, chunk.stop)
        change = total.astype(np.float64) * self.step / self.divisor
        return rounded(chunk.origin().astype(np.float64) + change, out_dtype=out_dtype)

    def _scales(self, key: NoiseKey, *, count: int) -> tuple[float, ...]:
        text = key.unseal(self.sealed, label=self.commitment.encode())
        if len(text) != _SCALES.size:
            raise DigestMismatch(
                f"the sealed part of the recipe has {len(text)} bytes, not {_SCALES.size}",
                remedy="use a release of cabildo-trainer that knows the recipe",
            )
        sealed_count, *scales = _SCALES.unpack(text)
        if sealed_count != count:
            raise DigestMismatch(
                f"the recipe is one for {sealed_count} participants, not {count}",
                remedy="give exactly the models that took part",
            )
        return tuple(scales[:count])


def rounded(values: NDArray[np.float64], *, out_dtype: str) -> NDArray[Any]:
    """Returns fp64 values rounded once, to nearest even, to f32, f16 or bf16 (as its 16 bits)."""
    if out_dtype == "f16":
        return values.astype(np.float16)
    single = values.astype(np.float32)
    if out_dtype == "f32":
        return single
    # To odd first: then rounding the float32 to bf16 is rounding the fp64 value itself.
    bits = single.view(np.uint32)
    too_far = np.abs(single.astype(np.float64)) > np.abs(values)
    bits = np.where(too_far, bits - np.uint32(1), bits)
    inexact = single.astype(np.float64) != values
    bits = np.where(inexact, bits | np.uint32(1), bits)
    upper = bits >> np.uint32(16)
    bits = bits + np.uint32(0x7FFF) + (upper & np.uint32(1))
    return (bits >> np.uint32(16)).astype(np.uint16)

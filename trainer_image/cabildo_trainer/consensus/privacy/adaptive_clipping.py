"""Adaptive clipping: the clip norm follows a quantile of the updates' norms, under noise.

Andrew, Thakkar, McMahan, Ramaswamy, "Differentially private learning with adaptive clipping",
NeurIPS 2021, arXiv 1905.03871. Each round also counts how many updates were no longer than C, adds
noise to that count, and moves C so that the noised share goes towards the wanted quantile:
C' = C exp(-rate (share - quantile)).

It is not free: the count is a second release about the same participants. As b_i - 1/2 is at most
1/2 in size, its noise multiplier is 2 count_noise, and a round costs what one Gaussian release of
multiplier (sigma^-2 + (2 count_noise)^-2)^(-1/2) costs. (A clip norm taken from the updates without
noise, such as their median, would be no privacy at all.)

Here: the noised share and the next C. Never here: the sum. Next: `dp_fed_avg.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cabildo_trainer.consensus.elementary import exp
from cabildo_trainer.consensus.privacy.clipped_sum import SLACK
from cabildo_trainer.consensus.privacy.discrete_gaussian import SCALE, NoiseStream

if TYPE_CHECKING:
    from collections.abc import Sequence

SENSITIVITY: Final = 0.5
"""What one participant moves the count of b_i - 1/2 by."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """How the clip norm moves.

    Attributes:
        quantile: Share of updates that shall not be clipped.
        rate: Size of a step, in the logarithm of the clip norm.
        count_noise: Standard deviation of the noise on the count, in participants.
    """

    quantile: float
    rate: float
    count_noise: float

    @property
    def multiplier(self) -> float:
        """The noise multiplier of the count's release."""
        return self.count_noise / SENSITIVITY

    def noised_share(
        self, norms: Sequence[float], *, bound: float, expected: float, noise: NoiseStream
    ) -> float:
        """Returns the noised share of updates that are no longer than the bound.

        Args:
            norms: Of the updates.
            bound: The norm they are clipped to.
            expected: The fixed expected count.
            noise: A stream of its own.
        """
        step = self.count_noise / SCALE
        half = int(SENSITIVITY * SLACK / step)
        total = sum(half if norm <= bound else -half for norm in norms)
        total += int(noise.draw(0, 1)[0])
        return total * step / expected + SENSITIVITY

    def next_clip_norm(self, clip_norm: float, *, share: float) -> float:
        """Returns C for the next round."""
        return clip_norm * exp(-self.rate * (share - self.quantile))

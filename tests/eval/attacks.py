"""What the Byzantine participants send. They see everything: all updates, the rule, its evaluator.

Here: attacks on updates, by their published definitions. Never here: training; a label flip happens
there, by `flipped`. Next: `federation.py` adds the updates to the round's first model.

Shapes: H honest participants, F Byzantine ones, D parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from eval.digits import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SIGN_FLIP_SCALE = 4.0
IPM_SCALE = 0.8
ALIE_DEVIATIONS = 2.5
NOISE_DEVIATION = 10.0
VICTIM = 0
COARSE = tuple(0.25 * 2.0**step for step in range(8))
"""Where the line search begins: 0.25 to 32 standard deviations, each twice the one before."""
REFINEMENTS = (2.0**0.5, 2.0**0.25)
"""Then it tries the best one divided and multiplied by these, in turn."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What an attacker knows in a round.

    Attributes:
        honest: Updates of the honest [H, D], float64.
        own: Updates that the Byzantine would send if they followed the protocol [F, D].
        aggregate: The rule's resulting update [D] if the Byzantine sent these updates [F, D].
        random: Where noise comes from.
    """

    honest: NDArray[np.float64]
    own: NDArray[np.float64]
    aggregate: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    random: np.random.Generator

    def repeat(self, update: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the same update for every Byzantine participant."""
        return np.tile(update, (len(self.own), 1))


def own_updates(known: Knowledge) -> NDArray[np.float64]:
    """Follow the protocol: no attack, or one on the data alone."""
    return known.own


def sign_flip(known: Knowledge) -> NDArray[np.float64]:
    """Send -4 times the honest mean."""
    return known.repeat(-SIGN_FLIP_SCALE * known.honest.mean(axis=0))


def inner_product_manipulation(known: Knowledge) -> NDArray[np.float64]:
    """IPM: send -0.8 times the honest mean (Xie et al., UAI 2019, arXiv 1903.03936)."""
    return known.repeat(-IPM_SCALE * known.honest.mean(axis=0))


def a_little(known: Knowledge, deviations: float) -> NDArray[np.float64]:
    """Return the honest mean, moved by so many standard deviations of each coordinate (ddof 1)."""
    mean, deviation = known.honest.mean(axis=0), known.honest.std(axis=0, ddof=1)
    return known.repeat(mean + deviations * deviation)


def a_little_is_enough(known: Knowledge) -> NDArray[np.float64]:
    """ALIE: 2.5 standard deviations from the mean (Baruch et al., NeurIPS 2019, 1902.06156)."""
    return a_little(known, ALIE_DEVIATIONS)


def optimal_a_little(known: Knowledge) -> NDArray[np.float64]:
    """ALIE with the deviations that push this rule's result farthest from the honest mean.

    The line search runs the rule under test, evaluator and all, twelve times in each round.
    """
    return a_little(known, worst_deviations(known))


def worst_deviations(known: Knowledge) -> float:
    """Return how many deviations move the aggregate farthest from the honest mean."""
    mean = known.honest.mean(axis=0)

    def harm(deviations: float) -> float:
        result = known.aggregate(a_little(known, deviations))
        return float(np.linalg.norm(result - mean))

    harms = {deviations: harm(deviations) for deviations in COARSE}
    for factor in REFINEMENTS:
        best = max(harms, key=harms.__getitem__)
        harms |= {near: harm(near) for near in (best / factor, best * factor)}
    return max(harms, key=harms.__getitem__)


def gaussian(known: Knowledge) -> NDArray[np.float64]:
    """Send noise of standard deviation 10."""
    return known.random.normal(0.0, NOISE_DEVIATION, known.own.shape)


def mimic(known: Knowledge) -> NDArray[np.float64]:
    """All send what one honest participant sends (Karimireddy et al., 2022, arXiv 2006.09365)."""
    return known.repeat(known.honest[VICTIM])


def flipped(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels of the label flip: 9 - y."""
    return CLASSES - 1 - digits


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack in words, what it sends, and whether its senders train on flipped labels."""

    title: str
    send: Callable[[Knowledge], NDArray[np.float64]]
    flips_labels: bool = False


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "none": Attack("none", own_updates),
        "signFlip": Attack("sign flip", sign_flip),
        "ipm": Attack("IPM", inner_product_manipulation),
        "alie": Attack("ALIE", a_little_is_enough),
        "optimalAlie": Attack("optimal ALIE", optimal_a_little),
        "gaussian": Attack("Gaussian", gaussian),
        "mimic": Attack("mimic", mimic),
        "labelFlip": Attack("label flip", own_updates, flips_labels=True),
    }
)

"""Who holds which digits: a Dirichlet split, trusted samples, and a test set that nobody sees.

Here: scikit-learn's 1797 handwritten digits, cut by a seed. Never here: a network. Next:
`network.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = 10
TEST_SAMPLES = 450
TRUSTED_SAMPLES = 100
FEWEST_SAMPLES = 10
"""A split that leaves a participant fewer is drawn anew."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Images [samples, 64] in 0..1 and their digits."""

    images: NDArray[np.float32]
    digits: NDArray[np.int64]

    def pick(self, rows: NDArray[np.int64]) -> Samples:
        """Return some of the samples."""
        return Samples(images=self.images[rows], digits=self.digits[rows])


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint sets of samples.

    Attributes:
        shards: One for each participant.
        trusted: What the aggregator holds.
        test: What accuracy is taken on.
    """

    shards: tuple[Samples, ...]
    trusted: Samples
    test: Samples


def split_digits(*, participants: int, concentration: float, seed: int) -> Split:
    """Return the digits, each class shared out by a Dirichlet draw over the participants."""
    random = np.random.default_rng([seed, 0])
    data = load_digits()
    samples = Samples(
        images=(data.data / 16.0).astype(np.float32), digits=data.target.astype(np.int64)
    )
    order = random.permutation(len(samples.digits))
    test, trusted, rest = np.split(order, [TEST_SAMPLES, TEST_SAMPLES + TRUSTED_SAMPLES])
    while True:
        owners = dirichlet_owners(
            samples.digits[rest],
            participants=participants,
            concentration=concentration,
            random=random,
        )
        if np.bincount(owners, minlength=participants).min() >= FEWEST_SAMPLES:
            break
    return Split(
        shards=tuple(samples.pick(rest[owners == owner]) for owner in range(participants)),
        trusted=samples.pick(trusted),
        test=samples.pick(test),
    )


def dirichlet_owners(
    digits: NDArray[np.int64],
    *,
    participants: int,
    concentration: float,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the owner of each sample: a class is cut where a Dirichlet draw says."""
    owners = np.empty(len(digits), dtype=np.int64)
    for digit in range(CLASSES):
        rows = random.permutation(np.flatnonzero(digits == digit))
        shares = random.dirichlet([concentration] * participants)
        cuts = (np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for owner, part in enumerate(np.split(rows, cuts)):
            owners[part] = owner
    return owners

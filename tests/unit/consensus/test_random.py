"""Random numbers depend on seed, participant, tensor and element, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from cabildo_trainer.consensus.random import Draws


def test_any_cut_of_the_stream_gives_the_same_numbers() -> None:
    draws = Draws(b"seed", "p", "w")
    whole = draws.uniform(0, 1003)
    for cut in (1, 2, 3, 4, 5, 500, 1002):
        assert np.array_equal(
            np.concatenate((draws.uniform(0, cut), draws.uniform(cut, 1003))), whole
        )


def test_the_numbers_are_pinned() -> None:
    """A change here changes every drawn merge: it needs a new grid version."""
    assert Draws(b"seed", "participant", "tensor").raw(0, 3).tolist() == PINNED


PINNED = [4156037737468073908, 6892975381835695563, 7883265781896753061]


@pytest.mark.parametrize(
    "other",
    [
        Draws(b"other", "p", "w"),
        Draws(b"seed", "q", "w"),
        Draws(b"seed", "p", "v"),
        Draws(b"seedp", "", "w"),
        Draws(b"seed", "pw", ""),
        Draws(b"", "seedp", "w"),
    ],
)
def test_every_part_of_the_key_counts(other: Draws) -> None:
    assert not np.array_equal(other.raw(0, 8), Draws(b"seed", "p", "w").raw(0, 8))


def test_numbers_are_uniform_and_below_one() -> None:
    numbers = Draws(b"seed", "p", "w").uniform(0, 200_000)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts, _ = np.histogram(numbers, bins=20, range=(0.0, 1.0))
    assert np.all(np.abs(counts - 10_000) < 500)

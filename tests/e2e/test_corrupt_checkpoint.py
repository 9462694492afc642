"""The newest checkpoint is spoiled while a run is suspended; the one before is used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support.outcome import assert_exact
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.outcome import Outcome
    from support.site import Site
    from support.training_jobs import TrainingRun


def truncate(file: Path) -> None:
    """Cut a file in half."""
    os.truncate(file, file.stat().st_size // 2)


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    with file.open("r+b") as handle:
        middle = file.stat().st_size // 2
        handle.seek(middle)
        (byte,) = handle.read(1)
        handle.seek(middle)
        handle.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (flip_bit, "model.safetensors"),
        pytest.param(truncate, "model.safetensors", marks=pytest.mark.long),
        pytest.param(flip_bit, "rank-1.pt", marks=pytest.mark.long),
        pytest.param(truncate, "manifest.json", marks=pytest.mark.long),
    ],
)
def test_a_corrupt_newest_checkpoint_is_set_aside_and_the_one_before_used(
    spoil: Callable[[Path], None],
    name: str,
    site: Site,
    reference: Outcome,
    train: Callable[..., TrainingRun],
) -> None:
    run = train()
    run.wait_training()
    folder = RunFolder.of(run)
    folder.wait_steps(3, within_s=120)
    run.suspend(value=True)
    run.wait_condition("Suspended", within_s=90)
    before, newest = folder.steps()[-2:]
    spoil(folder.step(newest) / name)
    run.suspend(value=False)
    assert_exact(run, reference=reference, restarts=0, attempts=2, suspended=frozenset({1}))
    assert folder.step(newest).name + ".corrupt" in folder.corrupt()
    assert {"attempt": 2, "step": before} in folder.fence()
    told = [one for one in run.events() if one["reason"] == "CheckpointCorrupt"]
    assert told, "no Event CheckpointCorrupt"
    assert folder.step(newest).name in told[0]["message"]

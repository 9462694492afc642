"""The pure rules of the engine: order, cadences, early stopping, the NaN guard, retention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cabildo_api.checkpoint import Keep
from cabildo_api.limits import Cadence, EarlyStopping, Limits, Objective
from cabildo_trainer.engine.data_order import DataOrder, Purpose, stream
from cabildo_trainer.engine.early_stopping import Judge
from cabildo_trainer.engine.limits import due, total_steps
from cabildo_trainer.engine.manifest import Committed, FileEntry, Manifest, merkle_root
from cabildo_trainer.engine.nan_guard import NanGuard, Verdict
from cabildo_trainer.engine.retention import kept_steps
from cabildo_trainer.engine.state import TrainState
from cabildo_trainer.errors import BadSpecError, NanBudgetError


@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(6, 200),
    world_size=st.sampled_from([1, 2, 3]),
    epoch=st.integers(0, 5),
)
def test_ranks_share_an_epoch_without_overlap(
    seed: int, samples: int, world_size: int, epoch: int
) -> None:
    order = DataOrder(seed=seed, samples=samples, batch_size=6, world_size=world_size)
    everything = order.epoch_samples(epoch)
    assert sorted(everything) == list(range(samples))
    first = epoch * order.steps_per_epoch
    seen = [
        sample
        for step in range(first, first + order.steps_per_epoch)
        for rank in range(world_size)
        for sample in order.batch(everything, step=step, rank=rank)
    ]
    assert seen == everything[: order.steps_per_epoch * 6]


def test_epochs_seeds_and_ranks_draw_different_numbers() -> None:
    order = DataOrder(seed=1, samples=100, batch_size=10, world_size=2)
    assert order.epoch_samples(0) != order.epoch_samples(1)
    assert order.epoch_samples(0) != replace(order, seed=2).epoch_samples(0)
    drawn = []
    for step, rank in ((0, 0), (0, 1), (1, 0), (0, 0)):
        order.seed_step(step=step, rank=rank)
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]
    assert (
        len({stream(0, purpose, position) for purpose in Purpose for position in range(99)}) == 297
    )


def test_a_batch_that_does_not_fit_is_a_fault_of_the_spec() -> None:
    with pytest.raises(BadSpecError, match="not divisible by nodes 3"):
        DataOrder(seed=0, samples=100, batch_size=10, world_size=3)
    with pytest.raises(BadSpecError, match="only 5 windows"):
        DataOrder(seed=0, samples=5, batch_size=10, world_size=1)


def test_the_first_limit_ends_the_run() -> None:
    assert total_steps(Limits(max_epochs=3), steps_per_epoch=10) == 30
    assert total_steps(Limits(max_epochs=3, max_steps=7), steps_per_epoch=10) == 7
    assert total_steps(Limits(max_epochs=3, max_steps=70), steps_per_epoch=10) == 30


@pytest.mark.parametrize(
    ("cadence", "step", "last", "expected"),
    [
        (Cadence(epochs=1), 10, 0, True),
        (Cadence(epochs=1), 9, 0, False),
        (Cadence(epochs=1), 10, 10, False),
        (Cadence(epochs=2), 10, 0, False),
        (Cadence(steps=4), 8, 4, True),
        (Cadence(steps=4), 7, 4, False),
        (Cadence(steps=4), 14, 4, True),  # a jump went over 8 and 12
        (Cadence(seconds=1), 1000, 0, False),  # rank 0's clock decides
    ],
)
def test_a_boundary_is_due_once(cadence: Cadence, step: int, last: int, *, expected: bool) -> None:
    assert due(cadence, step=step, last_step=last, steps_per_epoch=10) is expected


def judged(values: list[float], **options: Any) -> list[bool]:
    judge = Judge(
        objective=Objective(mode=options.pop("mode", "min")),
        early_stopping=EarlyStopping(**options),
    )
    state, best = TrainState(), []
    for epoch, value in enumerate(values, start=1):
        state.step, state.metrics = epoch, {"val_loss": value}
        best.append(judge.judge(state, epochs_done=epoch, min_epochs=2))
        if state.ended_early:
            break
    return best


def test_training_ends_after_patience_without_improvement() -> None:
    assert judged([3, 2, 2, 2, 1], patience=2) == [True, True, False, False]
    assert judged([3, 2, 2, 2, 1], patience=0) == [True, True, False, False, True]
    assert judged([1, 2, 3, 4], patience=1) == [True, False]
    assert judged([1, math.nan, math.nan], patience=2) == [True, False, False]
    assert judged([1, 2, 3], patience=2, mode="max") == [True, True, True]


def test_a_gain_below_min_delta_is_the_best_but_no_reason_to_go_on() -> None:
    assert judged([3, 2.9, 2.8, 1], patience=2, min_delta=0.5) == [True, True, True]


def test_early_stopping_waits_for_min_epochs() -> None:
    judge = Judge(objective=Objective(), early_stopping=EarlyStopping(patience=1))
    state = TrainState(metrics={"val_loss": 1.0})
    for _ in range(3):
        judge.judge(state, epochs_done=1, min_epochs=2)
    assert not state.ended_early


def test_the_guard_skips_then_rolls_back_then_gives_up() -> None:
    guard, state = NanGuard(skips_in_row=2, rollbacks=1, margin=3), TrainState(step=10)
    assert [guard.judge(state, finite=False) for _ in range(2)] == [Verdict.SKIP] * 2
    assert guard.judge(state, finite=True) is Verdict.APPLY
    for _ in range(2):
        guard.judge(state, finite=False)
    assert guard.judge(state, finite=False) is Verdict.ROLL_BACK
    restored = TrainState(step=5, bad_steps_in_row=1)
    guard.jump(restored, failed_step=10, rollbacks=0)
    assert (restored.step, restored.jumped_windows, restored.rollbacks) == (14, [[5, 14]], 1)
    for _ in range(2):
        guard.judge(restored, finite=False)
    with pytest.raises(NanBudgetError, match="after 1 rollbacks"):
        guard.judge(restored, finite=False)


def test_a_state_survives_fields_of_a_newer_version() -> None:
    state = TrainState(step=3, metrics={"val_loss": 1.5})
    assert TrainState.from_dict(state.to_dict() | {"new": 1}) == state


def manifest(step: int, objective: float | None = None) -> Manifest:
    return Manifest(
        uid="u", run=1, attempt=1, step=step, epoch=0, final=False, objective=objective,
        world_size=1, threads=1, config_digest="c", fixed={}, data_digest="d", time="t",
        libraries={},
        files=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "mode", "expected"),
    [
        (Keep(last=2, best=1), "min", {20, 40, 50}),
        (Keep(last=2, best=0), "min", {40, 50}),
        (Keep(last=2, best=2), "max", {10, 30, 40, 50}),
        (Keep(last=9, best=1), "min", {10, 20, 30, 40, 50}),
    ],
)
def test_the_newest_and_the_best_checkpoints_stay(
    keep: Keep, mode: Any, expected: set[int]
) -> None:
    values = {10: 5.0, 20: 1.0, 30: 4.0, 40: None, 50: 1.0}
    found = [Committed(manifest(step, value), "digest") for step, value in values.items()]
    assert kept_steps(found, keep=keep, objective=Objective(mode=mode)) == expected


def test_the_merkle_root_depends_on_every_file_and_on_no_order() -> None:
    files = [FileEntry(name=name, size=1, sha256="00") for name in "abcde"]
    root = merkle_root(files)
    assert merkle_root(files[::-1]) == root
    for index in range(5):
        changed = [*files]
        changed[index] = replace(files[index], sha256="01")
        assert merkle_root(changed) != root
    assert merkle_root(files[:4]) != root
    assert merkle_root([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

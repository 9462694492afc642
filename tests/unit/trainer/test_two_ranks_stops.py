"""Ranks that are told to stop, frozen, cut off, or fed nonsense end with the code that says so."""

# ruff: noqa: PLC0415 - faults import what they break in the rank, not in the test
from __future__ import annotations

import json
import os
import signal
import threading
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from support.trainer_ranks import Run, run_spec, small_spec, until

if TYPE_CHECKING:
    from pathlib import Path

LONG = {"limits": {"maxEpochs": 500}, "checkpoint": {"every": {"steps": 10}, "keep": {"last": 3}}}


def never_comes() -> None:
    threading.Event().wait()


def not_finite(*steps: int) -> None:
    """Makes the loss of this rank NaN at some steps."""
    from cabildo_trainer.engine.data_order import DataOrder
    from cabildo_trainer.models.forecaster import Forecaster

    current = [0]
    seed_step, training_step = DataOrder.seed_step, Forecaster.training_step

    def remember(self: DataOrder, *, step: int, rank: int) -> None:
        current[0] = step
        seed_step(self, step=step, rank=rank)

    def step(self, batch, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        loss = training_step(self, batch, index)
        return loss * float("nan") if current[0] + 1 in steps else loss

    DataOrder.seed_step, Forecaster.training_step = remember, step


def read_spec(path: str) -> None:
    os.environ["CABILDO_RUN_FILE"] = path


def files(run: Run) -> dict[str, str]:
    return {
        str(path.relative_to(run.path)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and "losses" not in path.parts
    }


def test_sigterm_while_waiting_for_a_peer_ends_at_once_with_75(tmp_path: Path) -> None:
    run = Run(tmp_path, spec=small_spec())
    with run.attempt(faults={1: never_comes}) as attempt:
        until(lambda: attempt.output_file(0).exists())
        attempt.kill(0, signal.SIGTERM)
        attempt.processes[0].join(20)
        assert attempt.processes[0].exitcode == 75
    assert attempt.result().reason == "Preempted"
    assert attempt.result().step is None
    assert not run.path.exists()


def test_a_peer_that_freezes_is_lost_after_the_collective_timeout(tmp_path: Path) -> None:
    run = Run(tmp_path, spec=small_spec(**LONG), collective_timeout_s=3)
    with run.attempt() as attempt:
        run.wait_for_step(5, attempt=attempt)
        attempt.kill(1, signal.SIGSTOP)
        attempt.processes[0].join(30)
        assert attempt.processes[0].exitcode == 69, attempt.output()
    assert attempt.result().reason == "PeerLost"


def test_a_stop_that_no_peer_answers_ends_with_69_within_the_grace_period(tmp_path: Path) -> None:
    run = Run(tmp_path, spec=small_spec(**LONG), collective_timeout_s=600)
    grace = {"CABILDO_TERMINATION_GRACE_SECONDS": "4"}
    with run.attempt(environment=grace) as attempt:
        run.wait_for_step(5, attempt=attempt)
        attempt.kill(1, signal.SIGSTOP)
        attempt.kill(0, signal.SIGTERM)
        attempt.processes[0].join(30)
        assert attempt.processes[0].exitcode == 69, attempt.output()
    assert "grace period" in attempt.result().message


def test_a_cut_off_attempt_that_comes_back_changes_nothing(tmp_path: Path) -> None:
    spec = small_spec(**LONG | {"limits": {"maxEpochs": 5}})
    run = Run(tmp_path, spec=spec, collective_timeout_s=600)
    with run.attempt() as zombie:
        run.wait_for_step(25, attempt=zombie)
        for rank in (0, 1):
            zombie.kill(rank, signal.SIGSTOP)
        run.train()
        before = files(run)
        for rank in (0, 1):
            zombie.kill(rank, signal.SIGCONT)
        assert zombie.wait() == [75, 75], zombie.output()
    assert "attempt 2 of this run has started" in zombie.result().message
    assert files(run) == before
    assert all(len(values) == 1 for values in run.losses().values())


def test_two_attempts_at_once_leave_one_history(tmp_path: Path) -> None:
    reference = Run(tmp_path / "reference", spec=small_spec())
    reference.train()
    run = Run(tmp_path / "both", spec=small_spec())
    with run.attempt() as old:
        run.wait_for_step(15, attempt=old)
        run.train()
        codes = set(old.wait())
    # The rank that finds itself fenced ends with 75; its peer may only see that it is gone.
    assert codes <= {0, 75} or codes == {69, 75}, old.output()
    assert run.final_weights() == reference.final_weights()
    assert run.losses() == reference.losses()


def test_losses_that_are_not_finite_are_skipped_by_all_ranks_and_resumed_exactly(
    tmp_path: Path,
) -> None:
    fault = {1: partial(not_finite, 7, 8, 30)}
    reference = Run(tmp_path / "reference", spec=small_spec())
    reference.train(faults=fault)
    losses = reference.losses()
    assert {place for place, values in losses.items() if values == {"nan"}} == {
        (1, 7), (1, 8), (1, 30),
    }  # fmt: skip
    assert set(losses) == {(rank, step) for rank in (0, 1) for step in range(1, 55)}
    run = Run(tmp_path / "killed", spec=small_spec())
    with run.attempt(faults=fault) as attempt:
        run.wait_for_step(20, attempt=attempt)
        attempt.kill(0)
        attempt.wait()
    run.train(faults=fault)
    assert run.losses() == reference.losses()
    assert run.final_weights() == reference.final_weights()


def test_a_spike_rolls_back_jumps_its_window_and_is_resumed_exactly(tmp_path: Path) -> None:
    fault = {0: partial(not_finite, 13, 14, 15, 16)}
    reference = Run(tmp_path / "reference", spec=small_spec())
    reference.train(faults=fault)
    # Rolled back from step 16 to the commit of step 10; batches 10 to 23 are left out.
    steps = {step for rank, step in reference.losses() if rank == 0}
    assert steps == {*range(1, 17), *range(25, 55)}
    run = Run(tmp_path / "killed", spec=small_spec())
    for step in (27, 40):
        with run.attempt(faults=fault) as attempt:
            run.wait_for_step(step, attempt=attempt)
            attempt.kill(1)
            attempt.wait()
    run.train(faults=fault)
    assert run.losses() == reference.losses()
    assert run.final_weights() == reference.final_weights()


def test_a_loss_that_stays_not_finite_ends_with_76(tmp_path: Path) -> None:
    run = Run(tmp_path, spec=small_spec())
    with run.attempt(faults={1: partial(not_finite, *range(3, 60))}) as attempt:
        assert attempt.wait() == [76, 76], attempt.output()
    result = attempt.result()
    assert result.reason == "NonFiniteLoss"
    assert "learning rate" in result.remedy


def test_ranks_with_different_parameters_commit_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, spec=small_spec())
    with run.attempt(faults={1: silently_wrong}) as attempt:
        codes = attempt.wait()
    assert 1 in codes, attempt.output()
    assert "ranks hold different parameters at step 10" in attempt.output()
    assert not run.checkpoints()


def silently_wrong() -> None:
    """Changes one parameter of this rank at its fifth optimiser step, as a faulty core would."""
    import torch

    from cabildo_trainer.engine.learner import Learner

    real, calls = Learner.apply, [0]

    def apply(self: Learner) -> None:
        real(self)
        calls[0] += 1
        if calls[0] == 5:
            with torch.no_grad():
                next(self.module.parameters()).view(-1)[0] += 1e-3

    Learner.apply = apply  # type: ignore[method-assign]


def test_ranks_that_were_given_different_specs_do_not_start(tmp_path: Path) -> None:
    run = Run(tmp_path, spec=small_spec())
    changed = run_spec(run.spec, root=run.root) | {"seed": 8}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    with run.attempt(faults={1: partial(read_spec, str(tmp_path / "changed.json"))}) as attempt:
        assert 78 in attempt.wait(), attempt.output()
    assert "was given another spec" in attempt.output()


def test_a_changed_cpu_limit_does_not_change_the_numbers(tmp_path: Path) -> None:
    reference = Run(tmp_path / "reference", spec=small_spec(nodes=1))
    reference.train()
    run = Run(tmp_path / "moved", spec=small_spec(nodes=1))
    with run.attempt() as attempt:
        run.wait_for_step(20, attempt=attempt)
        attempt.kill(0, signal.SIGTERM)
        assert attempt.wait() == [75]
    run.train(environment={"OMP_NUM_THREADS": "2"})
    assert run.losses() == reference.losses()
    assert run.final_weights() == reference.final_weights()


@pytest.mark.parametrize("change", [{"seed": 8}, {"optimizer": {"adamW": {"learningRate": 0.01}}}])
def test_a_spec_that_changed_within_a_run_ends_with_78(
    tmp_path: Path, change: dict[str, object]
) -> None:
    run = Run(tmp_path, spec=small_spec(nodes=1))
    with run.attempt() as attempt:
        run.wait_for_step(12, attempt=attempt)
        attempt.kill(0, signal.SIGTERM)
        attempt.wait()
    run.spec = run.spec | change
    with run.attempt() as attempt:
        assert attempt.wait() == [78], attempt.output()
    assert f"spec.{next(iter(change))} changed since step" in attempt.result().message

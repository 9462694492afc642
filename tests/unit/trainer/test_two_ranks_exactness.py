"""A run that was killed, stopped or damaged equals the run that was never interrupted, bit for
bit."""

# ruff: noqa: PLC0415 - faults import what they break in the rank, not in the test
from __future__ import annotations

import json
import os
import random
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_api.result import Outcome
from support.trainer_ranks import Run, small_spec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("reference"), spec=small_spec())
    run.train()
    return run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was told to stop after 30 of its 54 steps."""
    run = Run(tmp_path_factory.mktemp("stopped"), spec=small_spec())
    with run.attempt() as attempt:
        run.wait_for_step(30, attempt=attempt)
        attempt.kill(1, signal.SIGTERM)
        assert attempt.wait() == [75, 75], attempt.output()
    return run


def assert_equal_to(reference: Run, run: Run) -> None:
    assert all(len(values) == 1 for values in run.losses().values()), "a replayed loss differs"
    assert run.losses() == reference.losses()
    assert run.final_weights() == reference.final_weights()


def kill_in_nth_write(name: str, nth: int) -> None:
    """Kills the rank while it writes the n-th file of that name."""
    from cabildo_trainer.engine import checkpoint

    real, seen = checkpoint.write_synced, 0

    def write(path: Path, content: bytes) -> None:
        nonlocal seen
        seen += path.name == name
        if path.name == name and seen == nth:
            path.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, content)

    checkpoint.write_synced = write


def kill_before_nth_rename(nth: int) -> None:
    from cabildo_trainer.engine import checkpoint

    real, seen = checkpoint.sync_folder, 0

    def sync(path: Path) -> None:
        nonlocal seen
        real(path)
        seen += path.parent.name == "staging"
        if path.parent.name == "staging" and seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.sync_folder = sync


def test_two_runs_of_the_same_spec_are_equal(reference: Run, tmp_path: Path) -> None:
    again = Run(tmp_path, spec=small_spec())
    again.train()
    assert_equal_to(reference, again)
    other = Run(tmp_path / "other", spec=small_spec(seed=8))
    other.train()
    assert other.final_weights() != reference.final_weights()


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_of_a_rank_ends_the_other_with_69_and_the_rerun_is_bit_equal(
    reference: Run, tmp_path: Path, rank: int
) -> None:
    run = Run(tmp_path, spec=small_spec())
    moments = random.Random(rank)
    for _ in range(2):
        with run.attempt() as attempt:
            run.wait_for_step(moments.randrange(5, 35), attempt=attempt)
            attempt.kill(rank)
            codes = attempt.wait()
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] == 69, attempt.output()
        assert attempt.result(1 - rank).reason == "PeerLost"
    run.train()
    assert_equal_to(reference, run)


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_rank_makes_both_commit_the_same_step_and_exit_75(
    reference: Run, stopped: Run, tmp_path: Path, rank: int
) -> None:
    run = stopped.copy(tmp_path)
    with run.attempt() as attempt:
        run.wait_for_step(40, attempt=attempt)
        attempt.kill(rank, signal.SIGTERM)
        assert attempt.wait() == [75, 75], attempt.output()
    results = [attempt.result(0), attempt.result(1)]
    assert {result.outcome for result in results} == {Outcome.PREEMPTED}
    assert results[0].step == results[1].step
    newest = run.checkpoints()[-1]
    assert newest.name == f"step-{results[0].step:012d}"
    # No step is lost: what was logged is committed.
    assert run.steps_logged(attempt=attempt.number) == results[0].step
    run.train()
    assert_equal_to(reference, run)


@pytest.mark.parametrize(
    ("rank", "fault"),
    [
        (0, partial(kill_in_nth_write, "model.safetensors", 2)),
        (0, partial(kill_in_nth_write, "manifest.json", 2)),
        (1, partial(kill_in_nth_write, "rank-1.pt", 3)),
        (0, partial(kill_before_nth_rename, 3)),
    ],
    ids=["weights", "manifest", "rank-1", "before-rename"],
)
def test_kill_9_inside_a_checkpoint_write_leaves_no_checkpoint(
    reference: Run, tmp_path: Path, rank: int, fault: Any
) -> None:
    run = Run(tmp_path, spec=small_spec())
    with run.attempt(faults={rank: fault}) as attempt:
        codes = attempt.wait()
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 69, attempt.output()
    assert list((run.path / "staging").iterdir()), "the kill came outside of a write"
    run.train()
    assert_equal_to(reference, run)
    assert not list((run.path / "staging").iterdir())


@pytest.mark.parametrize(
    ("file", "damage"), [("model.safetensors", "flip"), ("rank-1.pt", "truncate")]
)
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used(
    reference: Run, stopped: Run, tmp_path: Path, file: str, damage: str
) -> None:
    run = stopped.copy(tmp_path)
    newest = run.checkpoints()[-1]
    content = bytearray((newest / file).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / file).write_bytes(content if damage == "flip" else content[: len(content) // 2])
    attempt = run.train()
    assert [item.path for item in attempt.result().corrupt_checkpoints] == [
        f"{newest.name}.corrupt"
    ]
    assert (run.path / f"{newest.name}.corrupt").is_dir()
    assert_equal_to(reference, run)


def test_when_every_checkpoint_is_damaged_the_run_ends_with_65(
    stopped: Run, tmp_path: Path
) -> None:
    run = stopped.copy(tmp_path)
    for folder in run.checkpoints():
        (folder / "state.pt").write_bytes(b"")
    for _ in range(2):  # set aside by the first one, they still are no reason to start over
        with run.attempt() as attempt:
            assert attempt.wait() == [65, 65], attempt.output()
        assert attempt.result().reason == "NoValidCheckpoint"
        assert "runID" in attempt.result().remedy


def test_three_ranks_resume_bit_equal(tmp_path: Path) -> None:
    # With three ranks the order of a sum matters: a + b + c is not a + (b + c).
    spec = small_spec(nodes=3)
    reference = Run(tmp_path / "reference", spec=spec)
    reference.train()
    run = Run(tmp_path / "killed", spec=spec)
    for step in (14, 31):
        with run.attempt() as attempt:
            run.wait_for_step(step, attempt=attempt)
            attempt.kill(2)
            assert set(attempt.wait()) == {-signal.SIGKILL, 69}
    run.train()
    assert_equal_to(reference, run)


def test_a_finished_run_only_reports_again(reference: Run, tmp_path: Path) -> None:
    run = reference.copy(tmp_path)
    again = run.train()
    assert run.steps_logged(attempt=2) == 0
    told = [attempt.result().to_object() for attempt in (reference.attempts[0], again)]
    for result in told:
        for varying in ("attempt", "finishTime"):
            del result[varying]
    assert told[0] == told[1]
    assert_equal_to(reference, run)


def test_the_manifest_says_what_the_checkpoint_is(reference: Run) -> None:
    manifest = json.loads((reference.checkpoints()[-1] / "manifest.json").read_text())
    assert manifest["schemaVersion"] == 1
    assert (manifest["world_size"], manifest["threads"], manifest["attempt"]) == (2, 1, 1)
    assert {entry["name"] for entry in manifest["files"]} == {
        "model.safetensors", "state.pt", "rank-0.pt", "rank-1.pt",
    }  # fmt: skip

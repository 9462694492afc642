"""Commits, fences, damage: the checkpoint protocol with one rank and no training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cabildo_api.checkpoint import Keep
from cabildo_api.limits import Objective
from cabildo_trainer.engine.checkpoint import CheckpointStore, Content, Identity
from cabildo_trainer.engine.fence import Fence, FenceEntry
from cabildo_trainer.engine.folder import RunFolder
from cabildo_trainer.engine.gang import Gang
from cabildo_trainer.engine.packing import parameters_digest
from cabildo_trainer.errors import (
    BadDataError,
    BadSpecError,
    DamagedCheckpointError,
    FencedError,
    NoValidCheckpointError,
)

if TYPE_CHECKING:
    from pathlib import Path


def store(
    path: Path, *, attempt: int = 1, world_size: int = 1, data: str = "d", seed: str = "s"
) -> CheckpointStore:
    identity = Identity(
        uid="u", run=1, attempt=attempt, threads=1, config_digest="c",
        fixed={"seed": seed}, data_digest=data,
        libraries={"torch": torch.__version__},
    )  # fmt: skip
    gang = Gang(rank=0, world_size=1)
    made = CheckpointStore(RunFolder(path), identity=identity, gang=gang)
    if world_size > 1:
        made._gang = type(
            "Pretended", (), {"rank": 0, "world_size": world_size, "is_leader": True}
        )()
    return made


def content(value: float) -> Content:
    weights = {"w": torch.full((2,), value), "tied": torch.full((2,), value)}
    own: dict[str, Any] = {
        "rank": 0,
        "buffers": {},
        "parameters_sha256": parameters_digest(weights),
    }
    return Content(
        weights=weights, shared={"state": {"step": 1}, "momentum": torch.ones(2)}, own=own
    )


def commit(
    to: CheckpointStore, step: int, *, value: float = 1.0, objective: float | None = None
) -> None:
    to.commit(content(value), step=step, epoch=0, final=False, objective=objective)


def weights_at(of: CheckpointStore, step: int) -> float:
    return float(of.read(step)[1].weights["w"][0])


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert first.start_attempt().checkpoint is None
    commit(first, 10, value=3.0)
    second = store(tmp_path, attempt=2)
    restored = second.start_attempt()
    assert restored.checkpoint is not None
    assert restored.checkpoint.manifest.step == 10
    assert restored.content is not None
    assert torch.equal(restored.content.weights["tied"], torch.full((2,), 3.0))
    assert torch.equal(restored.content.shared["momentum"], torch.ones(2))
    assert restored.content.own["rank"] == 0
    assert second.fence.entries() == (FenceEntry(1, 0), FenceEntry(2, 10))


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        one = store(tmp_path / name)
        one.start_attempt()
        commit(one, 10)
    digests = {
        (tmp_path / name / "step-000000000010/model.safetensors").read_bytes() for name in "ab"
    }
    assert len(digests) == 1


def test_an_old_attempt_commits_nothing_once_a_new_one_has_started(tmp_path: Path) -> None:
    old = store(tmp_path)
    old.start_attempt()
    commit(old, 10, value=1.0)
    new = store(tmp_path, attempt=2)
    new.start_attempt()
    with pytest.raises(FencedError, match="attempt 2 of this run has started"):
        commit(old, 20, value=9.0)
    assert [item.manifest.step for item in new.admitted()] == [10]
    with pytest.raises(FencedError):
        store(tmp_path, attempt=1).start_attempt()


def test_a_commit_that_slips_past_the_fence_is_ignored_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store(tmp_path)
    old.start_attempt()
    commit(old, 10, value=1.0)
    new = store(tmp_path, attempt=2)
    new.start_attempt()
    # The old attempt looked at the fence before the new one raised it, and renames only now.
    monkeypatch.setattr(Fence, "check", lambda _self, _attempt: None)
    commit(old, 20, value=9.0)
    monkeypatch.undo()
    assert [item.manifest.step for item in new.admitted()] == [10]
    third = store(tmp_path, attempt=3)
    restored = third.start_attempt()
    assert restored.checkpoint is not None
    assert restored.checkpoint.manifest.step == 10
    assert not restored.corrupt
    commit(third, 20, value=2.0)
    assert weights_at(third, 20) == 2.0


def test_an_old_attempt_never_replaces_the_commit_of_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store(tmp_path)
    old.start_attempt()
    new = store(tmp_path, attempt=2)
    new.start_attempt()
    commit(new, 20, value=2.0)
    monkeypatch.setattr(Fence, "check", lambda _self, _attempt: None)
    with pytest.raises(FencedError, match="attempt 2 has committed step 20"):
        commit(old, 20, value=9.0)
    assert weights_at(new, 20) == 2.0


def test_an_old_attempt_whose_staging_is_gone_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store(tmp_path)
    old.start_attempt()

    def new_attempt_starts_meanwhile(_content: Content) -> None:
        store(tmp_path, attempt=2).start_attempt()

    from cabildo_trainer.engine import checkpoint  # noqa: PLC0415 - patched below

    real = checkpoint.pack_weights
    monkeypatch.setattr(
        checkpoint, "pack_weights",
        lambda weights: (new_attempt_starts_meanwhile(weights), real(weights))[1],
    )  # fmt: skip
    with pytest.raises(FencedError):
        commit(old, 10)


def test_a_torn_line_in_the_fence_is_an_attempt_that_never_trained(tmp_path: Path) -> None:
    fence = Fence(tmp_path / "fence")
    fence.raise_fence(FenceEntry(1, 0))
    with fence.path.open("a") as file:
        file.write('{"attempt":2,"st')
    fence.raise_fence(FenceEntry(3, 10))
    assert fence.entries() == (FenceEntry(1, 0), FenceEntry(3, 10))
    assert fence.admits(attempt=1, step=10)
    assert not fence.admits(attempt=2, step=11)
    assert fence.admits(attempt=3, step=99)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("gone", "No such file"),
        ("shorter", "bytes instead of"),
        ("flipped", "does not match its SHA-256"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "rank-0.pt"])
def test_any_damage_to_any_file_is_found(
    tmp_path: Path, name: str, damage: str, reason: str
) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10, value=1.0)
    commit(one, 20, value=2.0)
    path = tmp_path / "step-000000000020" / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[-1] ^= 1
        path.write_bytes(data if damage == "flipped" else data[:-1])
    with pytest.raises(DamagedCheckpointError, match=reason):
        one.read(20)
    restored = store(tmp_path, attempt=2).start_attempt()
    assert [item.path for item in restored.corrupt] == ["step-000000000020.corrupt"]
    assert reason in restored.corrupt[0].reason
    assert restored.checkpoint is not None
    assert restored.checkpoint.manifest.step == 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"size": ', '"size": 1'), "Merkle root does not match"),
        (lambda text: text.replace('"step": 10', '"step": 11'), "is of step 11"),
        (lambda _text: "[]", "cannot be read"),
    ],
)
def test_a_damaged_manifest_is_found(tmp_path: Path, change: Any, reason: str) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10)
    path = tmp_path / "step-000000000010" / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DamagedCheckpointError, match=reason):
        one.read(10)


def test_a_checkpoint_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10)
    path = tmp_path / "step-000000000010" / "manifest.json"
    path.write_text(path.read_text().replace('"schemaVersion": 1', '"schemaVersion": 9'))
    with pytest.raises(BadSpecError, match="has schema version 9, this trainer knows 1"):
        store(tmp_path, attempt=2).start_attempt()
    assert path.exists()


def test_nothing_but_damaged_checkpoints_is_an_end_not_a_new_start(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10)
    (tmp_path / "step-000000000010" / "manifest.json").unlink()
    for attempt in (2, 3):
        with pytest.raises(NoValidCheckpointError):
            store(tmp_path, attempt=attempt).start_attempt()


def test_setting_aside_twice_keeps_both(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("step-000000000010.corrupt", "step-000000000010.corrupt-2"):
        folder.step(10).mkdir(parents=True)
        assert folder.set_aside(10).name == name


def test_a_crash_leaves_nothing_that_counts_and_the_next_attempt_clears_it(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.start_attempt()
    staging = tmp_path / "staging"
    (staging / "attempt-1").mkdir(parents=True)
    (staging / "attempt-1" / "rank-0.pt").write_bytes(b"half")
    (staging / "discarded-step-000000000005").mkdir()
    (staging / "attempt-7").mkdir()
    assert store(tmp_path, attempt=2).start_attempt().checkpoint is None
    assert [path.name for path in staging.iterdir()] == ["attempt-7"]


def test_other_data_or_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10)
    with pytest.raises(BadDataError, match="the data changed since step 10: it was d, now it is e"):
        store(tmp_path, attempt=2, data="e").start_attempt()
    with pytest.raises(BadSpecError, match=r"spec\.nodes is 3, but the run's checkpoint"):
        store(tmp_path, attempt=2, world_size=3).read(10)


def test_a_part_of_the_spec_that_changed_within_a_run_is_named(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10)
    with pytest.raises(BadSpecError, match=r"spec\.seed changed since step 10") as caught:
        store(tmp_path, attempt=2, seed="other").start_attempt()
    assert "runID" in caught.value.remedy


def test_a_fenced_attempt_prunes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store(tmp_path)
    old.start_attempt()
    for step in (10, 20):
        commit(old, step)
    new = store(tmp_path, attempt=2)
    new.start_attempt()
    commit(new, 30)
    with pytest.raises(FencedError):
        old.prune(keep=Keep(last=2, best=0), objective=Objective())
    # Even one that looked at the fence too early leaves a later attempt's work alone.
    monkeypatch.setattr(Fence, "check", lambda _self, _attempt: None)
    commit(old, 40)
    old.prune(keep=Keep(last=2, best=0), objective=Objective())
    assert [item.manifest.step for item in new.admitted()] == [30, 20]


def overtake(old: CheckpointStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    """Have a second attempt commit step 20 again just before `old` renames its first folder."""
    new = store(path, attempt=2)
    take_away = RunFolder.take_away

    def late(self: RunFolder, step: int, *, attempt: int) -> Path:
        monkeypatch.setattr(RunFolder, "take_away", take_away)
        for spoiled in old.folder.committed_steps():
            if spoiled > 10:
                (old.folder.step(spoiled) / "model.safetensors").write_bytes(b"spoiled")
        new.start_attempt()
        commit(new, 20, value=5.0)
        return take_away(self, step, attempt=attempt)

    monkeypatch.setattr(RunFolder, "take_away", late)
    return new


def test_a_zombie_deletes_nothing_that_a_later_attempt_committed_since_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store(tmp_path)
    old.start_attempt()
    for step in (10, 20, 30, 40):
        commit(old, step)
    new = overtake(old, tmp_path, monkeypatch)
    with pytest.raises(FencedError):
        old.prune(keep=Keep(last=2, best=0), objective=Objective())
    assert [item.manifest.step for item in new.admitted()] == [20, 10]
    assert weights_at(new, 20) == 5.0
    assert not list((tmp_path / "staging").glob("discarded-*"))


def test_a_zombie_makes_no_way_for_itself_where_a_later_attempt_has_committed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store(tmp_path)
    old.start_attempt()
    for step in (10, 20):
        commit(old, step)
    new = overtake(old, tmp_path, monkeypatch)
    with pytest.raises(FencedError, match="attempt 2 has committed step 20 already"):
        commit(old, 20, value=9.0)
    assert weights_at(new, 20) == 5.0


def test_pruning_keeps_the_newest_and_the_best_and_drops_what_a_fenced_attempt_left(
    tmp_path: Path,
) -> None:
    one = store(tmp_path)
    one.start_attempt()
    for step, objective in ((10, 0.5), (20, None), (30, 0.7), (40, 0.6)):
        commit(one, step, objective=objective)
    one.prune(keep=Keep(last=2, best=1), objective=Objective())
    assert sorted(one.folder.committed_steps()) == [10, 30, 40]
    assert not list((tmp_path / "staging").glob("discarded-*"))


def test_weights_and_state_that_are_something_else_are_damage(tmp_path: Path) -> None:
    from cabildo_trainer.engine.packing import unpack, unpack_weights  # noqa: PLC0415

    with pytest.raises(DamagedCheckpointError, match=r"state\.pt cannot be loaded"):
        unpack(b"nothing", name="state.pt")
    with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors cannot be loaded"):
        unpack_weights(b"nothing")


def test_the_manifest_is_json_for_other_programs(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.start_attempt()
    commit(one, 10, objective=0.5)
    manifest = json.loads((tmp_path / "step-000000000010" / "manifest.json").read_text())
    assert manifest["objective"] == 0.5
    assert len(manifest["merkleRoot"]) == 64

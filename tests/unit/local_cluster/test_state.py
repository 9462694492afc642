"""What is kept, what is forgotten, and that two commands wait for each other."""

from __future__ import annotations

import io
import multiprocessing
from typing import TYPE_CHECKING

import pytest

from cabildo_local.reporter import LineReporter, SilentReporter
from cabildo_local.state import Allotment, State

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

ALLOTMENT = Allotment(cidr="10.201.0.0/16", nodes=2, api_port=6443, registry_port=5000)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state", name="demo")


def test_an_allotment_is_remembered(state: State, tmp_path: Path) -> None:
    assert state.allotment() is None
    state.allot(ALLOTMENT)
    assert State(tmp_path / "state", name="demo").allotment() == ALLOTMENT


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cidr": "10.201.0.0/16"}', '{"no": 1}'])
def test_a_broken_file_is_no_allotment(state: State, text: str) -> None:
    state.folder.mkdir(parents=True)
    (state.folder / "cluster.json").write_text(text)
    assert state.allotment() is None


def test_the_ranges_of_other_clusters_are_known(state: State, tmp_path: Path) -> None:
    state.allot(ALLOTMENT)
    other = State(tmp_path / "state", name="other")
    assert other.other_cidrs() == ["10.201.0.0/16"]
    assert state.other_cidrs() == []


def test_the_same_name_below_another_root_is_another_cluster(tmp_path: Path) -> None:
    one, other = State(tmp_path / "a", name="demo"), State(tmp_path / "b", name="demo")
    assert one.scope != other.scope
    assert one.scope == State(tmp_path / "a", name="demo").scope
    assert one.runtime != other.runtime


def test_forgetting_a_life_keeps_images_and_volumes(state: State) -> None:
    state.allot(ALLOTMENT)
    kept = [
        state.nodes / "node1" / "containerd" / "blob",
        state.volumes / "pvc-1" / "model",
        state.logs / "etcd.log",
    ]
    gone = [
        state.etcd / "member" / "db",
        state.pki / "ca.key",
        state.processes / "etcd.json",
        state.configuration / "kwok.yaml",
        state.nodes / "node1" / "kubelet" / "pods" / "x",
        state.kubeconfig,
        state.audit_log,
        state.folder / "audit-2026-01-01T00-00-00.000.log",
    ]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    state.forget_life()
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert state.allotment() == ALLOTMENT


def test_forgetting_nothing_is_fine(state: State) -> None:
    state.forget_life()
    state.purge()


def test_purging_removes_the_folder_and_nothing_beside_it(state: State, tmp_path: Path) -> None:
    state.allot(ALLOTMENT)
    other = State(tmp_path / "state", name="other")
    other.allot(ALLOTMENT)
    state.purge()
    assert not state.folder.exists()
    assert other.allotment() == ALLOTMENT


def _hold(root: Path, holds: Event, let_go: Event) -> None:
    with State(root, name="demo").lock(reporter=SilentReporter()):
        holds.set()
        let_go.wait(30)


def test_a_second_command_waits_for_the_first_and_says_so(state: State, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    holds, let_go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "state", holds, let_go))
    process.start()
    try:
        assert holds.wait(30)
        said = io.StringIO()

        class LetsGo(LineReporter):
            def note(self, message: str) -> None:
                super().note(message)
                let_go.set()

        with state.lock(reporter=LetsGo(said)):
            assert "`up` or `down` of demo" in said.getvalue()
    finally:
        let_go.set()
        process.join()


def test_a_killed_holder_blocks_nobody(state: State, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    holds, let_go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "state", holds, let_go))
    process.start()
    assert holds.wait(30)
    process.kill()
    process.join()
    with state.lock(reporter=SilentReporter()):
        pass

"""Settings that kubelet changes for the whole machine go back with the last cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cabildo_local.errors import PrerequisiteError
from cabildo_local.kernel_settings import CHANGED, WATCHERS, raise_limits, restore, save

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sysctl(tmp_path: Path) -> Path:
    for name in CHANGED:
        file = tmp_path / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0\n")
    return tmp_path / "sys"


def change(sysctl: Path) -> None:
    for name in CHANGED:
        (sysctl / name).write_text("10\n")


def values(sysctl: Path) -> set[str]:
    return {(sysctl / name).read_text().strip() for name in CHANGED}


def test_the_last_cluster_puts_them_back(sysctl: Path, tmp_path: Path) -> None:
    note = tmp_path / "run" / "note.json"
    save(note=note, sysctl=sysctl)
    (note.parent / "demo" / "node1").mkdir(parents=True)
    change(sysctl)
    restore(note=note, sysctl=sysctl)
    assert values(sysctl) == {"10"}
    (note.parent / "demo" / "node1").rmdir()
    restore(note=note, sysctl=sysctl)
    assert values(sysctl) == {"0"}
    assert not note.exists()


def test_a_second_cluster_does_not_note_changed_ones(sysctl: Path, tmp_path: Path) -> None:
    note = tmp_path / "run" / "note.json"
    save(note=note, sysctl=sysctl)
    change(sysctl)
    save(note=note, sysctl=sysctl)
    restore(note=note, sysctl=sysctl)
    assert values(sysctl) == {"0"}


def test_without_a_note_nothing_is_changed(sysctl: Path, tmp_path: Path) -> None:
    change(sysctl)
    restore(note=tmp_path / "run" / "note.json", sysctl=sysctl)
    assert values(sysctl) == {"10"}


def test_limits_are_raised_never_lowered(sysctl: Path) -> None:
    (sysctl / WATCHERS).write_text("128")
    raise_limits(sysctl=sysctl)
    assert (sysctl / WATCHERS).read_text() == "8192"
    (sysctl / WATCHERS).write_text("100000")
    raise_limits(sysctl=sysctl)
    assert (sysctl / WATCHERS).read_text() == "100000"


def test_a_limit_that_cannot_be_raised_is_refused_with_a_remedy(
    sysctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> int:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(type(sysctl), "write_text", read_only)
    with pytest.raises(PrerequisiteError, match=r"is 0 and cannot be raised.*--nodes 0"):
        raise_limits(sysctl=sysctl)

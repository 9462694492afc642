"""Settings that kubelet changes for the whole machine go back with the last cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cabildo_local.kernel_settings import CHANGED_BY_KUBELET, restore, save

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sysctl(tmp_path: Path) -> Path:
    for name in CHANGED_BY_KUBELET:
        file = tmp_path / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0\n")
    return tmp_path / "sys"


def change(sysctl: Path) -> None:
    for name in CHANGED_BY_KUBELET:
        (sysctl / name).write_text("10\n")


def values(sysctl: Path) -> set[str]:
    return {(sysctl / name).read_text().strip() for name in CHANGED_BY_KUBELET}


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

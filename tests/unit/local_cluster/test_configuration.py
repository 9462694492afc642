"""A watched file is touched only when its text changes, and then replaced as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_local.configuration import write_configuration

if TYPE_CHECKING:
    from pathlib import Path


def test_the_same_text_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kube-proxy.yaml"
    write_configuration(path, text="a")
    before = path.stat()
    write_configuration(path, text="a")
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_another_text_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kube-proxy.yaml"
    write_configuration(path, text="a")
    inode = path.stat().st_ino
    with path.open() as reader:
        write_configuration(path, text="longer")
        assert reader.read() == "a"
    assert path.read_text() == "longer"
    assert path.stat().st_ino != inode
    assert path.stat().st_mode & 0o077 == 0
    assert [child.name for child in tmp_path.iterdir()] == ["kube-proxy.yaml"]

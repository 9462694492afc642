"""`cabildo cluster prune` frees what this checkout does not use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner

from cabildo_cli.cluster import cluster

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_program_of_another_version_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CABILDO_CACHE", str(tmp_path))
    old = tmp_path / "bin/etcd/0123456789abcdef/etcd"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(200_000_000))
    done = CliRunner().invoke(cluster, ["prune"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "freed 0.2 GB\n"
    assert not old.exists()

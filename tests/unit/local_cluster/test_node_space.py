"""Nodes that have to unpack the trainer's image need room for it, each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cabildo_local import node_space as module
from cabildo_local.errors import PrerequisiteError
from cabildo_local.node_space import check_node_space
from cabildo_local.settings import ClusterSettings, find_checkout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterSettings:
    monkeypatch.setattr(module, "PULL_BYTES", 1 << 60)
    return ClusterSettings(
        nodes=2, cache=tmp_path, state_root=tmp_path / "state", checkout=find_checkout()
    )


def unpack(settings: ClusterSettings, node: str) -> None:
    path = module.TORCH.replace("snapshots/*", "snapshots/7").replace("python3*", "python3.11")
    (settings.folder / "nodes" / node / path).mkdir(parents=True)


def test_every_node_that_lacks_it_counts(settings: ClusterSettings) -> None:
    with pytest.raises(
        PrerequisiteError, match=r"trainer's image on 2 nodes needs 2147483648\.0 GiB"
    ):
        check_node_space(settings)
    unpack(settings, "node1")
    with pytest.raises(PrerequisiteError, match=r"on 1 nodes needs 1073741824\.0 GiB"):
        check_node_space(settings)


def test_nodes_that_have_it_need_nothing(settings: ClusterSettings) -> None:
    unpack(settings, "node1")
    unpack(settings, "node2")
    check_node_space(settings)

"""The file of played nodes: what it may say, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cabildo_local.errors import SettingsError
from cabildo_local.fake_nodes import (
    FakeNodes,
    Pool,
    kwok_configuration,
    node_objects,
    read_fake_nodes,
)

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
pools:
- name: gpu
  count: 2
  labels: {cloud.google.com/gke-accelerator: nvidia-h100-80gb}
  taints: [{key: nvidia.com/gpu, value: present, effect: NoSchedule}]
  resources: {cpu: 16, nvidia.com/gpu: 8}
- name: tpu
pods: {startSeconds: 0.5, runSeconds: 2}
"""


def read(folder: Path, text: str) -> FakeNodes:
    path = folder / "fake.yaml"
    path.write_text(text)
    return read_fake_nodes(path)


def stages(fake: FakeNodes) -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all(kwok_configuration(fake))
    return {document["metadata"]["name"]: document["spec"] for document in documents}


def test_a_pool_becomes_nodes_with_its_resources(tmp_path: Path) -> None:
    nodes = node_objects(read(tmp_path, FILE), version="v1.34.4")
    assert [node["metadata"]["name"] for node in nodes] == ["gpu-0", "gpu-1", "tpu-0"]
    gpu = nodes[0]
    assert gpu["status"]["capacity"]["nvidia.com/gpu"] == "8"
    assert gpu["status"]["capacity"]["cpu"] == "16"
    assert gpu["status"]["allocatable"] == gpu["status"]["capacity"]
    assert gpu["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.4"
    assert gpu["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    labels = gpu["metadata"]["labels"]
    assert labels["cloud.google.com/gke-accelerator"] == "nvidia-h100-80gb"
    assert labels["cabildo.dev/fake-pool"] == "gpu"
    assert labels["kubernetes.io/hostname"] == "gpu-0"
    assert gpu["spec"]["taints"][0]["effect"] == "NoSchedule"


def test_a_pool_needs_no_more_than_a_name(tmp_path: Path) -> None:
    (node,) = node_objects(FakeNodes(pools=(Pool("tpu"),)), version="v1")
    assert node["status"]["capacity"] == {"pods": "256", "cpu": "32", "memory": "256Gi"}
    assert read(tmp_path, "pools: [{name: a}]").run_s is None


def test_pods_run_until_deleted_unless_told_otherwise() -> None:
    assert "pod-complete" not in stages(FakeNodes(pools=()))
    told = stages(FakeNodes(pools=(), start_s=0.25, run_s=2.0))
    assert told["pod-start"]["delay"] == {"durationMilliseconds": 250}
    assert told["pod-complete"]["delay"] == {"durationMilliseconds": 2000}
    keys = [rule["key"] for rule in told["pod-complete"]["selector"]["matchExpressions"]]
    assert ".metadata.ownerReferences.[].kind" in keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pools is no list"),
        ("pools: {}", "pools is no list"),
        ("pools: [{count: 1}]", "has no name"),
        ("pools: [x]", "has no name"),
        ("pools: [{name: a, count: -1}]", r"pools\[a\].count: -1"),
        ("pools: [{name: a, gpus: 1}]", "gpus is not known.*known are count, labels"),
        ("pools: []\nnodes: 1", "nodes is not known"),
        ("pools: []\npods: {runSeconds: soon}", "pods.runSeconds: 'soon'"),
        ("pools: []\npods: {startSeconds: -1}", "pods.startSeconds: -1"),
        ("pools: []\npods: {run: 1}", "run is not known"),
        ("pools: [", "cannot be read"),
    ],
)
def test_a_mistake_is_named_by_its_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_fake_nodes(tmp_path / "none.yaml")

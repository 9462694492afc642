"""Which claims get a folder, what their volume says, what `down` keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cabildo_local.provisioner import (
    PROVISIONER,
    refusal,
    remove_unretained,
    remove_volume,
    storage_class,
    volume_for,
    wants_volume,
    write_policy,
)

if TYPE_CHECKING:
    from pathlib import Path

LATE = {"provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"}
CLASSES = {
    "cabildo-local": storage_class(),
    "late": LATE,
    "foreign": {"provisioner": "example.com/x"},
}


def claim(class_name: str | None = "cabildo-local", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "c", "namespace": "ns", "uid": "u1", "resourceVersion": "7"},
        "spec": {
            "storageClassName": class_name,
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def test_a_claim_of_the_class_gets_a_volume_of_its_own(tmp_path: Path) -> None:
    assert wants_volume(claim(), classes=CLASSES)
    volume = volume_for(claim(), class_=storage_class(), folder=tmp_path / "pvc-u1")
    spec = volume["spec"]
    assert volume["metadata"]["name"] == "pvc-u1"
    assert spec["hostPath"] == {"path": str(tmp_path / "pvc-u1"), "type": "Directory"}
    assert spec["accessModes"] == ["ReadWriteMany"]
    assert spec["persistentVolumeReclaimPolicy"] == "Delete"
    assert spec["claimRef"]["uid"] == "u1"


@pytest.mark.parametrize(
    "other",
    [claim("foreign"), claim("missing"), claim(None), claim(volumeName="pv")],
)
def test_claims_of_others_and_bound_ones_are_left_alone(other: dict[str, Any]) -> None:
    assert not wants_volume(other, classes=CLASSES)


def test_a_claim_that_goes_is_left_alone() -> None:
    going = claim()
    going["metadata"]["deletionTimestamp"] = "now"
    assert not wants_volume(going, classes=CLASSES)


def test_a_late_class_waits_for_its_first_pod() -> None:
    late = claim("late")
    assert not wants_volume(late, classes=CLASSES)
    late["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "node1"}
    assert wants_volume(late, classes=CLASSES)


def test_what_a_folder_cannot_be_is_refused_with_a_remedy() -> None:
    assert refusal(claim()) is None
    assert "write Filesystem" in str(refusal(claim(volumeMode="Block")))
    assert "leave it out" in str(refusal(claim(selector={"matchLabels": {"a": "b"}})))


def test_down_keeps_what_is_to_be_retained_and_nothing_else(tmp_path: Path) -> None:
    for name, policy in {"pvc-a": "Retain", "pvc-b": "Delete"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text("x")
        write_policy(tmp_path, name=name, policy=policy)
    (tmp_path / "pvc-without-a-note").mkdir()
    said: list[str] = []
    assert remove_unretained(tmp_path, on_remove=said.append) == ["pvc-a"]
    assert [line.split(" (")[1] for line in said] == [
        "reclaim policy Delete)",
        "reclaim policy not known)",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pvc-a", "pvc-a.json"]


def test_a_changed_policy_is_noted(tmp_path: Path) -> None:
    (tmp_path / "pvc-a").mkdir()
    write_policy(tmp_path, name="pvc-a", policy="Delete")
    write_policy(tmp_path, name="pvc-a", policy="Retain")
    assert remove_unretained(tmp_path, on_remove=print) == ["pvc-a"]


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    (tmp_path / "pvc-a").mkdir()
    remove_volume(tmp_path, name="pvc-a")
    remove_volume(tmp_path, name="pvc-a")
    assert list(tmp_path.iterdir()) == []

"""The provisioner behind the StorageClass `cabildo-local`: a host folder for each claim.

A program of its own (`python -m cabildo_local.provisioner KUBECONFIG FOLDER`). It lists and
watches claims and volumes, makes a folder and a PersistentVolume for a claim of its classes,
and removes both when the volume is released, unless its policy is Retain. All nodes are on
one machine, so every node sees every folder: ReadWriteMany is real. Folders are writable by
any user, as hostPath knows no fsGroup. Sizes are not enforced.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabildo_local.api import CONFLICT, NOT_FOUND, Api, ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

PROVISIONER = "cabildo.dev/local"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
WATCH_S = 300
RETRY_S = 1.0
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"

_log = logging.getLogger(__name__)


def storage_class() -> dict[str, Any]:
    """Return the default StorageClass."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "cabildo-local",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def refusal(claim: dict[str, Any]) -> str | None:
    """Return why a claim cannot be served, or None if it can."""
    if claim["spec"].get("volumeMode", "Filesystem") != "Filesystem":
        return "volumeMode Block: folders are all there is, write Filesystem"
    if claim["spec"].get("selector"):
        return "selector: volumes are made for their claim, leave it out"
    return None


def wants_volume(claim: dict[str, Any], *, classes: dict[str, dict[str, Any]]) -> bool:
    """Whether it is our turn to make a volume for this claim."""
    spec, metadata = claim["spec"], claim["metadata"]
    class_ = classes.get(spec.get("storageClassName") or "")
    if class_ is None or class_["provisioner"] != PROVISIONER:
        return False
    if spec.get("volumeName") or metadata.get("deletionTimestamp"):
        return False
    if class_.get("volumeBindingMode") == "WaitForFirstConsumer":
        return SELECTED_NODE in metadata.get("annotations", {})
    return True


def volume_for(claim: dict[str, Any], *, class_: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the PersistentVolume of a claim, bound to it from the start."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": folder.name,
            "annotations": {PROVISIONED_BY: PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": class_.get("reclaimPolicy", "Delete"),
            "storageClassName": class_["metadata"]["name"],
            "volumeMode": "Filesystem",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        },
    }


class Provisioner:
    """Makes and removes volumes.

    Args:
        api: The cluster.
        folder: Folder below which each volume has its own.
    """

    def __init__(self, api: Api, *, folder: Path) -> None:
        self._api = api
        self._folder = folder

    def on_claim(self, claim: dict[str, Any]) -> None:
        """Make the volume of a claim if there is none and it is ours to make."""
        listed = self._api.get(CLASSES)["items"]
        classes = {class_["metadata"]["name"]: class_ for class_ in listed}
        if not wants_volume(claim, classes=classes):
            return
        if reason := refusal(claim):
            self._tell(claim, reason)
            return
        folder = self._folder / f"pvc-{claim['metadata']['uid']}"
        folder.mkdir(parents=True, exist_ok=True)
        # Whatever the umask was; pods of any user write here.
        folder.chmod(0o777)
        class_ = classes[claim["spec"]["storageClassName"]]
        volume = volume_for(claim, class_=class_, folder=folder)
        try:
            self._api.request("POST", VOLUMES, body=volume)
            _log.info("made %s for %s", folder.name, claim["metadata"]["name"])
        except ApiError as error:
            if error.status != CONFLICT:
                raise

    def on_volume(self, volume: dict[str, Any]) -> None:
        """Note a volume's policy for `down`, and remove it when it is released."""
        if volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) != PROVISIONER:
            return
        name = volume["metadata"]["name"]
        policy = volume["spec"]["persistentVolumeReclaimPolicy"]
        write_policy(self._folder, name=name, policy=policy)
        if policy != "Delete" or volume.get("status", {}).get("phase") != "Released":
            return
        remove_volume(self._folder, name=name)
        try:
            self._api.request("DELETE", f"{VOLUMES}/{name}")
            _log.info("removed %s", name)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    def _tell(self, claim: dict[str, Any], reason: str) -> None:
        metadata = claim["metadata"]
        event = {
            "metadata": {
                "generateName": f"{metadata['name']}.",
                "namespace": metadata["namespace"],
            },
            "type": "Warning",
            "reason": "ProvisioningFailed",
            "message": reason,
            "source": {"component": PROVISIONER},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
        self._api.request("POST", f"/api/v1/namespaces/{metadata['namespace']}/events", body=event)

    def follow(self, path: str, *, handle: Callable[[dict[str, Any]], None]) -> None:
        """List a collection and watch it, for ever."""
        while True:
            try:
                listed = self._api.get(path)
                for item in listed["items"]:
                    handle(item)
                version = listed["metadata"]["resourceVersion"]
                for event in self._api.watch(path, resource_version=version, timeout_s=WATCH_S):
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        handle(event["object"])
            except (OSError, ValueError, ApiError) as error:
                # The next list sees whatever was missed, and tries again what failed.
                _log.warning("%s: %s", path, error)
                time.sleep(RETRY_S)


def write_policy(folder: Path, *, name: str, policy: str) -> None:
    """Note a volume's reclaim policy beside its folder, for a `down` without API server."""
    path = folder / f"{name}.json"
    text = json.dumps({"reclaimPolicy": policy})
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def remove_volume(folder: Path, *, name: str) -> None:
    """Remove a volume's folder and its note."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / f"{name}.json").unlink(missing_ok=True)


def remove_unretained(folder: Path, *, on_remove: Callable[[str], None]) -> list[str]:
    """Remove all volumes but those to be retained.

    Args:
        folder: Folder below which each volume has its own.
        on_remove: Called with a line about each that goes, before it does.

    Returns:
        The names of those that stay.
    """
    stay = []
    for volume in sorted(path for path in folder.glob("pvc-*") if path.is_dir()):
        try:
            note = json.loads((folder / f"{volume.name}.json").read_text())
        except (OSError, ValueError):
            note = {}
        if note.get("reclaimPolicy") == "Retain":
            stay.append(volume.name)
        else:
            policy = note.get("reclaimPolicy", "not known")
            on_remove(f"removing the volume {volume} (reclaim policy {policy})")
            remove_volume(folder, name=volume.name)
    return stay


def main() -> None:
    """Run until killed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    provisioner = Provisioner(Api(Path(sys.argv[1])), folder=Path(sys.argv[2]))
    threading.Thread(
        target=provisioner.follow,
        args=(VOLUMES,),
        kwargs={"handle": provisioner.on_volume},
        daemon=True,
    ).start()
    provisioner.follow(CLAIMS, handle=provisioner.on_claim)


if __name__ == "__main__":
    main()

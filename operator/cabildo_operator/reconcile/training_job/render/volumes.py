"""What a trainer finds in its file system besides its image.

Here: volumes and their mounts, kept side by side because a mount without its volume is a pod that
never starts. Never here: a ConfigMap or Secret per job; the run spec is an annotation of the pod,
shown as a file by the downward API. Next: `job.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cabildo_api import names
from cabildo_api.data import DataSource

TOKEN_LIFETIME_S: Final = 3600
"""The kubelet renews the file at 80 % of this."""
FILE_MODE: Final = 0o444
"""A defaultMode is written so that the API server's own default never shows as a difference."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume and where it is seen."""

    volume: dict[str, Any]
    mount: dict[str, Any]


def mounted_volumes(*, checkpoint_claim: str, sources: Iterable[DataSource]) -> list[Mounted]:
    """Returns everything that is mounted into a trainer."""
    return [
        _config(),
        _progress_token(),
        _scratch("tmp", "/tmp", medium=""),  # noqa: S108 - a folder of the pod
        _scratch("shm", "/dev/shm", medium="Memory"),  # noqa: S108 - a folder of the pod
        _claim("checkpoints", checkpoint_claim, path=names.MOUNT_CHECKPOINTS, read_only=False),
        *(
            _claim(f"data-{index}", source.file.claim, path=names.data_mount(source.name))
            for index, source in enumerate(sources)
            if source.file is not None
        ),
    ]


def _config() -> Mounted:
    files = {
        names.RUN_FILE_NAME: names.ANNOTATION_RUN,
        names.PROGRESS_CA_FILE_NAME: names.ANNOTATION_PROGRESS_CA,
    }
    items = [
        {
            "path": file,
            "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{annotation}']"},
        }
        for file, annotation in files.items()
    ]
    return Mounted(
        {"name": "config", "downwardAPI": {"defaultMode": FILE_MODE, "items": items}},
        {"name": "config", "mountPath": names.MOUNT_CONFIG, "readOnly": True},
    )


def _progress_token() -> Mounted:
    token = {
        "audience": names.PROGRESS_AUDIENCE,
        "expirationSeconds": TOKEN_LIFETIME_S,
        "path": "token",
    }
    source = {"defaultMode": FILE_MODE, "sources": [{"serviceAccountToken": token}]}
    return Mounted(
        {"name": "progress-token", "projected": source},
        {"name": "progress-token", "mountPath": names.MOUNT_PROGRESS_TOKEN, "readOnly": True},
    )


def _scratch(name: str, path: str, *, medium: str) -> Mounted:
    return Mounted(
        {"name": name, "emptyDir": {"medium": medium} if medium else {}},
        {"name": name, "mountPath": path},
    )


def _claim(name: str, claim: str, *, path: str, read_only: bool = True) -> Mounted:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    return Mounted({"name": name, "persistentVolumeClaim": {"claimName": claim}}, mount)

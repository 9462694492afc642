"""Every name that two parts must spell the same way: group, labels, mounts, children.

Here: constants and the functions that make a child's name. Never here: anything that needs an
object or a cluster. Next: `run_spec.py` for what is inside the file that is mounted.
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "cabildo.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "TrainingJob"
PLURAL: Final = "trainingjobs"
SINGULAR: Final = "trainingjob"
SHORT_NAME: Final = "cbtj"
CATEGORY: Final = "training"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

MANAGED_BY: Final = "cabildo"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_KIND: Final = f"{GROUP}/kind"
LABEL_NAME: Final = f"{GROUP}/name"
LABEL_UID: Final = f"{GROUP}/uid"
LABEL_RUN: Final = f"{GROUP}/run"
LABEL_RUN_ID: Final = f"{GROUP}/run-id"
LABEL_ATTEMPT: Final = f"{GROUP}/attempt"
LABEL_LEADER: Final = f"{GROUP}/leader"

ANNOTATION_RUN: Final = f"{GROUP}/run"
ANNOTATION_PROGRESS_CA: Final = f"{GROUP}/progress-ca"

FIELD_MANAGER: Final = "cabildo-trainingjob"
PROGRESS_AUDIENCE: Final = f"{GROUP}/progress"

CONTAINER_TRAINER: Final = "trainer"
MOUNT_CONFIG: Final = "/etc/cabildo"
RUN_FILE_NAME: Final = "run.json"
PROGRESS_CA_FILE_NAME: Final = "progress-ca.pem"
RUN_FILE: Final = f"{MOUNT_CONFIG}/{RUN_FILE_NAME}"
PROGRESS_CA_FILE: Final = f"{MOUNT_CONFIG}/{PROGRESS_CA_FILE_NAME}"
MOUNT_CHECKPOINTS: Final = "/checkpoints"
MOUNT_DATA: Final = "/data"
MOUNT_PROGRESS_TOKEN: Final = "/var/run/secrets/cabildo.dev/progress"  # noqa: S105 - a path
PROGRESS_TOKEN_FILE: Final = f"{MOUNT_PROGRESS_TOKEN}/token"
TERMINATION_MESSAGE_PATH: Final = "/dev/termination-log"

NAME_MAX_LENGTH: Final = 45
"""Longest metadata.name: a pod's hostname adds run, attempt and index and must stay within 63."""


def job_name(name: str, run: int, attempt: int) -> str:
    """Returns the name of the Job of one attempt."""
    return f"{name}-r{run}-a{attempt}"


def service_name(name: str) -> str:
    """Returns the name of the headless Service, the subdomain of all pods of the object."""
    return name


def claim_name(name: str) -> str:
    """Returns the name of the claim made from `checkpoint.storage.claimTemplate`."""
    return f"{name}-checkpoints"


def pod_hostname(name: str, run: int, attempt: int, index: int) -> str:
    """Returns the hostname of rank `index`, which the Job controller gives to its pod."""
    return f"{job_name(name, run, attempt)}-{index}"


def pod_fqdn(name: str, run: int, attempt: int, index: int, *, namespace: str) -> str:
    """Returns the DNS name of rank `index` inside the cluster."""
    return f"{pod_hostname(name, run, attempt, index)}.{service_name(name)}.{namespace}.svc"


def data_mount(source_name: str) -> str:
    """Returns the folder under which the claim of a data source is mounted."""
    return f"{MOUNT_DATA}/{source_name}"


def step_folder(step: int) -> str:
    """Returns the folder name of the checkpoint of a step."""
    return f"step-{step:012d}"


def checkpoint_uri(claim: str, uid: str, run: int, step: int) -> str:
    """Returns the URI under which a committed checkpoint is reported."""
    return f"pvc://{claim}/{uid}/run-{run}/{step_folder(step)}"

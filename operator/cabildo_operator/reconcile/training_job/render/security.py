"""Security contexts that pass the Pod Security level `restricted`.

Here: the contexts of pod and container. Never here: a way to loosen them. Next: `job.py`.
"""

from typing import Any, Final

TRAINER_UID: Final = 65532
"""The user of the trainer image, by custom "nonroot"."""


def pod_security_context() -> dict[str, Any]:
    """Returns the pod's context.

    `OnRootMismatch`: walking a volume of many checkpoints at every start would take minutes.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": TRAINER_UID,
        "runAsGroup": TRAINER_UID,
        "fsGroup": TRAINER_UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security_context() -> dict[str, Any]:
    """Returns the container's context; what must be written has volumes of its own."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }

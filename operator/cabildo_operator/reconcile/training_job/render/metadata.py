"""Who a child belongs to: names, labels, owner.

Here: the metadata that every child shares, by which the informer selects it and the garbage
collector removes it. Never here: what a child is for. Next: `job.py`, `service.py`, `claim.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cabildo_api import names

ARGO_IGNORE_UPDATES: Final = "argocd.argoproj.io/ignore-resource-updates"
"""Children change while they run; Argo CD should not refresh the application each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The TrainingJob that children are made for."""

    namespace: str
    name: str
    uid: str


def object_labels(owner: Owner) -> dict[str, str]:
    """Returns the labels of every child of an object."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_KIND: names.KIND,
        names.LABEL_NAME: owner.name,
        names.LABEL_UID: owner.uid,
    }


def attempt_labels(owner: Owner, *, run: int, attempt: int) -> dict[str, str]:
    """Returns the labels of what belongs to one attempt."""
    return object_labels(owner) | {
        names.LABEL_RUN: str(run),
        names.LABEL_ATTEMPT: str(attempt),
    }


def attempt_selector(owner: Owner, *, run: int, attempt: int) -> dict[str, str]:
    """Returns the fewest labels that select the pods of one attempt."""
    return {
        names.LABEL_UID: owner.uid,
        names.LABEL_RUN: str(run),
        names.LABEL_ATTEMPT: str(attempt),
    }


def selector_text(labels: Mapping[str, str]) -> str:
    """Returns a selector as kubectl's `-l` and the scale subresource write it."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def owner_reference(owner: Owner) -> dict[str, Any]:
    """Returns the controller reference: deleting the object deletes the child."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }

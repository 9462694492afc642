"""The claim for checkpoints, made from `checkpoint.storage.claimTemplate`.

Here: its body and its name. It outlives the object unless `retentionPolicy` is Delete: weeks of
training must not go with a `kubectl delete`. Never here: claims of users, which are only mounted
(`volumes.py`). Next: `volumes.py`.
"""

from typing import Any

from cabildo_api import names
from cabildo_api.checkpoint import CheckpointStorage, ClaimTemplate
from cabildo_operator.reconcile.training_job.render.metadata import (
    Owner,
    object_labels,
    owner_reference,
)


def checkpoint_claim(storage: CheckpointStorage, *, owner: Owner) -> str:
    """Returns the name of the claim that holds the checkpoints."""
    return storage.claim_name or names.claim_name(owner.name)


def render_claim(template: ClaimTemplate, *, owner: Owner) -> dict[str, Any]:
    """Returns the claim; only with `retentionPolicy: Delete` does it belong to the object."""
    metadata: dict[str, Any] = {
        "name": names.claim_name(owner.name),
        "namespace": owner.namespace,
        "labels": object_labels(owner),
    }
    if template.retention_policy == "Delete":
        metadata["ownerReferences"] = [owner_reference(owner)]
    spec: dict[str, Any] = {
        "accessModes": list(template.access_modes),
        "resources": {"requests": {"storage": template.size}},
    }
    if template.storage_class_name:
        spec["storageClassName"] = template.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": spec,
    }

"""The headless Service: DNS names of the ranks of every attempt.

Here: one Service for an object; a pod's hostname carries run and attempt, so that the ranks of one
attempt never find those of another. Never here: a Service that balances load. Next: `job.py`, whose
pods name this Service as their subdomain.
"""

from typing import Any, Final

from cabildo_api import names
from cabildo_operator.kube.objects import Service
from cabildo_operator.reconcile.training_job.render.metadata import (
    ARGO_IGNORE_UPDATES,
    Owner,
    object_labels,
    owner_reference,
)

MASTER_PORT: Final = 29500
"""torch's customary rendezvous port."""


def service_selector(owner: Owner) -> dict[str, str]:
    """Returns the labels of the pods that get a DNS name."""
    return {names.LABEL_UID: owner.uid}


def render_service(owner: Owner) -> dict[str, Any]:
    """Returns the Service of an object.

    `publishNotReadyAddresses`: ranks must find each other before any of them is ready.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(owner.name),
            "namespace": owner.namespace,
            "labels": object_labels(owner),
            "annotations": {ARGO_IGNORE_UPDATES: "true"},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": service_selector(owner),
            "ports": [
                {
                    "name": "rendezvous",
                    "port": MASTER_PORT,
                    "protocol": "TCP",
                    "targetPort": MASTER_PORT,
                }
            ],
        },
    }


def has_drifted(service: Service, *, owner: Owner) -> bool:
    """Returns whether somebody changed what the ranks depend on."""
    return (
        service.spec.selector != service_selector(owner)
        or not service.spec.publish_not_ready_addresses
    )

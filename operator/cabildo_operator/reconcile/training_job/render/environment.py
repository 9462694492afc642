"""The environment of a trainer: who its peers are, how many threads it has, where it reports.

Here: names that torch, Kubeflow's clients and Cabildo's trainer read. Never here: hyperparameters;
they travel in the run spec (`job.py`). Next: the trainer's `rendezvous.py` and `report/`.
"""

import math
from typing import Any, Final

from cabildo_api import names
from cabildo_api.pods import Resources
from cabildo_api.quantities import quantity_value
from cabildo_api.training_job import TrainingJobSpec
from cabildo_operator.reconcile.training_job.render.metadata import Owner
from cabildo_operator.reconcile.training_job.render.service import MASTER_PORT
from cabildo_operator.reconcile.training_job.settings import PlanSettings

COMPLETION_INDEX: Final = "batch.kubernetes.io/job-completion-index"
"""Label and annotation by which the Job controller numbers the pods of an Indexed Job."""


def thread_count(resources: Resources) -> int:
    """Returns how many threads a rank computes with: its CPU limit rounded up, or one.

    Without a limit every rank on a node would start as many threads as the node has cores, and the
    sums in a reduction, hence the losses, would depend on the machine.
    """
    limit = resources.limits.get("cpu")
    return 1 if limit is None else max(1, math.ceil(quantity_value(limit)))


def progress_url(owner: Owner, *, settings: PlanSettings) -> str:
    """Returns the address that rank 0 of an object reports to."""
    base = settings.progress_url_base.rstrip("/")
    return f"{base}/{names.VERSION}/namespaces/{owner.namespace}/{names.PLURAL}/{owner.name}/status"


def render_environment(
    owner: Owner,
    *,
    spec: TrainingJobSpec,
    run: int,
    attempt: int,
    settings: PlanSettings,
) -> list[dict[str, Any]]:
    """Returns the container's `env`.

    MASTER_ADDR carries run and attempt: a rank of an older attempt cannot join a newer one.
    """
    master = names.pod_fqdn(owner.name, run, attempt, 0, namespace=owner.namespace)
    values = {
        "MASTER_ADDR": master,
        "MASTER_PORT": str(MASTER_PORT),
        "WORLD_SIZE": str(spec.nodes),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "OMP_NUM_THREADS": str(thread_count(spec.resources)),
        # Ranks that wait for each other must not burn the cores that the others need.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "PYTHONUNBUFFERED": "1",
        "CABILDO_TERMINATION_GRACE_SECONDS": str(spec.run_policy.termination_grace_period_seconds),
        "KUBEFLOW_TRAINER_SERVER_URL": progress_url(owner, settings=settings),
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": names.PROGRESS_CA_FILE,
        "KUBEFLOW_TRAINER_SERVER_TOKEN": names.PROGRESS_TOKEN_FILE,
    }
    fields = {
        "RANK": f"metadata.annotations['{COMPLETION_INDEX}']",
        "CABILDO_POD_NAME": "metadata.name",
    }
    return [{"name": name, "value": value} for name, value in values.items()] + [
        {
            "name": name,
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}},
        }
        for name, path in fields.items()
    ]

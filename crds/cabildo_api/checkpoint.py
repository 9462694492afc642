"""Where checkpoints are kept, how often they are taken and how many stay.

Here: the `checkpoint` object of the spec. Never here: the layout on the volume, which is the
trainer's. Next: `pods.py`.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from cabildo_api.base import ApiModel, OneOf
from cabildo_api.limits import Cadence
from cabildo_api.quantities import Quantity
from cabildo_api.scalars import ObjectName

AccessMode = Literal["ReadWriteMany", "ReadWriteOnce"]


class ClaimTemplate(ApiModel):
    """A claim that the operator makes, named after the job with `-checkpoints` added."""

    size: Quantity = "1Gi"
    """Requested size of the volume, as a quantity of bytes."""
    storage_class_name: Annotated[str, StringConstraints(max_length=253)] = ""
    """StorageClass of the claim; empty means the cluster's default class."""
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=2)] = (
        "ReadWriteMany",
    )
    """Access modes of the claim; pods on several nodes need ReadWriteMany."""
    retention_policy: Literal["Retain", "Delete"] = "Retain"
    """What happens to the claim when the job is deleted: Retain keeps it, Delete deletes it."""


class CheckpointStorage(OneOf):
    """Where checkpoints lie: exactly one member."""

    claim_template: ClaimTemplate | None = None
    """A claim made for this job."""
    claim_name: ObjectName | None = None
    """An existing claim in the job's namespace."""


class Keep(ApiModel):
    """How many checkpoints stay on the volume."""

    last: Annotated[int, Field(ge=2, le=1000)] = 2
    """Newest checkpoints kept; at least 2, so that a damaged one has another before it."""
    best: Annotated[int, Field(ge=0, le=1000)] = 1
    """Best checkpoints kept, judged by the objective; 0 keeps none."""


class Checkpoint(ApiModel):
    """Snapshots from which a run goes on bit for bit."""

    storage: CheckpointStorage = CheckpointStorage(claim_template=ClaimTemplate())
    """Where checkpoints lie."""
    every: Cadence = Cadence(epochs=1)
    """How often a checkpoint is taken."""
    keep: Keep = Keep()
    """How many checkpoints stay."""

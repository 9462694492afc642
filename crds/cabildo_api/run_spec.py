"""The run spec: what one attempt's pods are told, as JSON in the annotation `cabildo.dev/run`.

Here: the versioned model, made by the operator's `render`, read by the trainer from
`/etc/cabildo/run.json`. Never here: anything about other attempts. Next: the trainer's
`__main__.py`.
"""

import hashlib
import json
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from cabildo_api.base import ApiModel
from cabildo_api.checkpoint import Keep
from cabildo_api.data import Data
from cabildo_api.learning import Distribution, Model, Optimizer, Schedule, Training
from cabildo_api.limits import Cadence, EarlyStopping, Evaluation, Limits, Objective
from cabildo_api.names import MOUNT_CHECKPOINTS
from cabildo_api.training_job import TrainingJobSpec

RUN_SPEC_VERSION: Final = "v1"
COLLECTIVE_TIMEOUT_S: Final = 60

TRAINING_FIELDS: Final = frozenset(
    {
        "nodes",
        "seed",
        "objective",
        "model",
        "optimizer",
        "schedule",
        "training",
        "distribution",
        "data",
        "evaluation",
        "limits",
        "early_stopping",
    }
)
"""What decides the numbers of a run; names, places and cadences of checkpoints do not."""


class RunCheckpoint(ApiModel):
    """Checkpoints as a pod sees them."""

    root: str = MOUNT_CHECKPOINTS
    """Folder under which the object's checkpoints lie."""
    uri_prefix: str
    """URI of that folder, such as pvc://CLAIM."""
    every: Cadence = Cadence(epochs=1)
    """How often a checkpoint is taken."""
    keep: Keep = Keep()
    """How many checkpoints stay."""


class RunSpec(ApiModel):
    """Everything that one attempt needs to know."""

    version: Literal["v1"] = RUN_SPEC_VERSION
    namespace: str
    name: str
    uid: str
    run: Annotated[int, Field(ge=1)]
    run_id: Annotated[str, Field(alias="runID")]
    attempt: Annotated[int, Field(ge=1)]
    nodes: Annotated[int, Field(ge=1)]
    seed: int = 0
    objective: Objective
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    training: Training
    distribution: Distribution
    data: Data
    evaluation: Evaluation
    limits: Limits
    early_stopping: EarlyStopping
    checkpoint: RunCheckpoint
    collective_timeout_seconds: Annotated[int, Field(ge=1)] = COLLECTIVE_TIMEOUT_S

    @classmethod
    def from_spec(
        cls,
        spec: TrainingJobSpec,
        *,
        namespace: str,
        name: str,
        uid: str,
        run: int,
        attempt: int,
        uri_prefix: str,
        collective_timeout_s: int = COLLECTIVE_TIMEOUT_S,
    ) -> Self:
        """Returns the run spec of one attempt of an object."""
        shared = {
            field: getattr(spec, field) for field in TRAINING_FIELDS if field in cls.model_fields
        }
        return cls(
            namespace=namespace,
            name=name,
            uid=uid,
            run=run,
            run_id=spec.run_id,
            attempt=attempt,
            checkpoint=RunCheckpoint(
                uri_prefix=uri_prefix, every=spec.checkpoint.every, keep=spec.checkpoint.keep
            ),
            collective_timeout_seconds=collective_timeout_s,
            **shared,
        )

    def to_json(self) -> str:
        """Returns the annotation's text: compact, keys in a fixed order."""
        return json.dumps(self.to_object(), sort_keys=True, separators=(",", ":"))

    def config_digest(self) -> str:
        """Returns `sha256:<hex>` of the canonical JSON of what decides the run's numbers."""
        fields = self.model_dump(
            mode="json", by_alias=True, exclude_none=True, include=set(TRAINING_FIELDS)
        )
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

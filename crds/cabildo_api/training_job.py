"""The kind TrainingJob: the spec that users write and the object around it.

Here: the top of the spec and the rules that span its parts. Never here: the parts themselves
(`learning.py`, `data.py`, `limits.py`, `checkpoint.py`, `pods.py`, `run_policy.py`) or the status
(`training_job_status.py`). Next: `run_spec.py`, which is what a pod gets to see of a spec.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from cabildo_api.base import ApiModel, MapKey, Remedy, Rule, StatusModel
from cabildo_api.checkpoint import Checkpoint
from cabildo_api.data import Data
from cabildo_api.learning import (
    AdamW,
    ConstantSchedule,
    Ddp,
    Distribution,
    Model,
    Optimizer,
    Schedule,
    Training,
)
from cabildo_api.limits import EarlyStopping, Evaluation, Limits, Objective
from cabildo_api.names import NAME_MAX_LENGTH
from cabildo_api.pods import Resources, Scheduling, SecretReference
from cabildo_api.run_policy import RunPolicy
from cabildo_api.scalars import LabelValue, Time
from cabildo_api.training_job_status import TrainingJobStatus

SEED_MAX: Final = 2**32 - 1
NODES_MAX: Final = 1024
NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
MUTABLE_FIELDS: Final = frozenset({"suspend", "runID", "runPolicy.activeDeadlineSeconds"})
"""JSON paths in the spec that may change at any time; all others while suspended, or with a new
runID."""


class TrainingJobSpec(ApiModel):
    """What to train, on what, and how to go about it.

    Immutable, unless the same update sets or keeps suspend: true or changes runID. suspend and
    runPolicy.activeDeadlineSeconds may always change.
    """

    rules = (
        Rule(
            cel=(
                f"self.nodes < 1 || self.nodes > {NODES_MAX}"
                " || self.training.batchSize % self.nodes == 0"
            ),
            holds=lambda self: self.training.batch_size % self.nodes == 0,
            message=(
                "batchSize is {training.batchSize}, which is not divisible by nodes {nodes}:"
                " make training.batchSize a multiple of nodes"
            ),
            field=".training.batchSize",
        ),
    )

    suspend: bool = False
    """Whether the job pauses: pods take a checkpoint and end; false again resumes from it."""
    run_id: Annotated[LabelValue, Field(alias="runID")] = "1"
    """Name of the run: change it to train again from scratch. Checkpoints of other runs are kept
    apart."""
    trainer: Literal["lightning"] = "lightning"
    """Which trainer runs in the pods: lightning is PyTorch on Lightning Fabric."""
    image: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Image of the pods; empty means the trainer image of the operator's settings."""
    nodes: Annotated[
        int,
        Field(ge=1, le=NODES_MAX),
        Remedy(
            "write a number from 1 to 1024; to pause the job keep its nodes and set suspend: true"
        ),
    ] = 1
    """Number of pods; each is one rank."""
    resources: Resources = Resources()
    """Compute resources of each pod."""
    service_account_name: Annotated[str, StringConstraints(max_length=253)] = ""
    """ServiceAccount of the pods; empty means the namespace's default. Its token is not mounted."""
    image_pull_secrets: Annotated[
        tuple[SecretReference, ...], Field(max_length=8), MapKey("name")
    ] = ()
    """Secrets with credentials of the image's registry."""
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] = 0
    """Seed of everything that is drawn at random; the same seed gives the same losses."""
    objective: Objective = Objective()
    """The metric by which checkpoints are judged."""
    model: Model
    """The architecture."""
    optimizer: Optimizer = Optimizer(adam_w=AdamW())
    """The optimiser."""
    schedule: Schedule = Schedule(constant=ConstantSchedule())
    """How the learning rate changes over the run."""
    training: Training = Training()
    """One optimiser step: batch and gradient."""
    distribution: Distribution = Distribution(ddp=Ddp())
    """How the model is spread over the ranks."""
    data: Data
    """What the model learns from."""
    evaluation: Evaluation = Evaluation()
    """How often the model is evaluated."""
    limits: Limits = Limits()
    """When training ends."""
    early_stopping: EarlyStopping = EarlyStopping()
    """When training ends before its limits."""
    checkpoint: Checkpoint = Checkpoint()
    """Where checkpoints lie, how often they are taken, how many stay."""
    run_policy: RunPolicy = RunPolicy()
    """Restarts and deadlines."""
    scheduling: Scheduling = Scheduling()
    """Where the pods may run."""


class ObjectMeta(StatusModel):
    """The part of an object's metadata that Cabildo reads."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None


class TrainingJob(ApiModel):
    """Trains one model in a gang of pods, from `kubectl apply` to a result."""

    model_config = ConfigDict(extra="ignore")

    rules = (
        Rule(
            cel=f"size(self.metadata.name) <= {NAME_MAX_LENGTH}",
            holds=lambda self: len(self.metadata.name) <= NAME_MAX_LENGTH,
            message=(
                "metadata.name '{metadata.name}' is too long: use at most "
                f"{NAME_MAX_LENGTH} characters, because names of pods are made from it"
            ),
            field=".metadata.name",
        ),
        Rule(
            cel=f"self.metadata.name.matches(r'{NAME_PATTERN}')",
            holds=lambda self: re.match(NAME_PATTERN, self.metadata.name) is not None,
            message=(
                "metadata.name '{metadata.name}' cannot name a Service: start with a lower-case"
                " letter, then lower-case letters, digits and '-', ending with one of the first two"
            ),
            field=".metadata.name",
        ),
    )

    api_version: Literal["cabildo.dev/v1alpha1"] = "cabildo.dev/v1alpha1"
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: ObjectMeta
    spec: TrainingJobSpec
    status: TrainingJobStatus = TrainingJobStatus()

"""What a user may say about the pods: resources, secrets, scheduling.

Here: a curated part of the core API, with the core API's names. Never here: a whole pod template.
Next: `run_policy.py`.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from cabildo_api.base import ApiModel, Rule
from cabildo_api.quantities import Quantity, quantity_value
from cabildo_api.scalars import ObjectName

ResourceList = Annotated[dict[str, Quantity], Field(max_length=16)]


class Resources(ApiModel):
    """Compute resources of each pod's trainer container."""

    rules = (
        Rule(
            cel=(
                "!has(self.requests) || !has(self.limits) || self.requests.all(r,"
                " !(r in self.limits) || quantity(string(self.requests[r]))"
                ".compareTo(quantity(string(self.limits[r]))) <= 0)"
            ),
            holds=lambda self: all(
                quantity_value(amount) <= quantity_value(self.limits.get(name, amount))
                for name, amount in self.requests.items()
            ),
            message=(
                "requests {requests} are above limits {limits}: lower the request or raise the"
                " limit of that resource"
            ),
            field=".requests",
        ),
    )

    requests: ResourceList = Field(default_factory=dict)
    """What the scheduler sets aside for each pod, by resource name; cpu in cores, memory in
    bytes."""
    limits: ResourceList = Field(default_factory=dict)
    """What each pod may use at most, by resource name; thread counts follow the cpu limit."""


class SecretReference(ApiModel):
    """A Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""


class Toleration(ApiModel):
    """A taint that the pods accept, as in a pod's spec."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    """Key of the taint; absent with operator Exists matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared; absent means Equal."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Value of the taint; only with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent matches every effect."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated, in seconds; absent means for ever."""


class Scheduling(ApiModel):
    """Where the pods may run."""

    node_selector: Annotated[
        dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=32)
    ] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pods accept."""
    priority_class_name: Annotated[str, StringConstraints(max_length=253)] = ""
    """PriorityClass of the pods; empty means the cluster's default."""

"""What a kind brings to the loop: how it is observed and planned, and what a plan is.

`loop.py` drives any `Kind`; `reconcile/<kind>/` supplies one. Nothing here does I/O.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from cabildo_operator.kube.actions import Action
from cabildo_operator.kube.objects import CustomResource
from cabildo_operator.kube.store import ObjectKey, Store

O = TypeVar("O")  # noqa: E741 - the snapshot type of a kind
O_contra = TypeVar("O_contra", contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An action that the API server, or the name of a stranger's object, refused for good.

    The loop plans once more with it, so that the refusal is explained in the conditions, and
    tries the action again with back-off.
    """

    kind: str
    name: str
    code: int
    """HTTP status, or 409 with reason ``ChildNameConflict``."""
    reason: str
    """`AlreadyExists`-like reason of the API server's Status, or ``ChildNameConflict``."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What follows from a snapshot.

    Attributes:
        actions: Carried out in order; the first that fails ends the visit.
        status: The whole status as it should be, JSON-ready; None leaves it alone.
        wake_at: When to look again though nothing happens; None: never.
    """

    actions: tuple[Action, ...] = ()
    status: dict[str, Any] | None = None
    wake_at: datetime | None = None


class Planner(Protocol[O_contra]):
    """The pure heart of a kind."""

    def __call__(
        self, observed: O_contra, *, now: datetime, refusal: Refusal | None = None
    ) -> Plan:
        """Decide what follows from a snapshot."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[O]):
    """One kind's row in the loop's table.

    Attributes:
        name: The kind, for example ``TrainingJob``.
        objects: The store that `handlers/` fills.
        observe: Builds the snapshot from the stores; None when the object is unknown.
        plan: Decides.
        progress_fields: Top-level status fields that change all the time; a change in these
            alone is written every few seconds only.
    """

    name: str
    objects: Store[CustomResource]
    observe: Callable[[ObjectKey], O | None]
    plan: Planner[O]
    progress_fields: frozenset[str] = frozenset()

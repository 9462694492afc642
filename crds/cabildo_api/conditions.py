"""Conditions: the state of an object, in the shape of metav1.Condition.

Here: the types, the model and how one condition follows another. Never here: which condition holds
when; that is the operator's `plan`. Next: `reasons.py` for the words in `reason`.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field

from cabildo_api.base import StatusModel
from cabildo_api.scalars import Time

MESSAGE_MAX_LENGTH: Final = 2048

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Every condition of a TrainingJob, with its meaning; all are there from the first visit on."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Makes a member that is the word itself and carries its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ACCEPTED = ("Accepted", "The operator can work with the spec. False only for good.")
    RUNNING = ("Running", "All pods of the attempt run. The reason says why, or why not.")
    SUSPENDED = ("Suspended", "spec.suspend is true and no pod runs any more.")
    SUCCEEDED = ("Succeeded", "The run ended with a result.")
    FAILED = ("Failed", "The run ended without a result.")
    FINISHED = ("Finished", "The run ended, well or badly: what `kubectl wait` should wait for.")
    STALLED = ("Stalled", "The operator cannot go on unless somebody changes something.")


def clip(message: str) -> str:
    """Returns the message cut to what the schema takes: a refused status would hide all of it."""
    if len(message) <= MESSAGE_MAX_LENGTH:
        return message
    return message[: MESSAGE_MAX_LENGTH - 3] + "..."


class Condition(StatusModel):
    """One aspect of the state."""

    type: Annotated[str, Field(max_length=64)]
    """Name of the aspect."""
    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""
    reason: Annotated[str, Field(max_length=64)]
    """Why, in one CamelCase word; docs/reasons.md lists them."""
    message: Annotated[str, BeforeValidator(clip), Field(max_length=MESSAGE_MAX_LENGTH)] = ""
    """What happened and what to do about it."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int | None = None
    """metadata.generation that this condition speaks of."""

    def since(self, previous: Self | None) -> Self:
        """Returns this condition with the time at which its status became what it is."""
        if previous is None or previous.status != self.status:
            return self
        return self.model_copy(update={"last_transition_time": previous.last_transition_time})

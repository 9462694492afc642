"""When things happen and when training ends: cadences, objective, limits, early stopping.

Here: small objects about time and goals. Never here: deadlines of the operator, which are in
`run_policy.py`. Next: `checkpoint.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from cabildo_api.base import ApiModel, OneOf, Rule
from cabildo_api.scalars import MetricName

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class Cadence(OneOf):
    """How often something happens: exactly one member."""

    epochs: Count | None = None
    """Every so many epochs."""
    steps: Count | None = None
    """Every so many optimiser steps."""
    seconds: Count | None = None
    """Every so many seconds of wall time, at the next step's end. Which step that is depends on the
    machine: for an evaluation, so do early stopping and the best checkpoint."""


class Objective(ApiModel):
    """The goal that best checkpoint and early stopping follow."""

    metric: MetricName = "val_loss"
    """Name of the metric as the trainer logs it."""
    mode: Literal["min", "max"] = "min"
    """Whether lower (min) or higher (max) is better."""


class Evaluation(ApiModel):
    """Passes over the validation rows during training."""

    every: Cadence = Cadence(epochs=1)
    """How often the validation rows are evaluated."""


class Limits(ApiModel):
    """How long training may go on; the first limit reached ends it."""

    rules = (
        Rule(
            cel="self.minEpochs <= self.maxEpochs",
            holds=lambda self: self.min_epochs <= self.max_epochs,
            message=(
                "minEpochs is {minEpochs}, above maxEpochs {maxEpochs}:"
                " lower minEpochs or raise maxEpochs"
            ),
            field=".minEpochs",
        ),
    )

    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Passes over the train rows, at most."""
    min_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Passes over the train rows before early stopping may end training."""
    max_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Optimiser steps, at most; 0 means no limit."""


class EarlyStopping(ApiModel):
    """End of training when the objective no longer improves."""

    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    """Evaluations without improvement after which training ends; 0 switches this off."""
    min_delta: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Smallest change of the objective's metric that counts as an improvement."""

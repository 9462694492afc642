"""What a merge knows besides the inputs: faults, the trusted models, the evaluator, the seed.

Here: the frozen context and the list of needs. Never here: how a rule uses them. Next: `rule.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cabildo_trainer.consensus.privacy.ledger import Privacy
    from cabildo_trainer.consensus.sinks import WorkingSink
    from cabildo_trainer.consensus.sources import ModelSource


class Need(StrEnum):
    """An input that a rule cannot do without."""

    BASE = "base"
    """The model that all participants started from, once."""
    PREVIOUS = "previous"
    """The model that this round started from: the last result, or else the base."""
    ROOT_UPDATE = "root_update"
    """A model trained from the same start on data that the aggregator trusts."""
    EVALUATOR = "evaluator"
    """A loss on trusted validation data."""
    GRADIENT = "gradient"
    """The gradient of that loss with respect to the model."""
    STATISTICS = "statistics"
    """A model of statistics for each participant: Fisher diagonals or Gram matrices of inputs."""
    SEED = "seed"
    """The round's seed, from which every random number is drawn."""
    PRIVACY = "privacy"
    """The secret key of the noise, and the ledger of what was spent."""


class Evaluator(Protocol):
    """A loss on trusted data; lower is better, and the same model gives the same loss."""

    def loss(self, model: ModelSource) -> float:
        """Returns the loss of a model."""


class Gradient(Protocol):
    """The derivative of the trusted loss."""

    def gradient(self, model: ModelSource) -> ModelSource:
        """Returns the gradient at a model: the same tensors, in float32."""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that is not a participant's model.

    Attributes:
        maximum_faulty: f as declared: how many participants may be arbitrary.
        faulty: Participants proven faulty (equivocation, bad signature, replay, wrong shape) with
            the reason. They lower n and f.
        absent: Participants that are late or silent. They lower n only.
        base: The model that all participants started from, once.
        previous: The model that this round started from.
        root_update: A model trained on trusted data from the same start as the participants.
        evaluator: Loss on trusted validation data.
        gradient: Gradient of that loss.
        statistics: Statistics by participant key.
        seed: The round's seed.
        privacy: The noise's secret key and the ledger of earlier rounds.
        threads: Threads of the kernels; None takes the cgroup's quota. Never changes a bit.
        chunk_elements: Elements that are read at a time and row; 0 chooses. Never changes a bit.
        integers: What happens to integer tensors that differ: `equal` refuses them, `first` takes
            those of the first participant by key, `max` the largest value.
        workspace: Where candidates are kept while they are evaluated, by name; None for memory.
        progress: Called with (tensor name, elements done in this tensor, elements of it).
    """

    maximum_faulty: int = 0
    faulty: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    base: ModelSource | None = None
    previous: ModelSource | None = None
    root_update: ModelSource | None = None
    evaluator: Evaluator | None = None
    gradient: Gradient | None = None
    statistics: Mapping[str, ModelSource] = field(default_factory=dict)
    seed: bytes | None = None
    privacy: Privacy | None = None
    threads: int | None = None
    chunk_elements: int = 0
    integers: str = "equal"
    workspace: Callable[[str], WorkingSink] | None = None
    progress: Callable[[str, int, int], None] | None = None

    @property
    def start(self) -> ModelSource | None:
        """The model that the round started from: the previous one, or else the base.

        Distances are centred on it: it is trusted, and no participant chose it.
        """
        return self.base if self.previous is None else self.previous

    def has(self, need: Need) -> bool:
        """Returns whether a need is met."""
        if need is Need.PREVIOUS:
            return self.start is not None
        if need is Need.STATISTICS:
            return bool(self.statistics)
        return getattr(self, need.value) is not None

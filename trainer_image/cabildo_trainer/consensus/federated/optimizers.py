"""The server's optimisers: a step from the last model towards an aggregate, entry by entry.

delta = aggregate - parameters is what the round found. All is fp64 with + - * / and square root;
the caller rounds once. A state array that does not exist yet begins with `initial`.

Here: pure functions of arrays. Never here: models, files or rounds. Next: `outer_step.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from pydantic.alias_generators import to_camel

from cabildo_trainer.consensus.errors import ImpossibleSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    State = Mapping[str, Array]

MOMENTUM: Final = "momentum"
VARIANCE: Final = "variance"


@dataclass(frozen=True, slots=True)
class ServerOptimizer(ABC):
    """How a server moves; frozen, its fields are its settings.

    Attributes:
        learning_rate: eta > 0.
    """

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]] = ()
    """Names of its state arrays, each of the parameters' shape."""
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        require_between(self.name, "learningRate", self.learning_rate, above=0.0)

    @abstractmethod
    def step(self, parameters: Array, delta: Array, state: State) -> tuple[Array, dict[str, Array]]:
        """Returns the new parameters and the new state.

        Args:
            parameters: Of the last model.
            delta: The aggregate minus them.
            state: An array for every name in `states`.
        """

    def initial(self, state: str, size: int) -> Array:
        """Returns a state array before the first round."""
        del state
        return np.zeros(size, dtype=np.float64)

    def parameters(self) -> dict[str, float | bool]:
        """Returns the settings by their names in the API."""
        given: Any = self
        return {to_camel(field.name): getattr(given, field.name) for field in fields(given)}


def require_between(
    owner: str, name: str, value: float, *, above: float | None = None, least: float | None = None
) -> None:
    """Refuses a setting that is not finite, or below its bound, by name."""
    fits = np.isfinite(value)
    if above is not None:
        fits = fits and value > above
    if least is not None:
        fits = fits and value >= least
    if not fits:
        bound = f"> {above:g}" if above is not None else f">= {least:g}"
        raise ImpossibleSetting(f"{owner}.{name} = {value!r}: a finite number {bound} is needed")


def require_decay(owner: str, name: str, value: float) -> None:
    """Refuses a decay outside [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ImpossibleSetting(f"{owner}.{name} = {value!r}: a number in [0, 1) is needed")


@dataclass(frozen=True, slots=True)
class FedAvg(ServerOptimizer):
    """x + eta delta (McMahan et al., AISTATS 2017, arXiv 1602.05629); eta = 1 is the aggregate."""

    name: ClassVar[str] = "fedAvg"

    def step(self, parameters: Array, delta: Array, state: State) -> tuple[Array, dict[str, Array]]:
        """Steps."""
        del state
        return parameters + self.learning_rate * delta, {}


@dataclass(frozen=True, slots=True)
class FedAvgM(ServerOptimizer):
    """m <- beta m + delta; x + eta m (Hsu et al., 2019, arXiv 1909.06335).

    Attributes:
        momentum: beta.
        nesterov: Step by delta + beta m instead (Nesterov's, as in torch.optim.SGD).
    """

    name: ClassVar[str] = "fedAvgM"
    states: ClassVar[tuple[str, ...]] = (MOMENTUM,)
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Checks the settings."""
        ServerOptimizer.__post_init__(self)
        require_decay(self.name, "momentum", self.momentum)

    def step(self, parameters: Array, delta: Array, state: State) -> tuple[Array, dict[str, Array]]:
        """Steps."""
        momentum = self.momentum * state[MOMENTUM] + delta
        direction = delta + self.momentum * momentum if self.nesterov else momentum
        return parameters + self.learning_rate * direction, {MOMENTUM: momentum}


@dataclass(frozen=True, slots=True)
class DiLoCo(FedAvgM):
    """The outer step of DiLoCo: Nesterov momentum on -delta as the outer gradient.

    Douillard et al., 2023, arXiv 2311.08105: inner AdamW for some 500 steps at every participant,
    then this step with eta = 0.7 and beta = 0.9.
    """

    name: ClassVar[str] = "diLoCo"
    learning_rate: float = 0.7
    nesterov: bool = True


@dataclass(frozen=True, slots=True)
class _Adaptive(ServerOptimizer):
    """m <- beta1 m + (1 - beta1) delta; v by the subclass; x + eta m / (sqrt v + tau).

    Reddi et al., "Adaptive federated optimization", ICLR 2021, arXiv 2003.00295, algorithm 2,
    without bias correction as there; v begins with tau^2.

    Attributes:
        momentum: beta1.
        adaptivity: tau > 0.
    """

    states: ClassVar[tuple[str, ...]] = (MOMENTUM, VARIANCE)
    learning_rate: float = 0.01
    momentum: float = 0.9
    adaptivity: float = 1e-3

    def __post_init__(self) -> None:
        """Checks the settings."""
        ServerOptimizer.__post_init__(self)
        require_decay(self.name, "momentum", self.momentum)
        require_between(self.name, "adaptivity", self.adaptivity, above=0.0)

    def initial(self, state: str, size: int) -> Array:
        """Zero, and tau^2 for the variance."""
        start = self.adaptivity * self.adaptivity if state == VARIANCE else 0.0
        return np.full(size, start, dtype=np.float64)

    def step(self, parameters: Array, delta: Array, state: State) -> tuple[Array, dict[str, Array]]:
        """Steps."""
        momentum = self.momentum * state[MOMENTUM] + (1.0 - self.momentum) * delta
        variance = self.variance(state[VARIANCE], delta * delta)
        moved = self.learning_rate * momentum / (np.sqrt(variance) + self.adaptivity)
        return parameters + moved, {MOMENTUM: momentum, VARIANCE: variance}

    @abstractmethod
    def variance(self, last: Array, square: Array) -> Array:
        """Returns the new v from the last one and delta^2."""


@dataclass(frozen=True, slots=True)
class FedAdagrad(_Adaptive):
    """v <- v + delta^2."""

    name: ClassVar[str] = "fedAdagrad"
    momentum: float = 0.0

    def variance(self, last: Array, square: Array) -> Array:
        """Sums."""
        return last + square


@dataclass(frozen=True, slots=True)
class FedAdam(_Adaptive):
    """v <- beta2 v + (1 - beta2) delta^2.

    Attributes:
        decay: beta2.
    """

    name: ClassVar[str] = "fedAdam"
    decay: float = 0.99

    def __post_init__(self) -> None:
        """Checks the settings."""
        _Adaptive.__post_init__(self)
        require_decay(self.name, "decay", self.decay)

    def variance(self, last: Array, square: Array) -> Array:
        """Averages."""
        return self.decay * last + (1.0 - self.decay) * square


@dataclass(frozen=True, slots=True)
class FedYogi(FedAdam):
    """v <- v - (1 - beta2) delta^2 sign(v - delta^2)."""

    name: ClassVar[str] = "fedYogi"

    def variance(self, last: Array, square: Array) -> Array:
        """Moves towards the square by a share of it."""
        return last - (1.0 - self.decay) * square * np.sign(last - square)


OPTIMIZERS: Final[tuple[type[ServerOptimizer], ...]] = (
    FedAvg,
    FedAvgM,
    DiLoCo,
    FedAdagrad,
    FedAdam,
    FedYogi,
)


def optimizer_from_parameters(name: str, parameters: Mapping[str, Any]) -> ServerOptimizer:
    """Returns the optimiser of a name with settings as in the API (camelCase).

    Raises:
        ImpossibleSetting: The name or a setting is unknown, or a value does not fit.
    """
    by_name = {kind.name: kind for kind in OPTIMIZERS}
    if name not in by_name:
        raise ImpossibleSetting(
            f"no server optimiser is called {name!r}",
            remedy=f"use one of {', '.join(sorted(by_name))}",
        )
    kind: Any = by_name[name]
    known = {to_camel(field.name): field for field in fields(kind)}
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ImpossibleSetting(
            f"{name} has no setting {', '.join(unknown)}",
            remedy=f"its settings: {', '.join(sorted(known))}",
        )
    for setting, value in parameters.items():
        wanted = bool if known[setting].type == "bool" else (int, float)
        if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
            raise ImpossibleSetting(f"{name}.{setting} = {value!r}: a {known[setting].type}")
    made: ServerOptimizer = kind(**{known[key].name: value for key, value in parameters.items()})
    return made

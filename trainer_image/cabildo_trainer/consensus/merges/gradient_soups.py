"""Soups whose weights a gradient of the trusted loss finds: simplex weights and learned soups.

The loss of sum a_i x_i has the derivatives <dL/dw, x_i> in the weights: one gradient of the model
and one pass of inner products. They sum to the same for every start, so no rule needs a base.

Here: the objectives, the two rules. Never here: descent (`simplex.py`). Next: `merging.py`. The
duality gap is in the result: near zero it says "stationary on the simplex"; that it is the minimum
follows only for convex losses in the weights (linear models, mixtures of logits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Candidate, Decision
from cabildo_trainer.consensus.elementary import softmax
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merges.simplex import (
    Method,
    Penalised,
    Solution,
    Weights,
    duality_gap,
    minimise,
    uniform,
)
from cabildo_trainer.consensus.merges.soups import refuse_non_finite
from cabildo_trainer.consensus.merges.tensor_grams import tensor_dots
from cabildo_trainer.consensus.merges.weights import convex_weights
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import PerTensor, Recipe, WeightedSum
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_trainer.consensus.passes import Session
    from cabildo_trainer.consensus.sources import ModelSource

MOST_PASSES: Final = 1_000_000
"""Rules that descend read the inputs for every step; how often is told by `iterations`."""
LOSS_NOISE: Final = 2.0**-22
"""Relative error that float32 parameters leave in a loss."""
_SUFFICIENT: Final = 1e-4
_MOST_HALVINGS: Final = 30
_FARTHEST: Final = 32.0
"""A first step that moves theta further ends at one model whatever the loss: weights of exp(-32)
are lost beside float32, so nothing brings them back. It begins at a move of 1 instead."""


class ModelLoss:
    """The trusted loss of sum a_i x_i as a function of the weights a; remembers its last point."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._last: tuple[Recipe, ModelSource] | None = None

    def value(self, weights: Weights) -> float:
        """Returns the loss of the mixture."""
        return self.loss_of(WeightedSum(weights=weights))

    def gradient(self, weights: Weights) -> Weights:
        """Returns <dL/dw, x_i> for every row."""
        by_tensor = self.by_tensor(WeightedSum(weights=weights))
        return tuple(ordered_sum(row) for row in zip(*by_tensor.values(), strict=True))

    def loss_of(self, recipe: Recipe) -> float:
        """Returns the loss of what a recipe makes."""
        return self._session.loss_of(self._model(recipe))

    def by_tensor(self, recipe: Recipe) -> dict[str, Weights]:
        """Returns <dL/dw, x_i> for every tensor and row at what a recipe makes."""
        slope = self._session.gradient_at(self._model(recipe))
        return {
            name: tuple(float(value) for value in products)
            for name, products in tensor_dots(self._session, slope, base=None)
        }

    def _model(self, recipe: Recipe) -> ModelSource:
        if self._last is None or self._last[0] != recipe:
            self._last = (recipe, self._session.materialise(recipe))
        return self._last[1]


@dataclass(frozen=True, slots=True)
class SimplexWeights(Rule):
    """min over the simplex of L(sum a_i x_i) + penalty * |a - centre|^2.

    Attributes:
        method: `projected-gradient`, `mirror-descent` or `frank-wolfe` (pairwise).
        penalty: lambda >= 0: how strongly the weights are held near the centre.
        centre: By key, with sum 1; empty for equal weights. Descent starts there.
        iterations: Steps at most.
        tolerance: It stops where the gap is at most tolerance * (1 + |value|).
    """

    name: ClassVar[str] = "simplexWeights"
    method: Literal["projected-gradient", "mirror-descent", "frank-wolfe"] = "projected-gradient"
    penalty: float = 0.0
    centre: dict[str, float] = field(default_factory=dict)
    iterations: int = 50
    tolerance: float = 1e-6

    @property
    def needs(self) -> frozenset[Need]:
        """A trusted loss and its gradient."""
        return frozenset({Need.EVALUATOR, Need.GRADIENT})

    @property
    def passes(self) -> int:
        """For every step some values and one gradient."""
        return MOST_PASSES

    def requirement(self, n: int, f: int) -> None:
        """Also checks penalty, iterations and tolerance."""
        Rule.requirement(self, n, f)
        for name, value in (
            ("penalty", self.penalty),
            ("iterations", self.iterations),
            ("tolerance", self.tolerance),
        ):
            require(
                Check(
                    holds=0.0 <= value < math.inf,
                    arithmetic=f"simplexWeights.{name} = {value!r}: a finite number >= 0 is needed",
                    remedy=f"leave {name} out to take its default",
                )
            )

    def decide(self, session: Session) -> Decision:
        """Descends."""
        _weighed(session, self.name)
        centre = convex_weights(self.centre, keys=session.keys, normalize=False)
        objective = Penalised(ModelLoss(session), centre=centre, strength=self.penalty)
        found = minimise(
            objective,
            start=centre,
            method=Method(self.method),
            iterations=self.iterations,
            tolerance=self.tolerance,
            noise=LOSS_NOISE,
        )
        return _decision(found)


def _weighed(session: Session, rule: str) -> tuple[str, ...]:
    """Returns the names of the tensors that a loss has derivatives in.

    Raises:
        ImpossibleSetting: There is none.
    """
    names = tuple(
        name for name, spec in session.specs.items() if spec.is_floating and spec.size > 0
    )
    if not names:
        raise ImpossibleSetting(
            f"{rule} needs a floating tensor with an element: the models have"
            f" {len(session.specs)} tensors and none such",
            remedy="use a rule without a gradient: uniformSoup carries the other tensors along",
        )
    return names


def _decision(found: Solution) -> Decision:
    refuse_non_finite(found.value)
    used = tuple(weight > 0.0 for weight in found.weights)
    return Decision(
        recipe=WeightedSum(weights=found.weights),
        accepted=used,
        reasons=tuple("" if taken else "ZeroWeight" for taken in used),
        weights=found.weights,
        candidates=(Candidate(name="mixture", loss=found.value, picked=True),),
        diagnostics={
            "dualityGap": found.gap,
            "objective": found.value,
            "iterations": float(found.iterations),
            "evaluations": float(found.evaluations),
            "stopped": found.stopped,
            "claim": "stationary on the simplex up to the gap; minimal only for convex losses",
        },
    )


@dataclass(frozen=True, slots=True)
class LearnedSoup(Rule):
    """Weights softmax(theta) by gradient descent on theta, for the model or for every layer.

    Wortsman et al., ICML 2022, arXiv 2203.05482, appendix I, without the temperature: it needs the
    logits, which a loss hides. Starts at equal weights; every step strictly lowers the loss.

    Attributes:
        layers: `global` learns one weight a model; `tensor` one for each tensor; `prefix` one for
            all tensors whose names share the parts before the last dot.
        iterations: Steps at most.
        rate: First step on theta; halved until the loss falls enough, doubled after success. Where
            it would move theta by more than 32, for a loss in large units, it begins at 1.
    """

    name: ClassVar[str] = "learnedSoup"
    layers: Literal["global", "tensor", "prefix"] = "global"
    iterations: int = 50
    rate: float = 1.0

    @property
    def needs(self) -> frozenset[Need]:
        """A trusted loss and its gradient."""
        return frozenset({Need.EVALUATOR, Need.GRADIENT})

    @property
    def passes(self) -> int:
        """For every step some values and one gradient."""
        return MOST_PASSES

    def requirement(self, n: int, f: int) -> None:
        """Also checks iterations and rate."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=self.iterations >= 0 and 0.0 < self.rate < math.inf,
                arithmetic=f"learnedSoup: iterations = {self.iterations} >= 0 and a finite rate ="
                f" {self.rate!r} > 0 are needed",
                remedy="leave both out to take their defaults",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Descends."""
        layers = {name: self._layer(name) for name in _weighed(session, self.name)}
        objective = ModelLoss(session)
        theta: dict[str, Weights] = dict.fromkeys(layers.values(), (0.0,) * session.n)
        loss, rate, steps = objective.loss_of(_recipe(theta, layers)), self.rate, 0
        while steps < self.iterations:
            slopes = _slopes(objective.by_tensor(_recipe(theta, layers)), theta, layers)
            rate = rate if steps else _first_rate(rate, slopes)
            stepped = _descend(objective, theta, slopes, layers=layers, loss=loss, rate=rate)
            if stepped is None:
                break
            theta, loss, rate = stepped
            steps += 1
        return self._decision(objective, theta, layers, loss=loss, steps=steps, n=session.n)

    def _layer(self, name: str) -> str:
        if self.layers == "global":
            return ""
        return name if self.layers == "tensor" else name.rpartition(".")[0]

    def _decision(
        self,
        objective: ModelLoss,
        theta: Mapping[str, Weights],
        layers: Mapping[str, str],
        *,
        loss: float,
        steps: int,
        n: int,
    ) -> Decision:
        refuse_non_finite(loss)
        recipe = _recipe(theta, layers)
        sums = _by_layer(objective.by_tensor(recipe), layers, n=n)
        gap = ordered_sum(
            duality_gap(softmax(theta[layer]), slope) for layer, slope in sums.items()
        )
        return Decision(
            recipe=recipe,
            accepted=(True,) * n,
            weights=softmax(theta[""]) if self.layers == "global" else None,
            candidates=(Candidate(name="mixture", loss=loss, picked=True),),
            diagnostics={
                "dualityGap": gap,
                "loss": loss,
                "iterations": float(steps),
                "layers": float(len(theta)),
                "claim": "stationary on the simplices up to the gap",
            },
        )


def _recipe(theta: Mapping[str, Weights], layers: Mapping[str, str]) -> Recipe:
    sums = {layer: WeightedSum(weights=softmax(values)) for layer, values in theta.items()}
    if set(theta) == {""} and set(layers.values()) == {""}:
        return sums[""]
    n = len(next(iter(theta.values())))
    return PerTensor(
        recipes={name: sums[layer] for name, layer in layers.items()},
        default=WeightedSum(weights=uniform(n)),
    )


def _by_layer(
    by_tensor: Mapping[str, Weights], layers: Mapping[str, str], *, n: int
) -> dict[str, Weights]:
    """Returns the derivatives in the weights of every layer: sums over its tensors."""
    total: dict[str, Weights] = {}
    for name, products in by_tensor.items():
        before = total.get(layers[name], (0.0,) * n)
        total[layers[name]] = tuple(a + b for a, b in zip(before, products, strict=True))
    return total


def _slopes(
    by_tensor: Mapping[str, Weights], theta: Mapping[str, Weights], layers: Mapping[str, str]
) -> dict[str, Weights]:
    """Returns dL/dtheta_i = a_i (g_i - sum_j a_j g_j) of every layer."""
    n = len(next(iter(theta.values())))
    slopes = {}
    for layer, products in _by_layer(by_tensor, layers, n=n).items():
        shares = softmax(theta[layer])
        middle = ordered_sum(a * g for a, g in zip(shares, products, strict=True))
        slopes[layer] = tuple(a * (g - middle) for a, g in zip(shares, products, strict=True))
    return slopes


def _first_rate(rate: float, slopes: Mapping[str, Weights]) -> float:
    """Returns the rate of the first step: as given, or that of a move of 1; see `_FARTHEST`."""
    steepest = max(abs(slope) for layer in slopes.values() for slope in layer)
    return rate if rate * steepest <= _FARTHEST else 1.0 / steepest


def _descend(
    objective: ModelLoss,
    theta: Mapping[str, Weights],
    slopes: Mapping[str, Weights],
    *,
    layers: Mapping[str, str],
    loss: float,
    rate: float,
) -> tuple[dict[str, Weights], float, float] | None:
    """Returns (theta, loss, next rate) after one step that lowers the loss, or None."""
    square = ordered_sum(slope * slope for layer in slopes.values() for slope in layer)
    if square == 0.0:
        return None
    for _ in range(_MOST_HALVINGS):
        stepped = {
            layer: tuple(
                value - rate * slope for value, slope in zip(values, slopes[layer], strict=True)
            )
            for layer, values in theta.items()
        }
        reached = objective.loss_of(_recipe(stepped, layers))
        if reached < loss and reached <= loss - _SUFFICIENT * rate * square:
            return stepped, reached, 2.0 * rate
        rate /= 2.0
    return None

"""The rounds: everybody trains, the Byzantine attack, the product's `merge` makes the next model.

A participant sends its model after one step along its own momentum (0.9): start - rate * m_i.
The aggregator merges the models and starts the next round from the result.

Here: one run, for one rule, attack and seed. Never here: a rule, a table. Next:
`eval_consensus.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import NonFiniteInput
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.passes import Session
from cabildo_trainer.consensus.sinks import MemorySink
from eval.attacks import ATTACKS, Knowledge, flipped
from eval.contenders import BYZANTINE, PARTICIPANTS
from eval.digits import split_digits
from eval.network import TrustedLoss, accuracy, gradients, initial, model_of, vector_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.rule import Rule
    from cabildo_trainer.consensus.sources import MemoryModel
    from eval.contenders import Contender
    from eval.digits import Samples

CONCENTRATION = 0.3
MOMENTUM = 0.9
RATE = 0.1
BATCH = 32
HONEST = PARTICIPANTS - BYZANTINE
KEYS = tuple(f"participant-{index:02}" for index in range(PARTICIPANTS))
"""The first are honest, the last Byzantine; a rule gives the same result for any order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        accuracy: Of the last model on the test set.
        rounds: How many were run; fewer than asked for when the models left the finite numbers.
        kappa: Median over rounds of |result - mean|^2 / variance, mean and variance (that of the
            (f, kappa)-robustness) being those of the honest.
        picks: What `auto` chose, a candidate a round; empty for other rules.
    """

    accuracy: float
    rounds: int
    kappa: float
    picks: tuple[str, ...]


class Crowd:
    """All participants, and the aggregator's own trusted samples as one more.

    Args:
        shards: One for each participant, then the trusted samples.
        flipping: Rows that train on flipped labels.
        random: Where batches come from.
    """

    def __init__(
        self, shards: tuple[Samples, ...], *, flipping: range, random: np.random.Generator
    ) -> None:
        self._shards = shards
        self._labels = [
            flipped(shard.digits) if row in flipping else shard.digits
            for row, shard in enumerate(shards)
        ]
        self._random = random
        self._momentum: NDArray[np.float32] | None = None

    def updates(self, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return -rate * m_i for every row, with m_i = 0.9 m_i + gradient on a fresh batch."""
        rows = [self._random.integers(len(shard.digits), size=BATCH) for shard in self._shards]
        images = np.stack(
            [shard.images[row] for shard, row in zip(self._shards, rows, strict=True)]
        )
        digits = np.stack([labels[row] for labels, row in zip(self._labels, rows, strict=True)])
        fresh = gradients(vector, images, digits)
        old = 0.0 if self._momentum is None else self._momentum
        self._momentum = MOMENTUM * old + fresh
        return -RATE * self._momentum.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Round:
    """What is fixed in a round before the Byzantine send.

    Attributes:
        start: The round's first model [D].
        rule: Under test.
        context: Of the merge.
        honest: Models of the honest.
    """

    start: NDArray[np.float32]
    rule: Rule
    context: Context
    honest: tuple[MemoryModel, ...]

    def models(self, byzantine: NDArray[np.float64]) -> tuple[MemoryModel, ...]:
        """Return all models, given the Byzantine updates [F, D]."""
        return (*self.honest, *sent(self.start, byzantine, keys=KEYS[HONEST:]))

    def preview(self, byzantine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the aggregate's update: the rule's decision and pass, without a record."""
        session = Session(
            sources=self.models(byzantine), f=self.context.maximum_faulty, context=self.context
        )
        result = session.materialise(self.rule.decide(session).recipe)
        tensors = {name: result.read(name, 0, spec.size) for name, spec in result.tensors.items()}
        return vector_of(tensors).astype(np.float64) - self.start

    def merged(self, byzantine: NDArray[np.float64]) -> tuple[NDArray[np.float32], str]:
        """Return the next round's first model [D], and what `auto` picked."""
        sink = MemorySink()
        result = merge(self.models(byzantine), self.rule, self.context, sink=sink)
        return vector_of(sink.tensors), str(result.diagnostics.get("picked", ""))


def sent(
    start: NDArray[np.float32], updates: NDArray[np.float64], *, keys: tuple[str, ...]
) -> tuple[MemoryModel, ...]:
    """Return the models start + update, in float32."""
    vectors = (start + updates).astype(np.float32)
    return tuple(model_of(key, vector) for key, vector in zip(keys, vectors, strict=True))


def displacement(update: NDArray[np.float64], *, honest: NDArray[np.float64]) -> float:
    """Return |update - mean|^2 / variance for updates of the honest [H, D]."""
    mean = honest.mean(axis=0)
    variance = float(np.square(honest - mean).sum(axis=1).mean())
    return float(np.square(update - mean).sum()) / variance


@np.errstate(over="ignore", invalid="ignore")  # a rule that fails lets the model grow without bound
def run(contender: Contender, attack_name: str, *, seed: int, rounds: int) -> Outcome:
    """Train once."""
    attack = ATTACKS[attack_name]
    split = split_digits(participants=PARTICIPANTS, concentration=CONCENTRATION, seed=seed)
    crowd = Crowd(
        (*split.shards, split.trusted),
        flipping=range(HONEST, PARTICIPANTS) if attack.flips_labels else range(0),
        random=np.random.default_rng([seed, 1]),
    )
    noise = np.random.default_rng([seed, 2])
    vector = initial(np.random.default_rng([seed, 3]))
    rule, judge = contender.rule(), TrustedLoss(split.trusted)
    kappas, picks = [], []
    for number in range(rounds):
        updates = crowd.updates(vector)
        (root,) = sent(vector, updates[PARTICIPANTS:], keys=("root",))
        now = Round(
            start=vector,
            rule=rule,
            context=Context(
                maximum_faulty=contender.declared,
                previous=model_of("start", vector),
                root_update=root,
                evaluator=judge,
                seed=f"{seed}/{number}".encode(),
                threads=1,
            ),
            honest=sent(vector, updates[:HONEST], keys=KEYS[:HONEST]),
        )
        known = Knowledge(
            honest=updates[:HONEST],
            own=updates[HONEST:PARTICIPANTS],
            aggregate=now.preview,
            random=noise,
        )
        try:
            following, picked = now.merged(attack.send(known))
        except NonFiniteInput:
            break
        step = following.astype(np.float64) - vector
        kappas.append(displacement(step, honest=known.honest))
        picks += [picked] if picked else []
        vector = following
    return Outcome(
        accuracy=accuracy(vector, split.test),
        rounds=len(kappas),
        kappa=float(np.median(kappas)),
        picks=tuple(picks),
    )

"""Models for the contract tests: honest ones around a base, and arbitrary ones.

Values are float32 multiples of 2^-20 of size below 1, so that moving them by a multiple of 2^-4 and
doubling them are exact: equivariance can be asked to the bit, or nearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.privacy.ledger import Ledger, Privacy
from cabildo_trainer.consensus.privacy.noise_key import NoiseKey
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES = {"b.bias": (7,), "a.weight": (12, 15), "c.deep.weight": (3, 5, 8)}
GRID = 2.0**-20
SEED = b"round-seed"
NOISE_SECRET = bytes(range(32))


@dataclass(frozen=True)
class Scene:
    """Rows (n, d) in float64 that float32 holds exactly, and the trusted models."""

    rows: NDArray[np.float64]
    start: NDArray[np.float64]
    root: NDArray[np.float64]
    target: NDArray[np.float64]

    @property
    def n(self) -> int:
        return len(self.rows)

    def moved(self, by: float) -> Scene:
        return Scene(self.rows + by, self.start + by, self.root + by, self.target + by)

    def scaled(self, by: float) -> Scene:
        return Scene(self.rows * by, self.start * by, self.root * by, self.target * by)

    def turned(self, rotation: NDArray[np.float64]) -> Scene:
        parts = (self.rows, self.start, self.root, self.target)
        return Scene(*(on_grid(part @ rotation.T) for part in parts))


class DistanceLoss:
    """A trusted loss that moves and scales with the models: the distance to a target."""

    def __init__(self, target: NDArray[np.float64]) -> None:
        self._target = target

    def loss(self, model: Any) -> float:
        return float(np.linalg.norm(flat(model) - self._target))

    def gradient(self, model: Any) -> MemoryModel:
        difference = flat(model) - self._target
        norm = float(np.linalg.norm(difference)) or 1.0
        shapes = {name: spec.shape for name, spec in model.tensors.items() if spec.is_floating}
        return unflat("gradient", difference / norm, shapes=shapes)


def on_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(values / GRID) * GRID


def size() -> int:
    return sum(int(np.prod(shape)) for shape in SHAPES.values())


def flat(model: Any, *, names: set[str] | None = None) -> NDArray[np.float64]:
    """Floating tensors (those of some names) in byte order of name."""
    parts = [
        model.read(name, 0, spec.size).astype(np.float64)
        for name, spec in sorted(model.tensors.items(), key=lambda item: item[0].encode())
        if spec.is_floating and (names is None or name in names)
    ]
    return np.concatenate(parts)


def unflat(
    key: str, values: NDArray[np.float64], *, shapes: dict[str, tuple[int, ...]] | None = None
) -> MemoryModel:
    """The model of flat values, with one integer tensor that is carried along."""
    arrays: dict[str, NDArray[Any]] = {"z.steps": np.arange(3, dtype=np.int64)}
    start = 0
    shapes = SHAPES if shapes is None else shapes
    for name in sorted(shapes, key=str.encode):
        length = int(np.prod(shapes[name]))
        piece = values[start : start + length].astype(np.float32)
        arrays[name] = piece.reshape(shapes[name])
        start += length
    return MemoryModel(key, arrays)


def scene(n: int, f: int, *, seed: int, attack: str = "shifted", d: int | None = None) -> Scene:
    """n rows of which f are arbitrary, the arbitrary ones spread over the keys."""
    rng = np.random.default_rng(seed)
    d = size() if d is None else d
    start = rng.normal(scale=0.05, size=d)
    truth = start + rng.normal(scale=0.01, size=d)
    rows = truth + rng.normal(scale=0.02, size=(n, d)) * rng.uniform(0.5, 1.5, size=(n, 1))
    for index, row in enumerate(rng.permutation(n)[:f]):
        noise = rng.normal(scale=0.02, size=d)
        rows[row] = {
            "shifted": truth + 0.06 + noise,
            "sign": start - 2.0 * (truth - start) + noise,
            "far": truth + (0.2 + 0.05 * index) * np.sign(noise),
            "copies": truth + 0.03,
            "away": truth + 64.0,
            "honest": rows[row],
        }[attack]
    root = truth + rng.normal(scale=0.01, size=d)
    limit = 128.0 if attack == "away" else 0.5
    parts = (on_grid(np.clip(part, -limit, limit)) for part in (rows, start, root, truth))
    return Scene(*(part.astype(np.float32).astype(np.float64) for part in parts))


def key_of(row: int) -> str:
    return f"participant-{row:02d}"


def models(given: Scene) -> list[MemoryModel]:
    return [unflat(key_of(row), values) for row, values in enumerate(given.rows)]


def context(given: Scene, *, f: int, needs: frozenset[Any], **options: Any) -> Context:
    """A context with what the rule needs, and nothing else."""
    loss = DistanceLoss(given.target)
    given_for = {
        "base": ("base", lambda: unflat("base", given.start)),
        "previous": ("previous", lambda: unflat("previous", given.start)),
        "root_update": ("root_update", lambda: unflat("root", given.root)),
        "evaluator": ("evaluator", lambda: loss),
        "gradient": ("gradient", lambda: loss),
        "seed": ("seed", lambda: SEED),
        "statistics": ("statistics", lambda: statistics(given)),
        "privacy": ("privacy", lambda: Privacy(key=NoiseKey(NOISE_SECRET), ledger=Ledger())),
    }
    for need in needs:
        name, make = given_for[need.value]
        options.setdefault(name, make())
    return Context(maximum_faulty=f, **options)


def statistics(
    given: Scene, *, shapes: dict[str, tuple[int, ...]] | None = None
) -> dict[str, MemoryModel]:
    """Fisher diagonals (positive, of the models' shapes), and Gram matrices of linear layers."""
    rng = np.random.default_rng(99)
    shapes = SHAPES if shapes is None else shapes
    told = {}
    for row in range(given.n):
        fisher = on_grid(rng.uniform(0.1, 1.0, size=given.rows.shape[1]))
        model = unflat(key_of(row), fisher, shapes=shapes)
        arrays = {name: model.array(name) for name in shapes}
        for name, shape in shapes.items():
            if len(shape) == 2:
                inputs = np.round(rng.normal(size=(4 * shape[1], shape[1])), 1)
                arrays[f"{name}.gram"] = (inputs.T @ inputs).astype(np.float32)
        told[key_of(row)] = MemoryModel(key_of(row), arrays)
    return told

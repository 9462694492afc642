"""The merges in plain float64 NumPy, from their definitions: whole tensors, sorted, no histograms.

Each takes rows (n, d), f and the scene; the base is the scene's start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_trainer.consensus.random import Draws
from contract.models import SEED, SHAPES, flat, key_of, statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from contract.models import Scene
    from contract.references import Reference

    Vector = NDArray[np.float64]
    Rows = NDArray[np.float64]
    TensorMerge = Callable[[Rows, Vector, str], Vector]


def by_tensor(merge: TensorMerge) -> Reference:
    """Merges every tensor on its own: merge(rows, base, name) of flat tensors."""

    def reference(rows: Rows, f: int, scene: Scene) -> Vector:
        parts, first = [], 0
        for name in sorted(SHAPES, key=str.encode):
            last = first + int(np.prod(SHAPES[name]))
            parts.append(merge(rows[:, first:last], scene.start[first:last], name))
            first = last
        return np.concatenate(parts)

    return reference


def weighted(weights: list[float], divisor: float = 1.0) -> Reference:
    return lambda rows, f, scene: np.asarray(weights) @ rows / divisor


def loss(vector: Vector, scene: Scene) -> float:
    return float(np.linalg.norm(vector - scene.target))


def gated(rows: Rows, order: list[int], scene: Scene) -> Vector:
    chosen = order[:1]
    for row in order[1:]:
        if loss(rows[[*chosen, row]].mean(axis=0), scene) < loss(rows[chosen].mean(axis=0), scene):
            chosen.append(row)
    return rows[chosen].mean(axis=0)


def greedy(rows: Rows, f: int, scene: Scene) -> Vector:
    return gated(rows, sorted(range(len(rows)), key=lambda row: loss(rows[row], scene)), scene)


def incremental(order: list[int]) -> Reference:
    return lambda rows, f, scene: gated(rows, order, scene)


def task_arithmetic(weights: list[float], scale: float) -> Reference:
    return lambda rows, f, scene: scene.start + scale * (np.asarray(weights) @ (rows - scene.start))


def largest(values: Vector, count: int) -> NDArray[np.bool_]:
    """Which entries are among the `count` largest by size; the first of equal ones."""
    kept = np.zeros(values.size, dtype=bool)
    kept[np.argsort(-np.abs(values), kind="stable")[:count]] = True
    return kept


def voted(kept: Rows, weights: Vector, *, elect: str, normalize: bool) -> Vector:
    mass = weights[:, None] * kept
    if elect == "none":
        return mass.sum(axis=0) / (weights.sum() if normalize else 1.0)
    sign = np.where((np.sign(mass) if elect == "count" else mass).sum(axis=0) >= 0, 1.0, -1.0)
    agrees = mass * sign > 0
    total = np.where(agrees, mass, 0.0).sum(axis=0)
    if not normalize:
        return total
    divisor = np.where(agrees, weights[:, None], 0.0).sum(axis=0)
    return np.divide(total, divisor, out=np.zeros_like(total), where=divisor != 0)


def ties(density: float, *, elect: str = "sum", normalize: bool = True) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        count = max(1, int(density * base.size))
        kept = np.array([np.where(largest(t, count), t, 0.0) for t in rows - base])
        return base + voted(kept, np.ones(len(rows)), elect=elect, normalize=normalize)

    return by_tensor(merge)


def breadcrumbs(density: float, gamma: float) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        few, count = int(gamma * base.size), max(1, int(density * base.size))
        kept = [np.where(largest(t, few + count) & ~largest(t, few), t, 0.0) for t in rows - base]
        return base + np.sum(kept, axis=0)

    return by_tensor(merge)


def dare(density: float, elect: str) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        kept = []
        for row, difference in enumerate(rows - base):
            draws = Draws(SEED, key_of(row), name).uniform(0, base.size)
            kept.append(np.where(draws < density, difference / density, 0.0))
        return base + voted(np.array(kept), np.ones(len(rows)), elect=elect, normalize=False)

    return by_tensor(merge)


def della(density: float, window: float) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        shape = SHAPES[name]
        length = shape[-1] if len(shape) > 1 else base.size
        kept = []
        for row, difference in enumerate(rows - base):
            probability = np.empty(base.size)
            for first in range(0, base.size, length):
                line = np.abs(difference[first : first + length])
                for place, index in enumerate(np.argsort(-line, kind="stable")):
                    share = (length - 1 - place) / max(length - 1, 1)
                    probability[first + index] = density - window / 2 + window * share
            draws = Draws(SEED, key_of(row), name).uniform(0, base.size)
            kept.append(np.where(draws < probability, difference / probability, 0.0))
        return base + voted(np.array(kept), np.ones(len(rows)), elect="sum", normalize=True)

    return by_tensor(merge)


def sce(density: float) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        differences = rows - base
        if density < 1.0:
            variance = differences.var(axis=0).astype(np.float32)
            chosen = largest(variance, max(1, int(density * base.size)))
            differences = np.where(chosen, differences, 0.0)
        shares = (differences**2).sum(axis=1)
        shares = shares / shares.sum()
        sign = np.where(differences.sum(axis=0) >= 0, 1.0, -1.0)
        left = np.where(differences * sign > 0, shares[:, None], 0.0)
        total = (left * differences).sum(axis=0)
        return base + np.divide(
            total, left.sum(axis=0), out=np.zeros_like(total), where=left.sum(axis=0) != 0
        )

    return by_tensor(merge)


def slerp(t: float) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        first, second = rows
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        if abs(cosine) > 0.9995:
            return (1 - t) * first + t * second
        angle = np.arccos(cosine)
        return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)

    return by_tensor(merge)


def spherical(iterations: int, *, relative: bool) -> Reference:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        origin = base if relative else np.zeros_like(base)
        norms = np.linalg.norm(rows - origin, axis=1)
        units = (rows - origin) / norms[:, None]
        mean = units.mean(axis=0)
        mean /= np.linalg.norm(mean)
        for _ in range(iterations):
            cosines = np.clip(units @ mean, -1, 1)
            angles = np.arccos(cosines)
            logs = (angles / np.sin(angles))[:, None] * (units - cosines[:, None] * mean)
            step = logs.mean(axis=0)
            angle = np.linalg.norm(step)
            if angle < 1e-14:
                break
            mean = np.cos(angle) * mean + np.sin(angle) / angle * step
        return origin + norms.mean() * mean

    return by_tensor(merge)


def model_stock(rows: Rows, f: int, scene: Scene) -> Vector:
    def merge(rows: Rows, base: Vector, name: str) -> Vector:
        units = (rows - base) / np.linalg.norm(rows - base, axis=1)[:, None]
        n = len(rows)
        cosine = max(0.0, ((units @ units.T).sum() - n) / (n * (n - 1)))
        ratio = n * cosine / (1 + (n - 1) * cosine)
        return (1 - ratio) * base + ratio * rows.mean(axis=0)

    return by_tensor(merge)(rows, f, scene)


def fisher(rows: Rows, f: int, scene: Scene) -> Vector:
    told = statistics(scene)
    weights = np.array([flat(told[key_of(row)], names=set(SHAPES)) for row in range(len(rows))])
    return (weights * rows).sum(axis=0) / weights.sum(axis=0)


def reg_mean(off_diagonal: float) -> Reference:
    def reference(rows: Rows, f: int, scene: Scene) -> Vector:
        told: Any = statistics(scene)

        def merge(rows: Rows, base: Vector, name: str) -> Vector:
            if len(SHAPES[name]) != 2:
                return rows.mean(axis=0)
            total, right = 0.0, 0.0
            for row, values in enumerate(rows):
                gram = told[key_of(row)].array(f"{name}.gram").astype(np.float64)
                gram = gram * off_diagonal + np.diag(np.diagonal(gram)) * (1 - off_diagonal)
                total = total + gram
                right = right + gram @ values.reshape(SHAPES[name]).T
            return np.linalg.solve(total, right).T.reshape(-1)

        return by_tensor(merge)(rows, f, scene)

    return reference

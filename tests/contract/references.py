"""The rules in plain float64 NumPy, from their definitions: slow, direct, without a Gram matrix.

Each takes rows (n, d), f and the scene (for the trusted models) and returns d numbers.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from cabildo_trainer.consensus.random import Draws
from contract.models import SEED, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from contract.models import Scene

    Vector = NDArray[np.float64]
    Rows = NDArray[np.float64]
    Reference = Callable[[Rows, int, Scene], Vector]


def mean(rows: Rows, f: int, scene: Scene) -> Vector:
    return rows.mean(axis=0)


def median(rows: Rows, f: int, scene: Scene) -> Vector:
    return np.median(rows, axis=0)


def trimmed_mean(rows: Rows, f: int, scene: Scene) -> Vector:
    return np.sort(rows, axis=0)[f : len(rows) - f].mean(axis=0)


def around_median(rows: Rows, keep: int) -> Vector:
    ordered = np.sort(rows, axis=0)
    near = np.argsort(np.abs(ordered - np.median(rows, axis=0)), axis=0, kind="stable")[:keep]
    return np.take_along_axis(ordered, near, axis=0).mean(axis=0)


def meamed(rows: Rows, f: int, scene: Scene) -> Vector:
    return around_median(rows, len(rows) - f)


def distances(rows: Rows) -> Rows:
    return np.array([[np.sum((x - y) ** 2) for y in rows] for x in rows])


def krum_scores(rows: Rows, neighbours: int) -> Vector:
    return np.sort(distances(rows), axis=1)[:, 1 : neighbours + 1].sum(axis=1)


def krum(rows: Rows, f: int, scene: Scene) -> Vector:
    return rows[np.argmin(krum_scores(rows, len(rows) - f - 2))]


def multi_krum(rows: Rows, f: int, scene: Scene) -> Vector:
    scores = krum_scores(rows, len(rows) - f - 2)
    return rows[np.argsort(scores)[: len(rows) - f]].mean(axis=0)


def bulyan(rows: Rows, f: int, scene: Scene) -> Vector:
    left, picked = rows, []
    theta = len(rows) - 2 * f
    while len(picked) < theta:
        best = int(np.argmin(krum_scores(left, max(1, len(left) - f - 2))))
        picked.append(left[best])
        left = np.delete(left, best, axis=0)
    return around_median(np.array(picked), theta - 2 * f)


def geometric_median(rows: Rows, f: int, scene: Scene) -> Vector:
    """The true minimum: plain Weiszfeld on the vectors, far beyond any useful tolerance."""
    z = rows.mean(axis=0)
    for _ in range(20_000):
        radii = np.linalg.norm(rows - z, axis=1)
        if radii.min() < 1e-14:
            return z
        following = (rows / radii[:, None]).sum(axis=0) / (1.0 / radii).sum()
        if np.linalg.norm(following - z) < 1e-15 * np.linalg.norm(rows):
            return following
        z = following
    return z


def centered_clipping(rows: Rows, f: int, scene: Scene) -> Vector:
    v = scene.start
    for _ in range(3):
        radii = np.linalg.norm(rows - v, axis=1)
        tau = np.median(radii)
        v = v + ((rows - v) * np.minimum(1.0, tau / radii)[:, None]).mean(axis=0)
    return v


def mda(rows: Rows, f: int, scene: Scene) -> Vector:
    table = distances(rows)
    best = min(
        combinations(range(len(rows)), len(rows) - f),
        key=lambda subset: max(table[i, j] for i in subset for j in subset),
    )
    return rows[list(best)].mean(axis=0)


def top_eigenvalue(rows: Rows, weights: Vector | None = None) -> tuple[float, Vector]:
    """Of the (weighted) covariance, with its vector: by the singular values of the rows."""
    shares = np.full(len(rows), 1.0 / len(rows)) if weights is None else weights / weights.sum()
    centred = rows - shares @ rows
    _, values, vectors = np.linalg.svd(centred * np.sqrt(shares)[:, None], full_matrices=False)
    return float(values[0] ** 2), vectors[0]


def smea(rows: Rows, f: int, scene: Scene) -> Vector:
    best = min(
        combinations(range(len(rows)), len(rows) - f),
        key=lambda subset: top_eigenvalue(rows[list(subset)])[0],
    )
    return rows[list(best)].mean(axis=0)


def caf(rows: Rows, f: int, scene: Scene) -> Vector:
    weights, smallest, best = np.ones(len(rows)), np.inf, rows.mean(axis=0)
    while weights.sum() > len(rows) - 2 * f:
        middle = weights @ rows / weights.sum()
        value, direction = top_eigenvalue(rows, weights)
        if value < smallest:
            smallest, best = value, middle
        spread = ((rows - middle) @ direction) ** 2
        weights = np.clip(weights * (1 - spread / spread[weights > 0].max()), 0.0, None)
    return best


def monna(rows: Rows, f: int, scene: Scene) -> Vector:
    near = np.argsort(np.linalg.norm(rows - scene.root, axis=1))[: len(rows) - f]
    return rows[near].mean(axis=0)


def mixed(rows: Rows, f: int) -> Rows:
    near = np.argsort(distances(rows), axis=1)[:, : len(rows) - f]
    return np.array([rows[line].mean(axis=0) for line in near])


def nnm_of(inner: Reference) -> Reference:
    return lambda rows, f, scene: inner(mixed(rows, f), f, scene)


def bucketed(size: int, inner: Reference) -> Reference:
    def reference(rows: Rows, f: int, scene: Scene) -> Vector:
        draws = [Draws(SEED, key_of(row), "bucketing").uniform(0, 1)[0] for row in range(len(rows))]
        order = np.argsort(draws)
        buckets = [order[first : first + size] for first in range(0, len(rows), size)]
        return inner(np.array([rows[bucket].mean(axis=0) for bucket in buckets]), f, scene)

    return reference


def clipped(rows: Rows, start: Vector, bound: float) -> Rows:
    radii = np.linalg.norm(rows - start, axis=1)
    return start + (rows - start) * np.minimum(1.0, bound / radii)[:, None]


def norm_clip_of(inner: Reference, *, centred: bool) -> Reference:
    def reference(rows: Rows, f: int, scene: Scene) -> Vector:
        start = scene.start if centred else np.zeros_like(scene.start)
        bound = float(np.median(np.linalg.norm(rows - start, axis=1)))
        return inner(clipped(rows, start, bound), f, scene)

    return reference


def arc_of(inner: Reference, *, centred: bool) -> Reference:
    def reference(rows: Rows, f: int, scene: Scene) -> Vector:
        start = scene.start if centred else np.zeros_like(scene.start)
        norms = np.sort(np.linalg.norm(rows - start, axis=1))
        count = int(2 * (f / len(rows)) * (len(rows) - f) + 1e-9)
        return inner(clipped(rows, start, norms[len(rows) - count - 1]), f, scene)

    return reference


def fltrust(rows: Rows, f: int, scene: Scene) -> Vector:
    updates, root = rows - scene.start, scene.root - scene.start
    norms = np.linalg.norm(updates, axis=1)
    trust = np.maximum(updates @ root / norms / np.linalg.norm(root), 0.0)
    scaled = updates * (np.linalg.norm(root) / norms)[:, None]
    return scene.start + trust @ scaled / trust.sum()


def loss(vector: Vector, scene: Scene) -> float:
    return float(np.linalg.norm(vector - scene.target))


def zeno_of(rho: float) -> Reference:
    def reference(rows: Rows, f: int, scene: Scene) -> Vector:
        costs = [loss(row, scene) + rho * np.sum((row - scene.start) ** 2) for row in rows]
        return rows[np.argsort(costs)[: len(rows) - f]].mean(axis=0)

    return reference


def auto(rows: Rows, f: int, scene: Scene) -> Vector:
    candidates = (mean, trimmed_mean, nnm_of(trimmed_mean), multi_krum, zeno_of(0.0))
    return min((rule(rows, f, scene) for rule in candidates), key=lambda y: loss(y, scene))

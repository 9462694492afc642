"""Cases of bench-kernels: rules on columns, the Gram matrix, and a whole Gram rule.

Here: the same work by us, NumPy, torch, byzfl and plain Python, over the same float32 rows; `read`
is a pure read of them, so results go to memory that is there already wherever a library can: the
first touch of 40 MB costs a quarter of a read of 640. NumPy's and torch's Gram matrices and sums
are float32, ours are float64. Never here: timing.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import byzfl
import numpy as np
import torch
from contest import OURS, READS, Contest

from cabildo_kernels import gram, median, squared_distances, trimmed_mean, weighted_sum
from cabildo_kernels.native import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

COLUMNS = 10_000_000
FEW_COLUMNS = 1024
TYPES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}
PER_OPERATION = 2  # a product and a sum
A_DIVISION = 1


def faulty(n: int) -> int:
    """Return how many of n rows the rules stand: f = 5 of 16."""
    return (n - 1) // 3


def multi_krum(
    rows: Sequence[NDArray[Any]], *, threads: int, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the mean of the n - f rows with the least sum of n - f - 2 squared distances."""
    n, f = len(rows), faulty(len(rows))
    distances = squared_distances(gram(rows, threads=threads)).tolist()
    # The distance 0 to itself is the first; n - f - 2 neighbours follow.
    scores = [sum(sorted(row)[1 : n - f - 1]) for row in distances]
    chosen = sorted(sorted(range(n), key=scores.__getitem__)[: n - f])
    kept = [rows[index] for index in chosen]
    divisor = float(len(kept))
    return weighted_sum(kept, [1.0] * len(kept), divisor=divisor, out=out, threads=threads)


def numpy_multi_krum(stack: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the same by NumPy's matrix product."""
    n, f = len(stack), faulty(len(stack))
    products = stack @ stack.T
    squares = np.diagonal(products)
    distances = np.sort(squares[:, None] + squares[None] - 2 * products, axis=1)
    chosen = np.argsort(distances[:, 1 : n - f - 1].sum(axis=1))[: n - f]
    return stack[np.sort(chosen)].mean(axis=0, out=out)


def torch_multi_krum(stack: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Return the same by torch's matrix product."""
    n, f = len(stack), faulty(len(stack))
    products = stack @ stack.T
    squares = products.diagonal()
    distances = (squares[:, None] + squares[None] - 2 * products).sort(dim=1).values
    chosen = distances[:, 1 : n - f - 1].sum(dim=1).argsort()[: n - f]
    return torch.mean(stack[chosen.sort().values], dim=0, out=out)


def python_gram(rows: list[list[float]]) -> list[list[float]]:
    """Return the Gram matrix by plain Python."""
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def python_multi_krum(rows: list[list[float]]) -> list[float]:
    """Return multi-Krum by plain Python."""
    n, f = len(rows), faulty(len(rows))
    scores = [
        sum(sorted(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in rows)[: n - f - 1])
        for a in rows
    ]
    kept = [rows[i] for i in sorted(range(n), key=scores.__getitem__)[: n - f]]
    return [statistics.fmean(column) for column in zip(*kept, strict=True)]


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel and others' ways to do its work.

    Attributes:
        ours: Takes the rows, `threads` and `out`.
        numpy: Takes the stacked rows and `out`.
        torch: Takes the stacked rows and `out` as tensors.
        byzfl: Makes the aggregator for n rows; None where byzfl has none.
        python: Takes the rows as lists.
        operations: Double-precision operations a column, of n rows; 0 for comparisons alone.
        rows_read: How many rows are read, of n.
    """

    ours: Callable[..., object]
    numpy: Callable[[NDArray[np.float32], NDArray[np.float32]], object]
    torch: Callable[[torch.Tensor, torch.Tensor], object]
    byzfl: Callable[[int], Callable[[Any], object]] | None
    python: Callable[[list[list[float]]], object]
    operations: Callable[[int], int] = lambda _: 0
    rows_read: Callable[[int], int] = lambda n: n


def _trimmed(stack: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
    f = faulty(len(stack))
    return np.sort(stack, axis=0)[f : len(stack) - f].mean(axis=0, out=out)


def _python_trimmed(rows: list[list[float]]) -> list[float]:
    f = faulty(len(rows))
    columns = zip(*rows, strict=True)
    return [statistics.fmean(sorted(column)[f : len(rows) - f]) for column in columns]


WORKS = {
    "median": Work(
        ours=median,
        numpy=lambda stack, out: np.median(stack, axis=0, out=out),
        torch=lambda stack, _: stack.median(dim=0).values,
        byzfl=lambda _: byzfl.Median(),
        python=lambda rows: [statistics.median(column) for column in zip(*rows, strict=True)],
    ),
    "trimmed_mean": Work(
        ours=lambda rows, **options: trimmed_mean(rows, trim=faulty(len(rows)), **options),
        numpy=_trimmed,
        torch=lambda stack, out: torch.mean(
            stack.sort(dim=0).values[faulty(len(stack)) : len(stack) - faulty(len(stack))],
            dim=0,
            out=out,
        ),
        byzfl=lambda n: byzfl.TrMean(f=faulty(n)),
        python=_python_trimmed,
        operations=lambda n: n - 2 * faulty(n) + A_DIVISION,
    ),
    "weighted_sum": Work(
        ours=lambda rows, **options: weighted_sum(rows, [1 / len(rows)] * len(rows), **options),
        numpy=lambda stack, out: np.matmul(
            np.full(len(stack), 1 / len(stack), np.float32), stack, out=out
        ),
        torch=lambda stack, out: torch.matmul(
            torch.full((len(stack),), 1 / len(stack)), stack, out=out
        ),
        byzfl=lambda _: byzfl.Average(),
        python=lambda rows: [
            sum(x * (1 / len(rows)) for x in column) for column in zip(*rows, strict=True)
        ],
        operations=lambda n: PER_OPERATION * n,
    ),
    "gram": Work(
        ours=lambda rows, out, **options: gram(rows, **options),
        numpy=lambda stack, _: stack @ stack.T,
        torch=lambda stack, _: stack @ stack.T,
        byzfl=None,
        python=python_gram,
        operations=lambda n: PER_OPERATION * n * (n + 1) // 2,
    ),
    "multi_krum": Work(
        ours=multi_krum,
        numpy=numpy_multi_krum,
        torch=torch_multi_krum,
        byzfl=lambda n: byzfl.MultiKrum(f=faulty(n)),
        python=python_multi_krum,
        # The Gram matrix, then the mean of the n - f rows chosen.
        operations=lambda n: PER_OPERATION * (n * (n + 1) // 2 + n - faulty(n)) + A_DIVISION,
        rows_read=lambda n: n + n - faulty(n),
    ),
}


def rows_of(n: int, d: int, *, dtype: str) -> NDArray[Any]:
    """Return n distinct rows [d]; every 16th is another's multiple, to be made in seconds."""
    random = np.random.default_rng(0)
    stack = np.empty((n, d), dtype=np.float32)
    for index in range(n):
        if index < 16:
            random.standard_normal(out=stack[index], dtype=np.float32)
        else:
            np.multiply(stack[index % 16], 1 + index / 64, out=stack[index])
    if dtype == "bf16":
        return (stack.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return stack.astype(TYPES[dtype], copy=False)


def reads(rows: Sequence[NDArray[Any]], *, threads: int) -> dict[str, Callable[[], object]]:
    """Return the two ways to read the rows."""
    return {
        name: partial(measure.read, rows, blocked=blocked, threads=threads)
        for name, blocked in zip(READS, (False, True), strict=True)
    }


def contest(
    name: str,
    stack: NDArray[Any],
    *,
    dtype: str,
    threads: int = 1,
    libraries: bool = False,
    python: bool = False,
) -> Contest:
    """Return one case on these rows."""
    work, (n, d), rows = WORKS[name], stack.shape, list(stack)
    options = {} if dtype == "f32" or name == "multi_krum" else {"dtype": dtype}
    out = np.zeros(d, dtype=np.float32)
    contenders: dict[str, Callable[[], object]] = {
        OURS: partial(work.ours, rows, threads=threads, out=out, **options)
    }
    if d > FEW_COLUMNS:
        contenders |= reads(rows, threads=threads)
    if libraries:
        contenders["numpy"] = partial(work.numpy, stack, out)
        contenders["torch"] = partial(work.torch, torch.from_numpy(stack), torch.from_numpy(out))
        if work.byzfl is not None:
            contenders["byzfl"] = partial(work.byzfl(n), stack)
    if python:
        contenders["pure_python"] = partial(work.python, stack.tolist())
    return Contest(
        case=f"{name}/n{n}/d{d}/{dtype}/t{threads}",
        contenders=contenders,
        size_bytes=stack.nbytes * work.rows_read(n) / n,
        operations=work.operations(n) * d,
        threads=threads,
        rounds=7,
    )


def contests(*, columns: int = COLUMNS, threads: int = 2) -> Iterator[Contest]:
    """Yield every case; the rows of one size and type live while its cases run."""
    few = rows_of(16, FEW_COLUMNS, dtype="f32")
    for name in WORKS:
        yield contest(name, few, dtype="f32", libraries=True, python=True)
    stack = rows_of(16, columns, dtype="f32")
    for name in WORKS:
        yield contest(name, stack, dtype="f32", libraries=True)
        if threads > 1:
            yield contest(name, stack, dtype="f32", threads=threads)
    for dtype in ("f16", "bf16"):
        stack = rows_of(16, columns, dtype=dtype)
        for name in ("median", "trimmed_mean", "weighted_sum", "gram"):
            yield contest(name, stack, dtype=dtype)
    for n in (32, 64):
        stack = rows_of(n, columns // 4, dtype="f32")
        for name in ("median", "trimmed_mean", "weighted_sum", "gram"):
            yield contest(name, stack, dtype="f32")

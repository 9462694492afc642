"""Random calls of the task-vector kernels: element types, sizes, strides, addresses, extremes.

Here: drawing a call. Never here: what its results must equal; the unit tests and the long fuzz say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_kernels.task_vectors import (
    LOW_BITS,
    combine_task_vectors,
    find_magnitude,
    magnitude_counts,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_COLUMNS = 260
SIZES = (3e-39, 1e-12, 1e-4, 1.0, 1e12, 1e37)
"""Magnitudes of values: some denormal, none whose differences overflow."""


def stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Values as an element type; bf16 is cut off, which any bits may be."""
    if dtype == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype({"f32": np.float32, "f16": np.float16}[dtype])


def laid_out(random: np.random.Generator, values: NDArray[Any]) -> NDArray[Any]:
    """The same values at an odd address, with a stride, or as they are."""
    choice = random.integers(3)
    if choice == 0:
        return np.repeat(values, 2)[::2]
    if choice == 1:
        room = np.empty(values.nbytes + 1, dtype=np.uint8)
        room[1:] = values.view(np.uint8)
        return room[1:].view(values.dtype)
    return values


def random_case(random: np.random.Generator, *, columns: int | None = None) -> dict[str, Any]:
    """Arguments of `combine_task_vectors`."""
    n = int(random.integers(1, 65 if random.random() < 0.1 else 12))
    d = int(random.integers(0, MOST_COLUMNS)) if columns is None else columns
    size = float(random.choice(SIZES))
    dtypes = [str(random.choice(["f32", "bf16"])) for _ in range(n)]
    if size <= 1.0:
        dtypes[0] = "f16"
    base = (random.normal(size=d) * size).astype(np.float32)
    near = size * 10.0 ** random.uniform(-6, 0.3)
    rows = [(base + random.normal(size=d) * near).astype(np.float32) for _ in range(n)]
    if random.random() < 0.3:
        rows = [np.where(random.random(d) < 0.5, base, row) for row in rows]  # ties at zero
    base_dtype = str(random.choice(["f32", "bf16"]))

    def bounds() -> list[tuple[int, int]] | None:
        if random.random() < 0.4:
            return None
        bits = np.abs(random.normal(size=n) * near).astype(np.float32).view(np.uint32)
        bits[random.random(n) < 0.3] = 0
        return [(int(b), int(random.integers(0, d + 1))) for b in bits]

    return {
        "rows": [
            laid_out(random, stored(row, dtype)) for row, dtype in zip(rows, dtypes, strict=True)
        ],
        "base": laid_out(random, stored(base, base_dtype)),
        "weights": random.normal(size=n).tolist(),
        "dtype": dtypes,
        "base_dtype": base_dtype,
        "keep": bounds(),
        "drop": bounds(),
        "votes": random.uniform(size=n).tolist() if random.random() < 0.3 else None,
        "start": int(random.integers(0, 50)),
        "factors": [random.random(d) for _ in range(n)] if random.random() < 0.3 else None,
        "columns": random.random(d) < 0.5 if random.random() < 0.2 else None,
        "elect": str(random.choice(["none", "sum", "count"])),
        "normalize": bool(random.integers(2)),
        "scale": float(random.normal()),
        "out_dtype": str(random.choice(["f32", "bf16", "f16"])),
    }


def results(case: dict[str, Any], *, threads: int | None = None) -> tuple[Any, ...]:
    """What the three kernels make of a case, as bytes and numbers."""
    merged = combine_task_vectors(**case, threads=threads)
    row, kind = case["rows"][0], case["dtype"][0]
    pair = {"dtype": kind, "base_dtype": case["base_dtype"]}
    counts = magnitude_counts(row, case["base"], **pair)
    prefix = int(counts.argmax())
    low = magnitude_counts(row, case["base"], prefix=prefix, **pair)
    bits = prefix << LOW_BITS | int(low.argmax())
    places = tuple(
        find_magnitude(row, case["base"], bits=bits, nth=nth, **pair)
        for nth in (0, max(int(low.max()) - 1, 0), int(low.max()))
    )
    return merged.tobytes(), counts.tobytes(), low.tobytes(), places

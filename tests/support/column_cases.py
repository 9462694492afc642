"""Random calls of the column rules: every element type, size, alignment, stride and extreme value.

Here: making one call from a seed, as data that can be run again on another path. Never here: what
the answers must be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import cabildo_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("f32", "f16", "bf16")
RULES = ("median", "trimmed_mean", "mean_around_median", "weighted_sum", "mix")
EDGES = (0, 1, 3, 15, 16, 17, 63, 64, 65, 127, 129, 255, 257, 1000)
LARGE = (24_575, 24_576, 24_577, 50_001)
NAN_BITS = {"f32": 0x7FC0_0001, "f16": 0x7E01, "bf16": 0xFFC1}
INFINITY_BITS = {"f32": 0xFF80_0000, "f16": 0x7C00, "bf16": 0x7F80}


@dataclass(frozen=True)
class ColumnCase:
    """One call: `run()` makes it."""

    rule: str
    rows: tuple[NDArray[Any], ...]
    kinds: tuple[str, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def run(self) -> NDArray[Any]:
        """Call the rule on the path in use."""
        call = getattr(cabildo_kernels, self.rule)
        result: NDArray[Any] = call(self.rows, *self.arguments, dtype=self.kinds, **self.options)
        return result

    def __str__(self) -> str:
        """Say what a failing case was."""
        columns = len(self.rows[0])
        return f"{self.rule} n={len(self.rows)} d={columns} {self.kinds} {self.options}"


def finite_bits(bits: NDArray[Any], *, kind: str) -> NDArray[Any]:
    """Return the bits with every NaN and infinity made finite."""
    exponent = INFINITY_BITS[kind] & ~(1 << (8 * bits.itemsize - 1))
    bad = (bits & exponent) == exponent
    least = exponent & -exponent
    return np.where(bad, bits & ~bits.dtype.type(least), bits).astype(bits.dtype)


def values(random: np.random.Generator, columns: int, *, kind: str) -> NDArray[Any]:
    """Return one row's values: ordinary ones, few distinct ones with both zeros, or any bits."""
    unsigned = np.uint32 if kind == "f32" else np.uint16
    flavour = random.integers(0, 4)
    if flavour == 0:
        bits = random.integers(0, 1 << (8 * np.dtype(unsigned).itemsize), columns).astype(unsigned)
        return _stored(finite_bits(bits, kind=kind), kind=kind)
    if flavour == 1:  # ties and zeros of both signs
        single = random.integers(-2, 3, columns).astype(np.float32)
        single = np.copysign(single, random.standard_normal(columns).astype(np.float32))
    else:
        scale = 10.0 ** random.uniform(-45, 38) if flavour == 2 else 1.0
        single = (random.uniform(-1, 1, columns) * scale).astype(np.float32)
    if kind == "f32":
        return single
    if kind == "f16":
        return np.clip(single, -65504, 65504).astype(np.float16)
    return (single.view(np.uint32) >> 16).astype(np.uint16)


def _stored(bits: NDArray[Any], *, kind: str) -> NDArray[Any]:
    return bits if kind == "bf16" else bits.view(np.float32 if kind == "f32" else np.float16)


def laid_out(random: np.random.Generator, row: NDArray[Any]) -> NDArray[Any]:
    """Return the same values at a random address: any element, any byte, with gaps, backwards."""
    layout = random.integers(0, 5)
    if layout == 0:
        return row
    if layout == 1:
        placed = np.empty(3 * len(row) + 1, dtype=row.dtype)[1 : 1 + 3 * len(row) : 3]
    elif layout == 2:
        placed = np.empty(len(row), dtype=row.dtype)[::-1]
    else:
        offset = int(random.integers(0, 64)) * (1 if layout == 3 else row.itemsize)
        memory = np.empty(row.nbytes + offset, dtype=np.uint8)
        placed = memory[offset:].view(row.dtype)
    placed[:] = row
    return placed


def random_case(random: np.random.Generator, *, large: bool = False) -> ColumnCase:
    """Return a call; `large` ones have several superblocks."""
    n = int(random.integers(1, 65) if random.random() < 0.5 else random.integers(1, 18))
    columns = int(random.choice(LARGE) if large else random.choice(EDGES))
    kinds = ("f32",) * n if random.random() < 0.4 else tuple(map(str, random.choice(KINDS, n)))
    rows = tuple(laid_out(random, values(random, columns, kind=kind)) for kind in kinds)
    rule = str(random.choice(RULES))
    options: dict[str, Any] = {"threads": int(random.integers(1, 4))}
    arguments: tuple[Any, ...] = ()
    if rule != "mix":
        options["out_dtype"] = str(random.choice(KINDS))
    if rule == "trimmed_mean":
        options["trim"] = int(random.integers(0, (n + 1) // 2))
    elif rule == "mean_around_median":
        options["keep"] = int(random.integers(1, n + 1))
    elif rule == "weighted_sum":
        arguments = (random.standard_normal(n) * 10.0 ** random.uniform(-60, 60),)
        options["divisor"] = float(random.choice([1.0, 3.0, -7.5, 1e-30, float(n)]))
    elif rule == "mix":
        arguments = (random.standard_normal((int(random.integers(1, 10)), n)),)
    return ColumnCase(rule=rule, rows=rows, kinds=kinds, arguments=arguments, options=options)


def spoiled(random: np.random.Generator, case: ColumnCase) -> tuple[ColumnCase, tuple[int, ...]]:
    """Return the call with NaN or infinity in some rows, and those rows' indices."""
    rows = [row.copy() for row in case.rows]
    bad = sorted(set(map(int, random.integers(0, len(rows), int(random.integers(1, 4))))))
    for index in bad:
        kind = case.kinds[index]
        bits = rows[index].view(np.uint32 if kind == "f32" else np.uint16)
        table = NAN_BITS if random.random() < 0.5 else INFINITY_BITS
        bits[int(random.integers(0, len(bits)))] = table[kind]
    spoilt = ColumnCase(case.rule, tuple(rows), case.kinds, case.arguments, case.options)
    return spoilt, tuple(bad)

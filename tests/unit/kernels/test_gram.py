"""Gram matrix and dot products: right, the same bits on every path, and bad rows named."""

from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    SUPERBLOCK,
    InvalidInput,
    NonFiniteInput,
    dispatch,
    dots,
    gram,
    gram_matrix,
    squared_distances,
)
from support.denormals import flushed_denormals
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# The AVX-512 path has two bodies, chosen by CPU: both are tested wherever one runs.
BODIES = {"avx512 at 512 bits": "WIDE", "avx512 at 256 bits": "NARROW"}
VARIANTS = (*COMPILED, *(BODIES if "avx512" in COMPILED else ()))
LENGTHS = (0, 1, 3, 4, 63, 64, 65, 1000, SUPERBLOCK - 1, SUPERBLOCK, SUPERBLOCK + 1, 60_001)
KINDS = ("f32", "f16", "bf16")


@contextmanager
def on(variant: str) -> Iterator[None]:
    with on_path("avx512" if variant in BODIES else variant):
        if variant not in BODIES:
            yield
            return
        native: Any = dispatch.native("gram")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "path", lambda: getattr(native, BODIES[variant]))
            yield


def vector(random: np.random.Generator, columns: int, *, kind: str = "f32") -> NDArray[Any]:
    values = random.standard_normal(columns) * 10.0 ** random.uniform(-6, 3)
    single = values.astype(np.float32)
    stored: NDArray[Any] = single
    if kind == "f16":
        stored = single.astype(np.float16)
    elif kind == "bf16":
        stored = (single.view(np.uint32) >> 16).astype(np.uint16)
    return stored


def widened(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def by_definition(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The order of the grid, one operation after another."""
    total = 0.0
    for start in range(0, len(x), SUPERBLOCK):
        lanes = [0.0] * 4
        for block in range(start, min(start + SUPERBLOCK, len(x)), 64):
            sums = [0.0] * 4
            for column in range(block, min(block + 64, len(x))):
                sums[column % 4] += float(x[column]) * float(y[column])
            lanes = [lane + block_sum for lane, block_sum in zip(lanes, sums, strict=True)]
        total += (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
    return total


def test_all_paths_of_this_machine_are_compared() -> None:
    lacking = dispatch.info().lacking
    print(f"compared: {', '.join(VARIANTS)}; this CPU lacks {', '.join(lacking) or 'none'}")
    assert set(COMPILED).isdisjoint(lacking)


@pytest.mark.parametrize("columns", [3, 200, SUPERBLOCK + 70])
def test_sums_go_in_the_order_of_the_grid(columns: int) -> None:
    random = np.random.default_rng(columns)
    rows = [vector(random, columns) for _ in range(3)]
    with on_path("numpy"):
        result = gram(rows)
    for i in range(3):
        for j in range(3):
            assert result[i, j] == by_definition(rows[i], rows[j])


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_products_are_as_exact_arithmetic_has_them(isa: str) -> None:
    random = np.random.default_rng(1)
    rows = [vector(random, 5000) for _ in range(7)]
    base = vector(random, 5000)
    with on_path(isa):
        plain, centred, projected = gram(rows), gram(rows, base=base), dots(rows, base)
    wide = [row.astype(np.float64) for row in rows]
    moved = [(row - base).astype(np.float64) for row in rows]
    for i in range(7):
        scale = math.fsum(np.abs(wide[i] * base))
        assert projected[i] == pytest.approx(math.fsum(wide[i] * base), abs=1e-14 * scale)
        for j in range(7):
            for result, values in ((plain, wide), (centred, moved)):
                products = values[i] * values[j]  # of float32: exact
                scale = math.fsum(np.abs(products))
                assert abs(result[i, j] - math.fsum(products)) <= 1e-14 * scale


@pytest.mark.parametrize("seed", range(24))
def test_every_path_gives_the_same_bits(seed: int) -> None:
    random = np.random.default_rng(seed)
    columns = LENGTHS[seed % len(LENGTHS)]
    n = int(random.integers(1, 65 if columns < SUPERBLOCK - 1 else 9))
    kinds = [KINDS[random.integers(3)] if seed % 2 else "f32" for _ in range(n)]
    rows = [vector(random, columns, kind=kind) for kind in kinds]
    base = vector(random, columns, kind=KINDS[seed % 3]) if seed % 4 > 1 else None
    other = vector(random, columns, kind=KINDS[random.integers(3)])
    with on_path("numpy"):
        expected = gram(rows, base=base, dtype=kinds)
        projected = dots(rows, other, base=base, dtype=kinds)
    assert np.array_equal(expected, expected.T)
    for variant, threads in product(VARIANTS, (1, 3)):
        with on(variant):
            result = gram(rows, base=base, dtype=kinds, threads=threads)
            line = dots(rows, other, base=base, dtype=kinds, threads=threads)
        assert result.tobytes() == expected.tobytes(), (variant, threads)
        assert line.tobytes() == projected.tobytes(), (variant, threads)


@pytest.mark.parametrize("n", range(1, 65))
def test_every_number_of_rows_gives_the_same_bits(n: int) -> None:
    random = np.random.default_rng(n)
    rows = [vector(random, 333) for _ in range(n)]
    with on_path("numpy"):
        expected = gram(rows, base=rows[-1])
    for variant in VARIANTS:
        with on(variant):
            assert gram(rows, base=rows[-1]).tobytes() == expected.tobytes(), variant


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_one_row_far_away_leaves_the_other_distances_right(isa: str) -> None:
    random = np.random.default_rng(5)
    base = (random.standard_normal(50_000) * 0.02).astype(np.float32)
    rows = [base + (random.standard_normal(len(base)) * 1e-5).astype(np.float32) for _ in range(8)]
    rows.insert(3, np.full(len(base), 1e3, dtype=np.float32))
    with on_path(isa):
        distances = squared_distances(gram(rows, base=base))
    for i in range(9):
        for j in range(9):
            gap = rows[i].astype(np.float64) - rows[j].astype(np.float64)
            assert distances[i, j] == pytest.approx(float(np.sum(gap * gap)), rel=1e-6)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_tensor_in_runs_of_superblocks_gives_the_bits_of_one_call(isa: str) -> None:
    random = np.random.default_rng(6)
    rows = [vector(random, 3 * SUPERBLOCK + 100) for _ in range(5)]
    base, other = vector(random, len(rows[0])), vector(random, len(rows[0]))
    cut = 2 * SUPERBLOCK
    with on_path(isa):
        whole, projected = gram(rows, base=base), dots(rows, other, base=base)
        part = gram([row[:cut] for row in rows], base=base[:cut])
        whole_again = gram([row[cut:] for row in rows], base=base[cut:], initial=part)
        line = dots([row[:cut] for row in rows], other[:cut], base=base[:cut])
        line = dots([row[cut:] for row in rows], other[cut:], base=base[cut:], initial=line)
    assert whole_again.tobytes() == whole.tobytes()
    assert line.tobytes() == projected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_tensors_are_added_one_after_another(isa: str) -> None:
    random = np.random.default_rng(7)
    tensors = [[vector(random, size) for _ in range(4)] for size in (100, SUPERBLOCK + 5, 7)]
    with on_path(isa):
        total: Any = None
        by_hand = np.zeros((4, 4))
        for rows in tensors:
            total = gram(rows, initial=total)
        for rows in tensors:
            for start in range(0, len(rows[0]), SUPERBLOCK):
                by_hand = by_hand + gram([row[start : start + SUPERBLOCK] for row in rows])
    assert total.tobytes() == by_hand.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_gaps_and_odd_addresses_change_no_bit(isa: str) -> None:
    random = np.random.default_rng(8)
    rows = [vector(random, 1000) for _ in range(6)]
    with on_path(isa):
        expected = gram(rows, base=rows[0])
        gaps = np.zeros((6, 3000), dtype=np.float32)
        gaps[:, ::3] = rows
        assert gram(list(gaps[:, ::3]), base=rows[0]).tobytes() == expected.tobytes()
        odd = []
        for row in rows:
            place = np.zeros(row.nbytes + 1, dtype=np.uint8)[1:].view(np.float32)
            place[:] = row
            odd.append(place)
        assert gram(odd, base=odd[0]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_dots_with_a_row_are_that_column_of_the_gram_matrix(isa: str) -> None:
    random = np.random.default_rng(9)
    rows = [vector(random, 30_000) for _ in range(5)]
    with on_path(isa):
        assert dots(rows, rows[2]).tobytes() == gram(rows)[2].tobytes()
        centred = dots(rows, rows[2] - rows[4], base=rows[4])
        assert centred.tobytes() == gram(rows, base=rows[4])[2].tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 70, SUPERBLOCK + 9])
def test_rows_that_are_not_finite_are_named(isa: str, bad: float, place: int) -> None:
    random = np.random.default_rng(10)
    rows = [vector(random, SUPERBLOCK + 10) for _ in range(6)]
    base = vector(random, SUPERBLOCK + 10)
    other = np.zeros(SUPERBLOCK + 10, dtype=np.float32)
    rows[1][place] = rows[4][5] = bad
    with on_path(isa):
        for origin in (None, base):
            with pytest.raises(NonFiniteInput) as caught:
                gram(rows, base=origin)
            assert caught.value.rows == (1, 4)
            with pytest.raises(NonFiniteInput) as caught:
                dots(rows, other, base=origin)
            assert caught.value.rows == (1, 4)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_difference_beyond_float32_names_its_row(isa: str) -> None:
    largest = np.finfo(np.float32).max
    rows = [np.full(5, value, dtype=np.float32) for value in (1.0, largest, 2.0)]
    base = np.full(5, -largest, dtype=np.float32)
    with on_path(isa):
        with pytest.raises(NonFiniteInput) as caught:
            gram(rows, base=base)
        assert caught.value.rows == (1,)
        assert gram(rows)[1, 1] == pytest.approx(5 * float(largest) ** 2)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_base_or_vector_that_is_not_finite_is_no_rows_fault(isa: str) -> None:
    rows = [np.ones(4, dtype=np.float32)] * 2
    bad = np.array([1, np.nan, 1, 1], dtype=np.float32)
    with on_path(isa):
        with pytest.raises(InvalidInput, match="base holds NaN"):
            gram(rows, base=bad)
        with pytest.raises(InvalidInput, match="vector holds NaN"):
            dots(rows, bad)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_negative_zeros_count_as_positive_ones(isa: str) -> None:
    minus = np.full(70, -0.0, dtype=np.float32)
    plus = np.zeros(70, dtype=np.float32)
    ones = np.ones(70, dtype=np.float32)
    with on_path(isa):
        for rows in ([minus, plus, ones, -ones], [minus, minus, minus, minus]):
            assert not np.signbit(gram(rows)[:2]).any()
            assert not np.signbit(gram(rows, base=plus)[:2]).any()
            assert not np.signbit(dots(rows, minus)).any()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_flushed_denormals_of_the_caller_change_no_bit(isa: str) -> None:
    random = np.random.default_rng(11)
    tiny = [(random.standard_normal(30_000) * 1e-40).astype(np.float32) for _ in range(5)]
    base, half = tiny[0], (random.standard_normal(30_000) * 1e-6).astype(np.float16)
    rows: list[NDArray[Any]] = [*tiny, half]
    kinds = ["f32"] * 5 + ["f16"]
    with on_path("numpy"):
        expected = gram(rows, base=base, dtype=kinds)
        projected = dots(rows, half, base=base, dtype=kinds)
    assert (expected[1:, 1:] != 0.0).all()
    for threads in (1, 2):
        with on_path(isa), flushed_denormals():
            result = gram(rows, base=base, dtype=kinds, threads=threads)
            line = dots(rows, half, base=base, dtype=kinds, threads=threads)
        assert result.tobytes() == expected.tobytes()
        assert line.tobytes() == projected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_sums_that_are_kept_a_few_at_a_time_give_the_same_bits(isa: str) -> None:
    random = np.random.default_rng(12)
    rows = [vector(random, 5 * SUPERBLOCK + 1) for _ in range(3)]
    with on_path(isa):
        expected = gram(rows, base=rows[0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gram_matrix, "SUMS_AT_ONCE", 2 * 9)
            assert gram(rows, base=rows[0]).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"base": np.zeros(3, dtype=np.float32)}, "base has 3 elements"),
        ({"base": np.zeros(4, dtype=np.int32)}, "base: "),
        ({"base": np.zeros(4, dtype=np.float32), "base_dtype": "f16"}, "base: "),
        ({"initial": np.zeros((3, 3))}, "initial has shape"),
        ({"initial": np.full((2, 2), np.nan)}, "initial holds NaN"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], said: str) -> None:
    rows = [np.ones(4, dtype=np.float32)] * 2
    with pytest.raises(InvalidInput, match=said):
        gram(rows, **arguments)


def test_a_base_of_another_type_is_widened() -> None:
    random = np.random.default_rng(13)
    rows = [vector(random, 300) for _ in range(3)]
    for kind in KINDS:
        base = vector(random, 300, kind=kind)
        expected = gram(rows, base=widened(base))
        assert gram(rows, base=base).tobytes() == expected.tobytes()

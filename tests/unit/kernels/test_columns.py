"""Column rules: right, the same bits on every path, rows that are not finite named."""

from __future__ import annotations

import ctypes
import mmap
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    SUPERBLOCK,
    InvalidInput,
    NonFiniteInput,
    mean_around_median,
    median,
    mix,
    trimmed_mean,
    weighted_sum,
)
from support.column_cases import RULES, ColumnCase, random_case, spoiled, values
from support.denormals import denormals_flushed, flushed_denormals
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33, 48, 63, 64)


@pytest.fixture(params=EVERY_PATH)
def path(request: pytest.FixtureRequest) -> Any:
    with on_path(request.param):
        yield request.param


def rows_of(n: int, columns: int, *, seed: int = 0) -> list[NDArray[np.float32]]:
    random = np.random.default_rng([seed, n, columns])
    return [random.standard_normal(columns).astype(np.float32) for _ in range(n)]


def same_bits(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("n", SIZES)
def test_the_median_is_that_of_numpy_in_double(path: str, n: int) -> None:
    rows = rows_of(n, 333)
    expected = np.median(np.stack(rows).astype(np.float64), axis=0).astype(np.float32)
    assert same_bits(median(rows), expected)


@pytest.mark.parametrize("n", SIZES)
def test_the_trimmed_mean_adds_the_kept_values_in_ascending_order(path: str, n: int) -> None:
    rows = rows_of(n, 77)
    ordered = np.sort(np.stack(rows), axis=0)
    for trim in {0, n // 4, n // 3, (n - 1) // 2}:
        kept = ordered[trim : n - trim].astype(np.float64)
        total = np.zeros(77)
        for value in kept:
            total = total + value
        assert same_bits(trimmed_mean(rows, trim=trim), (total / len(kept)).astype(np.float32))


@pytest.mark.parametrize("n", SIZES)
def test_the_mean_around_the_median_keeps_the_nearest_and_of_two_the_lower(
    path: str, n: int
) -> None:
    random = np.random.default_rng(n)
    # Few distinct values: plenty of equal distances.
    rows = [random.integers(-4, 5, 50).astype(np.float32) for _ in range(n)]
    for keep in {1, n // 2 + 1, n}:
        result = mean_around_median(rows, keep=keep)
        for column, ours in enumerate(result):
            ascending = sorted(float(row[column]) for row in rows)
            middle = (ascending[(n - 1) // 2] + ascending[n // 2]) / 2
            kept = sorted(sorted(ascending, key=lambda x: (abs(x - middle), x))[:keep])
            assert ours == np.float32(sum(kept) / keep)


@pytest.mark.parametrize("n", range(2, 65))
def test_a_mean_in_the_middle_of_two_floats_goes_to_the_even_one(path: str, n: int) -> None:
    # A quotient that is off by its last place in double would fall to one side.
    random = np.random.default_rng(n)
    middle = 1.0 + (2 * random.integers(0, 1 << 22, 500) + 1) * 2.0**-24
    most = (middle * (1.0 + 0.5 / (n - 1))).astype(np.float32)
    least = n * middle - (n - 1) * most.astype(np.float64)
    rows = [*([most] * (n - 1)), least.astype(np.float32)]
    assert (rows[-1] == least).all()
    expected = middle.astype(np.float32)
    assert same_bits(trimmed_mean(rows, trim=0), expected)
    assert same_bits(mean_around_median(rows, keep=n), expected)


def test_a_weighted_sum_multiplies_then_adds_in_the_order_of_the_rows(path: str) -> None:
    rows, weights = rows_of(13, 301), np.random.default_rng(1).standard_normal(13)
    total = np.zeros(301)
    for weight, row in zip(weights, rows, strict=True):
        total = total + weight * row.astype(np.float64)
    assert same_bits(weighted_sum(rows, weights), total.astype(np.float32))
    assert same_bits(weighted_sum(rows, weights, divisor=3.0), (total / 3.0).astype(np.float32))


def test_mix_is_a_weighted_sum_for_each_line_of_weights(path: str) -> None:
    rows, weights = rows_of(17, 1029), np.random.default_rng(1).standard_normal((9, 17))
    expected = np.stack([weighted_sum(rows, line) for line in weights])
    assert same_bits(mix(rows, weights), expected)


@pytest.mark.parametrize(("kind", "bits"), [("f16", 11), ("bf16", 8)])
def test_the_result_is_rounded_once(path: str, kind: str, bits: int) -> None:
    # Just beside the middle of two neighbours: rounding to float32 first would land on the middle.
    base = 1.0 + 2.0**-bits
    sums = [base + 2.0**-40, base - 2.0**-40, -base - 2.0**-40, base, 2.0**-30, 1e39, -1e-60]
    ones = [np.ones(1, dtype=np.float32)]
    for value in sums:
        result = weighted_sum(ones, [value], out_dtype=kind)
        ours = result.astype(np.float64) if kind == "f16" else widened(result)
        assert ours[0] == nearest(value, bits=bits, kind=kind)


def widened(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (values.astype(np.uint32) << 16).view(np.float32)


def nearest(value: float, *, bits: int, kind: str) -> float:
    """Round exactly, with fractions: to the nearest of a grid, ties to even."""
    least, most = (-24, 65504.0) if kind == "f16" else (-133, float.fromhex("0x1.fep127"))
    exponent = max(int(np.frexp(value)[1]) - bits, least)
    steps = round(Fraction(value) / Fraction(2) ** exponent)
    rounded = Fraction(steps) * Fraction(2) ** exponent
    return float(np.copysign(np.inf, value)) if abs(rounded) > most else float(rounded)


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("seed", range(4))
def test_random_calls_give_the_bits_of_numpy(isa: str, seed: int) -> None:
    random = np.random.default_rng([1, seed])
    for index in range(80):
        case = random_case(random, large=index % 40 == 0)
        with on_path(isa):
            ours = case.run()
        with on_path("numpy"):
            assert same_bits(ours, case.run()), str(case)


@pytest.mark.parametrize("rule", RULES)
def test_zeros_lose_their_sign(path: str, rule: str) -> None:
    rows = [np.full(70, -0.0, dtype=np.float32) for _ in range(6)]
    options = {"trimmed_mean": {"trim": 1}, "mean_around_median": {"keep": 3}}.get(rule, {})
    weights: dict[str, tuple[Any, ...]] = {
        "weighted_sum": (np.ones(6),),
        "mix": (np.ones((2, 6)),),
    }
    result = ColumnCase(rule, tuple(rows), ("f32",) * 6, weights.get(rule, ()), options).run()
    assert not np.signbit(result).any()


@pytest.mark.parametrize("out_dtype", ["f32", "f16", "bf16"])
def test_a_zero_over_a_negative_divisor_loses_its_sign(path: str, out_dtype: str) -> None:
    rows = [np.full(70, zero, dtype=np.float32) for zero in (0.0, -0.0)]
    result = weighted_sum(rows, [1, 1], divisor=-3.0, out_dtype=out_dtype)
    assert not np.frombuffer(result.tobytes(), dtype=np.uint8).any()


@pytest.mark.parametrize("seed", range(30))
def test_rows_that_are_not_finite_are_all_named(path: str, seed: int) -> None:
    random = np.random.default_rng([2, seed])
    case = random_case(random, large=seed == 0)
    while len(case.rows[0]) == 0:
        case = random_case(random)
    bad, rows = spoiled(random, case)
    with pytest.raises(NonFiniteInput) as caught:
        bad.run()
    assert caught.value.rows == rows


def test_a_row_that_is_not_finite_is_named_though_its_weight_is_zero(path: str) -> None:
    rows = rows_of(3, 10)
    rows[1][9] = np.inf
    with pytest.raises(NonFiniteInput, match="row 1: leave"):
        weighted_sum(rows, [1.0, 0.0, 1.0])


def test_large_finite_values_are_fine(path: str) -> None:
    rows = [np.full(100, 3e38, dtype=np.float32) for _ in range(5)]
    assert (median(rows) == np.float32(3e38)).all()
    assert (trimmed_mean(rows, trim=1) == np.float32(3e38)).all()
    assert np.isinf(weighted_sum(rows, np.ones(5))).all()  # the rounded sum, not a bad row


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_flushed_denormals_change_nothing_and_stay_as_the_caller_had_them(isa: str) -> None:
    random = np.random.default_rng(5)
    for rule in RULES:
        case = random_case(random)
        while case.rule != rule or len(case.rows[0]) == 0:
            case = random_case(random)
        tiny = tuple(
            (np.sign(values(random, len(row), kind="f32")) * np.float32(3e-42)).astype(np.float32)
            for row in case.rows
        )
        case = ColumnCase(
            rule, tiny, ("f32",) * len(tiny), case.arguments, {**case.options, "threads": 2}
        )
        with on_path("numpy"):
            expected = case.run()
        with on_path(isa), flushed_denormals():
            result = case.run()
        assert same_bits(result, expected), str(case)
    assert not denormals_flushed()


@pytest.mark.parametrize("isa", COMPILED)
def test_threads_change_no_bit(isa: str) -> None:
    rows = rows_of(7, 5 * SUPERBLOCK + 123)
    with on_path(isa):
        one = median(rows, threads=1)
        for threads in (2, 3, 16, None):
            assert same_bits(median(rows, threads=threads), one)


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("columns", [1, 7, 16, 100, 1031])
def test_no_byte_behind_a_row_is_touched(isa: str, columns: int) -> None:
    rows = [against_a_wall(columns, fill=k) for k in range(9)]
    with on_path(isa):
        assert (median(rows) == 4.0).all()
        assert (trimmed_mean(rows, trim=2) == 4.0).all()
        assert (weighted_sum(rows, np.ones(9)) == 36.0).all()


def against_a_wall(columns: int, *, fill: float) -> NDArray[np.float32]:
    """Return a row whose last byte is followed by a page that must not be read."""
    size = -(-4 * columns // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(address + size, mmap.PAGESIZE, 0) == 0
    row = np.frombuffer(memory, dtype=np.float32, count=columns, offset=size - 4 * columns)
    row[:] = fill
    return row


def test_the_output_goes_where_it_is_asked_to(path: str) -> None:
    rows = rows_of(4, 70)
    memory = np.full(90, 7.0, dtype=np.float32)
    result = median(rows, out=memory[13:83])
    assert np.shares_memory(result, memory)
    assert same_bits(memory[13:83], median(rows))
    assert (memory[:13] == 7.0).all()
    assert (memory[83:] == 7.0).all()
    sums = np.zeros((2, 70), dtype=np.float32)
    assert mix(rows, np.ones((2, 4)), out=sums) is sums


def test_rows_of_length_zero_give_an_empty_result(path: str) -> None:
    assert median([np.empty(0, dtype=np.float32)] * 3).shape == (0,)
    assert mix([np.empty(0, dtype=np.float32)] * 3, np.ones((2, 3))).shape == (2, 0)


ROW = np.zeros(8, dtype=np.float32)
REFUSED: list[tuple[str, Any]] = [
    ("rows: 0 were given; kernels take 1 to 64", lambda: median([])),
    ("rows: 65 were given", lambda: median([ROW] * 65)),
    (r"rows\[1\] has shape \(7,\): \(8,\) is expected", lambda: median([ROW, ROW[:7]])),
    (r"rows\[0\] has shape \(2, 4\): one dimension", lambda: median([ROW.reshape(2, 4)])),
    (r"rows\[0\] holds float64, which is no f32", lambda: median([ROW.astype(np.float64)])),
    (r"rows\[0\] holds float32, which is no bf16", lambda: median([ROW], dtype="bf16")),
    ("dtype: 'f64' is none of f32, f16, bf16", lambda: median([ROW], dtype="f64")),
    ("dtype: 1 types for 2 rows", lambda: median([ROW, ROW], dtype=["f32"])),
    ("out_dtype: 'f64' is none of", lambda: median([ROW], out_dtype="f64")),
    (r"out is float32 of shape \(7,\)", lambda: median([ROW], out=np.empty(7, np.float32))),
    ("contiguous and writeable", lambda: median([ROW], out=np.empty(16, np.float32)[::2])),
    ("out shares memory with a row", lambda: median([ROW], out=ROW)),
    ("trim=1: .* at most 0 can be left out", lambda: trimmed_mean([ROW, ROW], trim=1)),
    (
        "keep=3: 1 to n values can be kept, and n is 2",
        lambda: mean_around_median([ROW] * 2, keep=3),
    ),
    (r"weights have shape \(1, 2\): one for each of 1 rows", lambda: weighted_sum([ROW], [1, 2])),
    ("each must be finite and at most 1e\\+200", lambda: weighted_sum([ROW], [np.nan])),
    ("divisor=0.0: a finite number other than 0", lambda: weighted_sum([ROW], [1], divisor=0.0)),
    ("threads=0: 1 or more, or None", lambda: median([ROW], threads=0)),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[message for message, _ in REFUSED])
def test_a_refusal_says_what_is_wrong_and_what_is_taken(message: str, call: Any) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()

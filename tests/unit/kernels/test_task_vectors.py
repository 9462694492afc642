"""Task vectors: exact selection, and every compiled path equal to NumPy bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cabildo_kernels as kernels
from cabildo_kernels import dispatch
from cabildo_kernels.task_vectors import (
    EVERYTHING,
    FIRST_NON_FINITE,
    LARGEST_FACTOR,
    LOW_BINS,
    NOTHING,
    combine_task_vectors,
    find_magnitude,
    magnitude_counts,
)
from support.denormals import denormals_flushed, flushed_denormals
from support.kernel_paths import COMPILED, EVERY_PATH, on_path
from support.task_vector_cases import random_case, results


@pytest.mark.parametrize("isa", COMPILED)
def test_every_path_gives_the_bits_of_numpy(isa: str) -> None:
    random = np.random.default_rng(8)
    for index in range(120):
        case = random_case(random, columns=2 * 24_576 + 33 if index % 40 == 39 else None)
        with on_path(dispatch.FALLBACK):
            expected = results(case)
        with on_path(isa):
            for threads in (1, 3):
                assert results(case, threads=threads) == expected, index


def test_counts_add_up_over_pieces_and_show_what_is_not_finite() -> None:
    random = np.random.default_rng(3)
    row = random.normal(size=1000).astype(np.float32)
    row[[7, 600]] = [np.nan, -np.inf]
    whole = magnitude_counts(row)
    parts = magnitude_counts(row[300:], counts=magnitude_counts(row[:300]))
    assert np.array_equal(whole, parts)
    assert whole.sum() == 1000
    assert whole[FIRST_NON_FINITE:].sum() == 2


def test_a_task_vector_sum_is_the_closed_form() -> None:
    random = np.random.default_rng(4)
    base = random.normal(size=200).astype(np.float32)
    rows = [(base + random.normal(size=200)).astype(np.float32) for _ in range(3)]
    weights = [0.5, -1.25, 3.0]
    expected = base.astype(np.float64)
    for weight, row in zip(weights, rows, strict=True):
        expected = expected + 0.7 * weight * (row - base).astype(np.float64)
    found = combine_task_vectors(rows, base, weights, scale=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_the_vote_keeps_the_sign_of_larger_mass_and_divides_by_those_who_agree() -> None:
    base = np.zeros(4, dtype=np.float32)
    rows = [
        np.array(values, dtype=np.float32)
        for values in ([3.0, 1.0, 0.0, 1.0], [-1.0, 1.0, 0.0, -1.0], [-1.0, -3.0, 0.0, 0.0])
    ]
    mean = combine_task_vectors(rows, base, [1.0] * 3, elect="sum", normalize=True)
    assert mean.tolist() == [3.0, -3.0, 0.0, 1.0]  # a draw elects plus
    added = combine_task_vectors(rows, base, [1.0] * 3, elect="count")
    assert added.tolist() == [-2.0, 2.0, 0.0, 1.0]


def test_bounds_keep_the_ties_of_lowest_index_and_drop_the_largest() -> None:
    base = np.zeros(6, dtype=np.float32)
    row = np.array([2.0, -2.0, 5.0, 2.0, 1.0, -2.0], dtype=np.float32)
    two = int(np.float32(2.0).view(np.uint32))
    kept = combine_task_vectors([row], base, [1.0], keep=[(two, 4)])
    assert kept.tolist() == [2.0, -2.0, 5.0, 2.0, 0.0, 0.0]
    inner = combine_task_vectors([row], base, [1.0], keep=[(two, 4)], drop=[(two, 1)])
    assert inner.tolist() == [0.0, -2.0, 0.0, 2.0, 0.0, 0.0]
    later = combine_task_vectors([row], base, [1.0], keep=[(two, 4)], start=3)
    assert later.tolist() == [2.0, 0.0, 5.0, 0.0, 0.0, 0.0]
    assert combine_task_vectors([row], base, [1.0], keep=[NOTHING]).tolist() == [0.0] * 6
    assert combine_task_vectors([row], base, [1.0], keep=[EVERYTHING]).tolist() == row.tolist()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_rows_that_are_not_finite_are_named_and_a_base_is_refused(isa: str) -> None:
    base = np.zeros(100, dtype=np.float32)
    rows = [np.ones(100, dtype=np.float32) for _ in range(4)]
    rows[1][99], rows[3][0] = np.inf, np.nan
    with on_path(isa):
        with pytest.raises(kernels.NonFiniteInput) as caught:
            combine_task_vectors(rows, base, [1.0] * 4)
        assert caught.value.rows == (1, 3)
        far = np.full(100, -3e38, dtype=np.float32)
        with pytest.raises(kernels.NonFiniteInput) as caught:
            combine_task_vectors([far, -far], far, [1.0, 1.0])
        assert caught.value.rows == (1,)
        with pytest.raises(kernels.InvalidInput, match="base"):
            combine_task_vectors(rows[:1], rows[1], [1.0])


NEGATIVE_NAN = np.full(8, 0x7FFF_FFFF_FFFF_FFFF, dtype=np.uint64).view(np.float64)
"""NaN whose bits overflow into the sign when they are rounded to bf16 as a number's."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elect": "loudest"}, "elect"),
        ({"out_dtype": "f64"}, "out_dtype"),
        ({"weights": [1.0]}, "weights"),
        ({"weights": [1.0, np.nan]}, "weights"),
        ({"weights": [1.0, 1e201]}, "weights: .* at most 1e\\+200"),
        ({"votes": [1.0] * 3}, "votes"),
        ({"votes": [1.0, -1e308]}, "votes: .* at most 1e\\+200"),
        ({"keep": [EVERYTHING]}, "keep"),
        ({"keep": [EVERYTHING, (-1, 5)]}, r"keep\[1\]: bits=-1: 0 to"),
        ({"drop": [(2**31, 5), NOTHING]}, r"drop\[0\]: bits=2147483648: 0 to"),
        ({"drop": [(0, 1.5), NOTHING]}, r"drop\[0\]: stop=1.5: a whole number"),
        ({"start": -1}, "start=-1: 0 to"),
        ({"factors": [np.ones(8)]}, "factors"),
        ({"factors": [np.ones(8), np.full(8, np.inf)]}, r"factors\[1\]: each must be finite"),
        ({"factors": [NEGATIVE_NAN, np.ones(8)]}, r"factors\[0\]: each must be finite"),
        ({"factors": [np.full(8, -1e61), np.ones(8)]}, r"factors\[0\]: .* at most 1e\+60"),
        ({"scale": np.nan}, "scale=nan: a finite number"),
        ({"scale": -np.inf}, "scale=-inf: a finite number"),
        ({"scale": 1e201}, "scale=1e\\+201: at most"),
        ({"scale": "much"}, "scale='much': a finite number"),
        ({"columns": [True] * 8}, "columns: list"),
        ({"base": [0.0] * 8}, "base: list"),
        ({"columns": np.ones(8)}, "columns"),
        ({"base": np.zeros(9, dtype=np.float32)}, "base"),
    ],
)
@pytest.mark.parametrize("isa", EVERY_PATH)
def test_arguments_that_do_not_fit_are_refused_by_name(
    isa: str, change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {
        "rows": [np.ones(8, dtype=np.float32)] * 2,
        "base": np.zeros(8, dtype=np.float32),
        "weights": [1.0, 1.0],
    } | change
    with on_path(isa), pytest.raises(kernels.InvalidInput, match=message):
        combine_task_vectors(**given)
    with pytest.raises(kernels.InvalidInput, match="counts"):
        magnitude_counts(given["rows"][0], counts=np.zeros(3, dtype=np.uint64))


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_flushed_denormals_of_the_caller_change_no_bit(isa: str) -> None:
    random = np.random.default_rng(6)
    base = (random.normal(size=3000) * 1e-40).astype(np.float32)
    rows = [(base + random.normal(size=3000) * 1e-41).astype(np.float32) for _ in range(3)]

    def merged_and_counted() -> tuple[bytes, ...]:
        merged = combine_task_vectors(rows, base, [0.5, 1.0, 2.0], elect="sum", normalize=True)
        counts = magnitude_counts(rows[0], base)
        low = magnitude_counts(rows[0], base, prefix=int(counts.argmax()))
        return merged.tobytes(), counts.tobytes(), low.tobytes()

    with on_path(dispatch.FALLBACK):
        expected = merged_and_counted()
    with on_path(isa), flushed_denormals():
        found = merged_and_counted()
    assert found == expected
    assert not denormals_flushed()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_prefix_out_of_range_is_refused_and_no_bin_behind_the_counts_is_written(isa: str) -> None:
    row = np.full(1000, 3.0, dtype=np.float32)
    room = np.zeros(2 * LOW_BINS, dtype=np.uint64)
    with on_path(isa):
        for prefix in (-1, 1 << 16, 1 << 32):
            with pytest.raises(kernels.InvalidInput, match=f"prefix={prefix}: 0 to 65535"):
                magnitude_counts(row, prefix=prefix, counts=room[:LOW_BINS])
        with pytest.raises(kernels.InvalidInput, match=r"prefix=0\.5: a whole number"):
            magnitude_counts(row, prefix=0.5)  # type: ignore[arg-type]
        room.flags.writeable = False
        with pytest.raises(kernels.InvalidInput, match=r"counts: .* writeable"):
            magnitude_counts(row, prefix=1, counts=room[:LOW_BINS])
    assert not room.any()


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize(
    ("bits", "nth", "message"),
    [
        (-1, 0, "bits=-1: 0 to 2147483647"),
        (1 << 33, 0, "bits=8589934592: 0 to 2147483647"),
        (0, -1, "nth=-1: 0 to"),
        (0, 1 << 63, "nth=9223372036854775808: 0 to"),
    ],
)
def test_bits_and_places_out_of_range_are_refused(
    isa: str, bits: int, nth: int, message: str
) -> None:
    with on_path(isa), pytest.raises(kernels.InvalidInput, match=message):
        find_magnitude(np.zeros(5, dtype=np.float32), bits=bits, nth=nth)


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_the_compiled_code_itself_refuses_what_lies_past_a_buffer() -> None:
    row, counts = np.zeros(9, dtype=np.float32), np.zeros(LOW_BINS, dtype=np.uint64)
    with on_path(COMPILED[-1]):
        native: Any = dispatch.native("task_vectors")
        with pytest.raises(ValueError, match="a count for each bin"):
            native.histogram(row, 0, None, 0, -1, counts, dispatch.path())
        with pytest.raises(ValueError, match="another size"):
            native.find(row, 0, row[:8], 0, 0, 0, dispatch.path())


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("out_dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("elect", ["none", "sum", "count"])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_largest_arguments_make_infinities_but_never_nan(
    isa: str, out_dtype: str, elect: str, *, normalize: bool
) -> None:
    rows = [np.full(70, sign * 3e38, dtype=np.float32) for sign in (1, 1, -1, -1)]
    weights = [1e200, -1e200, 1e-320, 0.0]  # their sum is all but nothing
    factors = [np.full(70, sign * LARGEST_FACTOR) for sign in (1, -1, 1, 1)]
    for scale in (1e200, -1e200, 0.0, 1e-300):
        with on_path(isa):
            found = combine_task_vectors(
                rows,
                np.zeros(70, dtype=np.float32),
                weights,
                factors=factors,
                elect=elect,
                normalize=normalize,
                scale=scale,
                out_dtype=out_dtype,
            )
        wide = (
            (found.astype(np.uint32) << 16).view(np.float32)
            if out_dtype == "bf16"
            else found.astype(np.float32)
        )
        assert not np.isnan(wide).any(), scale
        assert scale != 0.0 or not wide.any()


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("scale", [1.0, -1.0, 0.0, -0.0])
@pytest.mark.parametrize("elect", ["none", "sum"])
def test_zeros_lose_their_sign(isa: str, scale: float, elect: str) -> None:
    minus = np.full(70, -0.0, dtype=np.float32)
    for base in (minus, -minus):
        for weight in (1.0, -1.0):
            with on_path(isa):
                found = combine_task_vectors(
                    [minus, -minus],
                    base,
                    [weight, weight],
                    scale=scale,
                    elect=elect,
                    normalize=True,
                    columns=np.arange(70) % 2 == 0,
                )
            assert not found.view(np.uint32).any()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_the_type_of_a_base_is_read_off_the_array(isa: str) -> None:
    row = np.array([1.0, 2.0], dtype=np.float32)
    base = np.array([0x3F80, 0xBF80], dtype=np.uint16)  # 1, -1
    with on_path(isa):
        assert combine_task_vectors([row], base, [2.0]).tolist() == [1.0, 5.0]
        assert kernels.gram([row], base=base).tolist() == [[9.0]]

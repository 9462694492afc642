"""Arguments are refused alike on every path: what one would cut, read otherwise or fail on."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from cabildo_kernels import (
    InvalidInput,
    combine_task_vectors,
    decode_attention,
    dots,
    fast_attention,
    find_magnitude,
    gram,
    jacobi_eigen,
    magnitude_counts,
    matmul,
    mean_around_median,
    median,
    mix,
    moe_topk,
    prefill,
    smallest_diameter_subset,
    sparse_softmax,
    squared_distances,
    top_eigenvalues_of_subsets,
    trimmed_mean,
    weighted_sum,
)
from cabildo_kernels.arguments import finite_number, real_numbers, whole_number
from cabildo_kernels.digests import ChunkHasher, sha256, update_many
from support.kernel_paths import EVERY_PATH, on_path

ROW = np.linspace(0, 1, 8, dtype=np.float32)
ROWS = [ROW, ROW + 1, ROW + 2, ROW + 3, ROW + 4]
LOGITS = np.stack(ROWS)
STARTS = np.array([0, 3, 8])
HEADS = np.ones((1, 2, 1, 4), dtype=np.float32)
PROMPT = np.ones((1, 2, 2000, 4), dtype=np.float32)
# NumPy gives the constructor no types.
MASKED: Any = np.ma.masked_array(ROW, mask=ROW > 0.5)  # type: ignore[no-untyped-call]
MASKED_SQUARE: Any = np.ma.masked_array(np.eye(2), mask=np.eye(2) > 0)  # type: ignore[no-untyped-call]
LIST: Any = ROW.tolist()

THREADED: dict[str, Any] = {
    "median": lambda **options: median(ROWS, **options),
    "trimmed_mean": lambda **options: trimmed_mean(ROWS, trim=1, **options),
    "mean_around_median": lambda **options: mean_around_median(ROWS, keep=2, **options),
    "weighted_sum": lambda **options: weighted_sum(ROWS, [1] * 5, **options),
    "mix": lambda **options: mix(ROWS, [[1] * 5], **options),
    "gram": lambda **options: gram(ROWS, **options),
    "dots": lambda **options: dots(ROWS, ROW, **options),
    "combine": lambda **options: combine_task_vectors(ROWS, ROW, [1] * 5, **options),
    "sparse_softmax": lambda **options: sparse_softmax(ROW, STARTS, **options),
    "moe_topk": lambda **options: moe_topk(LOGITS, 2, **options),
    "decode_attention": lambda **options: decode_attention(HEADS, HEADS, HEADS, **options),
    "prefill": lambda **options: prefill(HEADS, HEADS, HEADS, **options),
    "a library's attention": lambda **options: fast_attention(PROMPT, PROMPT, PROMPT, **options),
    "update_many": lambda **options: update_many([sha256()], [b"data"], **options),
}


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("name", THREADED)
@pytest.mark.parametrize(
    ("threads", "message"),
    [(0, "threads=0: 1 or more"), (-3, "threads=-3: 1 or"), (1.5, r"threads=1\.5: a whole number")],
)
def test_a_number_of_threads_that_is_none_is_refused(
    isa: str, name: str, threads: Any, message: str
) -> None:
    with on_path(isa), pytest.raises(InvalidInput, match=message):
        THREADED[name](threads=threads)


# Wrong types on purpose: not every caller has a type checker.
REFUSED: list[tuple[str, Any]] = [
    (r"trim=1\.9: a whole number", lambda: trimmed_mean(ROWS, trim=1.9)),  # type: ignore[arg-type]
    (r"keep=2\.5: a whole number", lambda: mean_around_median(ROWS, keep=2.5)),  # type: ignore[arg-type]
    (r"sweeps=1\.5: a whole number", lambda: jacobi_eigen(np.eye(2), sweeps=1.5)),  # type: ignore[call-overload]
    ("sweeps=0: 1 or more", lambda: jacobi_eigen(np.eye(2), sweeps=0)),
    (r"k=1\.5: a whole number", lambda: moe_topk(LOGITS, 1.5)),  # type: ignore[arg-type]
    (r"size=1\.5: a whole", lambda: smallest_diameter_subset(np.eye(2), size=1.5)),  # type: ignore[arg-type]
    (r"size=1\.5: a whole", lambda: top_eigenvalues_of_subsets(np.eye(2), size=1.5)),  # type: ignore[arg-type]
    (r"workers=1\.5: a whole number", lambda: ChunkHasher(workers=1.5)),  # type: ignore[arg-type]
    (r"nth=0\.5: a whole number", lambda: find_magnitude(ROW, bits=0, nth=0.5)),  # type: ignore[arg-type]
    (r"rows\[1\]: list", lambda: median([ROW, LIST])),
    (r"rows\[0\]: list", lambda: gram([LIST])),
    ("base: list", lambda: gram([ROW], base=LIST)),
    ("vector: list", lambda: dots([ROW], LIST)),
    (r"rows\[0\]: list", lambda: magnitude_counts(LIST)),
    ("counts: list", lambda: magnitude_counts(ROW, counts=[0] * 65536)),  # type: ignore[arg-type]
    ("out: list", lambda: median([ROW], out=LIST)),
    ("a: list", lambda: matmul(LIST, LIST)),
    ("q, k, v: list", lambda: prefill(LIST, LIST, LIST)),
    (r"rows\[1\]: a masked array", lambda: median([ROW, MASKED])),
    ("base: a masked array", lambda: combine_task_vectors([ROW], MASKED, [1])),
    ("out: a masked array", lambda: median([ROW], out=MASKED)),
    ("weights: a masked array", lambda: weighted_sum(ROWS, MASKED[:5])),
    ("factors.*: a masked array", lambda: combine_task_vectors([ROW], ROW, [1], factors=[MASKED])),
    ("vector: a masked array", lambda: dots([ROW], MASKED)),
    ("initial: a masked array", lambda: gram([ROW, ROW], initial=MASKED_SQUARE)),
    ("data: a masked array", lambda: sparse_softmax(MASKED, STARTS)),
    ("out: a writable", lambda: sparse_softmax(ROW, STARTS, out=MASKED)),
    ("logits: a masked array", lambda: moe_topk(MASKED.reshape(2, 4), 1)),
    ("q, k, v: a masked array", lambda: prefill(HEADS, HEADS, MASKED.reshape(1, 2, 1, 4))),
    ("b: a masked array", lambda: matmul(LOGITS.T, MASKED.reshape(2, 4))),
    ("matrices: a masked array", lambda: jacobi_eigen(MASKED_SQUARE)),
    ("gram: a masked array", lambda: squared_distances(MASKED_SQUARE)),
    ("matrices: complex128; real numbers", lambda: jacobi_eigen(np.eye(2) * 1j)),
    ("gram: complex128; real", lambda: squared_distances([[1j]])),
    ("weights: complex128; real", lambda: weighted_sum([ROW], [1j])),
    ("weights: .*real numbers", lambda: weighted_sum([ROW], ["much"])),  # type: ignore[list-item]
    (r"divisor=\[\]: a finite", lambda: weighted_sum([ROW], [1], divisor=[])),  # type: ignore[arg-type]
    ("divisor=nan: a finite number", lambda: weighted_sum([ROW], [1], divisor=np.nan)),
]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[message for message, _ in REFUSED])
def test_an_argument_is_refused_by_name_on_every_path(isa: str, message: str, call: Any) -> None:
    with on_path(isa), pytest.raises(InvalidInput, match=message):
        call()


def test_numbers_of_numpy_are_numbers() -> None:
    assert whole_number("n", np.int16(3)) == 3
    assert finite_number("n", np.float32(0.5), most=1.0) == 0.5
    assert real_numbers("n", [1, np.float16(2.0), Fraction(1, 2)]).tolist() == [1.0, 2.0, 0.5]
    with pytest.raises(InvalidInput, match=r"n=2\.0: at most 1 in size"):
        finite_number("n", 2.0, most=1.0)

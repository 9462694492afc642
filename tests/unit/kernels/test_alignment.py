"""Arrays off their alignment: compiled code never sees one, and the bits are those of a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    InvalidInput,
    decode_attention,
    dispatch,
    dots,
    gram,
    jacobi_eigen,
    matmul,
    median,
    moe_topk,
    prefill,
    sparse_softmax,
    top_eigenvalues_of_subsets,
    weighted_sum,
)
from support.kernel_paths import COMPILED, EVERY_PATH, on_path
from support.layouts import misaligned

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RANDOM = np.random.default_rng(3)
ROWS = list(RANDOM.standard_normal((4, 300), dtype=np.float32))
Q, K, V = RANDOM.standard_normal((3, 1, 2, 9, 20), dtype=np.float32)
LOGITS = RANDOM.standard_normal((19, 11), dtype=np.float32)
INDPTR = np.array([0, 3, 40, 41, 200])
TINY = RANDOM.standard_normal((2, 5, 5), dtype=np.float32)
SYMMETRIC = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 3.0]])

# What to call with arrays, and the arrays. Sums over columns read bytes, so they are not asked.
STRICT: dict[str, tuple[Callable[..., Any], tuple[NDArray[Any], ...]]] = {
    "sparse_softmax": (sparse_softmax, (LOGITS.ravel()[:200], INDPTR)),
    "sparse_softmax of int32": (sparse_softmax, (LOGITS.ravel()[:200], INDPTR.astype(np.int32))),
    "moe_topk": (lambda logits: moe_topk(logits, 2), (LOGITS,)),
    "matmul": (matmul, tuple(TINY)),
    "decode_attention": (decode_attention, (Q[:, :, :1].copy(), K, V)),
    "prefill": (prefill, (Q, K, V)),
    "jacobi_eigen": (jacobi_eigen, (SYMMETRIC,)),
    "top_eigenvalues": (lambda gram: top_eigenvalues_of_subsets(gram, size=2), (SYMMETRIC,)),
}
LENIENT: dict[str, tuple[Callable[..., Any], tuple[NDArray[Any], ...]]] = {
    "gram": (lambda *rows: gram(rows), tuple(ROWS)),
    "dots": (lambda *rows: dots(rows, rows[0], base=rows[1]), tuple(ROWS)),
    "median": (lambda *rows: median(rows), tuple(ROWS)),
    "weighted_sum": (lambda *rows: weighted_sum(rows, [0.1] * 4), tuple(ROWS)),
}


def bits(result: Any) -> list[bytes]:
    return [array.tobytes() for array in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("name", {**STRICT, **LENIENT})
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_copy_off_its_alignment_gives_the_same_bits(isa: str, name: str, offset: int) -> None:
    call, arrays = {**STRICT, **LENIENT}[name]
    with on_path(isa):
        expected = bits(call(*arrays))
        assert bits(call(*(misaligned(array, offset=offset) for array in arrays))) == expected


class Watched:
    """A compiled module that takes no array off its alignment, but where it says so itself."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.module, name)

        def called(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            arrays = [a for a in (*arguments, *options.values()) if isinstance(a, np.ndarray)]
            assert result is None or all(array.flags.aligned for array in arrays), name
            return result

        return called


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("name", STRICT)
def test_compiled_code_reads_nothing_off_its_alignment(
    isa: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, arrays = STRICT[name]
    with on_path(isa):
        real = dispatch.native

        def watched(module: str) -> Watched:
            return Watched(real(module))

        watched.cache_clear = real.cache_clear  # type: ignore[attr-defined]
        monkeypatch.setattr(dispatch, "native", watched)
        call(*(misaligned(array) for array in arrays))


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_an_output_off_its_alignment_is_refused(isa: str) -> None:
    data = LOGITS.ravel()[:200]
    with on_path(isa), pytest.raises(InvalidInput, match="aligned"):
        sparse_softmax(data, INDPTR, out=misaligned(np.zeros_like(data)))

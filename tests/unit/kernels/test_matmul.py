"""matmul: right for every kind of operand, whoever does the work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import InvalidInput, libraries, matmul
from cabildo_kernels.fallback.products import small_matmul
from cabildo_kernels.products import OWN_AXIS, rounded_to_bf16, widened
from support.kernel_paths import EVERY_PATH, on_path
from support.layouts import misaligned

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 4), (7, 9, 11), (16, 16, 16), (17, 3, 20)])
def test_product_of_float32(isa: str, shape: tuple[int, int, int]) -> None:
    a, b = normal(*shape[:2]), normal(*shape[1:], seed=1)
    with on_path(isa):
        result = matmul(a, b)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 4), (7, 9, 11), (16, 16, 16), (2, 16, 1)])
@pytest.mark.parametrize("layout", ["contiguous", "with gaps", "backwards", "off its alignment"])
def test_tiny_products_have_the_same_bits_on_every_path_however_they_lie(
    isa: str, shape: tuple[int, int, int], layout: str
) -> None:
    a, b = normal(*shape[:2]), normal(*shape[1:], seed=1)
    expected = small_matmul(a, b)
    if layout == "with gaps":
        a, b = np.repeat(a, 2, axis=1)[:, ::2], np.asfortranarray(b)
    elif layout == "backwards":
        a, b = a[::-1].copy()[::-1], b[:, ::-1].copy()[:, ::-1]
    elif layout == "off its alignment":
        a, b = misaligned(a), misaligned(b)
    with on_path(isa):
        assert matmul(a, b).tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_one_axis_more_than_ours_is_the_librarys(isa: str) -> None:
    a, b = normal(OWN_AXIS + 1, OWN_AXIS), normal(OWN_AXIS, OWN_AXIS, seed=1)
    with on_path(isa):
        assert matmul(a, b).tobytes() == np.matmul(a, b).tobytes()
        assert matmul(b, b).tobytes() == small_matmul(b, b).tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_without_its_compiled_module_a_tiny_product_keeps_its_bits(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = normal(16, 16), normal(16, 16, seed=1)
    monkeypatch.setitem(sys.modules, "cabildo_kernels.native.softmax", None)
    with on_path(isa):
        assert matmul(a, b).tobytes() == small_matmul(a, b).tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_nan_and_infinity_are_not_refused(isa: str) -> None:
    a, b = normal(3, 3), normal(20, 20)
    a[0, 0], b[0, 0] = np.nan, np.inf
    with on_path(isa), np.errstate(all="ignore"):
        assert np.isnan(matmul(a, a)[0]).all()
        assert not np.isfinite(matmul(b, b)).all()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_what_our_loop_does_not_take_is_numpys(isa: str) -> None:
    a, b = normal(4, 6), normal(6, 5, seed=1)
    with on_path(isa):
        np.testing.assert_allclose(matmul(a[:, ::2], b[::2]), a[:, ::2] @ b[::2], rtol=1e-5)
        np.testing.assert_allclose(matmul(a, b[:, 0]), a @ b[:, 0], rtol=1e-5)
        assert matmul(a.astype(np.float64), b.astype(np.float64)).dtype == np.float64
        assert matmul(normal(3, 4, 6), b).shape == (3, 4, 5)
        assert matmul(a[:0], b).shape == (0, 5)
        with pytest.raises(ValueError, match="mismatch"):
            matmul(a, a)


def test_halves_are_rounded_once() -> None:
    a, b = normal(20, 300).astype(np.float16), normal(300, 20, seed=1).astype(np.float16)
    result = matmul(a, b)
    expected = a.astype(np.float32) @ b.astype(np.float32)
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, expected.astype(np.float16))


@pytest.mark.parametrize("units", [True, False])
def test_product_of_bf16_is_within_one_rounding(
    monkeypatch: pytest.MonkeyPatch, *, units: bool
) -> None:
    if units:
        pytest.importorskip("torch")
    monkeypatch.setattr(libraries, "has_bf16_units", lambda: units)
    a, b = (rounded_to_bf16(normal(40, 40, seed=seed)) for seed in (1, 2))
    a.flags.writeable = False
    exact = widened(a).astype(np.float64) @ widened(b).astype(np.float64)
    result = matmul(a, b, dtype="bf16")
    assert result.dtype == np.uint16
    np.testing.assert_allclose(widened(result), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[::-1],
        lambda array: array[:, ::-2],
        np.asfortranarray,
        lambda array: np.broadcast_to(array[:1], array.shape),
        misaligned,
    ],
)
def test_bf16_may_lie_as_it_likes(
    monkeypatch: pytest.MonkeyPatch, *, view: Any, units: bool
) -> None:
    if units:
        pytest.importorskip("torch")
    monkeypatch.setattr(libraries, "has_bf16_units", lambda: units)
    a, b = (view(rounded_to_bf16(normal(12, 12, seed=seed))) for seed in (1, 2))
    b = b[: a.shape[1]]
    expected = matmul(a.copy(), b.copy(), dtype="bf16")
    np.testing.assert_array_equal(matmul(a, b, dtype="bf16"), expected)


def test_bf16_is_rounded_to_the_nearest_even() -> None:
    bits = np.array(
        [0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800000, 0xFF800001],
        dtype=np.uint32,
    )
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7F80, 0xFFC0]
    assert rounded_to_bf16(bits.view(np.float32)).tolist() == expected


@pytest.mark.parametrize(
    ("a", "b", "dtype", "said"),
    [
        (np.ones((2, 2), np.uint16), np.ones((2, 2), np.float32), "bf16", "b: bf16 is held"),
        (np.ones(2, np.uint16), np.ones((2, 2), np.uint16), "bf16", "a: shape"),
        (np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), "f8", "dtype='f8'"),
        (np.ones((2, 3), np.uint16), np.ones((2, 3), np.uint16), "bf16", "do not fit: a's last"),
        (np.ones((2, 2, 2), np.uint16), np.ones((3, 2, 2), np.uint16), "bf16", "leading axes"),
    ],
)
@pytest.mark.parametrize("units", [True, False])
def test_operands_that_are_no_bf16_are_refused(
    monkeypatch: pytest.MonkeyPatch, a: Any, b: Any, dtype: str, said: str, *, units: bool
) -> None:
    monkeypatch.setattr(libraries, "has_bf16_units", lambda: units)
    with pytest.raises(InvalidInput, match=said):
        matmul(a, b, dtype=dtype)


def test_bf16_units_are_read_off_the_processor(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name : Some CPU with avx512_bf16\nflags : fpu avx2 avx512f\n")
    assert not libraries.has_bf16_units(cpu_info=file)
    other = tmp_path / "other"
    other.write_text("Features : fp asimd bf16\n")
    assert libraries.has_bf16_units(cpu_info=other)
    assert not libraries.has_bf16_units(cpu_info=tmp_path / "none")


def test_torch_is_imported_at_the_first_use_only() -> None:
    import subprocess  # noqa: PLC0415 - this test alone starts an interpreter
    import sys  # noqa: PLC0415 - as above

    code = "import sys, cabildo_kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_an_operand_that_no_buffer_has_fails_as_in_numpy_and_leaves_nothing_held(isa: str) -> None:
    a, dates = normal(2, 2), np.zeros((2, 2), dtype="datetime64[s]")
    with pytest.raises(TypeError) as expected:
        np.matmul(a, dates)
    before = sys.getrefcount(a)
    with on_path(isa):
        for _ in range(10):
            with pytest.raises(type(expected.value)):
                matmul(a, dates)
    assert sys.getrefcount(a) == before

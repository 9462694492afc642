"""Arguments that only a careless or hostile caller gives: no crash, and the same on every path."""

from __future__ import annotations

import copy
import hashlib
import pickle
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    InvalidInput,
    NonFiniteInput,
    decode_attention,
    digests,
    fast_attention,
    jacobi_eigen,
    matmul,
    mix,
    prefill,
    threads,
    weighted_sum,
)
from cabildo_kernels.arguments import finite_number, real_numbers
from cabildo_kernels.digests import sha256, update_many
from cabildo_kernels.fallback import floating_point
from support.denormals import flushed_denormals
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

if TYPE_CHECKING:
    from pathlib import Path


def zeros(*shape: int) -> Any:
    return np.zeros(shape, dtype=np.float32)


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("shape", [(1, 0, 4, 8), (0, 1, 4, 8)])
def test_no_query_heads_and_no_batch_have_no_attention(isa: str, shape: tuple[int, ...]) -> None:
    keys = zeros(shape[0], 1, 4, 8)
    with on_path(isa):
        assert prefill(zeros(*shape), keys, keys).shape == shape
        assert decode_attention(zeros(*shape[:2], 1, 8), keys, keys).shape == (*shape[:2], 1, 8)
        assert fast_attention(zeros(*shape), keys, keys, causal=True).shape == shape


@pytest.mark.parametrize("isa", COMPILED)
def test_more_keys_than_memory_has_bytes_are_refused(isa: str) -> None:
    keys = np.broadcast_to(np.ones((1, 1, 1, 2), dtype=np.float32), (1, 1, 2**59, 2))
    with on_path(isa), pytest.raises(MemoryError):
        prefill(zeros(1, 1, 2, 2), keys, keys, causal=False)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_attention_takes_numbers_as_scale_and_arrays_of_floats(isa: str) -> None:
    q = zeros(1, 1, 1, 4)
    with on_path(isa):
        for scale in (float("nan"), float("inf"), 10**400, [0.5]):
            with pytest.raises(InvalidInput, match="scale"):
                decode_attention(q, q, q, scale=scale)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            decode_attention(q.astype("datetime64[s]"), q, q)


@pytest.mark.parametrize("isa", COMPILED)
def test_streams_that_nobody_else_holds_live_until_they_are_fed(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(1 << 26)
    checked = threading.Event()

    def one_thread(*_: Any, **__: Any) -> int:
        checked.set()  # what comes next is the feeding, without the interpreter's lock
        return 1

    monkeypatch.setattr(digests, "threads_for", one_thread)
    with on_path(isa):
        streams = [sha256(), sha256()]
        feeding = threading.Thread(target=update_many, args=(streams, (data, data)))
        feeding.start()
        assert checked.wait(timeout=60)
        streams.clear()
        fresh = [sha256() for _ in range(64)]
        feeding.join()
    assert {one.digest() for one in fresh} == {hashlib.sha256().digest()}


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_streams_of_another_make_are_fed_or_refused_by_their_place(isa: str) -> None:
    with on_path(isa):
        stream = hashlib.sha256()
        try:
            update_many([stream], [b"abc"])
        except InvalidInput as error:
            assert "digests[0]" in str(error)  # noqa: PT017 - either outcome is one
            assert stream.digest() == hashlib.sha256().digest()
        else:
            assert stream.digest() == hashlib.sha256(b"abc").digest()


def test_the_rows_of_an_error_survive_copying() -> None:
    error = NonFiniteInput([12, 3])
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(again), again.rows) == (str(error), (3, 12))


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_tiny_product_has_the_same_bits_from_a_memory_map(isa: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    with on_path(isa):
        for number in range(40):
            a, b = (draw.normal(size=(7, 7)).astype(np.float32) for _ in range(2))
            mapped = np.memmap(tmp_path / f"{number}", dtype=np.float32, mode="w+", shape=(7, 7))
            mapped[:] = a
            assert matmul(mapped, b).tobytes() == matmul(a, b).tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_denormal_arguments_stay_what_they_are_where_denormals_are_flushed(isa: str) -> None:
    rows = [np.full(8, 2.0**100, dtype=np.float32) for _ in range(2)]
    weights = np.array([1e-40, 2e-40], dtype=np.float32)
    small = np.float32(1e-40)
    with on_path(isa):
        expected = weighted_sum(rows, weights, divisor=1.0)
        least = weighted_sum(rows, np.array([1e-300, 0.0]), divisor=1e-310)
        with flushed_denormals():
            flushed = weighted_sum(rows, weights, divisor=1.0)
            divided = weighted_sum(rows, np.array([1e-300, 0.0]), divisor=1e-310)
            number, array = finite_number("scale", small), real_numbers("weights", weights)
    assert flushed.tobytes() == expected.tobytes()
    assert flushed.any()
    assert divided.tobytes() == least.tobytes()
    assert number == float(small) != 0.0
    assert array.tolist() == weights.astype(np.float64).tolist()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_sums_may_be_written_over_their_weights(isa: str) -> None:
    draw = np.random.default_rng(5)
    rows = [draw.normal(size=64).astype(np.float32) for _ in range(4)]
    weights = draw.normal(size=(2, 4))
    with on_path(isa):
        expected = mix(rows, weights)
        room = np.zeros((2, 64), dtype=np.float32)
        inside = room.reshape(-1)[:16].view(np.float64).reshape(2, 4)
        inside[:] = weights
        assert mix(rows, inside, out=room).tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_sweeps_that_no_matrix_needs_are_refused_on_every_path(isa: str) -> None:
    with on_path(isa), pytest.raises(InvalidInput, match="sweeps"):
        jacobi_eigen(np.eye(2), sweeps=2**40)


def test_an_interruption_right_after_the_change_leaves_the_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = floating_point._library()
    if library is None:
        pytest.skip("this C library cannot set the floating-point environment")
    calls: list[Any] = []

    class Interrupted:
        fegetenv = staticmethod(library.fegetenv)

        @staticmethod
        def fesetenv(environment: Any) -> int:
            calls.append(environment)
            result: int = library.fesetenv(environment)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return result

    monkeypatch.setattr(floating_point, "_library", lambda: Interrupted)
    with (
        flushed_denormals(),
        pytest.raises(KeyboardInterrupt),
        floating_point.default_environment(),
    ):
        pass
    assert len(calls) == 2, "the caller's environment was not put back"


def test_the_quota_is_found_whatever_the_order_of_the_controllers(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:cpuacct,cpu:/\n")
    place = tmp_path / "cgroup" / "cpu,cpuacct"
    place.mkdir(parents=True)
    (place / "cpu.cfs_quota_us").write_text("200000")
    (place / "cpu.cfs_period_us").write_text("100000")
    (tmp_path / "cgroup" / "cpu").symlink_to(place)
    assert threads.cgroup_quota(cgroups=tmp_path / "cgroup", own=own) == 2.0

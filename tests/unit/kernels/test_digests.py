"""Digests: hashlib's, whichever way the bytes come, and beside other work."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import numpy as np
import pytest

from cabildo_kernels import InvalidInput, digests, dispatch
from cabildo_kernels.digests import ChunkHasher, sha256, update_many
from support.kernel_paths import on_path

BEST = dispatch.available()[-1]
PATHS = sorted({BEST, "numpy"})
SIZES = (0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 1000)


def data(size: int, *, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("isa", PATHS)
@pytest.mark.parametrize("size", SIZES)
def test_digest_of_every_length(isa: str, size: int) -> None:
    with on_path(isa):
        digest = sha256()
        digest.update(data(size))
    assert digest.digest() == hashlib.sha256(data(size)).digest()
    assert digest.hexdigest() == hashlib.sha256(data(size)).hexdigest()


@pytest.mark.parametrize("isa", PATHS)
@pytest.mark.parametrize("seed", range(40))
def test_many_streams_fed_in_pieces(isa: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 7))
    with on_path(isa):
        ours = [sha256() for _ in range(count)]
        theirs = [hashlib.sha256() for _ in range(count)]
        for _ in range(int(random.integers(1, 6))):
            pieces = [data(int(random.choice(SIZES)), seed=seed + i) for i in range(count)]
            update_many(ours, pieces, threads=int(random.integers(1, 4)))
            for digest, piece in zip(theirs, pieces, strict=True):
                digest.update(piece)
        assert [d.digest() for d in ours] == [d.digest() for d in theirs]


@pytest.mark.parametrize("isa", PATHS)
def test_copy_goes_on_alone(isa: str) -> None:
    with on_path(isa):
        first = sha256()
        first.update(b"ab")
        second = first.copy()
        second.update(b"c")
    assert first.digest() == hashlib.sha256(b"ab").digest()
    assert second.digest() == hashlib.sha256(b"abc").digest()


@pytest.mark.parametrize("isa", PATHS)
def test_arrays_are_buffers(isa: str) -> None:
    array = np.arange(1000, dtype=np.uint16)
    with on_path(isa):
        digest = sha256()
        update_many([digest], [array])
    assert digest.digest() == hashlib.sha256(array.tobytes()).digest()


@pytest.mark.parametrize("isa", PATHS)
def test_streams_and_buffers_must_match(isa: str) -> None:
    with on_path(isa):
        digest = sha256()
        with pytest.raises(InvalidInput, match="2 for 1"):
            update_many([digest], [b"a", b"b"])
        with pytest.raises(InvalidInput, match="stands twice"):
            update_many([digest, digest], [b"a", b"b"])


@pytest.mark.parametrize("isa", PATHS)
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("str", r"buffers\[1\]: str; a buffer of bytes is needed"),
        (None, r"buffers\[1\]: NoneType"),
        (memoryview(b"abcdef")[::2], r"buffers\[1\]: a view with gaps"),
        (np.zeros((3, 4), order="F"), r"buffers\[1\]: a view with gaps"),
    ],
)
def test_no_digest_is_fed_where_one_buffer_is_none(isa: str, wrong: Any, said: str) -> None:
    with on_path(isa):
        first, second = sha256(), sha256()
        with pytest.raises(InvalidInput, match=said):
            update_many([first, second], [b"abc", wrong])
        with pytest.raises(InvalidInput, match="threads=0"):
            update_many([first, second], [b"abc", b"abc"], threads=0)
        assert first.digest() == second.digest() == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("isa", PATHS)
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16, ">f8", "i4,f8"])
def test_arrays_of_any_shape_and_type_are_buffers(
    isa: str, shape: tuple[int, ...], dtype: Any
) -> None:
    array = np.ones(shape, dtype=dtype)
    array.flags.writeable = False
    with on_path(isa):
        digest = sha256()
        update_many([digest], [array])
    assert digest.digest() == hashlib.sha256(array.tobytes()).digest()


@pytest.mark.parametrize("isa", PATHS)
def test_chunks_are_hashed_in_order_beside_other_work(isa: str) -> None:
    chunks = [[data(5000 + i, seed=10 * s + i) for i in range(9)] for s in range(3)]
    with on_path(isa), ChunkHasher(workers=2, most_pending=2) as hasher:
        streams = [hasher.stream() for _ in chunks]
        for turn in range(9):
            for stream, pieces in zip(streams, chunks, strict=True):
                stream.update(pieces[turn])
        results = [stream.finish() for stream in streams]
    for result, pieces in zip(results, chunks, strict=True):
        assert result.whole == hashlib.sha256(b"".join(pieces)).digest()
        assert result.chunks == tuple(hashlib.sha256(piece).digest() for piece in pieces)
        assert result.size_bytes == sum(map(len, pieces))


def test_a_chunk_is_hashed_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def recorded(*arguments: Any, **options: Any) -> None:
        names.append(threading.current_thread().name)
        update_many(*arguments, **options)

    monkeypatch.setattr(digests, "update_many", recorded)
    with ChunkHasher() as hasher:
        assert hasher.stream().update(b"chunk").result() == hashlib.sha256(b"chunk").digest()
    assert names == ["sha256_0"]


def test_empty_stream_has_the_digest_of_nothing() -> None:
    with ChunkHasher() as hasher:
        result = hasher.stream().finish()
    assert result.chunks == ()
    assert result.whole == hashlib.sha256(b"").digest()


def test_a_failure_in_a_worker_is_raised_to_the_caller() -> None:
    with ChunkHasher(most_pending=1) as hasher:
        stream = hasher.stream()
        with pytest.raises(InvalidInput, match="a view with gaps"):
            stream.update(memoryview(b"abcdef")[::2]).result(timeout=60)
        with pytest.raises(InvalidInput, match="a view with gaps"):
            stream.finish()
        assert hasher.stream().update(b"room again").result(timeout=60)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="workers=0"):
        ChunkHasher(workers=0)

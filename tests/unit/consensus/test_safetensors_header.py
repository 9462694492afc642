"""Headers of safetensors files: what the library writes is read, anything unsound is refused."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from cabildo_trainer.consensus.errors import ManifestMismatch
from cabildo_trainer.consensus.files.safetensors_header import Header, header_bytes, read_header
from cabildo_trainer.consensus.sources import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file.fileno(), path=path)


def file_with(path: Path, header: Any, *, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(begin: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]} | changes


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    arrays = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.ones((), np.int64)}
    save_file(arrays, path, metadata={"format": "pt"})
    header = header_of(path)
    assert header.metadata == {"format": "pt"}
    content = path.read_bytes()
    for name, array in arrays.items():
        placed = header.tensors[name]
        assert placed.spec == TensorSpec(
            name=name, dtype={"b": "F16", "a": "I64"}[name], shape=array.shape
        )
        assert content[placed.offset : placed.offset + placed.size_bytes] == array.tobytes()


def test_what_we_write_the_library_reads(tmp_path: Path) -> None:
    specs = {
        "x": TensorSpec(name="x", dtype="F32", shape=(2,)),
        "ÿ": TensorSpec(name="ÿ", dtype="U8", shape=(0, 3)),
        "w": TensorSpec(name="w", dtype="U8", shape=(3,)),
    }
    path = tmp_path / "m.safetensors"
    values = np.array([1.5, -2], np.float32)
    path.write_bytes(header_bytes(specs, {"format": "pt"}) + values.tobytes() + b"abc")
    loaded = load_file(path)
    assert loaded["x"].tolist() == [1.5, -2.0]
    assert loaded["ÿ"].shape == (0, 3)
    assert bytes(loaded["w"]) == b"abc"
    assert {name: it.spec for name, it in header_of(path).tensors.items()} == specs


@pytest.mark.parametrize(
    ("header", "data", "named"),
    [
        ({"a": tensor(0, 4)}, b"abc", "too few bytes"),
        ({"a": tensor(0, 4)}, b"abcde", "no tensor owns"),
        ({"a": tensor(0, 2), "b": tensor(1, 3)}, b"abc", "'b' overlaps"),
        ({"a": tensor(0, 1), "b": tensor(2, 3)}, b"abc", "'b' leaves a hole"),
        ({"a": tensor(1, 3)}, b"abc", "'a' leaves a hole"),
        ({"a": tensor(0, 3, shape=[4])}, b"abc", "needs 4 bytes"),
        ({"a": tensor(0, 3, shape=[-3])}, b"abc", "shape"),
        ({"a": tensor(0, 3, shape=[3.0])}, b"abc", "shape"),
        ({"a": tensor(0, 3, shape=[True, 3])}, b"abc", "shape"),
        ({"a": tensor(0, 3, shape=[1] * 65)}, b"abc", "shape"),
        ({"a": tensor(0, 3, shape=[2**52, 2**52, 0])}, b"abc", "needs 0 bytes"),
        ({"a": tensor(0, 0, shape=[2**53, 0])}, b"", "shape"),
        ({"a": tensor(0, 3, data_offsets=[0, 3, 4])}, b"abc", "data_offsets"),
        ({"a": tensor(0, 3, data_offsets=[3, 0])}, b"abc", "give -3"),
        ({"a": tensor(0, 3, dtype="F128")}, b"abc", "element type 'F128'"),
        ({"a": tensor(0, 3, dtype=["U8"])}, b"abc", "element type"),
        ({"a": tensor(0, 3, more=1)}, b"abc", "exactly"),
        ({"a": [1]}, b"abc", "exactly"),
        ({"\ud800": tensor(0, 3)}, b"abc", "no Unicode"),
        ({"n" * 5000: tensor(0, 3)}, b"abc", "too long"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"__metadata__": []}, b"", "__metadata__"),
        ({"__metadata__": {"\ud800": "a"}}, b"", "__metadata__"),
        ({"__metadata__": {"a": "\udfff"}}, b"", "__metadata__"),
        (b'{"a": 1, "a": 2}', b"", "'a' is there twice"),
        (b"[]", b"", "start with"),
        (b'{"a": NaN}', b"", "NaN"),
        (b"{" + b'"a":[' * 50_000, b"", "sound JSON"),
        (b'{"\xff": 1}', b"", "sound JSON"),
    ],
)
def test_an_unsound_header_is_refused(tmp_path: Path, header: Any, data: bytes, named: str) -> None:
    path = file_with(tmp_path / "m.safetensors", header, data=data)
    with pytest.raises(ManifestMismatch) as caught:
        header_of(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("length", [2**63, 100_000_001, 3])
def test_a_header_longer_than_the_file_or_the_limit_is_refused(tmp_path: Path, length: int) -> None:
    path = file_with(tmp_path / "m.safetensors", b"{}", length=length)
    with pytest.raises(ManifestMismatch, match="claims"):
        header_of(path)


def test_a_file_without_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"abc")
    with pytest.raises(ManifestMismatch, match="3 bytes"):
        header_of(path)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
@given(
    change=st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=3)),
    cut=st.integers(0, 40),
)
def test_a_damaged_file_is_refused_or_read_within_its_bounds(
    tmp_path: Path, change: tuple[int, bytes], cut: int
) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.int8)}, path)
    content = bytearray(path.read_bytes())
    place, junk = change
    content[place : place + len(junk)] = junk
    content = content[: len(content) - cut]
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    with closing(os.fdopen(descriptor)):
        try:
            header = read_header(descriptor, path=path)
        except ManifestMismatch:
            return
    for placed in header.tensors.values():
        assert 8 < placed.offset <= placed.offset + placed.size_bytes <= len(content)

"""The header of a safetensors file, read as what it is: bytes from somebody else.

    8 bytes   little-endian length N of the header, at most 100 MB
    N bytes   JSON: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets"}, ...}
    the rest  the tensors' bytes, without holes, overlaps or leftovers

Here: parsing and writing headers. Never here: the tensors' bytes, nor which element types can be
merged. Next: `safetensors_files.py` puts a model together.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.errors import ManifestMismatch
from cabildo_trainer.consensus.manifests.canonical_json import (
    LARGEST_INTEGER,
    BadJsonError,
    is_unicode,
    parse_strict,
)
from cabildo_trainer.consensus.sources import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ITEM_SIZES: Final = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes of an element of each type that can be read; types below one byte cannot."""

LARGEST_HEADER_BYTES: Final = 100_000_000
"""What the format allows."""
MOST_TENSORS: Final = 1_000_000
MOST_DIMENSIONS: Final = 64
LONGEST_NAME: Final = 4096

METADATA: Final = "__metadata__"
"""Not a tensor's name: free text about the file."""
_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8
_FIELDS: Final = frozenset({"dtype", "shape", "data_offsets"})
_REMEDY: Final = "The file is damaged or was not written as safetensors: copy or export it again."


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and where its bytes lie.

    Attributes:
        spec: Name, element type, shape.
        offset: Place of its first byte, from the start of the file.
        size_bytes: Number of its bytes.
    """

    spec: TensorSpec
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds.

    Attributes:
        tensors: The tensors by name.
        metadata: Free text by name.
    """

    tensors: Mapping[str, Placed]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(descriptor: int, *, path: Path) -> Header:
    """Returns the header of an open file.

    Args:
        descriptor: The open file.
        path: Its name for errors.

    Raises:
        ManifestMismatch: It is not a sound safetensors file; the message says where.
    """
    file_bytes = os.fstat(descriptor).st_size
    start = os.pread(descriptor, _LENGTH_BYTES, 0)
    if len(start) < _LENGTH_BYTES:
        raise _bad(path, f"it has {file_bytes} bytes, a header needs at least {_LENGTH_BYTES}")
    length = int.from_bytes(start, "little")
    if length > LARGEST_HEADER_BYTES:
        raise _bad(path, f"its header claims {length} bytes, more than {LARGEST_HEADER_BYTES}")
    if _LENGTH_BYTES + length > file_bytes:
        raise _bad(path, f"its header claims {length} bytes, the file has {file_bytes}")
    text = os.pread(descriptor, length, _LENGTH_BYTES)
    if not text.startswith(b"{"):
        raise _bad(path, "its header does not start with '{'")
    try:
        record = parse_strict(text)
    except BadJsonError as error:
        raise _bad(path, f"its header is no sound JSON: {error}") from error
    return _header(record, path=path, data_start=_LENGTH_BYTES + length, file_bytes=file_bytes)


def header_bytes(tensors: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Returns the beginning of a file, up to the first tensor's bytes, padded to 8.

    Args:
        tensors: The tensors in the order in which their bytes follow.
        metadata: Free text by name.
    """
    record: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    offset = 0
    for name, spec in tensors.items():
        end = offset + spec.size * ITEM_SIZES[spec.dtype]
        record[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _header(record: dict[str, Any], *, path: Path, data_start: int, file_bytes: int) -> Header:
    metadata = record.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(map(_is_text, [*metadata, *metadata.values()])):
        raise _bad(path, f"its {METADATA} is not text by name")
    if len(record) > MOST_TENSORS:
        raise _bad(path, f"it names {len(record)} tensors, more than {MOST_TENSORS}")
    tensors: dict[str, Placed] = {}
    for name, fields in record.items():
        tensors[name] = _placed(name, fields, path=path, data_start=data_start)
    end = data_start
    for placed in sorted(tensors.values(), key=lambda it: (it.offset, it.size_bytes)):
        if placed.offset != end:
            what = "overlaps the one before" if placed.offset < end else "leaves a hole before it"
            raise _bad(path, f"tensor {placed.spec.name!r} {what}")
        end = placed.offset + placed.size_bytes
    if end != file_bytes:
        what = "bytes that no tensor owns" if end < file_bytes else "too few bytes"
        raise _bad(path, f"it has {what}: {file_bytes} instead of {end}")
    return Header(tensors=tensors, metadata=metadata)


def _placed(name: str, fields: Any, *, path: Path, data_start: int) -> Placed:
    tensor = f"tensor {name[:80]!r}"
    if len(name) > LONGEST_NAME or not is_unicode(name):
        raise _bad(path, f"{tensor}: the name is too long or no Unicode")
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise _bad(path, f"{tensor} does not have exactly {', '.join(sorted(_FIELDS))}")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise ManifestMismatch(
            f"{path}: {tensor} has element type {dtype!r}",
            remedy=f"Known are {', '.join(ITEM_SIZES)}.",
        )
    if not _is_list_of_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise _bad(path, f"{tensor} has shape {shape!r}")
    if not _is_list_of_sizes(offsets) or len(offsets) != len(("begin", "end")):
        raise _bad(path, f"{tensor} has data_offsets {offsets!r}")
    begin, end = offsets
    spec = TensorSpec(name=name, dtype=dtype, shape=tuple(shape))
    expected = math.prod(shape) * ITEM_SIZES[dtype]
    if end - begin != expected:
        raise _bad(
            path,
            f"{tensor} of {dtype} {shape} needs {expected} bytes, its data_offsets give"
            f" {end - begin}",
        )
    return Placed(spec=spec, offset=data_start + begin, size_bytes=expected)


def _is_list_of_sizes(value: Any) -> bool:
    # A manifest holds sizes as JSON numbers, so a larger one has no digest.
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= LARGEST_INTEGER for item in value
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_unicode(value)


def _bad(path: Path, what: str) -> ManifestMismatch:
    return ManifestMismatch(f"{path}: {what}", remedy=_REMEDY)

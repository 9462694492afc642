"""A model on disk: one safetensors file, or a folder with shards, their index, config, tokenizer.

    model.safetensors                        or
    model-00001-of-00002.safetensors ... and model.safetensors.index.json
    config.json                              says whether weights are tied or quantised
    tokenizer.json, vocab.txt ...            decide what a row of the embedding stands for
    cabildo-manifest.json                    what we wrote of a model: its base, its digests

Here: finding the files, checking that they fit each other, the facts beside the tensors. Never
here: the tensors' bytes. Next: `file_sources.py` reads them.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.errors import ManifestMismatch, MissingInput
from cabildo_trainer.consensus.files.regular_files import (
    open_regular,
    read_regular,
    sha256_of_regular,
)
from cabildo_trainer.consensus.files.safetensors_header import Header, read_header
from cabildo_trainer.consensus.manifests.canonical_json import (
    BadJsonError,
    canonical_json,
    is_unicode,
    parse_strict,
)
from cabildo_trainer.consensus.manifests.manifest import (
    MANIFEST_FILE,
    Manifest,
    ModelFacts,
    byte_order,
    digest_of,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cabildo_trainer.consensus.files.safetensors_header import Placed

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
CONFIG_FILE: Final = "config.json"
SUFFIX: Final = ".safetensors"

TOKEN_FILES: Final = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
"""Files that decide which token has which number: the tokenizer digest is over these."""
COPIED_FILES: Final = (
    CONFIG_FILE,
    *TOKEN_FILES,
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer_config.json",
)
"""Files that go along with a merged model."""

PICKLE_SUFFIXES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
LARGEST_JSON_BYTES: Final = 64_000_000
LARGEST_MANIFEST_BYTES: Final = 4 * LARGEST_JSON_BYTES
"""Of every tensor it says what an index does, and its digest."""
MOST_FILES: Final = 10_000


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where a tensor lies.

    Attributes:
        file: Index into `ModelFiles.paths`.
        placed: The tensor and its place in the file.
    """

    file: int
    placed: Placed


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files, found and checked.

    Attributes:
        root: The folder, or the single file.
        paths: The safetensors files.
        tensors: Each tensor's place by name, in byte order of the names.
        facts: What is known beside the tensors.
        companions: Existing files of `COPIED_FILES`.
    """

    root: Path
    paths: tuple[Path, ...]
    tensors: Mapping[str, FilePlace]
    facts: ModelFacts
    companions: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(place.placed.size_bytes for place in self.tensors.values())


def find_model(path: Path) -> ModelFiles:
    """Returns the files of a model.

    Args:
        path: A folder or a safetensors file.

    Raises:
        MissingInput: There is nothing, or nothing that may be read.
        ManifestMismatch: The files are damaged, contradict each other or are not safetensors.
    """
    try:
        if path.is_dir():
            return _folder(path)
        _refuse_pickle(path)
        headers = _headers([path])
    except OSError as error:
        raise MissingInput(
            f"{error.filename or path}: {error.strerror}",
            remedy="Give a folder with model.safetensors (or shards and their index), or a"
            " safetensors file.",
        ) from error
    return ModelFiles(
        root=path,
        paths=(path,),
        tensors=_places(headers, paths=[path]),
        facts=ModelFacts(tied_names=_tied_by_metadata(headers)),
        companions=(),
    )


def _folder(folder: Path) -> ModelFiles:
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.exists() and index.exists():
        raise ManifestMismatch(
            f"{folder} has both {SINGLE_FILE} and {INDEX_FILE}",
            remedy="Delete the one that is not the model, or give a file instead of the folder.",
        )
    if index.exists():
        weight_map = _weight_map(index)
        paths = [folder / name for name in sorted(set(weight_map.values()))]
        headers = _headers(paths)
        tensors = _places(headers, paths=paths)
        _check_index(weight_map, tensors, paths=paths, index=index)
    else:
        paths = [single if single.exists() else _only_file(folder)]
        headers = _headers(paths)
        tensors = _places(headers, paths=paths)
    return ModelFiles(
        root=folder,
        paths=tuple(paths),
        tensors=tensors,
        facts=_facts(folder, headers),
        companions=tuple(folder / name for name in COPIED_FILES if (folder / name).is_file()),
    )


def _only_file(folder: Path) -> Path:
    names = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in names if name.endswith(SUFFIX)]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise ManifestMismatch(
            f"{folder} has {len(found)} safetensors files ({found[0]}, {found[1]} ...) and no"
            f" {INDEX_FILE}",
            remedy="Add the index, or give the one file that is the model.",
        )
    for name in names:
        _refuse_pickle(folder / name)
    raise MissingInput(
        f"{folder} has no safetensors file",
        remedy=f"Give a folder with {SINGLE_FILE}, or with shards and {INDEX_FILE}.",
    )


def _refuse_pickle(path: Path) -> None:
    if path.name.endswith(PICKLE_SUFFIXES):
        raise ManifestMismatch(
            f"{path} is a pickle: reading it may run any program that its author put in",
            remedy="Convert it once, apart from secrets: `python -m cabildo_trainer.consensus"
            f" import {path} --output FOLDER`.",
        )


def _headers(paths: Iterable[Path]) -> list[Header]:
    headers: list[Header] = []
    with ExitStack() as stack:
        for path in paths:
            descriptor = open_regular(path)
            stack.callback(os.close, descriptor)
            headers.append(read_header(descriptor, path=path))
    return headers


def _places(headers: list[Header], *, paths: list[Path]) -> dict[str, FilePlace]:
    found: dict[str, FilePlace] = {}
    for file, header in enumerate(headers):
        for name, placed in header.tensors.items():
            if name in found:
                raise ManifestMismatch(
                    f"tensor {name!r} is in {paths[found[name].file]} and in {paths[file]}",
                    remedy="Keep one of the two.",
                )
            found[name] = FilePlace(file=file, placed=placed)
    return {name: found[name] for name in sorted(found, key=byte_order)}


def _weight_map(index: Path) -> dict[str, str]:
    record = _read_json(index)
    weight_map = record.get("weight_map") if isinstance(record, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ManifestMismatch(f"{index} has no weight_map", remedy="Export the model again.")
    for name, file in weight_map.items():
        if not is_unicode(name):
            raise ManifestMismatch(
                f"{index}: the name of tensor {name[:80]!r} is no Unicode",
                remedy="Export the model again.",
            )
        plain = isinstance(file, str) and file == os.path.basename(file) and len(file) > len(SUFFIX)  # noqa: PTH119 - the text of the name, not a path
        if not plain or not file.isprintable() or not file.endswith(SUFFIX):
            raise ManifestMismatch(
                f"{index} puts tensor {name!r} into {file!r}, which is not the name of a"
                " safetensors file in the same folder",
                remedy="Export the model again.",
            )
    if len(set(weight_map.values())) > MOST_FILES:
        raise ManifestMismatch(f"{index} names more than {MOST_FILES} files")
    return weight_map


def _check_index(
    weight_map: Mapping[str, str],
    tensors: Mapping[str, FilePlace],
    *,
    paths: list[Path],
    index: Path,
) -> None:
    for name in sorted(weight_map.keys() | tensors.keys(), key=byte_order):
        claimed = weight_map.get(name)
        actual = paths[tensors[name].file].name if name in tensors else None
        if claimed != actual:
            raise ManifestMismatch(
                f"{index}: tensor {name!r} is in {actual or 'no file'}, the index says"
                f" {claimed or 'nothing of it'}",
                remedy="Export the model again; the index and the shards are of two models.",
            )


def _read_json(path: Path) -> Any:
    return _parsed(read_regular(path, most_bytes=LARGEST_JSON_BYTES), path=path)


def _parsed(content: bytes, *, path: Path) -> Any:
    try:
        return parse_strict(content)
    except BadJsonError as error:
        raise ManifestMismatch(
            f"{path} is no sound JSON: {error}", remedy="Copy or export the model again."
        ) from error


def _facts(folder: Path, headers: list[Header]) -> ModelFacts:
    config_path = folder / CONFIG_FILE
    tied = set(_tied_by_metadata(headers))
    config_digest, quantised = None, ""
    if config_path.is_file():
        content = read_regular(config_path, most_bytes=LARGEST_JSON_BYTES)
        config, config_digest = _parsed(content, path=config_path), digest_of(content)
        if _says(config, "tie_word_embeddings"):
            tied.add(("tie_word_embeddings",))
        if _says(config, "quantization_config"):
            quantised = f"{config_path} has a quantization_config"
    manifest_path = folder / MANIFEST_FILE
    base_digest = None
    if manifest_path.is_file():
        base_digest = read_manifest(manifest_path).facts.base_digest
    return ModelFacts(
        base_digest=base_digest,
        config_digest=config_digest,
        tokenizer_digest=_tokenizer_digest(folder),
        tied_names=tuple(sorted(tied)),
        quantised=quantised,
    )


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest in a file.

    Raises:
        ManifestMismatch: It is none.
        OSError: It cannot be read.
    """
    return parse_manifest(read_regular(path, most_bytes=LARGEST_MANIFEST_BYTES), where=str(path))


def _says(config: Any, field: str) -> bool:
    """Returns whether a config, or the part of it about text, sets a field."""
    if not isinstance(config, dict):
        return False
    text = config.get("text_config")
    return bool(config.get(field)) or (isinstance(text, dict) and bool(text.get(field)))


def _tied_by_metadata(headers: Iterable[Header]) -> tuple[tuple[str, ...], ...]:
    """Returns the groups that `safetensors.torch.save_model` notes: dropped name -> kept name."""
    headers = list(headers)
    names = {name for header in headers for name in header.tensors}
    groups: dict[str, set[str]] = {}
    for header in headers:
        for dropped, kept in header.metadata.items():
            if kept in names and dropped not in names:
                groups.setdefault(kept, {kept}).add(dropped)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values()))


def _tokenizer_digest(folder: Path) -> str | None:
    return tokenizer_digest_of(
        {
            name: sha256_of_regular(folder / name)
            for name in TOKEN_FILES
            if (folder / name).is_file()
        }
    )


def tokenizer_digest_of(sha256_by_name: Mapping[str, str]) -> str | None:
    """Returns the tokenizer digest of files with these SHA-256 (others than its own are left out).

    Args:
        sha256_by_name: Hexadecimal SHA-256 by file name.
    """
    digests = {name: sha for name, sha in sha256_by_name.items() if name in TOKEN_FILES}
    return digest_of(canonical_json(digests)) if digests else None

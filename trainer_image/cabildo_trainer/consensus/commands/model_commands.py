"""`manifest` and `verify`: what a model is, and whether it is that.

Here: these commands. Never here: merging (`merge_command.py`) or pickles (`import_command.py`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from cabildo_trainer.consensus.commands.progress_bar import ProgressBar
from cabildo_trainer.consensus.errors import DigestMismatch, MissingInput
from cabildo_trainer.consensus.files.durable_files import sync_folder, write_synced
from cabildo_trainer.consensus.files.file_sources import FileModel
from cabildo_trainer.consensus.files.read_ahead import ReadAhead
from cabildo_trainer.consensus.files.safetensors_files import find_model, read_manifest
from cabildo_trainer.consensus.manifests.manifest import MANIFEST_FILE, Manifest, parse_manifest

if TYPE_CHECKING:
    from pathlib import Path


def print_manifest(path: Path, *, base_digest: str | None, write: bool) -> int:
    """Prints a model's manifest, its digest and its Merkle root.

    Args:
        path: The model.
        base_digest: What it was trained from, where the model does not say so.
        write: Whether the manifest is written into the model's folder as well.
    """
    if write and not path.is_dir():
        raise MissingInput(f"{path} is no folder", remedy="--write needs the model's folder.")
    manifest = manifest_of_files(path)
    if base_digest is not None:
        manifest = replace(manifest, facts=replace(manifest.facts, base_digest=base_digest))
        parse_manifest(manifest.to_bytes(), where="--base-digest")
    content = manifest.to_bytes() + b"\n"
    if write:
        partial = path / f".{MANIFEST_FILE}.partial"
        partial.unlink(missing_ok=True)
        write_synced(partial, content)
        partial.rename(path / MANIFEST_FILE)
        sync_folder(path)
    sys.stdout.write(content.decode())
    sys.stdout.write(f"digest      {manifest.digest}\nmerkle root {manifest.merkle_root}\n")
    return 0


def verify_model(path: Path, *, digest: str) -> int:
    """Checks a model against the manifest beside it, a digest, or both.

    Raises:
        DigestMismatch: It is another model; the message names the first difference.
        MissingInput: There is nothing to check it against.
    """
    beside = path / MANIFEST_FILE
    if not digest and not beside.is_file():
        raise MissingInput(
            f"{path} has no {MANIFEST_FILE}",
            remedy="Give --digest, or write the manifest where the model is known to be good:"
            " `manifest PATH --write`.",
        )
    manifest = manifest_of_files(path)
    if beside.is_file():
        expected = read_manifest(beside)
        if manifest != expected:
            raise DigestMismatch(
                f"{path} is not what {beside.name} says: {_difference(expected, manifest)}",
                remedy="Copy the model again from where it is good.",
            )
    if digest and manifest.digest != digest:
        raise DigestMismatch(
            f"{path} has digest {manifest.digest}, not {digest}",
            remedy="It is another model, or damaged: copy it again from where it is good.",
        )
    sys.stdout.write(f"{path} {manifest.digest} verified\n")
    return 0


def manifest_of_files(path: Path) -> Manifest:
    """Returns the manifest of a model on disk, reading all of it."""
    files = find_model(path)
    bar = ProgressBar("hashing", total_bytes=files.size_bytes, stream=sys.stderr)
    with (
        ReadAhead(threads=len(os.sched_getaffinity(0))) as read_ahead,
        FileModel(str(path), files, read_ahead=read_ahead, on_bytes=bar.add) as model,
    ):
        manifest = model.manifest
    bar.finish()
    return manifest


def _difference(expected: Manifest, actual: Manifest) -> str:
    wanted = {entry.name: entry for entry in expected.tensors}
    found = {entry.name: entry for entry in actual.tensors}
    for name in sorted(wanted.keys() | found.keys(), key=str.encode):
        if name not in found or name not in wanted:
            return f"tensor {name!r} is {'missing' if name in wanted else 'not in the manifest'}"
        for field in ("dtype", "shape", "sha256"):
            one, two = getattr(wanted[name], field), getattr(found[name], field)
            if one != two:
                return f"tensor {name!r} has {field} {two}, not {one}"
    for field in ("base_digest", "config_digest", "tokenizer_digest", "tied_names"):
        one, two = getattr(expected.facts, field), getattr(actual.facts, field)
        if one != two:
            return f"its {field.replace('_', ' ')} is {two}, not {one}"
    return "nothing"  # pragma: no cover - equal manifests are not compared

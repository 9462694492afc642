"""`import`: a pickled state dict made safe.

Here: pickle to safetensors, and what in a pickle no safetensors file can hold. Never here: what a
model is (`model_commands.py`).
"""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.commands.model_commands import manifest_of_files
from cabildo_trainer.consensus.errors import ManifestMismatch, MissingInput
from cabildo_trainer.consensus.files.durable_files import StagedFolder, write_synced
from cabildo_trainer.consensus.files.safetensors_files import (
    COPIED_FILES,
    PICKLE_SUFFIXES,
    SINGLE_FILE,
)
from cabildo_trainer.consensus.files.safetensors_header import (
    LONGEST_NAME,
    METADATA,
    MOST_DIMENSIONS,
)

if TYPE_CHECKING:
    from pathlib import Path

NESTED_STATES: Final = ("state_dict", "model_state_dict", "model", "module")
"""Where training programs keep the weights within what they save."""
ELEMENT_TYPES: Final = frozenset(
    {
        "bool",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        *(f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")),
        *("float16", "bfloat16", "float32", "float64", "complex64"),
    }
)
"""torch's element types that a safetensors file can hold."""


def import_model(path: Path, *, output: Path) -> int:
    """Converts a pickled state dict to safetensors, without running what is in the pickle.

    Args:
        path: The pickle, or a folder with one; config and tokenizer beside it are copied.
        output: The folder of the converted model.

    Raises:
        MissingInput: There is no pickle, or torch is not installed.
        ManifestMismatch: It holds more than tensors, no tensors, or one that a safetensors file
            cannot hold; the message names it.
    """
    pickle = _the_pickle(path)
    tensors = _load_tensors(pickle)
    for name, tensor in tensors.items():
        _refuse_unfit(name, tensor, pickle=pickle)
    with pickle.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    staged = StagedFolder(output)
    try:
        from safetensors.torch import save  # noqa: PLC0415 - torch only where it is needed

        kept, tied = _without_ties(tensors)
        write_synced(staged.path / SINGLE_FILE, save(kept, {"format": "pt", **tied}))
        for name in COPIED_FILES:
            companion = pickle.parent / name
            if companion.is_file():
                write_synced(staged.path / name, companion.read_bytes())
        # Read before it is in its place: nothing is left there that cannot be read again.
        digest = manifest_of_files(staged.path).digest
        staged.commit()
    finally:
        staged.abandon()
    sys.stdout.write(f"{pickle} (sha256:{source})\n{output} {digest}\n")
    return 0


def _the_pickle(path: Path) -> Path:
    if path.is_file():
        return path
    names = sorted(path.iterdir()) if path.is_dir() else []
    found = [entry for entry in names if entry.name.endswith(PICKLE_SUFFIXES)]
    if len(found) != 1:
        raise MissingInput(
            f"{path} has {len(found)} pickles", remedy="Give the one file that holds the weights."
        )
    return found[0]


def _load_tensors(pickle: Path) -> dict[Any, Any]:
    try:
        import torch  # noqa: PLC0415 - torch only where it is needed
    except ImportError as error:
        raise MissingInput(
            "reading a pickle needs torch", remedy="Run this in the trainer's image."
        ) from error
    if not pickle.stat().st_size:
        raise ManifestMismatch(
            f"{pickle} is empty", remedy="Copy it again from where the model comes from."
        )
    try:
        state = torch.load(pickle, map_location="cpu", weights_only=True)
    except Exception as error:
        # Some errors of torch have no text.
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ManifestMismatch(
            f"{pickle} holds more than tensors and plain values: {said}",
            remedy="Save `model.state_dict()` alone where the model comes from.",
        ) from error
    for name in NESTED_STATES:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    tensors = {
        name: value
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ManifestMismatch(
            f"{pickle} has no tensors by name", remedy="Save `model.state_dict()`."
        )
    return tensors


def _refuse_unfit(name: Any, tensor: Any, *, pickle: Path) -> None:
    """Refuses what a safetensors file cannot hold, before anything is written.

    Raises:
        ManifestMismatch: Names the tensor, what it is, and what to do.
    """
    fault = _fault_of_name(name) or _fault_of_tensor(tensor)
    if fault is not None:
        what, remedy = fault
        shown = ascii(name) if len(ascii(name)) <= LONGEST_NAME else f"{ascii(name)[:80]}..."
        raise ManifestMismatch(f"{pickle}: tensor {shown} {what}", remedy=remedy)


def _fault_of_name(name: Any) -> tuple[str, str] | None:
    rename = "Give the tensor another name where the model comes from, and save it again."
    if not isinstance(name, str):
        # 1 and "1" are two tensors, and would be one name.
        return f"has a name of type {type(name).__name__}, not text", rename
    if name == METADATA:
        return "has the name that safetensors keeps for its own notes", rename
    if len(name) > LONGEST_NAME:
        return f"has a name of {len(name)} characters, more than {LONGEST_NAME}", rename
    try:
        name.encode()
    except UnicodeEncodeError:
        return "has a name that is no Unicode text", rename
    return None


def _fault_of_tensor(tensor: Any) -> tuple[str, str] | None:
    dtype = str(tensor.dtype).removeprefix("torch.")
    # Quantised first: nested and quantised tensors have no layout or type that says it better.
    if tensor.is_quantized:
        return f"is quantised ({dtype})", "Save `tensor.dequantize()` in its place."
    if tensor.is_meta:
        return "has no values (device meta)", "Load the model's weights before it is saved."
    if tensor.is_nested or str(tensor.layout) != "torch.strided":
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        return f"is not dense ({layout})", "Save `tensor.to_dense()` in its place."
    if dtype not in ELEMENT_TYPES:
        known = ", ".join(sorted(ELEMENT_TYPES))
        return f"has element type {dtype}", f"Save it as one of {known}."
    if tensor.dim() > MOST_DIMENSIONS:
        most = f"Save it with {MOST_DIMENSIONS} at most."
        return f"has {tensor.dim()} dimensions", most
    return None


def _without_ties(tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns each tensor once, and dropped name -> kept name of those that are one tensor."""
    kept: dict[str, Any] = {}
    tied: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    for name in sorted(tensors, key=str.encode):
        tensor = tensors[name]
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in names:
            tied[name] = names[place]
            continue
        names[place] = name
        # A view into a larger tensor becomes a tensor of its own.
        kept[name] = tensor.contiguous().clone()
    return kept, tied

"""Bytes of a checkpoint's files, to and from tensors and plain values.

Here: names and encodings. Nothing that is read back can run code: weights are safetensors, the rest
loads with `weights_only`. Never here: folders. Next: `checkpoint.py`.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cabildo_trainer.errors import DamagedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHTS_FILE: Final = "model.safetensors"
STATE_FILE: Final = "state.pt"


def rank_file(rank: int) -> str:
    """Returns the name of a rank's own file."""
    return f"rank-{rank}.pt"


def files_of(rank: int) -> tuple[str, ...]:
    """Returns the files that a rank needs to go on."""
    return (WEIGHTS_FILE, STATE_FILE, rank_file(rank))


def pack(values: dict[str, Any]) -> bytes:
    """Returns tensors and plain values as bytes."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def unpack(content: bytes, *, name: str) -> dict[str, Any]:
    """Returns what `pack` was given.

    Raises:
        DamagedCheckpointError: It is something else.
    """
    try:
        values: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch.load raises whatever pickle and zipfile raise
        raise DamagedCheckpointError(f"{name} cannot be loaded: {error}") from error
    return values


def pack_weights(weights: Mapping[str, Tensor]) -> bytes:
    """Returns tensors as safetensors; equal tensors give equal bytes."""
    # Tied parameters share memory, which safetensors refuses: each name gets its own copy.
    return safetensors.torch.save(
        {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    )


def unpack_weights(content: bytes) -> dict[str, Tensor]:
    """Returns what `pack_weights` was given.

    Raises:
        DamagedCheckpointError: It is something else.
    """
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise DamagedCheckpointError(f"{WEIGHTS_FILE} cannot be loaded: {error}") from error
    return weights


def parameters_digest(parameters: Mapping[str, Tensor]) -> str:
    """Returns one SHA-256 of the names and values of parameters."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        value = parameters[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + b"\0")
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()

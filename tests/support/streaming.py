"""Merges of models in files as processes of their own: their memory, and how fast they read.

Here: making the models, running a merge, reading its cost. Never here: what the cost may be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cabildo_trainer.consensus.files.safetensors_header import header_bytes
from cabildo_trainer.consensus.sources import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 2**20
TENSORS = 4
_FINITE = np.uint32(0xBFFF_FFFF)
"""Clears the exponent's first bit: any 32 bits are a number below 2 then."""

# What the child says: the bytes that its models gave out, the seconds that the merge took, and
# its own largest memory (what `wait4` returns counts the parent's before the exec as well).
_CHILD = """
import json, sys, time
from cabildo_trainer.consensus.commands import command_line, merge_command
from cabildo_trainer.consensus.files import file_sources
total = [0]
class Counting(file_sources.FileModel):
    def __init__(self, *args, on_bytes=None, **options):
        def count(number):
            total[0] += number
        super().__init__(*args, on_bytes=count, **options)
merge_command.FileModel = Counting
begun = time.monotonic()
code = command_line.main(sys.argv[1:])
seconds = time.monotonic() - begun
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"bytes": total[0], "seconds": seconds, "peak": peak}))
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a merge cost.

    Attributes:
        peak_bytes: The process's largest resident memory.
        read_bytes: Bytes that its models gave out, over all passes.
        seconds: How long the merge took, imports not counted.
    """

    peak_bytes: int
    read_bytes: int
    seconds: float


def make_models(folder: Path, *, models: int, size_bytes: int, columns: int = 0) -> dict[str, Path]:
    """Write float32 models of distinct bytes, some tensors each; return their paths by key.

    Tensors are vectors, or with `columns` matrices of as many whole rows as fit.
    """
    elements = size_bytes // TENSORS // 4
    rows = elements // columns if columns else 0
    elements = rows * columns or elements
    specs = {
        name: TensorSpec(name=name, dtype="F32", shape=(rows, columns) if rows else (elements,))
        for name in (f"layer{number}.weight" for number in range(TENSORS))
    }
    header = header_bytes(specs, {"format": "pt"})
    paths = {}
    for number in range(models):
        path = folder / f"p{number:02d}.safetensors"
        draw = np.random.Generator(np.random.SFC64(number))
        with path.open("wb") as file:
            file.write(header)
            left = TENSORS * elements
            while left:
                count = min(left, MEBIBYTE)
                bits = draw.integers(0, 1 << 32, size=count, dtype=np.uint32)
                file.write(memoryview(bits & _FINITE))
                left -= count
            file.flush()
            os.fsync(file.fileno())
        paths[path.stem] = path
    return paths


def merged(paths: dict[str, Path], output: Path, *options: str) -> Streamed:
    """Merge models by the command line, in a process of its own."""
    arguments = [part for key, path in paths.items() for part in ("--model", f"{key}={path}")]
    command = [sys.executable, "-c", _CHILD, "merge", *arguments, "--output", str(output)]
    ended = subprocess.run(
        [*command, "--quiet", *options], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    cost = json.loads(ended.stdout.splitlines()[-1])
    return Streamed(peak_bytes=cost["peak"], read_bytes=cost["bytes"], seconds=cost["seconds"])

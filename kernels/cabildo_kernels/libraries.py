"""Other people's kernels, where they are the faster ones: torch, if it is installed.

Here: finding torch at the first use, and what the CPU offers it. Never here: importing torch when
this package is imported, or needing it.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any, Final

BF16_UNITS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names in /proc/cpuinfo, x86-64 and aarch64."""


@functools.cache
def torch() -> Any | None:
    """Return torch, or None where it is not installed; the first call imports it."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


@functools.cache
def has_bf16_units(*, cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this CPU multiplies bf16 itself."""
    try:
        text = cpu_info.read_text()
    except OSError:
        return False
    return any(
        not BF16_UNITS.isdisjoint(line.partition(":")[2].split())
        for line in text.splitlines()
        if line.lower().startswith(("flags", "features"))
    )

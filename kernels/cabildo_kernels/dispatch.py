"""Which path does the work: the compiled ones that this CPU runs, or NumPy.

Here: the one choice, made at the first use and kept: the best path there is, or the one that
CABILDO_KERNELS_ISA names. Never here: arithmetic. All paths give the same bits; a test compares
them.
"""

from __future__ import annotations

import functools
import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cabildo_kernels import threads
from cabildo_kernels.errors import UnavailablePath
from cabildo_kernels.grid import GRID_VERSION

if TYPE_CHECKING:
    from types import ModuleType

ENVIRONMENT: Final = "CABILDO_KERNELS_ISA"
FALLBACK: Final = "numpy"
# In the order of native/cpu.h: a path's place is the index that the compiled code takes.
PATHS: Final = ("baseline", "avx2", "avx512", "neon")


@dataclass(frozen=True, slots=True)
class Info:
    """What runs here.

    Attributes:
        isa: The path in use.
        available: The paths that could be: "numpy" always, the compiled ones that the CPU runs.
        lacking: The other paths.
        threads: How many threads a large call takes: the cgroup's quota of CPUs.
        compiled: Whether compiled kernels do the work.
        grid_version: The grid of every result.
    """

    isa: str
    available: tuple[str, ...]
    lacking: tuple[str, ...]
    threads: int
    compiled: bool
    grid_version: str = GRID_VERSION


@functools.cache
def available() -> tuple[str, ...]:
    """Return the paths that can run here, the slowest first."""
    try:
        cpu = importlib.import_module("cabildo_kernels.native.cpu")
    except ImportError:
        return (FALLBACK,)
    mask = cpu.paths()
    return (FALLBACK, *(name for index, name in enumerate(PATHS) if mask >> index & 1))


@functools.cache
def isa() -> str:
    """Return the path in use.

    Raises:
        UnavailablePath: CABILDO_KERNELS_ISA names no path, or one that cannot run here.
    """
    wanted = os.environ.get(ENVIRONMENT, "")
    if not wanted:
        return available()[-1]
    if wanted not in available():
        raise UnavailablePath(
            f"{ENVIRONMENT}={wanted}: this machine runs {', '.join(available())}; name one of them"
            " or leave the variable out"
        )
    return wanted


def path() -> int:
    """Return the index of the path in use, as the compiled code takes it."""
    return PATHS.index(isa())


@functools.cache
def native(name: str) -> ModuleType | None:
    """Return the compiled module `cabildo_kernels.native.<name>`, or None for NumPy's work.

    None when the fallback is in use, and when this one extension did not compile here.
    """
    if isa() == FALLBACK:
        return None
    try:
        return importlib.import_module(f"cabildo_kernels.native.{name}")
    except ImportError:
        return None


def info() -> Info:
    """Return which path is in use, which could be, and how many threads a large call takes."""
    here = available()
    return Info(
        isa=isa(),
        available=here,
        lacking=tuple(name for name in PATHS if name not in here),
        threads=threads.quota(),
        compiled=isa() != FALLBACK,
    )

"""Which path does the work: the compiled ones that this CPU runs, or NumPy.

Here: the one choice, made at the first use and kept: the best path there is, or the one that
CABILDO_KERNELS_ISA names. Never here: arithmetic. Our kernels give the same bits on all paths; a
test compares them. Where a function hands its work to a library (`attention`, `products`), the bits
are the library's, and for attention the path decides at which sizes.
"""

from __future__ import annotations

import functools
import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cabildo_kernels import threads
from cabildo_kernels.errors import UnavailablePath
from cabildo_kernels.grid import GRID_VERSION

if TYPE_CHECKING:
    from types import ModuleType

ENVIRONMENT: Final = "CABILDO_KERNELS_ISA"
FALLBACK: Final = "numpy"
# In the order of native/cpu.h: a path's place is the index that the compiled code takes.
PATHS: Final = ("baseline", "avx2", "avx512", "neon")
# What does the work, one by one optional when the package is built; `measure` only measures.
MODULES: Final = ("columns", "cpu", "gram", "linear_algebra", "sha256", "softmax", "task_vectors")


@dataclass(frozen=True, slots=True)
class Info:
    """What runs here.

    Attributes:
        isa: The path in use.
        available: The paths that could be: "numpy" always, the compiled ones that the CPU runs.
        lacking: The other paths.
        threads: How many threads a large call takes: the cgroup's quota of CPUs.
        compiled: Whether compiled kernels do all of the work: another path than "numpy", and no
            module missing.
        missing: The compiled modules that are not there; NumPy does their work on every path.
        grid_version: The grid of every result.
    """

    isa: str
    available: tuple[str, ...]
    lacking: tuple[str, ...]
    threads: int
    compiled: bool
    missing: tuple[str, ...]
    grid_version: str = GRID_VERSION


@functools.cache
def available() -> tuple[str, ...]:
    """Return the paths that can run here, the slowest first."""
    cpu = _module("cpu")
    if cpu is None:
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
    return None if isa() == FALLBACK else _module(name)


def _module(name: str) -> Any | None:
    try:
        return importlib.import_module(f"cabildo_kernels.native.{name}")
    except ImportError:
        return None


def info() -> Info:
    """Return what does the work here, what could, and how many threads a large call takes."""
    here = available()
    missing = tuple(name for name in MODULES if _module(name) is None)
    return Info(
        isa=isa(),
        available=here,
        lacking=tuple(name for name in PATHS if name not in here),
        threads=threads.quota(),
        compiled=isa() != FALLBACK and not missing,
        missing=missing,
    )

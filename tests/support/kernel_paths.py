"""Running a kernel on one path after another: the compiled ones this CPU has, and NumPy.

Here: forcing a path within a block. Never here: what the paths must agree on.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cabildo_kernels import dispatch

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPILED = tuple(path for path in dispatch.available() if path != dispatch.FALLBACK)
EVERY_PATH = dispatch.available()


@contextmanager
def on_path(isa: str) -> Iterator[None]:
    """Take this path within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "isa", lambda: isa)
        dispatch.native.cache_clear()
        try:
            yield
        finally:
            dispatch.native.cache_clear()

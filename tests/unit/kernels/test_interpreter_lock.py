"""The interpreter lock is released while compiled code runs over large inputs."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import dispatch, gram, median, weighted_sum
from support.kernel_paths import COMPILED, on_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = [np.full(1 << 18, k, dtype=np.float32) for k in range(8)]
CALLS: dict[str, tuple[str, Callable[[], Any]]] = {
    "median": ("columns", lambda: median(ROWS, threads=1)),
    "weighted_sum": ("columns", lambda: weighted_sum(ROWS, [1.0] * 8, threads=1)),
    "gram": ("gram", lambda: gram(ROWS, threads=1)),
}
MOST_CALLS = 2000
"""A busy machine may leave the other thread without a CPU for some calls."""


@pytest.fixture
def turns() -> Iterator[list[int]]:
    """Count the turns of another thread, which gets one only where a thread lets go of the lock."""
    count, stop, interval = [0], threading.Event(), sys.getswitchinterval()

    def run() -> None:
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)  # lets go of the lock itself

    other = threading.Thread(target=run)
    sys.setswitchinterval(1000.0)  # nobody is made to
    other.start()
    try:
        yield count
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join()


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("name", CALLS)
def test_another_thread_runs_during_a_large_call(
    isa: str, name: str, turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, call = CALLS[name]
    with on_path(isa):
        native: Any = dispatch.native(module)
        compiled, during = native.run, [0]

        def watched(*arguments: Any, **options: Any) -> Any:
            before = turns[0]
            result = compiled(*arguments, **options)
            during[0] += turns[0] - before
            return result

        monkeypatch.setattr(native, "run", watched)
        for _ in itertools.takewhile(lambda _: during[0] == 0, range(MOST_CALLS)):
            call()
    assert during[0] > 0

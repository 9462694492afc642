"""Every loss, as hexadecimal floats on the checkpoint volume: pods' logs vanish with the pods.

Here: one line a step and rank, `{"step": 17, "loss": "0x1.8p-1"}`, handed to the kernel at once so
that kill -9 loses none. Replayed steps appear again and must be equal: this is how exactness is
checked. Never here: metrics. Next: `loop.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class LossLog:
    """The loss file of one rank in one attempt."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def write(self, *, step: int, loss: float) -> None:
        """Adds the loss of a step, counted from 1."""
        # One unbuffered write a line: a killed process leaves whole lines.
        self._file.write(f'{{"step":{step},"loss":"{loss.hex()}"}}\n'.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

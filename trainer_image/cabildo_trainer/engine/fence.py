"""The fence: which attempts of a run have started, and from which step.

A node that is cut off may still reach the storage, so an old attempt can go on while a new one
runs. Every attempt writes one line before it trains; a commit counts only if no later attempt has
started from an earlier step. Readers apply the same rule, so that a commit that slips in between an
old attempt's last look and its rename changes nothing.

Here: the file and the rule. Never here: checkpoints. Next: `checkpoint.py`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cabildo_trainer.errors import FencedError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class FenceEntry:
    """An attempt that has started.

    Attributes:
        attempt: Its number.
        step: Step of the checkpoint that it started from; 0 is from scratch.
    """

    attempt: int
    step: int


@dataclass(frozen=True, slots=True)
class Fence:
    """The fence file of a run: JSON lines, only ever appended to."""

    path: Path

    def entries(self) -> tuple[FenceEntry, ...]:
        """Returns the attempts that have started, in the order of their starts."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return ()
        return tuple(entry for line in lines if (entry := _parse(line)))

    def raise_fence(self, entry: FenceEntry) -> None:
        """Records that an attempt starts; every lower attempt is fenced from now on.

        Raises:
            FencedError: A higher attempt has started already.
        """
        self.check(entry.attempt)
        line = json.dumps(asdict(entry), separators=(",", ":")) + "\n"
        with self.path.open("a+b") as file:
            # A line torn by a crash stays alone: its attempt never came to train.
            if file.tell() and not _ends_with_newline(file.fileno(), size=file.tell()):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def check(self, attempt: int) -> None:
        """Does nothing while `attempt` is the highest that has started.

        Raises:
            FencedError: A higher attempt has started.
        """
        highest = max((entry.attempt for entry in self.entries()), default=0)
        if highest > attempt:
            raise FencedError(
                f"attempt {highest} of this run has started: attempt {attempt} commits nothing more"
            )

    def admits(self, *, attempt: int, step: int) -> bool:
        """Returns whether a checkpoint of an attempt at a step counts."""
        return all(step <= entry.step for entry in self.entries() if entry.attempt > attempt)


def _ends_with_newline(descriptor: int, *, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def _parse(line: str) -> FenceEntry | None:
    try:
        values = json.loads(line)
        return FenceEntry(attempt=int(values["attempt"]), step=int(values["step"]))
    except (ValueError, KeyError, TypeError):
        return None

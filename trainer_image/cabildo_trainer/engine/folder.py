"""The layout of a run on the checkpoint volume, and writes that survive a crash.

    <root>/<object UID>/run-<r>/
        fence                               attempts that have started
        step-<12 digits>/                   committed checkpoints
        step-<12 digits>.corrupt*/          checkpoints that did not verify
        staging/attempt-<a>/                the checkpoint being written
        losses/attempt-<a>-rank-<n>.jsonl   every loss

Here: paths and durable file operations. Never here: what is in a file. Next: `checkpoint.py`.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cabildo_api.names import step_folder

if TYPE_CHECKING:
    from pathlib import Path

STEP_NAME: Final = re.compile(r"step-(\d{12})")
CORRUPT_GLOB: Final = "step-*.corrupt*"
DISCARDED: Final = "discarded-"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def fence(self) -> Path:
        """The fence file."""
        return self.path / "fence"

    @property
    def staging(self) -> Path:
        """The folder of everything that is not committed."""
        return self.path / "staging"

    def attempt_staging(self, attempt: int) -> Path:
        """Returns the folder in which an attempt writes a checkpoint."""
        return self.staging / f"attempt-{attempt}"

    def step(self, step: int) -> Path:
        """Returns the folder of the committed checkpoint of a step."""
        return self.path / step_folder(step)

    def losses(self, *, attempt: int, rank: int) -> Path:
        """Returns the file of a rank's losses."""
        return self.path / "losses" / f"attempt-{attempt}-rank-{rank}.jsonl"

    def committed_steps(self) -> list[int]:
        """Returns the steps that have a folder, newest first."""
        if not self.path.exists():
            return []
        matches = (STEP_NAME.fullmatch(entry.name) for entry in self.path.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def has_corrupt(self) -> bool:
        """Returns whether a checkpoint of this run was set aside."""
        return any(self.path.glob(CORRUPT_GLOB))

    def set_aside(self, step: int) -> Path:
        """Renames a checkpoint to `*.corrupt` and returns its new place."""
        source = self.step(step)
        target = source.with_name(source.name + ".corrupt")
        number = 1
        while target.exists():
            number += 1
            target = source.with_name(f"{source.name}.corrupt-{number}")
        source.rename(target)
        sync_folder(self.path)
        return target

    def take_away(self, step: int, *, attempt: int) -> Path:
        """Renames a checkpoint to a name that only this attempt uses, and returns that place.

        What is left there, also by a crash, counts for nothing.
        """
        target = self.staging / f"{DISCARDED}{step_folder(step)}-by-{attempt}"
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.step(step).rename(target)
        return target

    def clear_staging(self, *, below_attempt: int) -> None:
        """Deletes what earlier attempts left unfinished."""
        if not self.staging.exists():
            return
        for entry in self.staging.iterdir():
            number = entry.name.removeprefix("attempt-")
            if entry.name.startswith(DISCARDED) or (
                number.isdecimal() and int(number) < below_attempt
            ):
                shutil.rmtree(entry, ignore_errors=True)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file and waits until the storage has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the storage has the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

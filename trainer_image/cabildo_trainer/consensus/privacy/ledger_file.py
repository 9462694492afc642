"""The ledger in a file: charged before a round, so that no crash gives a round away for nothing.

    read ledger -> write ledger + this round -> merge -> write the ledger of the result

A round that is refused takes its charge back, since nothing of it was seen. A program that is
killed does not: whether its output got out nobody knows, so the round counts. Run again it is the
next round, also with the same models: with noise of its own, and charged again. Who saw both
outputs could average their noise, and both are paid for.

Here: one file, one program at a time. Never here: what a round costs. Next: the command line.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cabildo_trainer.consensus.errors import ConsensusError, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.files.durable_files import sync_folder, write_synced
from cabildo_trainer.consensus.privacy.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.privacy.accounting import Spend


@dataclass(frozen=True, slots=True)
class Charge:
    """A round that is paid for.

    Attributes:
        path: The ledger's file.
        before: What was spent before the round: what the rule is given.
    """

    path: Path
    before: Ledger

    def settle(self, result: MergeResult) -> None:
        """Writes the ledger after the result, with the clip norm that it led to."""
        _write(self.path, Ledger.of_result(result))


def create_ledger(path: Path) -> None:
    """Writes the ledger of participants about whom nothing was released yet.

    Raises:
        ImpossibleSetting: There is a file already.
    """
    if path.exists():
        raise ImpossibleSetting(
            f"there is a privacy ledger already: {path}",
            remedy="leave --new-privacy-ledger out; a new ledger would forget what was spent",
        )
    _write(path, Ledger())


@contextmanager
def charged(path: Path, *, spend: Spend) -> Iterator[Charge]:
    """Charges a round to a ledger's file while it is made.

    Args:
        path: The file; no other program may be charging it.
        spend: What the round releases.

    Raises:
        MissingInput: There is no such file.
        ImpossibleSetting: Another program is charging it, or it is no ledger.
    """
    with _locked(path):
        before = _read(path)
        _write(path, before.after(spend, clip_norm=before.clip_norm))
        try:
            yield Charge(path=path, before=before)
        except ConsensusError:
            _write(path, before)
            raise


def _read(path: Path) -> Ledger:
    try:
        return Ledger.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInput(
            f"the privacy ledger {path} cannot be read: {error}",
            remedy="bring back the last one; only the first round has none: --new-privacy-ledger",
        ) from error


def _write(path: Path, ledger: Ledger) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a program that was killed while it wrote
    write_synced(partial, ledger.to_json().encode())
    partial.replace(path)
    sync_folder(path.parent)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of the ledger's folder: the file itself is replaced."""
    if not path.parent.is_dir():
        raise MissingInput(f"there is no folder {path.parent} for the privacy ledger")
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, path=path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ImpossibleSetting(
            f"the folder of the privacy ledger {path} cannot be locked: {error}: two rounds that"
            " charge one ledger at the same time would count as one",
            remedy="wait for the other round; keep the ledger on a storage with locks",
        ) from error

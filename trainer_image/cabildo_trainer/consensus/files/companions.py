"""What goes beside a merged model: config, tokenizer, chat template and their like.

They decide what a model does as much as its weights: a config may name code that is run, a template
may put words into every prompt. So no single participant chooses them. They are a trusted model's
where one is given. Else every file is taken in the form that more than f participants share, of
whom one is honest; where two forms or none are so common, nobody can tell, and the merge ends. With
f = 0 all are trusted and the first one's are taken, as fine-tunes of one model often differ in a
path or version that a tool wrote into their config; the merge says in which files.

Here: that choice. Never here: copying (`file_sinks.py`) or who takes part (`../exclusions.py`).
Next: `../commands/merge_command.py`, which asks for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cabildo_trainer.consensus.errors import DigestMismatch, ManifestMismatch
from cabildo_trainer.consensus.files.regular_files import read_regular, sha256_of_regular
from cabildo_trainer.consensus.files.safetensors_files import (
    CONFIG_FILE,
    COPIED_FILES,
    tokenizer_digest_of,
)
from cabildo_trainer.consensus.manifests.manifest import DIGEST_PREFIX, ModelFacts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cabildo_trainer.consensus.files.file_sources import FileModel

    Forms = dict[str, tuple["Companion | None", list[int]]]

REMEDY: Final = (
    "Give --base (or --previous): its files are taken then. Or make the participants' files agree."
)


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that goes beside the merged model.

    Attributes:
        path: Where it lies.
        sha256: Hexadecimal SHA-256 of the bytes that were chosen.
    """

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Companion:
        """Returns a file as it is now."""
        return cls(path=path, sha256=sha256_of_regular(path))

    def read(self) -> bytes:
        """Returns the bytes.

        Raises:
            DigestMismatch: They are no longer those that were chosen.
        """
        content = read_regular(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DigestMismatch(
                f"{self.path} changed during the merge",
                remedy="Merge from a place that nobody writes to.",
            )
        return content


def companions_of(model: FileModel) -> dict[str, Companion]:
    """Returns a model's companions by file name."""
    return {path.name: Companion.of(path) for path in model.files.companions}


def shared_companions(models: Sequence[FileModel], *, f: int) -> dict[str, Companion]:
    """Returns the companions that participants' models share, by file name.

    Args:
        models: Of those who take part, at least one.
        f: How many of them may be arbitrary, 1 or more.

    Raises:
        ManifestMismatch: No form of a file is the only one that more than f of them share.
    """
    taken: dict[str, Companion] = {}
    for name, forms in _forms(models).items():
        common = [companion for companion, rows in forms.values() if len(rows) > f]
        if len(common) != 1:
            raise ManifestMismatch(_difference(name, forms, models, f=f), remedy=REMEDY)
        if common[0] is not None:
            taken[name] = common[0]
    return taken


def differing_companions(models: Sequence[FileModel]) -> list[str]:
    """Returns the names of companions that the models do not all have in one form."""
    return [name for name, forms in _forms(models).items() if len(forms) > 1]


def _forms(models: Sequence[FileModel]) -> dict[str, Forms]:
    """Returns name -> digest -> one companion of this form (None: no file), and whose it is."""
    found = [{path.name: _of_participant(path) for path in it.files.companions} for it in models]
    every: dict[str, Forms] = {name: {} for name in COPIED_FILES}
    for name, forms in every.items():
        for row, companions in enumerate(found):
            companion = companions.get(name)
            digest = "" if companion is None else companion.sha256
            forms.setdefault(digest, (companion, []))[1].append(row)
    return every


def _of_participant(path: Path) -> Companion:
    try:
        return Companion.of(path)
    except (OSError, ManifestMismatch) as error:
        # A file that its owner made unreadable is a form of its own, and ends nothing by itself.
        why = error.strerror if isinstance(error, OSError) else str(error.reason)
        return Companion(path=path, sha256=f"{why}")


def facts_with(companions: dict[str, Companion], *, like: FileModel) -> ModelFacts:
    """Returns the facts of a model with these files beside it and tied weights as in another."""
    config = companions.get(CONFIG_FILE)
    return ModelFacts(
        config_digest=None if config is None else DIGEST_PREFIX + config.sha256,
        tokenizer_digest=tokenizer_digest_of(
            {name: companion.sha256 for name, companion in companions.items()}
        ),
        tied_names=like.facts.tied_names,
    )


def _difference(name: str, forms: Forms, models: Sequence[FileModel], *, f: int) -> str:
    largest = sorted(forms.items(), key=lambda item: -len(item[1][1]))[:2]
    told = " and ".join(
        f"{', '.join(repr(models[row].key) for row in rows)}"
        f" ({DIGEST_PREFIX + digest if digest else 'none'})"
        for digest, (_, rows) in largest
    )
    return (
        f"{name} differs between {told}: {len(forms)} forms among {len(models)} participants, and"
        f" one alone must be shared by more than f = {f} of them"
    )

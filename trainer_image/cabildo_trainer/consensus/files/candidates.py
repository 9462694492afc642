"""Candidates of a merge on disk: models that are made, evaluated and forgotten.

A candidate's files lose their names as soon as it is opened for reading, so its room is free again
when nobody holds the model any more, also after the program was killed.

Here: where candidates live. Never here: what is done with them. Next: `../passes.py` asks for one.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Self

from cabildo_trainer.consensus.files.durable_files import StagedFolder
from cabildo_trainer.consensus.files.file_sinks import SafetensorsSink
from cabildo_trainer.consensus.files.file_sources import FileModel
from cabildo_trainer.consensus.manifests.manifest import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.files.read_ahead import ReadAhead
    from cabildo_trainer.consensus.sources import TensorSpec


class CandidateFolder:
    """A workspace for `Context.workspace`: call it with a key for a sink.

    Args:
        output: Where the merged model will be; candidates are kept beside it.
        read_ahead: Threads that read them.
    """

    def __init__(self, output: Path, *, read_ahead: ReadAhead) -> None:
        self._folder = StagedFolder(output.with_name(f"{output.name}.candidates"))
        self._read_ahead = read_ahead
        self._made = 0

    def __call__(self, key: str) -> Candidate:
        """Returns the sink of a new candidate."""
        self._made += 1
        path = self._folder.path / f"{self._made:06d}"
        return Candidate(key, path, read_ahead=self._read_ahead)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._folder.abandon()


class Candidate:
    """A candidate: written as a sink, then read as a model."""

    def __init__(self, key: str, path: Path, *, read_ahead: ReadAhead) -> None:
        self._key = key
        self._path = path
        self._read_ahead = read_ahead
        self._sink = SafetensorsSink(path, facts=ModelFacts(), durable=False)

    def begin(self, tensors: Mapping[str, TensorSpec]) -> None:
        """Starts the model."""
        self._sink.begin(tensors)

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Takes the elements of a tensor from `start` on."""
        self._sink.write(name, start, values)

    def finish(self) -> str:
        """Ends the writing and returns the digest."""
        digest = self._sink.finish()
        self._sink.close()
        return digest

    def model(self) -> FileModel:
        """Returns what was written; once."""
        self.finish()
        model = FileModel.open(self._key, self._path, read_ahead=self._read_ahead)
        shutil.rmtree(self._path)
        return model

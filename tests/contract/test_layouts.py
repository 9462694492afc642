"""Every rule gives the same bits from models in memory, in one file, and in shards.

Here: the layouts, all trusted models in them too. Never here: what is read when; that is in
`tests/unit/consensus/test_file_sources.py`.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import save_file

from cabildo_trainer.consensus.files.file_sources import FileModel
from cabildo_trainer.consensus.files.read_ahead import ReadAhead
from contract import models as make
from contract.settings import SETTINGS, Setting
from contract.test_rules import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cabildo_trainer.consensus.sources import MemoryModel

SHARDS = (1, 3)


def write(model: MemoryModel, folder: Path, *, shards: int) -> Path:
    """Writes a model as the transformers library does; returns its folder."""
    folder.mkdir(parents=True)
    arrays = {name: model.array(name) for name in model.tensors}
    if shards == 1:
        save_file(arrays, folder / "model.safetensors")
        return folder
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: arrays[name] for name in sorted(arrays)[shard::shards]}
        weight_map |= dict.fromkeys(part, file)
        save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def trusted(given: make.Scene) -> dict[str, MemoryModel]:
    """The trusted models of a scene by the name of their need."""
    return {
        "base": make.unflat("base", given.start),
        "previous": make.unflat("previous", given.start),
        "root_update": make.unflat("root", given.root),
    }


@pytest.fixture(scope="module")
def read_ahead() -> Iterator[ReadAhead]:
    with ReadAhead(threads=2) as threads:
        yield threads


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int, int], Path]:
    """Folders of scenes, written once for all settings of the same n and f."""

    @cache
    def folder_of(n: int, f: int, shards: int) -> Path:
        given = make.scene(n, f, seed=9)
        folder = tmp_path_factory.mktemp(f"{n}-{f}-{shards}")
        for model in make.models(given):
            write(model, folder / "models" / model.key, shards=shards)
        for name, model in trusted(given).items():
            write(model, folder / name, shards=shards)
        for key, model in make.statistics(given).items():
            write(model, folder / "statistics" / key, shards=shards)
        return folder

    return folder_of


def opened(
    setting: Setting, given: make.Scene, folder: Path, open_model: Callable[[str, Path], FileModel]
) -> tuple[list[FileModel], dict[str, Any]]:
    """The models, and the trusted ones that the setting takes, from a scene's folder."""
    needs = {need.value for need in setting.rule.needs} | ({"base"} if setting.centred else set())
    options: dict[str, Any] = {
        name: open_model(model.key, folder / name)
        for name, model in trusted(given).items()
        if name in needs
    }
    keys = [make.key_of(row) for row in range(given.n)]
    if "statistics" in needs:
        options["statistics"] = {key: open_model(key, folder / "statistics" / key) for key in keys}
    return [open_model(key, folder / "models" / key) for key in keys], options


@pytest.mark.parametrize("setting", SETTINGS, ids=[item.name for item in SETTINGS])
def test_models_in_files_of_any_layout_give_the_bits_of_models_in_memory(
    setting: Setting, written: Callable[[int, int, int], Path], read_ahead: ReadAhead
) -> None:
    given = make.scene(setting.n, setting.f, seed=9)
    in_memory, _ = run(setting, given)
    for shards in SHARDS:
        with ExitStack() as stack:

            def open_model(key: str, folder: Path, stack: ExitStack = stack) -> FileModel:
                return stack.enter_context(FileModel.open(key, folder, read_ahead=read_ahead))

            folder = written(setting.n, setting.f, shards)
            inputs, options = opened(setting, given, folder, open_model)
            in_files, _ = run(setting, given, inputs, **options)
            assert {len(model.files.paths) for model in inputs} == {shards}
        assert in_files.output_digest == in_memory.output_digest
        assert in_files == in_memory

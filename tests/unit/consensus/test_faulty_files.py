"""What one participant can put into its folder: it is excluded, and the round goes on."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.commands.command_line import main
from cabildo_trainer.consensus.commands.merge_command import MergeRequest, run_merge
from cabildo_trainer.consensus.errors import ManifestMismatch
from cabildo_trainer.consensus.exclusions import MALFORMED, NON_FINITE
from cabildo_trainer.consensus.files import file_sources
from cabildo_trainer.consensus.files.file_sources import FileModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HONEST = ("p0", "p1", "p2", "p3", "p4")
SPECS: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [4, 5], "data_offsets": [0, 80]},
    "b": {"dtype": "F32", "shape": [3], "data_offsets": [80, 92]},
}
A_TILE_AND_A_BIT = 3_600_000

pytestmark = pytest.mark.timeout(300)  # a participant that hangs the round hangs the test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(5)
    for key in HONEST:
        (tmp_path / key).mkdir()
        arrays = {name: draw.normal(size=it["shape"]) for name, it in SPECS.items()}
        save_file(
            {name: array.astype(np.float32) for name, array in arrays.items()},
            tmp_path / key / "model.safetensors",
        )
    (tmp_path / "z").mkdir()
    return tmp_path


def write_model(path: Path, header: Any) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(92))


def write_index(bad: Path, weight_map: Any) -> None:
    write_model(bad / "x.safetensors", SPECS)
    (bad / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def inexact_extent(bad: Path) -> None:
    """No tensor of another model has it, and no manifest can say it exactly."""
    extra = {"dtype": "F32", "shape": [2**60, 0], "data_offsets": [92, 92]}
    write_model(bad / "model.safetensors", {**SPECS, "z": extra})


def half_a_pair_in_the_name_of_metadata(bad: Path) -> None:
    write_model(bad / "model.safetensors", {"__metadata__": {"\ud800": "a"}, **SPECS})


def half_a_pair_in_metadata(bad: Path) -> None:
    write_model(bad / "model.safetensors", {"__metadata__": {"a": "\ud800"}, **SPECS})


def half_a_pair_in_the_index(bad: Path) -> None:
    write_index(bad, {"a": "x.safetensors", "b": "x.safetensors", "\ud800": "x.safetensors"})


def a_name_twice_among_many(bad: Path) -> None:
    names = ",".join(f'"{number:06d}":0' for number in range(200_000))
    write_model(bad / "model.safetensors", f'{{{names},"199999":1}}'.encode())


def a_pipe_as_model(bad: Path) -> None:
    os.mkfifo(bad / "model.safetensors")


def a_pipe_as_index(bad: Path) -> None:
    os.mkfifo(bad / "model.safetensors.index.json")


def a_pipe_as_shard(bad: Path) -> None:
    write_index(bad, {"a": "x.safetensors", "b": "y.safetensors"})
    os.mkfifo(bad / "y.safetensors")


def a_device_as_index(bad: Path) -> None:
    (bad / "model.safetensors.index.json").symlink_to("/dev/zero")


def a_folder_as_model(bad: Path) -> None:
    (bad / "model.safetensors").mkdir()


def a_socket_as_model(bad: Path) -> None:
    here = os.open(bad, os.O_PATH)
    try:
        # Its name may have 108 bytes only.
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/model.safetensors")
    finally:
        os.close(here)


def an_endless_manifest(bad: Path) -> None:
    write_model(bad / "model.safetensors", SPECS)
    (bad / "cabildo-manifest.json").touch()
    os.truncate(bad / "cabildo-manifest.json", 1 << 40)


@pytest.mark.parametrize(
    "put",
    [
        inexact_extent,
        half_a_pair_in_the_name_of_metadata,
        half_a_pair_in_metadata,
        half_a_pair_in_the_index,
        a_name_twice_among_many,
        a_pipe_as_model,
        a_pipe_as_index,
        a_pipe_as_shard,
        a_device_as_index,
        a_folder_as_model,
        a_socket_as_model,
        an_endless_manifest,
    ],
)
def test_a_participant_whose_files_are_no_model_is_excluded(
    folder: Path, capsys: pytest.CaptureFixture[str], put: Callable[[Path], None]
) -> None:
    put(folder / "z")
    models = [part for key in (*HONEST, "z") for part in ("--model", f"{key}={folder / key}")]
    result = folder / "result.json"
    options = ["--rule", "trimmedMean", "--maximum-faulty", "1", "--result", str(result)]
    assert main(["merge", *models, *options, "--output", f"{folder}/out"]) == 0
    made = MergeResult.model_validate_json(result.read_text())
    left_out = {item.key: item.reason for item in made.participants if not item.accepted}
    assert left_out == {"z": MALFORMED}
    assert "z is left out: " in capsys.readouterr().err
    assert main(["verify", f"{folder}/out", "--digest", made.output_digest]) == 0
    # Alone it is refused with a reason and a remedy.
    for command in (["manifest"], ["verify", "--digest", made.output_digest]):
        assert main([*command, f"{folder}/z"]) in {65, 78}
        said = capsys.readouterr().err
        assert str(folder / "z") in said
        assert "remedy: " in said


def test_a_file_that_becomes_a_pipe_after_it_was_checked_is_no_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "z" / "model.safetensors"
    find_model = file_sources.find_model

    def found_and_replaced(place: Path) -> Any:
        found = find_model(place)
        if place == path.parent:
            path.unlink()
            os.mkfifo(path)
        return found

    write_model(path, SPECS)
    monkeypatch.setattr(
        "cabildo_trainer.consensus.commands.merge_command.find_model", found_and_replaced
    )
    models = {key: folder / key for key in (*HONEST, "z")}
    request = MergeRequest(
        rule="trimmedMean", models=models, output=folder / "out", maximum_faulty=1
    )
    made = run_merge(request, progress=None)
    assert {item.key: item.reason for item in made.participants if not item.accepted} == {
        "z": MALFORMED
    }


def finite_models(folder: Path) -> dict[str, Path]:
    draw = np.random.default_rng(8)
    models = {key: folder / f"large-{key}" for key in (*HONEST, "z")}
    for path in models.values():
        path.mkdir()
        array = draw.normal(size=(1020, 1000)).astype(np.float32)
        save_file({"a": array}, path / "model.safetensors")
    return models


def put_nan(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        file.write(np.float32(np.nan).tobytes())


def on_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, int], None]) -> None:
    """Has `change` told the how-manieth read of z's model this is, from 1 on, and its start."""
    reading, count = FileModel.read, 0

    def read(model: FileModel, name: str, start: int, stop: int) -> Any:
        nonlocal count
        if model.key == "z":
            count += 1
            change(count, start)
        return reading(model, name, start, stop)

    monkeypatch.setattr(FileModel, "read", read)


@pytest.mark.parametrize("readable", [True, False])
def test_a_model_that_cannot_be_read_after_its_exclusion_has_no_digest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, readable: bool
) -> None:
    models = finite_models(folder)
    bad = models["z"] / "model.safetensors"
    put_nan(bad)
    if not readable:
        on_reading(monkeypatch, lambda count, start: os.truncate(bad, A_TILE_AND_A_BIT))
    request = MergeRequest(rule="median", models=models, output=folder / "out", maximum_faulty=1)
    made = run_merge(request, progress=None)
    (left_out,) = (item for item in made.participants if not item.accepted)
    assert left_out.key == "z"
    assert (left_out.digest is not None) == readable


def test_what_an_excluded_participant_did_to_its_file_does_not_end_the_round(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = finite_models(folder)
    bad = models["z"] / "model.safetensors"

    def change(count: int, start: int) -> None:
        if count > 1 and start == 0:  # the second pass, which compares with the first
            put_nan(bad)
            os.truncate(bad, A_TILE_AND_A_BIT)

    on_reading(monkeypatch, change)
    request = MergeRequest(
        rule="geometricMedian", models=models, output=folder / "out", maximum_faulty=1
    )
    made = run_merge(request, progress=None)
    assert {item.key: item.reason for item in made.participants if not item.accepted} == {
        "z": NON_FINITE
    }
    assert (folder / "out" / "model.safetensors").exists()


def test_a_quantised_model_is_what_its_manifest_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(folder / "z" / "model.safetensors", SPECS)
    (folder / "z" / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert main(["manifest", f"{folder}/z", "--write"]) == 0
    assert main(["verify", f"{folder}/z"]) == 0
    assert "verified" in capsys.readouterr().out


@pytest.mark.parametrize("is_out", [True, False])
def test_damaged_statistics_matter_only_if_their_participant_does(
    folder: Path, *, is_out: bool
) -> None:
    models = {key: folder / key for key in (*HONEST, "z")}
    save_file({"a": np.ones(3, np.float32)}, folder / "z" / "model.safetensors")
    request = MergeRequest(
        rule="fisher",
        models=models,
        statistics={**{key: folder / key for key in HONEST}, "z": folder / "statistics"},
        output=folder / "out",
    )
    for key in HONEST:  # any figures from zero up are a Fisher diagonal
        write_model(folder / key / "model.safetensors", SPECS)
    (folder / "statistics").mkdir()
    a_pipe_as_model(folder / "statistics")
    if not is_out:
        with pytest.raises(ManifestMismatch, match=r"statistics.*no regular file") as caught:
            run_merge(request, progress=None)
        assert caught.value.remedy
        return
    request = replace(request, absent=frozenset({"z"}))
    made = run_merge(request, progress=None)
    assert [item.key for item in made.participants if not item.accepted] == ["z"]

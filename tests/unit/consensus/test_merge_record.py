"""The record of a merge: no model is made without it, and nothing half-written is ever left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.commands import merge_command
from cabildo_trainer.consensus.commands.command_line import main
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.files.durable_files import StagedFile

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("p1", "p2", "p3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number, key in enumerate(KEYS):
        (tmp_path / key).mkdir()
        tensors = {"w": np.full((4, 5), number, np.float32)}
        save_file(tensors, tmp_path / key / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merge(folder: Path, *, result: str, output: str = "out") -> int:
    models = [part for key in KEYS for part in ("--model", f"{key}={folder / key}")]
    options = ["--rule", "median", "--quiet", "--output", output, "--result", result]
    return main(["merge", *models, *options])


def partial_files(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.partial"), *folder.parent.glob(".*.partial")]


@pytest.mark.parametrize(
    "result", ["p1", ".", "", "..", "/", "r" * 250, "/proc/r.json", "pipe", "p1/none/r.json"]
)
def test_a_record_without_a_place_ends_the_merge_before_it_begins(
    folder: Path, capsys: pytest.CaptureFixture[str], result: str
) -> None:
    os.mkfifo(folder / "pipe")
    assert merge(folder, result=result) == 78
    assert (folder / "pipe").is_fifo()
    said = capsys.readouterr().err
    assert "error: ImpossibleSetting: --result: " in said
    assert "remedy: " in said
    assert not (folder / "out").exists()
    assert not partial_files(folder)


@pytest.mark.parametrize("result", ["out", "out/r.json", "link/r.json", "p1/../out/r.json"])
def test_a_record_within_the_output_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], result: str
) -> None:
    (folder / "out").mkdir()
    (folder / "link").symlink_to(folder / "out")
    assert merge(folder, result=result) == 78
    assert "lies within, --output out" in capsys.readouterr().err
    assert not list((folder / "out").iterdir())
    assert not partial_files(folder)


@pytest.mark.parametrize("output", [".", "", "..", "p1/..", "/"])
def test_an_output_without_a_name_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    assert merge(folder, result="r.json", output=output) == 78
    assert "has no name of its own" in capsys.readouterr().err
    assert not (folder / "r.json").exists()
    assert not partial_files(folder)


def test_a_merge_that_fails_leaves_the_record_that_was_there(folder: Path) -> None:
    (folder / "r.json").write_text("of another merge")
    (folder / "p3" / "model.safetensors").write_bytes(b"damaged")
    assert merge(folder, result="r.json") == 65
    assert (folder / "r.json").read_text() == "of another merge"
    assert not partial_files(folder)


def test_what_a_killed_program_left_is_written_over(folder: Path) -> None:
    (folder / ".r.json.partial").write_text("x" * 100_000)
    assert merge(folder, result="r.json") == 0
    assert MergeResult.model_validate_json((folder / "r.json").read_text()).rule == "median"
    assert not partial_files(folder)


def test_the_record_goes_where_a_link_leads(folder: Path) -> None:
    (folder / "records").mkdir()
    (folder / "r.json").symlink_to(folder / "records" / "one.json")
    assert merge(folder, result="r.json") == 0
    assert (folder / "r.json").is_symlink()
    MergeResult.model_validate_json((folder / "records" / "one.json").read_text())


def test_a_record_that_cannot_be_written_in_the_end_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the storage fills up meanwhile: the model is there, so its record must be."""
    real = merge_command.merge

    def in_the_way(*args: Any, **kwargs: Any) -> MergeResult:
        (folder / "r.json").mkdir()
        return real(*args, **kwargs)

    monkeypatch.setattr(merge_command, "merge", in_the_way)
    assert merge(folder, result="r.json") == 1
    said = capsys.readouterr().err
    text = said[said.index("{") : said.rindex("}") + 1]
    assert MergeResult.model_validate_json(text).rule == "median"
    assert not partial_files(folder)


def test_two_programs_do_not_write_one_record(tmp_path: Path) -> None:
    first = StagedFile(tmp_path / "r.json")
    with pytest.raises(ImpossibleSetting, match="another program is writing"):
        StagedFile(tmp_path / "r.json")
    first.commit(b"first")
    first.abandon()
    assert (tmp_path / "r.json").read_bytes() == b"first"

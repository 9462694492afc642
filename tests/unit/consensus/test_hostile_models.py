"""What a faulty participant may put into its folder, and that the round goes on without it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.commands.command_line import main
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ImpossibleSetting, ManifestMismatch
from cabildo_trainer.consensus.files.durable_files import StagedFolder
from cabildo_trainer.consensus.manifests.canonical_json import BadJsonError, parse_strict
from cabildo_trainer.consensus.manifests.manifest import ModelFacts
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.robust.columns import Median
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from pathlib import Path

HONEST = ("p1", "p2", "p3", "p4", "p5")
VALUES = np.arange(4, dtype=np.float32)


def save(folder: Path, key: str, values: Any = VALUES) -> Path:
    (folder / key).mkdir()
    save_file({"w": values}, folder / key / "model.safetensors")
    return folder / key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for key in HONEST:
        save(tmp_path, key)
    return tmp_path


def write_header(path: Path, record: Any, data: bytes = b"") -> None:
    text = json.dumps(record).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def endless_shape(path: Path) -> None:
    tensors = {
        "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "z": {"dtype": "F32", "shape": [2**60, 0], "data_offsets": [16, 16]},
    }
    write_header(path / "model.safetensors", tensors, VALUES.tobytes())


def metadata_without_text(path: Path) -> None:
    tensors = {
        "__metadata__": {"\ud800": "w"},
        "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    }
    write_header(path / "model.safetensors", tensors, VALUES.tobytes())


def index_without_text(path: Path) -> None:
    (path / "model.safetensors").rename(path / "one.safetensors")
    index = {"weight_map": {"\ud800": "one.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def pipe(path: Path) -> None:
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def index_pipe(path: Path) -> None:
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors.index.json")


def many_names(path: Path) -> None:
    # 60,000 names of which the last stands twice: looking for it must not be quadratic.
    names = [*range(60_000), 59_999]
    text = ("{" + ",".join(f'"{name}":0' for name in names) + "}").encode()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "spoil",
    [endless_shape, metadata_without_text, index_without_text, pipe, index_pipe, many_names],
)
def test_the_round_goes_on_without_a_model_that_is_none(folder: Path, spoil: Any) -> None:
    spoil(save(folder, "z"))
    models = [part for key in (*HONEST, "z") for part in ("--model", f"{key}={folder / key}")]
    options = ["--rule", "median", "--maximum-faulty", "1", "--quiet"]
    places = ["--output", f"{folder}/out", "--result", f"{folder}/result.json"]
    assert main(["merge", *models, *options, *places]) == 0
    result = MergeResult.model_validate_json((folder / "result.json").read_text())
    left_out = {item.key: item.reason for item in result.participants if not item.accepted}
    assert left_out == {"z": "Malformed"}
    assert main(["manifest", f"{folder}/z"]) in {65, 78}


def test_a_name_that_stands_twice_is_named() -> None:
    with pytest.raises(BadJsonError, match="'a' is there twice"):
        parse_strict(b'{"a": 1, "b": 2, "c": 3, "b": 4, "a": 5}')


def claiming(key: str, base: str | None) -> MemoryModel:
    model = MemoryModel(key, {"w": VALUES})
    digest = None if base is None else "sha256:" + base * 64
    model.facts = ModelFacts(base_digest=digest)  # type: ignore[attr-defined]
    return model


def left_out(claims: str, *, f: int) -> set[str]:
    """Returns who is left out where p0, p1, ... claim these bases; `-` claims none."""
    models = [
        claiming(f"p{number}", None if base == "-" else base) for number, base in enumerate(claims)
    ]
    result = merge(models, Median(), Context(maximum_faulty=f), sink=MemorySink())
    return {item.key for item in result.participants if not item.accepted}


def test_liars_about_their_base_do_not_end_a_round() -> None:
    assert left_out("-----ab", f=2) == set()  # nobody can tell, and nothing rests on it
    assert left_out("-aaaab", f=1) == {"p5"}
    assert left_out("b-aaaa", f=1) == {"p0"}
    assert left_out("aaaaabc", f=2) == {"p5", "p6"}
    assert left_out("-------", f=2) == set()


@pytest.mark.parametrize(("claims", "f"), [("ab-", 0), ("aaabbb-", 2), ("aabbcc-", 3)])
def test_more_claims_against_each_other_than_faults_are_refused(claims: str, f: int) -> None:
    with pytest.raises(ManifestMismatch, match="the base differs"):
        left_out(claims, f=f)


def test_the_model_of_an_excluded_participant_may_vanish() -> None:
    class Vanishing(MemoryModel):
        @property
        def digest(self) -> str:
            raise ManifestMismatch("it became shorter")

    spoilt = Vanishing("z", {"w": np.full(4, np.nan, dtype=np.float32)})
    models = [MemoryModel(key, {"w": VALUES}) for key in HONEST]
    context = Context(maximum_faulty=1)
    result = merge([*models, spoilt], Median(), context, sink=MemorySink())
    last = result.participants[-1]
    assert (last.key, last.reason, last.digest) == ("z", "NonFinite", None)


def test_what_a_link_in_the_place_of_the_stage_points_at_is_not_deleted(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("kept")
    (tmp_path / ".out.partial").symlink_to(victim)
    with pytest.raises(ImpossibleSetting, match=r"\.out\.partial"):
        StagedFolder(tmp_path / "out")
    assert (victim / "precious").read_text() == "kept"


def test_a_quantised_model_is_what_its_manifest_says(tmp_path: Path) -> None:
    path = save(tmp_path, "q")
    (path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert main(["manifest", str(path), "--write"]) == 0
    assert main(["verify", str(path)]) == 0

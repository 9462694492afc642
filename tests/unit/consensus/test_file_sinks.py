"""Merged models on disk: readable by others, equal in digest to memory, whole or not there."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting
from cabildo_trainer.consensus.files import durable_files, file_sinks
from cabildo_trainer.consensus.files.companions import Companion
from cabildo_trainer.consensus.files.file_sinks import SafetensorsSink, shard_groups
from cabildo_trainer.consensus.files.file_sources import FileModel
from cabildo_trainer.consensus.manifests.manifest import (
    ModelFacts,
    digest_of,
    model_digest,
    parse_manifest,
)
from cabildo_trainer.consensus.sources import MemoryModel, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ARRAYS = {
    "a": np.arange(7, dtype=np.float16),
    "b": np.arange(40, dtype=np.float32).reshape(5, 8),
    "c": np.arange(3),
    "none": np.zeros((0, 2), np.float32),
}
MODEL = MemoryModel("m", ARRAYS)


def fill(sink: SafetensorsSink, model: MemoryModel = MODEL, *, tile: int = 9) -> None:
    for name, spec in model.tensors.items():
        for start in range(0, spec.size, tile):
            sink.write(name, start, model.read(name, start, min(start + tile, spec.size)))


def written(output: Path, **options: Any) -> str:
    with SafetensorsSink(output, facts=ModelFacts(), **options) as sink:
        sink.begin(MODEL.tensors)
        fill(sink)
        return sink.finish()


def load(folder: Path) -> dict[str, Any]:
    return {
        name: array
        for path in sorted(folder.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


@pytest.mark.parametrize(("largest", "files"), [(10**9, 1), (100, 3), (1, 4)])
def test_any_shard_size_gives_the_same_model(tmp_path: Path, largest: int, files: int) -> None:
    digest = written(tmp_path / "out", largest_shard_bytes=largest)
    assert digest == MODEL.digest
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == files
    loaded = load(tmp_path / "out")
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
    with FileModel.open("again", tmp_path / "out") as again:
        assert again.digest == digest


def test_the_index_names_every_tensors_file_and_the_total(tmp_path: Path) -> None:
    written(tmp_path / "out", largest_shard_bytes=100)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in ARRAYS.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "out" / file)


def test_a_shard_holds_what_fits_and_larger_element_types_first() -> None:
    def spec(name: str, dtype: str, size: int) -> TensorSpec:
        return TensorSpec(name=name, dtype=dtype, shape=(size,))

    tensors: Mapping[str, TensorSpec] = {
        item.name: item
        for item in (
            spec("a", "U8", 3),
            spec("b", "F32", 4),
            spec("c", "U8", 30),
            spec("d", "U8", 2),
        )
    }
    groups = shard_groups(tensors, largest_shard_bytes=20)
    assert [list(group) for group in groups] == [["b", "a"], ["c"], ["d"]]


def test_the_manifest_and_the_companions_lie_beside(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")
    facts = ModelFacts(config_digest=digest_of(b"{}"), base_digest="sha256:" + "0" * 64)
    with SafetensorsSink(tmp_path / "out", facts=facts, companions=[Companion.of(config)]) as sink:
        sink.begin(MODEL.tensors)
        fill(sink)
        digest = sink.finish()
    content = (tmp_path / "out" / "cabildo-manifest.json").read_bytes()
    manifest = parse_manifest(content, where="it")
    assert manifest.digest == digest
    assert manifest.facts == facts
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    with FileModel.open("again", tmp_path / "out") as again:
        assert again.facts == facts
        assert model_digest(again) == again.digest == digest


def test_ties_are_noted_as_the_library_reads_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_model, save_model  # noqa: PLC0415 - torch is optional here

    class Tied(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.wte = torch.nn.Embedding(3, 2)
            self.head = torch.nn.Linear(2, 3, bias=False)
            self.head.weight = self.wte.weight

    save_model(Tied(), tmp_path / "in.safetensors")
    with (
        FileModel.open("m", tmp_path / "in.safetensors") as model,
        SafetensorsSink(tmp_path / "out", facts=model.facts) as sink,
    ):
        sink.begin(model.tensors)
        for name, spec in model.tensors.items():
            sink.write(name, 0, model.read(name, 0, spec.size))
        assert sink.finish() == model.digest
    assert load_model(Tied(), tmp_path / "out" / "model.safetensors") == (set(), [])


def test_a_model_begun_again_replaces_the_first(tmp_path: Path) -> None:
    with SafetensorsSink(tmp_path / "out", facts=ModelFacts(), largest_shard_bytes=1) as sink:
        sink.begin(MODEL.tensors)
        fill(sink)
        other = MemoryModel("m", {"x": np.ones(4, np.float32)})
        sink.begin(other.tensors)
        fill(sink, other)
        assert sink.finish() == other.digest
    assert load(tmp_path / "out").keys() == {"x"}


def test_what_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with SafetensorsSink(tmp_path / "out", facts=ModelFacts()) as sink:
        sink.begin(MODEL.tensors)
        sink.write("a", 0, ARRAYS["a"])
    assert list(tmp_path.iterdir()) == []


def test_a_killed_merge_leaves_no_output_and_the_next_one_clears_up(tmp_path: Path) -> None:
    program = (
        "import sys, time, numpy as np\n"
        "from pathlib import Path\n"
        "from cabildo_trainer.consensus.files.file_sinks import SafetensorsSink\n"
        "from cabildo_trainer.consensus.manifests.manifest import ModelFacts\n"
        "from cabildo_trainer.consensus.sources import TensorSpec\n"
        "sink = SafetensorsSink(Path(sys.argv[1]), facts=ModelFacts())\n"
        "sink.begin({'a': TensorSpec(name='a', dtype='F32', shape=(8,))})\n"
        "sink.write('a', 0, np.ones(4, np.float32))\n"
        "print('half', flush=True)\n"
        "sys.stdin.read()\n"
    )
    output = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as half:
        assert half.stdout is not None
        assert half.stdout.readline() == "half\n"
        with pytest.raises(ImpossibleSetting, match="another program"):
            SafetensorsSink(output, facts=ModelFacts())
        half.kill()
    assert not output.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    written(output)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    written(tmp_path / "out")
    for _ in range(2):
        with pytest.raises(ImpossibleSetting, match="not empty") as caught:
            written(tmp_path / "out")
        assert caught.value.exit_code == 78
    save_file(ARRAYS, tmp_path / "file")
    with pytest.raises(ImpossibleSetting, match="exists"):
        written(tmp_path / "file")


def test_a_storage_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = file_sinks.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(file_sinks.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(ImpossibleSetting, match="10 free"):
        written(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_and_reservation_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(durable_files.os, "posix_fallocate", fail)
    monkeypatch.setattr(durable_files.fcntl, "flock", fail)
    assert written(tmp_path / "out") == MODEL.digest


@pytest.mark.parametrize("start", [1, 8])
def test_elements_out_of_order_are_refused(tmp_path: Path, start: int) -> None:
    with SafetensorsSink(tmp_path / "out", facts=ModelFacts()) as sink:
        sink.begin(MODEL.tensors)
        with pytest.raises(ValueError, match="comes after 0 bytes"):
            sink.write("a", start, ARRAYS["a"][:2])
        with pytest.raises(ValueError, match="8 bytes"):
            sink.write("a", 0, np.ones(2))


def test_a_tensor_that_was_not_written_whole_is_an_error(tmp_path: Path) -> None:
    with SafetensorsSink(tmp_path / "out", facts=ModelFacts()) as sink:
        sink.begin(MODEL.tensors)
        sink.write("a", 0, ARRAYS["a"][:2])
        with pytest.raises(ValueError, match="has 0 of 24 bytes"):
            sink.finish()
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_storage_reaches_the_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with SafetensorsSink(tmp_path / "out", facts=ModelFacts()) as sink:
        sink.begin(MODEL.tensors)
        monkeypatch.setattr(file_sinks.os, "pwrite", fail)
        with pytest.raises(OSError, match="No space"):
            fill(sink)
        with pytest.raises(OSError, match="No space"):
            sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_companion_that_changes_after_it_was_chosen_is_not_copied(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "toy"}')
    chosen = Companion.of(config)
    config.write_text('{"auto_map": "evil.py"}')
    with SafetensorsSink(tmp_path / "out", facts=ModelFacts(), companions=[chosen]) as sink:
        sink.begin({})
        with pytest.raises(DigestMismatch, match=r"config\.json changed"):
            sink.finish()
    assert not (tmp_path / "out").exists()


def test_nothing_that_a_link_leads_to_is_deleted(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept").write_text("kept")
    (precious / "inner").mkdir()
    stage = tmp_path / ".out.partial"
    stage.symlink_to(precious)
    with pytest.raises(ImpossibleSetting, match=r"out.partial.* is a symbolic link") as caught:
        written(tmp_path / "out")
    assert caught.value.remedy
    assert sorted(path.name for path in precious.iterdir()) == ["inner", "kept"]
    assert stage.is_symlink()
    # A link within the folder goes, what it leads to stays.
    stage.unlink()
    (stage / "left").mkdir(parents=True)
    (stage / "link").symlink_to(precious)
    written(tmp_path / "out")
    assert (precious / "kept").read_text() == "kept"
    assert not stage.exists()


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_is_no_folder_is_not_written_into(tmp_path: Path, kind: str) -> None:
    stage = tmp_path / ".out.partial"
    if kind == "file":
        stage.write_text("kept")
    else:
        stage.symlink_to(tmp_path / "nothing")
    with pytest.raises(ImpossibleSetting, match=r"no folder|symbolic link"):
        written(tmp_path / "out")
    assert not (tmp_path / "nothing").exists()

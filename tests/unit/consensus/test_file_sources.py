"""Models in files: the same bits as in memory, in any order of reading, and no change unnoticed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_model

from cabildo_trainer.consensus.errors import DigestMismatch, ManifestMismatch, MissingInput
from cabildo_trainer.consensus.files import file_digests
from cabildo_trainer.consensus.files.candidates import CandidateFolder
from cabildo_trainer.consensus.files.file_sources import FileModel
from cabildo_trainer.consensus.files.read_ahead import ReadAhead
from cabildo_trainer.consensus.files.safetensors_files import find_model
from cabildo_trainer.consensus.manifests.manifest import ModelFacts, digest_of
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SPAN = 64
TILE = 11


@pytest.fixture(autouse=True)
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "SMALLEST_SPAN_BYTES", SPAN)


@pytest.fixture
def read_ahead() -> Iterator[ReadAhead]:
    with ReadAhead(threads=2) as threads:
        yield threads


def arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(seed)
    return {
        "b": draw.normal(size=(9, 11)).astype(np.float32),
        "a": draw.normal(size=50).astype(np.float16),
        "é": np.arange(7),
        "empty": np.zeros((0, 4), np.float32),
        "mask": np.array([True, False]),
    }


def sharded(folder: Path, tensors: dict[str, NDArray[Any]], *, shards: int) -> Path:
    folder.mkdir()
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
        weight_map |= dict.fromkeys(part, file)
        save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def a_pass(model: FileModel) -> dict[str, NDArray[Any]]:
    """Reads all as a merge does: tensor by tensor, tile by tile."""
    result = {}
    for name in sorted(model.tensors):
        spec = model.tensors[name]
        tiles = [
            model.read(name, start, min(start + TILE, spec.size))
            for start in range(0, spec.size, TILE)
        ]
        flat = np.concatenate(tiles) if tiles else model.read(name, 0, 0)
        result[name] = flat.reshape(spec.shape)
    return result


def equal(one: dict[str, NDArray[Any]], two: dict[str, NDArray[Any]]) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name]) for name in one
    )


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("ahead", [True, False])
def test_every_pass_reads_what_was_written(
    tmp_path: Path, read_ahead: ReadAhead, *, shards: int, ahead: bool
) -> None:
    folder = sharded(tmp_path / "m", arrays(), shards=shards)
    with FileModel.open("m", folder, read_ahead=read_ahead if ahead else None) as model:
        for _ in range(3):
            assert equal(a_pass(model), arrays())
        assert model.digest == MemoryModel("m", arrays()).digest


def test_the_digest_does_not_depend_on_shards_nor_on_what_was_read(tmp_path: Path) -> None:
    expected = MemoryModel("m", arrays()).digest
    for shards in (1, 3):
        folder = sharded(tmp_path / str(shards), arrays(), shards=shards)
        with FileModel.open("m", folder) as model:
            model.read("b", 20, 30)
            assert model.digest == expected


def test_a_pass_reads_and_hashes_each_byte_once(tmp_path: Path, read_ahead: ReadAhead) -> None:
    counts: list[int] = []
    path = tmp_path / "m.safetensors"
    save_file(arrays(), path)
    with FileModel.open("m", path, read_ahead=read_ahead, on_bytes=counts.append) as model:
        for number in (1, 2, 3):
            a_pass(model)
            assert sum(counts) == number * model.files.size_bytes
        assert model.digest
        assert sum(counts) == 3 * model.files.size_bytes


@pytest.mark.parametrize("steps", [(20, 11, 7), (7, 11, 20), (11, 20, 13)])
def test_steps_of_another_length_in_each_tensor_read_each_byte_once(
    tmp_path: Path, read_ahead: ReadAhead, steps: tuple[int, int, int]
) -> None:
    """As passes by whole rows have them; only a step longer than all before it is not foreseen."""
    counts: list[int] = []
    tensors = {name: arrays(number)["b"] for number, name in enumerate("abc")}
    path = tmp_path / "m.safetensors"
    save_file(tensors, path)
    with FileModel.open("m", path, read_ahead=read_ahead, on_bytes=counts.append) as model:
        for number in (1, 2, 3):
            counts.clear()
            for (name, array), step in zip(tensors.items(), steps, strict=True):
                for start in range(0, array.size, step):
                    stop = min(start + step, array.size)
                    values = model.read(name, start, stop)
                    assert np.array_equal(values, array.reshape(-1)[start:stop])
            if number > 1 or steps[0] == max(steps):
                assert sum(counts) == model.files.size_bytes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "é"]), st.integers(0, 99), st.integers(0, 99)))
)
def test_any_order_of_reading_gives_the_same_values(
    tmp_path_factory: pytest.TempPathFactory,
    read_ahead: ReadAhead,
    reads: list[tuple[str, int, int]],
) -> None:
    path = tmp_path_factory.mktemp("any") / "m.safetensors"
    save_file(arrays(), path)
    with FileModel.open("m", path, read_ahead=read_ahead) as model:
        for name, *ends in reads:
            start, stop = sorted(min(end, model.tensors[name].size) for end in ends)
            expected = arrays()[name].reshape(-1)[start:stop]
            assert np.array_equal(model.read(name, start, stop), expected)
        assert model.digest == MemoryModel("m", arrays()).digest


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("element", [0, 15, 16, 40, 98])
@pytest.mark.parametrize("ahead", [True, False])
def test_a_bit_that_changes_between_passes_is_found_and_named(
    tmp_path: Path, read_ahead: ReadAhead, *, element: int, ahead: bool
) -> None:
    path = tmp_path / "m.safetensors"
    save_file(arrays(), path)
    with FileModel.open("p3", path, read_ahead=read_ahead if ahead else None) as model:
        a_pass(model)
        flip(path, model.files.tensors["b"].placed.offset + 4 * element)
        with pytest.raises(DigestMismatch) as caught:
            a_pass(model)
    span = 4 * element // SPAN * SPAN
    assert str(path) in str(caught.value)
    assert "tensor 'b' of 'p3' changed" in str(caught.value)
    assert f"bytes {span} to {min(span + SPAN, 396)}" in str(caught.value)
    assert caught.value.exit_code == 65
    assert caught.value.remedy


def test_a_change_in_bytes_that_were_reread_alone_is_found_when_the_model_is_closed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.safetensors"
    save_file(arrays(), path)
    model = FileModel.open("m", path)
    a_pass(model)
    flip(path, model.files.tensors["b"].placed.offset + 4 * 20)
    model.read("b", 20, 21)
    with pytest.raises(DigestMismatch):
        model.close()


def test_the_next_read_notices_a_change_in_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(arrays(), path)
    with FileModel.open("m", path) as model:
        a_pass(model)
        flip(path, model.files.tensors["b"].placed.offset + 4 * 20)
        model.read("b", 20, 21)
        with pytest.raises(DigestMismatch):
            model.read("a", 0, 5)


def test_a_file_that_becomes_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(arrays(), path)
    with FileModel.open("m", path) as model:
        os.truncate(path, path.stat().st_size - 100)
        with pytest.raises(ManifestMismatch, match="became shorter"):
            a_pass(model)


def test_what_is_read_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(arrays(), path)
    with FileModel.open("m", path) as model, pytest.raises(ValueError, match="read-only"):
        model.read("b", 0, 5)[0] = 1


def test_bf16_comes_as_its_bits(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    path = tmp_path / "m.safetensors"
    save_model(layer, path)
    with FileModel.open("m", path) as model:
        bits = model.read("weight", 0, 6)
    assert bits.dtype == np.uint16
    widened = (bits.astype(np.uint32) << 16).view(np.float32)
    assert widened.tolist() == layer.weight.detach().float().reshape(-1).tolist()


def test_the_facts_come_from_the_files_beside(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    save_file({"wte": np.ones(2, np.float32)}, folder / "model.safetensors", {"head": "wte"})
    (folder / "config.json").write_text('{"text_config": {"tie_word_embeddings": true}}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    files = find_model(folder)
    assert files.facts.tied_names == (("head", "wte"), ("tie_word_embeddings",))
    assert files.facts.config_digest == digest_of((folder / "config.json").read_bytes())
    assert files.facts.tokenizer_digest is not None
    assert [path.name for path in files.companions] == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    before = files.facts.tokenizer_digest
    (folder / "tokenizer_config.json").write_text('{"chat_template": ""}')
    assert find_model(folder).facts.tokenizer_digest == before
    (folder / "added_tokens.json").write_text('{"<x>": 9}')
    assert find_model(folder).facts.tokenizer_digest != before


def test_a_quantised_config_is_noticed(tmp_path: Path) -> None:
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert "quantization_config" in find_model(tmp_path).facts.quantised


def test_a_file_alone_says_nothing_beside_its_tensors(tmp_path: Path) -> None:
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert find_model(tmp_path / "model.safetensors").facts == ModelFacts()


def rewrite_index(folder: Path, **changes: Any) -> None:
    index = folder / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    record["weight_map"] |= changes
    index.write_text(json.dumps(record))


def two_shards(tmp_path: Path) -> Path:
    return sharded(tmp_path / "m", arrays(), shards=2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ghost": "model-00001-of-00002.safetensors"}, "'ghost' is in no file"),
        ({"b": "model-00001-of-00002.safetensors"}, "'b' is in model-00002-of-00002"),
        ({"b": "../m/model-00001-of-00002.safetensors"}, "not the name"),
        ({"b": "weights.bin"}, "not the name"),
        ({"b": 1}, "not the name"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, changes: Any, named: str) -> None:
    folder = two_shards(tmp_path)
    rewrite_index(folder, **changes)
    with pytest.raises(ManifestMismatch, match=named):
        find_model(folder)


def test_a_tensor_that_is_not_in_the_index_or_twice_is_refused(tmp_path: Path) -> None:
    folder = two_shards(tmp_path)
    save_file({"b": np.ones(1)}, folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ManifestMismatch, match=r"tensor 'b' is in .* and in"):
        find_model(folder)
    save_file({"new": np.ones(1)}, folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ManifestMismatch):
        find_model(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = two_shards(tmp_path)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingInput, match=r"model-00002-of-00002\.safetensors: No such file"):
        find_model(folder)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": {}}', "{", '{"weight_map": 3}'])
def test_an_index_without_a_map_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ManifestMismatch):
        find_model(tmp_path)


def test_a_folder_with_both_layouts_is_refused(tmp_path: Path) -> None:
    folder = two_shards(tmp_path)
    save_file(arrays(), folder / "model.safetensors")
    with pytest.raises(ManifestMismatch, match="has both"):
        find_model(folder)


def test_several_files_without_an_index_are_refused_and_one_is_taken(tmp_path: Path) -> None:
    save_file({"w": np.ones(1)}, tmp_path / "one.safetensors")
    assert find_model(tmp_path).paths == (tmp_path / "one.safetensors",)
    save_file({"w": np.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(ManifestMismatch, match="2 safetensors files"):
        find_model(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.ckpt"])
def test_pickles_are_refused_with_the_way_to_import_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ManifestMismatch, match="pickle") as caught:
            find_model(path)
        assert f"import {tmp_path / name} --output" in caught.value.remedy


def test_nothing_there_is_a_missing_input(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(MissingInput) as caught:
            find_model(path)
        assert str(path) in str(caught.value)


def test_an_element_type_without_an_array_can_be_hashed_but_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": np.ones(3, np.float64)}, path)
    with FileModel.open("m", path) as model:
        assert model.digest.startswith("sha256:")
        with pytest.raises(ManifestMismatch, match="F64"):
            model.read("w", 0, 1)


def test_a_candidate_is_read_back_and_gone_when_nobody_holds_it(
    tmp_path: Path, read_ahead: ReadAhead
) -> None:
    made = MemoryModel("m", arrays())

    def open_files() -> int:
        count = 0
        for entry in Path("/proc/self/fd").iterdir():
            # The listing names its own descriptor, which is closed by now.
            with contextlib.suppress(FileNotFoundError):
                count += "(deleted)" in str(entry.readlink())
        return count

    before = open_files()
    with CandidateFolder(tmp_path / "out", read_ahead=read_ahead) as workspace:
        candidate = workspace("soup")
        candidate.begin(made.tensors)
        for name, spec in made.tensors.items():
            candidate.write(name, 0, made.read(name, 0, spec.size).copy())
        model = candidate.model()
        assert model.key == "soup"
        assert equal(a_pass(model), arrays())
        assert model.digest == made.digest
        assert open_files() == before + 1
        assert list(workspace._folder.path.iterdir()) == []
        del model
        assert open_files() == before
    assert list(tmp_path.iterdir()) == []


def test_spans_grow_with_the_model_so_that_their_number_does_not() -> None:
    terabyte = 10**12
    assert terabyte / file_digests.span_bytes_for(terabyte) <= file_digests.MOST_SPANS

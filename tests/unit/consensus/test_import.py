"""Importing pickles: what no safetensors file can hold is refused by name, and nothing is lost."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file

from cabildo_trainer.consensus.commands.command_line import main
from cabildo_trainer.consensus.commands.import_command import ELEMENT_TYPES

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from pathlib import Path


def imported(folder: Path, state: Any) -> int:
    """Runs `import` on what torch saves of a state, or on bytes."""
    if not isinstance(state, bytes):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        state = buffer.getvalue()
    (folder / "model.bin").write_bytes(state)
    return main(["import", str(folder / "model.bin"), "--output", str(folder / "out")])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: b"", "model.bin is empty"),
        (lambda: b"\x80", "holds more than tensors"),
        (lambda: {"a": torch.eye(3).to_sparse()}, "tensor 'a' is not dense (sparse_coo)"),
        (lambda: {"a": torch.zeros(2, dtype=torch.complex128)}, "has element type complex128"),
        (
            lambda: {"a": torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8)},
            "tensor 'a' is quantised (qint8)",
        ),
        (lambda: {"a": torch.zeros(2, device="meta")}, "tensor 'a' has no values (device meta)"),
        (lambda: {"\ud800": torch.zeros(2)}, "tensor '\\ud800' has a name that is no Unicode"),
        (lambda: {"__metadata__": torch.zeros(2)}, "tensor '__metadata__' has the name that"),
        (lambda: {1: torch.zeros(1), "1": torch.ones(1)}, "tensor 1 has a name of type int"),
        (lambda: {"n" * 5000: torch.zeros(2)}, "has a name of 5000 characters, more than 4096"),
        (lambda: {"a": torch.zeros([1] * 65)}, "tensor 'a' has 65 dimensions"),
    ],
)
def test_what_no_file_can_hold_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, named: str
) -> None:
    assert imported(tmp_path, make()) == 65
    said = capsys.readouterr().err
    assert "error: ManifestMismatch: " in said
    assert named in said
    assert "remedy: " in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("dtype", sorted(ELEMENT_TYPES))
def test_every_type_that_is_taken_arrives_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    weight = torch.tensor([1, 0, 1]).to(getattr(torch, dtype))
    assert imported(tmp_path, {"w": weight, "scalar": weight[0].clone(), "none": weight[:0]}) == 0
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    assert loaded.keys() == {"w", "scalar", "none"}
    assert loaded["w"].dtype == weight.dtype
    assert loaded["w"].view(torch.uint8).tolist() == weight.view(torch.uint8).tolist()
    assert loaded["scalar"].shape == ()
    assert loaded["none"].shape == (0,)


def test_an_output_that_cannot_be_read_again_is_not_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("[")
    assert imported(tmp_path, {"w": torch.zeros(2)}) == 65
    assert "config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", [".", ""])
def test_an_output_without_a_name_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output: str,
) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.bin")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["import", str(tmp_path / "model.bin"), "--output", output]) == 78
    assert "has no name of its own" in capsys.readouterr().err

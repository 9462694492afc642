"""Private rounds over files: every round that got out is in the ledger, whatever happened."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.commands import merge_command
from cabildo_trainer.consensus.commands.command_line import main
from cabildo_trainer.consensus.errors import BudgetExceeded, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.privacy.accounting import Spend
from cabildo_trainer.consensus.privacy.ledger import Ledger
from cabildo_trainer.consensus.privacy.ledger_file import charged, create_ledger

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("p1", "p2", "p3", "p4")
SETTINGS = {
    "clipNorm": "1.0",
    "noiseMultiplier": "3.0",
    "expectedParticipants": "4",
    "epsilon": "2.1",
    "delta": "1e-5",
}
SPEND = Spend(3.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(40, 30)).astype(np.float32)
    for key in (*KEYS, "previous"):
        (tmp_path / key).mkdir()
        values = start if key == "previous" else start + rng.normal(size=start.shape) * 0.01
        tensors = {"weight": values.astype(np.float32), "steps": np.arange(3)}
        save_file(tensors, tmp_path / key / "model.safetensors")
    (tmp_path / "noise.key").write_bytes(hashlib.sha256(b"noise").digest())
    return tmp_path


def arguments(folder: Path, *more: str, output: str, rule: str = "dpFedAvg") -> list[str]:
    parts = ["merge", "--rule", rule, "--previous", str(folder / "previous"), "--quiet"]
    parts += [part for key in KEYS for part in ("--model", f"{key}={folder / key}")]
    if rule == "dpFedAvg":
        parts += [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    parts += ["--output", str(folder / output), "--result", str(folder / f"{output}.json")]
    return [*parts, *more]


def private(folder: Path) -> list[str]:
    return [
        "--noise-key",
        str(folder / "noise.key"),
        "--privacy-ledger",
        str(folder / "ledger.json"),
    ]


def ledger(folder: Path) -> Ledger:
    return Ledger.from_json((folder / "ledger.json").read_text())


def result_of(folder: Path, output: str) -> MergeResult:
    return MergeResult.model_validate_json((folder / f"{output}.json").read_text())


def test_rounds_are_charged_one_by_one_until_the_budget_ends_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = arguments(folder, *private(folder), "--new-privacy-ledger", output="one")
    assert main(first) == 0
    assert ledger(folder) == Ledger(spends=(SPEND,))
    assert main(arguments(folder, *private(folder), output="two")) == 0
    assert ledger(folder) == Ledger(spends=(Spend(3.0, rounds=2),))
    one, two = result_of(folder, "one"), result_of(folder, "two")
    assert one.epsilon is not None
    assert two.epsilon is not None
    assert one.epsilon < two.epsilon <= 2.1
    noise = load_file(folder / "one" / "model.safetensors")["weight"]
    other = load_file(folder / "two" / "model.safetensors")["weight"]
    assert np.std(noise - other) > 0.5, "noise of its own in each round"
    capsys.readouterr()
    code = main(arguments(folder, *private(folder), output="three"))
    assert code == BudgetExceeded.exit_code
    assert "above the budget of 2.1" in capsys.readouterr().err
    assert not (folder / "three").exists()
    assert ledger(folder) == Ledger(spends=(Spend(3.0, rounds=2),)), "nothing of it was spent"


@pytest.mark.parametrize(
    ("more", "rule", "found"),
    [
        ([], "dpFedAvg", "needs a noise key and a privacy ledger"),
        (["--noise-key", "noise.key"], "dpFedAvg", "needs a noise key and a privacy ledger"),
        (["--noise-key", "noise.key"], "median", "adds no noise"),
        (["--noise-key", "none", "--privacy-ledger", "ledger.json"], "dpFedAvg", "cannot be read"),
        (["--noise-key", "noise.key", "--privacy-ledger", "no/l"], "dpFedAvg", "no folder"),
        (
            [
                "--noise-key",
                "noise.key",
                "--privacy-ledger",
                "ledger.json",
                "--set",
                "adaptiveQuantile=2",
            ],
            "dpFedAvg",
            "adaptiveQuantile",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], rule: str, found: str
) -> None:
    create_ledger(folder / "ledger.json")
    files = {"noise.key", "none", "ledger.json", "no/l"}
    options = [str(folder / part) if part in files else part for part in more]
    assert main(arguments(folder, *options, output="out", rule=rule)) == 78
    assert found in capsys.readouterr().err
    assert ledger(folder) == Ledger()


def test_a_round_without_its_ledger_is_refused_and_a_new_one_never_replaces_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, *private(folder), output="out")) == 78
    assert "--new-privacy-ledger" in capsys.readouterr().err
    create_ledger(folder / "ledger.json")
    again = arguments(folder, *private(folder), "--new-privacy-ledger", output="out")
    assert main(again) == 78
    assert "would forget what was spent" in capsys.readouterr().err


def test_a_program_that_dies_in_a_round_leaves_it_charged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    create_ledger(path)
    with pytest.raises(KeyboardInterrupt), charged(path, spend=SPEND):
        raise KeyboardInterrupt
    assert Ledger.from_json(path.read_text()) == Ledger(spends=(SPEND,))
    (tmp_path / ".ledger.json.partial").write_text("of a write that was cut")
    with charged(path, spend=SPEND) as charge:
        assert charge.before == Ledger(spends=(SPEND,))
    assert Ledger.from_json(path.read_text()).rounds == 2


def test_a_round_run_again_after_a_crash_is_a_round_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the killed one made may have got out; both are paid for, and each has its noise."""

    def killed(*args: object, **kwargs: object) -> None:
        raise SystemExit(75)

    first = arguments(folder, *private(folder), "--new-privacy-ledger", output="never")
    with monkeypatch.context() as patched:
        patched.setattr(merge_command, "merge", killed)
        with pytest.raises(SystemExit):
            main(first)
    assert ledger(folder).rounds == 1
    assert main(arguments(folder, *private(folder), output="again")) == 0
    assert ledger(folder).rounds == 2

    (folder / "ledger.json").unlink()
    create_ledger(folder / "ledger.json")
    assert main(arguments(folder, *private(folder), output="one")) == 0
    assert result_of(folder, "one").output_digest != result_of(folder, "again").output_digest

    (folder / "ledger.json").unlink()
    create_ledger(folder / "ledger.json")
    assert main(arguments(folder, *private(folder), output="same")) == 0
    assert result_of(folder, "one").output_digest == result_of(folder, "same").output_digest


def test_a_round_whose_record_has_no_place_is_not_made(folder: Path) -> None:
    """Its commitment and sealed scales would be lost, and the round paid for."""
    create_ledger(folder / "ledger.json")
    options = ["--result", str(folder / "previous")]
    assert main(arguments(folder, *private(folder), *options, output="out")) == 78
    assert ledger(folder) == Ledger()
    assert not (folder / "out").exists()


def test_a_refused_round_takes_its_charge_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    create_ledger(path)
    with pytest.raises(MissingInput), charged(path, spend=SPEND):
        raise MissingInput(f"refused after {Ledger.from_json(path.read_text()).rounds} round")
    assert Ledger.from_json(path.read_text()) == Ledger()


def test_two_rounds_cannot_charge_one_ledger_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    create_ledger(path)
    with (
        charged(path, spend=SPEND),
        pytest.raises(ImpossibleSetting, match="cannot be locked"),
        charged(path, spend=SPEND),
    ):
        pass

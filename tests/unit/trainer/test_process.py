"""`python -m cabildo_trainer` as a pod starts it: spec and data first, one record, one code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_api.result import Outcome, Result
from cabildo_trainer.errors import BadSpecError
from cabildo_trainer.settings import TrainerSettings
from support.trainer_ranks import run_spec, small_spec

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Ended:
    code: int
    result: Result | None
    output: str
    seconds: float


def start(
    folder: Path, *, document: Any = None, arguments: tuple[str, ...] = (), **variables: str
) -> Ended:
    if document is not None:
        (folder / "run.json").write_text(json.dumps(document))
    message = folder / "message"
    environment = os.environ | {
        "CABILDO_RUN_FILE": str(folder / "run.json"),
        "CABILDO_TERMINATION_MESSAGE": str(message),
        "CABILDO_DATA_ROOT": str(folder / "data"),
    } | variables  # fmt: skip
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "cabildo_trainer", *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    result = Result.parse(message.read_text()) if message.exists() else None
    return Ended(ended.returncode, result, ended.stdout + ended.stderr, time.monotonic() - began)


def with_file(folder: Path, content: str | None) -> dict[str, Any]:
    (folder / "data" / "mine").mkdir(parents=True)
    if content is not None:
        (folder / "data" / "mine" / "daily.csv").write_text(content)
    spec = small_spec(nodes=1)
    source = {"name": "mine", "file": {"uri": "pvc://claim/daily.csv"}}
    spec["data"] = spec["data"] | {"sources": [source]}
    return run_spec(spec, root=folder / "checkpoints")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pvc://claim/daily.csv: the file does not exist"),
        (
            "Date,High,Low,Close\n2020-01-01,2,1,nan\n",
            "row 2, column 'Close': 'nan' is not a finite",
        ),
        (
            "Date,High,Low,Close\n2020-01-02,2,1,1\n2020-01-01,2,1,1\n",
            "row 3, column 'Date': '2020-01-01' does not come after",
        ),
    ],
)
def test_bad_data_ends_with_65_before_torch_is_imported(
    tmp_path: Path, content: str | None, message: str
) -> None:
    ended = start(tmp_path, document=with_file(tmp_path, content), PYTHONVERBOSE="")
    assert ended.code == 65, ended.output
    assert ended.result is not None
    assert ended.result.reason == "InvalidData"
    assert message in ended.result.message
    assert ended.result.outcome is Outcome.FAILED
    assert ended.result.remedy
    assert message in ended.output


def test_torch_is_imported_after_the_data_was_checked() -> None:
    code = (
        "import sys, cabildo_trainer.app;"
        " sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("document", "variables", "message"),
    [
        (None, {}, "run.json: No such file or directory"),
        ({"version": "v1"}, {}, "run.namespace: Field required"),
        ("ok", {"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but the run spec has nodes 1"),
        ("ok", {"RANK": "first"}, "RANK is 'first', not a whole number"),
    ],
)
def test_a_bad_spec_ends_with_78(
    tmp_path: Path, document: Any, variables: dict[str, str], message: str
) -> None:
    if document == "ok":
        document = run_spec(small_spec(nodes=1), root=tmp_path)
    ended = start(tmp_path, document=document, **variables)
    assert ended.code == 78, ended.output
    assert message in ended.output


def test_a_run_ends_with_0_a_result_and_a_table(tmp_path: Path) -> None:
    document = run_spec(small_spec(nodes=1, limits={"maxEpochs": 1}), root=tmp_path / "checkpoints")
    ended = start(tmp_path, document=document, KUBEFLOW_TRAINER_SERVER_URL="http://127.0.0.1:1/")
    assert ended.code == 0, ended.output
    assert ended.result is not None
    assert ended.result.outcome is Outcome.COMPLETE
    metrics = {metric.name for metric in ended.result.metrics}
    assert metrics == {
        "val_loss", "train_loss", "test_r2", "test_r2_against_test_mean", "test_mse",
    }  # fmt: skip
    baselines = {(item.name, item.metric) for item in ended.result.baselines}
    assert ("har", "r2") in baselines
    assert ("gradientBoostedTree", "mse") in baselines
    assert ended.result.artifacts[0].uri.startswith("pvc://job-checkpoints/")
    assert "persistence             0.6326" in ended.output
    assert "progress could not be reported" in ended.output
    assert "Warning" not in ended.output


def test_an_unexpected_error_ends_with_1_and_a_record(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    document = run_spec(small_spec(nodes=1), root=tmp_path / "file")
    ended = start(tmp_path, document=document)
    assert ended.code == 1
    assert ended.result is not None
    assert ended.result.reason == "TrainerError"
    assert "NotADirectoryError" in ended.result.message
    assert "Traceback" in ended.output


def test_the_command_line_explains_itself(tmp_path: Path) -> None:
    assert "CABILDO_RUN_FILE" in start(tmp_path, arguments=("--help",)).output
    assert start(tmp_path, arguments=("--version",)).output.strip()
    assert "unknown argument '--x'" in start(tmp_path, arguments=("--x",)).output


def test_settings_come_from_the_environment() -> None:
    settings = TrainerSettings.from_environment(
        {
            "RANK": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "job-0.job",
            "MASTER_PORT": "1234",
            "OMP_NUM_THREADS": "3",
            "CABILDO_TERMINATION_GRACE_SECONDS": "40",
            "KUBEFLOW_TRAINER_SERVER_URL": "https://x/status",
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": "/ca",
            "KUBEFLOW_TRAINER_SERVER_TOKEN": "/token",
        }
    )
    assert (settings.rank, settings.world_size, settings.threads) == (1, 2, 3)
    assert (settings.master_address, settings.master_port) == ("job-0.job", 1234)
    assert settings.grace_s == 30
    assert settings.progress is not None
    assert (settings.progress.ca_file, settings.progress.token_file) == ("/ca", "/token")
    with pytest.raises(BadSpecError, match="MASTER_PORT is 'x'"):
        TrainerSettings.from_environment({"MASTER_PORT": "x"})

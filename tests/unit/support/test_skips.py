"""In CI a skip for no listed reason fails; elsewhere it is a skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
CASES = """\
import pytest

def test_busy():
    pytest.skip("the machine is busy: 12.0 s say nothing")

@pytest.mark.skipif(True, reason="root alone may have a cluster")
def test_needs_root():
    raise AssertionError

def test_foreign():
    pytest.skip("needs the local cluster: it works on links")

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError
"""


def outcomes(folder: Path, **environment: str) -> str:
    (folder / "test_cases.py").write_text(CASES)
    (folder / "pytest.ini").write_text("[pytest]\n")
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "CLUSTER")}
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "support.skips", str(folder)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, **environment, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_on_a_developers_machine_a_skip_is_a_skip(tmp_path: Path) -> None:
    assert "3 skipped, 1 xfailed" in outcomes(tmp_path)


@pytest.mark.parametrize(
    ("cluster", "counted"),
    [
        ("local", "1 failed, 1 skipped, 1 xfailed, 1 error"),
        ("kubeconfig", "2 skipped, 1 xfailed, 1 error"),
    ],
)
def test_in_ci_only_listed_reasons_skip(tmp_path: Path, cluster: str, counted: str) -> None:
    seen = outcomes(tmp_path, CI="true", CLUSTER=cluster)
    assert counted in seen, seen
    assert "was skipped in CI, which hides it: root alone may have a cluster" in seen


def test_the_rule_holds_for_every_folder_of_tests() -> None:
    assert "from support.skips import pytest_runtest_makereport" in (
        TESTS / "conftest.py"
    ).read_text(encoding="utf-8")

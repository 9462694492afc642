"""The coverage gate adds up lines by package and fails below its bar."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

import coverage_gate

if TYPE_CHECKING:
    from pathlib import Path


def report_with(covered: int) -> dict[str, object]:
    """Return a report of two files a package, with so many of 100 lines covered."""
    files = {}
    for package in coverage_gate.PACKAGES:
        files[f"root/{package}/a.py"] = {
            "summary": {"num_statements": 60, "covered_lines": min(covered, 60)}
        }
        files[f"root/{package}/deep/b.py"] = {
            "summary": {"num_statements": 40, "covered_lines": max(covered - 60, 0)}
        }
    return {"files": files}


def run_gate(report: dict[str, object], *, file: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the gate as the command line does."""
    file.write_text(json.dumps(report))
    monkeypatch.setattr(sys, "argv", ["coverage_gate.py", str(file)])
    return coverage_gate.main()


def test_lines_are_added_up_over_all_files_of_a_package() -> None:
    assert coverage_gate.percent_by_package(report_with(75)) == dict.fromkeys(
        coverage_gate.PACKAGES, 75.0
    )


@pytest.mark.parametrize(("covered", "status"), [(90, 0), (89, 1)])
def test_the_gate_opens_at_its_bar(
    covered: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "coverage.json"
    assert run_gate(report_with(covered), file=file, monkeypatch=monkeypatch) == status


def test_a_package_that_was_not_measured_fails_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_with(100)
    files = report["files"]
    assert isinstance(files, dict)
    kept = {name: one for name, one in files.items() if "cabildo_cli" not in name}
    file = tmp_path / "coverage.json"
    assert run_gate({"files": kept}, file=file, monkeypatch=monkeypatch) == 1

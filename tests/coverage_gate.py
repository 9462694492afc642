"""Fail when a package's line coverage is below the bar.

    coverage run -m pytest ...; coverage combine; coverage json; python tests/coverage_gate.py

Here: adding up `coverage json` by package and one comparison. Never here: measuring; that
is coverage's work, in the test process and in the processes it starts (root pyproject).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

PACKAGES = (
    "cabildo_api",
    "cabildo_operator",
    "cabildo_trainer",
    "cabildo_cli",
    "cabildo_local",
)
BAR_PERCENT = 90.0


def percent_by_package(report: dict[str, object]) -> dict[str, float]:
    """Return the share of lines that ran, in percent, by package.

    Args:
        report: The decoded output of `coverage json`.
    """
    statements: dict[str, int] = defaultdict(int)
    covered: dict[str, int] = defaultdict(int)
    files = report["files"]
    assert isinstance(files, dict)
    for name, measured in files.items():
        package = next((part for part in Path(name).parts if part in PACKAGES), None)
        if package is not None:
            statements[package] += measured["summary"]["num_statements"]
            covered[package] += measured["summary"]["covered_lines"]
    return {
        package: 100.0 * covered[package] / statements[package] if statements[package] else 0.0
        for package in PACKAGES
    }


def main() -> int:
    """Print a line a package; return 1 when one is below the bar or was not measured."""
    parser = argparse.ArgumentParser(description="Fail when a package is covered too little.")
    parser.add_argument("report", nargs="?", type=Path, default=Path("build/coverage.json"))
    parser.add_argument("--bar", type=float, default=BAR_PERCENT, help="percent of lines")
    arguments = parser.parse_args()
    low = False
    for package, percent in percent_by_package(json.loads(arguments.report.read_text())).items():
        verdict = "ok" if percent >= arguments.bar else f"below {arguments.bar:g} %"
        low = low or percent < arguments.bar
        print(f"{package:<18} {percent:6.1f} %  {verdict}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())

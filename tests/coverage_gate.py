"""Fail when a package's line coverage is below the bar.

Here: putting the runs of `make test-unit` and `make test-cluster` together, adding up lines
by package, one comparison. Never here: measuring; that is coverage's work, in the test
process and in the processes it starts (`patch` in the root pyproject).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PACKAGES = (
    "cabildo_api",
    "cabildo_operator",
    "cabildo_trainer",
    "cabildo_kernels",
    "cabildo_cli",
    "cabildo_local",
)
BAR_PERCENT = 90.0
DATA = Path("build/coverage")


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


def combined_report(data: Path) -> Path:
    """Combine the data files of all runs, keep them, and return the JSON report."""
    # A folder of its own: `coverage json` would merge and delete what lies beside its data.
    both = data / "combined" / ".coverage"
    both.parent.mkdir(parents=True, exist_ok=True)
    report = data / "report.json"
    runs = [str(file) for file in sorted(data.glob(".coverage.*"))]
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run(
        [*coverage, "combine", "--quiet", "--keep", f"--data-file={both}", *runs], check=True
    )
    subprocess.run(
        [*coverage, "json", "--quiet", f"--data-file={both}", "-o", str(report)], check=True
    )
    return report


def main() -> int:
    """Print a line a package; return 1 when one is below the bar or was not measured."""
    parser = argparse.ArgumentParser(description="Fail when a package is covered too little.")
    parser.add_argument(
        "report", nargs="?", type=Path, help="from `coverage json`; by default made of " + str(DATA)
    )
    parser.add_argument("--bar", type=float, default=BAR_PERCENT, help="percent of lines")
    arguments = parser.parse_args()
    low = False
    report = arguments.report or combined_report(DATA)
    for package, percent in percent_by_package(json.loads(report.read_text())).items():
        verdict = "ok" if percent >= arguments.bar else f"below {arguments.bar:g} %"
        low = low or percent < arguments.bar
        print(f"{package:<18} {percent:6.1f} %  {verdict}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())

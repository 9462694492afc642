"""Write docs/benchmarks.md from build/bench/*.json.

    python tests/bench/page.py [folder] [page]

Here: one table a benchmark, the figures as measured. Never here: a figure typed in by hand, or any
judgement about one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEAD = """# Benchmarks

Written by `make bench`; every figure comes from the run that the table names. A ratio is ours
divided by the reference, both measured in that same run; lower is better.
"""

FORM = ("case", "ours", "unit", "reference", "reference_name", "ratio")
"""The fields of every row; a benchmark may add figures of its own."""


def table(bench: dict[str, Any]) -> str:
    """Return one benchmark as a section with a table."""
    further = list(dict.fromkeys(name for row in bench["rows"] for name in row if name not in FORM))
    titles = "".join(f" {name} |" for name in further)
    lines = [
        f"## {bench['name']}",
        f"`{bench['command']}`, {bench['date']}, {bench['machine']}",
        "",
        f"| case | ours | unit | reference | | ratio |{titles}",
        "|---|---:|---|---:|---|---:|" + "---:|" * len(further),
    ]
    for row in bench["rows"]:
        cells = (
            row["case"],
            _number(row["ours"]),
            row["unit"],
            _number(row["reference"]),
            row["reference_name"] or "",
            _number(row["ratio"]),
            *(_number(row.get(name)) for name in further),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else f"{value:.4g}"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Write the benchmarks page.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build/bench"))
    parser.add_argument("page", nargs="?", type=Path, default=Path("docs/benchmarks.md"))
    arguments = parser.parse_args()
    benches = [json.loads(file.read_text()) for file in sorted(arguments.folder.glob("*.json"))]
    arguments.page.write_text("\n".join([HEAD, *map(table, benches)]))


if __name__ == "__main__":
    main()

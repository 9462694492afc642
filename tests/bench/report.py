"""The form of a benchmark's result: a table to read and a JSON file to keep.

Here: rows, machine, date, writing. Never here: measuring.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, ours and the reference's, both costs: lower is better.

    Attributes:
        case: What was measured.
        ours: Our figure.
        unit: Its unit.
        reference: The same figure of the reference, measured in the same run.
        reference_name: What the reference is.
    """

    case: str
    ours: float
    unit: str
    reference: float | None = None
    reference_name: str | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the reference's, where there is one."""
        if self.reference is None or self.reference == 0:
            return None
        return round(self.ours / self.reference, 3)


def machine() -> str:
    """Return the machine in words: processor, cores, memory, kernel, Python."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    cores = Path("/proc/cpuinfo").read_text().count("model name")
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{cores} cores of {cpu}, {memory_kib / 2**20:.0f} GiB memory,"
        f" Linux {platform.release()}, Python {platform.python_version()}"
    )


def write(name: str, *, command: str, rows: list[Row], file: Path) -> None:
    """Write the result as JSON.

    Args:
        name: The benchmark's name.
        command: What to type to run it again.
        rows: The figures.
        file: Where to write.
    """
    body = {
        "name": name,
        "command": command,
        "machine": machine(),
        "date": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(body, indent=2) + "\n")


def table(rows: list[Row]) -> str:
    """Return the rows as text for a terminal."""
    lines = [f"{'case':<26} {'ours':>12} {'reference':>12} {'ratio':>8}  unit"]
    for row in rows:
        reference = "-" if row.reference is None else f"{row.reference:.4g}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.3g}"
        lines.append(f"{row.case:<26} {row.ours:>12.4g} {reference:>12} {ratio:>8}  {row.unit}")
    names = sorted({row.reference_name for row in rows if row.reference_name})
    return "\n".join([*lines, f"reference: {', '.join(names) or 'none'}; lower is better"])

"""The form of a benchmark's result: a table to read and a JSON file to keep.

Here: rows, machine, date, writing. Never here: measuring.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, ours and the reference's, both costs: lower is better.

    Attributes:
        case: What was measured.
        ours: Our figure; None where there is none to be had, and `details` say why.
        unit: Its unit.
        reference: The same figure of the reference, measured in the same run.
        reference_name: What the reference is.
        details: Further figures or words of ours by name and unit (`gb_per_s`, `ghz`, `refused`);
            in the file they stand beside the others; None where one has no meaning.
    """

    case: str
    ours: float | None
    unit: str
    reference: float | None = None
    reference_name: str | None = None
    details: Mapping[str, float | str | None] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours divided by the reference's, where there is one."""
        if self.ours is None or self.reference is None or self.reference == 0:
            return None
        return round(self.ours / self.reference, 3)

    def as_json(self) -> dict[str, object]:
        """Return the row as it stands in the file."""
        body = asdict(self)
        details = body.pop("details")
        return {**body, "ratio": self.ratio, **details}


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
        "rows": [row.as_json() for row in rows],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(body, indent=2) + "\n")


def table(rows: list[Row]) -> str:
    """Return the rows as text for a terminal."""
    width = max([26, *(len(row.case) for row in rows)])
    lines = [f"{'case':<{width}} {'ours':>12} {'reference':>12} {'ratio':>8}  unit"]
    for row in rows:
        reference = "-" if row.reference is None else f"{row.reference:.4g}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.3g}"
        ours = "-" if row.ours is None else f"{row.ours:.4g}"
        further = "".join(f"  {name} {_text(value)}" for name, value in row.details.items())
        against = f"  against {row.reference_name}" if row.reference_name else ""
        lines.append(
            f"{row.case:<{width}} {ours:>12} {reference:>12} {ratio:>8}"
            f"  {row.unit}{against}{further}"
        )
    return "\n".join([*lines, "lower is better, but for %"])


def _text(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"

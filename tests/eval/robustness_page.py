"""The figures of docs/consensus-robustness.md: a table between two marks.

Here: the table from the file's rows. Never here: words about a figure; those are in the page.
"""

from __future__ import annotations

from typing import Any

from eval.attacks import ATTACKS

FIRST = "<!-- figures: written by make eval-consensus -->"
LAST = "<!-- end of figures -->"


def with_figures(page: str, bench: dict[str, Any]) -> str:
    """Return the page with the figures of a run."""
    before, _, rest = page.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{figures(bench)}\n{LAST}{after}"


def cells_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows by rule and attack, in the order of the file."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        rule, _, attack = row["case"].rpartition("/")
        cells.setdefault(rule, {})[attack] = row
    return cells


def figures(bench: dict[str, Any]) -> str:
    """Return the table of accuracies, refusals, and the run they come from."""
    titles = [attack.title for attack in ATTACKS.values()]
    lines = [
        f"`{bench['command']}`, {bench['date']}, {bench['machine']}",
        "",
        f"| rule | {' | '.join(titles)} | lowest |",
        "|---|" + "---:|" * (len(titles) + 1),
    ]
    refusals = []
    for rule, row in cells_of(bench["rows"]).items():
        refused = next((cell["refused"] for cell in row.values() if "refused" in cell), "")
        if refused:
            refusals.append(f"- `{rule}`: {refused}.")
            continue
        known = [cell["ours"] for cell in row.values()]
        texts = [f"{row[name]['ours']:.1f}" if name in row else "" for name in ATTACKS]
        lowest = f"{min(known):.1f}" if len(known) == len(ATTACKS) else ""
        lines.append(f"| {rule} | {' | '.join(texts)} | {lowest} |")
    return "\n".join([*lines, "", "Refused, with the product's words:", "", *refusals])

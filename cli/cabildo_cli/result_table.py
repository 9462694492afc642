"""The table that `follow` and `demo` print at the end: the net beside its baselines.

Here: one finished TrainingJob's status -> rich tables. Never here: any request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

NET = "this run"
"""The row of the trained model itself."""

TEST_PREFIX = "test_"
"""Metrics on the test rows: those that a baseline has too."""


def comparison(training_job: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return {row name: {metric: value}} for the net and each baseline, on the test rows."""
    result = training_job.get("status", {}).get("result", {})
    rows: dict[str, dict[str, float]] = {NET: {}}
    for metric in result.get("metrics", []):
        if metric["name"].startswith(TEST_PREFIX):
            rows[NET][metric["name"].removeprefix(TEST_PREFIX)] = float(metric["value"])
    for baseline in result.get("baselines", []):
        rows.setdefault(baseline["name"], {})[baseline["metric"]] = float(baseline["value"])
    return rows


def print_result(training_job: dict[str, Any], *, console: Console) -> None:
    """Print the comparison, the other metrics and where the checkpoints lie."""
    status = training_job.get("status", {})
    rows = comparison(training_job)
    metrics = list(dict.fromkeys(name for values in rows.values() for name in values))
    if metrics:
        table = Table("model", *metrics, title="On the test rows")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, values in rows.items():
            cells = (f"{values[metric]:.4f}" if metric in values else "" for metric in metrics)
            table.add_row(name, *cells, style="bold" if name == NET else "")
        console.print(table)
    others = [
        f"{metric['name']} {float(metric['value']):.4g}"
        for metric in status.get("result", {}).get("metrics", [])
        if not metric["name"].startswith(TEST_PREFIX)
    ]
    if others:
        console.print("  ".join(others), highlight=False)
    for name, checkpoint in status.get("checkpoint", {}).items():
        console.print(
            f"{name} checkpoint: step {checkpoint['step']}, {checkpoint['uri']}",
            highlight=False,
            soft_wrap=True,
        )

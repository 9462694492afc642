"""The time that `cabildo follow` shows beside its bar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.progress import Progress

from cabildo_cli.follow import RunTimeColumn


def shown(status: dict[str, Any]) -> str:
    column = RunTimeColumn()
    bar = Progress(column)
    task = bar.add_task("walk", total=100, status=status)
    return column.render(bar.tasks[task]).plain


@pytest.mark.parametrize(
    ("status", "time"),
    [
        ({}, "-:--:--"),
        (
            {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T01:02:03Z"},
            "1:02:03",
        ),
        ({"startTime": "2999-01-01T00:00:00Z"}, "0:00:00"),
    ],
    ids=["not started", "ended", "the cluster's clock is ahead"],
)
def test_the_time_is_the_runs_own(status: dict[str, Any], time: str) -> None:
    assert shown(status) == time


def test_a_run_that_goes_on_counts_from_its_start() -> None:
    started = datetime.now(UTC) - timedelta(days=1, minutes=5)
    assert shown({"startTime": started.isoformat()}).startswith("1 day, 0:05:")

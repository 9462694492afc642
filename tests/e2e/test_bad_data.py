"""Faults in the data end a run at once, with file, row and column, and no second attempt."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from support.data_files import csv_text, data_claim, from_claim, price_rows
from support.training_jobs import condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.kube import Object
    from support.site import Site
    from support.training_jobs import TrainingRun

FILE = "sp.csv"
BAD_DATA = 65
WITHIN_S = 10


def rows_with_nan() -> list[list[str]]:
    """Return rows whose 300th (line 301 of the file) has no number as its low."""
    rows = price_rows()
    rows[299][3] = "NaN"
    return rows


def rows_out_of_order() -> list[list[str]]:
    """Return rows of which the 401st and 402nd (lines 402, 403) are swapped."""
    rows = price_rows()
    rows[400], rows[401] = rows[401], rows[400]
    return rows


def ended(run: TrainingRun) -> list[Object]:
    """Return how the trainer containers of the first attempt ended."""
    return [
        one["state"]["terminated"]
        for pod in run.pods(attempt=1)
        for one in pod["status"].get("containerStatuses", [])
        if "terminated" in one["state"]
    ]


def assert_failed_at_once(run: TrainingRun, *, words: list[str]) -> None:
    """Demand exit 65 soon after the start, Failed with these words, and one attempt.

    Args:
        run: The run that must fail.
        words: What its message must hold: the place of the fault and the remedy.
    """
    failed = run.wait_condition("Failed", within_s=300, reason="InvalidData")
    for word in words:
        assert word in failed["message"], failed
    status = run.status
    assert status["phase"] == "Failed"
    assert status["attempt"] == 1
    assert status["restarts"] == 0
    assert condition(status, "Finished")["status"] == "True"
    ends = ended(run)
    assert BAD_DATA in [one["exitCode"] for one in ends], ends
    for one in ends:
        ran_s = _time(one["finishedAt"]) - _time(one["startedAt"])
        assert ran_s <= WITHIN_S, f"a trainer ran for {ran_s} s, its start included"
    assert [one["message"] for one in run.events() if one["reason"] == "InvalidData"]
    assert [one["metadata"]["name"] for one in run.jobs()] == [f"{run.name}-r1-a1"]


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (rows_with_nan, [FILE, "row 301", "Low", "set a new spec.runID"]),
        pytest.param(
            rows_out_of_order,
            [FILE, "row 403", "Date", "set a new spec.runID"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_bad_cell_fails_the_run_with_file_row_and_column(
    rows: Callable[[], list[list[str]]],
    words: list[str],
    site: Site,
    namespace: str,
    train: Callable[..., TrainingRun],
) -> None:
    site.local_cluster()
    folder = data_claim(site.kube, namespace=namespace)
    (folder / FILE).write_text(csv_text(rows()))
    run = train(data=from_claim(FILE))
    assert_failed_at_once(run, words=words)


@pytest.mark.long
def test_a_missing_file_fails_the_run_and_names_it(
    site: Site, namespace: str, train: Callable[..., TrainingRun]
) -> None:
    site.local_cluster()
    data_claim(site.kube, namespace=namespace)
    run = train(data=from_claim("not-there.csv"))
    assert_failed_at_once(run, words=["not-there.csv", "does not exist", "data.sources"])


@pytest.mark.long
def test_a_good_file_trains(site: Site, namespace: str, train: Callable[..., TrainingRun]) -> None:
    site.local_cluster()
    folder = data_claim(site.kube, namespace=namespace)
    (folder / FILE).write_text(csv_text(price_rows()))
    run = train(data=from_claim(FILE), limits={"maxSteps": 20})
    run.wait_condition("Succeeded", within_s=300)

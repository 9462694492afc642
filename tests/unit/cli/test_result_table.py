"""What a person reads at the end of `cabildo follow`."""

from __future__ import annotations

import io

from rich.console import Console

from cabildo_cli.result_table import NET, comparison, print_result

FINISHED = {
    "status": {
        "result": {
            "metrics": [
                {"name": "test_r2", "value": "0.7123"},
                {"name": "test_mse", "value": "0.1010"},
                {"name": "val_loss", "value": "0.2"},
            ],
            "baselines": [
                {"name": "har", "metric": "r2", "value": "0.7204"},
                {"name": "persistence", "metric": "r2", "value": "NaN"},
            ],
        },
        "checkpoint": {"last": {"step": 40, "uri": "pvc://claim/uid/run-1/step-000000000040"}},
    }
}


def printed(training_job: dict) -> str:
    output = io.StringIO()
    print_result(training_job, console=Console(file=output, width=100))
    return output.getvalue()


def test_test_metrics_of_net_and_baselines_stand_in_one_row_each() -> None:
    rows = comparison(FINISHED)

    assert rows[NET] == {"r2": 0.7123, "mse": 0.1010}
    assert rows["har"] == {"r2": 0.7204}
    assert list(rows) == [NET, "har", "persistence"]


def test_the_table_shows_figures_missing_figures_and_not_a_number() -> None:
    text = printed(FINISHED)

    assert "0.7123" in text
    assert "nan" in text
    har = next(line for line in text.splitlines() if "har" in line)
    assert "0.7204" in har
    assert "0.1010" not in har


def test_other_metrics_and_the_checkpoint_are_named_below() -> None:
    text = printed(FINISHED)

    assert "val_loss 0.2" in text
    assert "last checkpoint: step 40, pvc://claim/uid/run-1/step-000000000040" in text


def test_a_job_without_a_result_prints_nothing() -> None:
    assert printed({"status": {}}) == ""

"""Suspending checkpoints and ends the pods; resuming goes on at the very next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.outcome import assert_exact
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.outcome import Outcome
    from support.site import Site
    from support.training_jobs import TrainingRun


@pytest.mark.long
def test_suspend_and_resume_cost_no_restart_no_step_and_no_digit(
    site: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    run = train()
    run.wait_training()
    folder = RunFolder.of(run)
    folder.wait_steps(2, within_s=120)
    run.suspend(value=True)
    run.wait_condition("Suspended", within_s=90)
    assert not [one for one in run.pods() if one["status"]["phase"] in ("Pending", "Running")]
    logged = folder.logged_steps(attempt=1)
    assert folder.steps()[-1] == max(logged), "the step that ended last is in no checkpoint"
    run.suspend(value=False)
    assert_exact(run, reference=reference, restarts=0, attempts=2, suspended=frozenset({1}))
    assert min(folder.logged_steps(attempt=2)) == max(logged) + 1

"""A deleted TrainingJob takes its pods with it and leaves its volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.kube import CLAIMS, JOBS, PODS, SERVICES
from support.training_jobs import MANAGED
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.site import Site
    from support.training_jobs import TrainingRun


@pytest.mark.long
def test_deleting_a_run_in_training_leaves_only_its_volume(
    site: Site, train: Callable[..., TrainingRun]
) -> None:
    site.local_cluster()
    run = train()
    run.wait_training()
    folder = RunFolder.of(run)
    folder.wait_steps(2, within_s=120)
    run.delete()
    for resource in (JOBS, PODS, SERVICES):
        site.kube.wait(
            resource,
            lambda seen: not seen,
            namespace=run.namespace,
            labels=MANAGED,
            within_s=60,
            what=f"no {resource.plural} left",
        )
    claim = site.kube.get(CLAIMS, f"{run.name}-checkpoints", namespace=run.namespace)
    assert claim is not None
    assert claim["status"]["phase"] == "Bound"
    newest = folder.steps()[-1]
    assert (folder.step(newest) / "manifest.json").is_file()
    assert folder.weights_sha256(newest)

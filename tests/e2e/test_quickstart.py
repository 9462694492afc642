"""The quickstart example: two pods on two nodes, and an honest result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from support.clusters import CHECKOUT
from support.outcome import assert_nothing_left_over, finish
from support.training_jobs import TrainingRun

if TYPE_CHECKING:
    from support.site import Site

# Explained share of variance against the train mean on the test rows. Other values mean
# that the split or the target is wrong.
R2_HAR = 0.720
R2_PERSISTENCE = 0.632
TOLERANCE = 0.005
HAR_MARGIN = 0.02


def test_the_quickstart_trains_on_two_nodes_and_stands_beside_its_baselines(
    site: Site, namespace: str
) -> None:
    example = yaml.safe_load((CHECKOUT / "examples" / "quickstart.yaml").read_text())
    run = TrainingRun.start(
        site.kube,
        namespace=namespace,
        name=example["metadata"]["name"],
        spec=example["spec"],
    )
    pods = run.wait_training(within_s=600)
    if len(site.worker_nodes()) > 1:
        assert len({one["spec"]["nodeName"] for one in pods}) == 2
    status = finish(run)
    assert status["restarts"] == 0
    baselines = {
        one["name"]: float(one["value"])
        for one in status["result"]["baselines"]
        if one["metric"] == "r2"
    }
    metrics = {one["name"]: float(one["value"]) for one in status["result"]["metrics"]}
    assert abs(baselines["har"] - R2_HAR) <= TOLERANCE
    assert abs(baselines["persistence"] - R2_PERSISTENCE) <= TOLERANCE
    assert metrics["test_r2"] >= baselines["har"] - HAR_MARGIN
    assert status["checkpoint"]["last"]["uri"].startswith(f"pvc://{run.name}-checkpoints/")
    assert status["checkpoint"]["last"]["digest"].startswith("sha256:")
    assert_nothing_left_over(run, attempts=1)

"""Every example in `examples/` is run; the quickstart has a test of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from support.clusters import CHECKOUT
from support.data_files import csv_text, data_claim, price_rows
from support.outcome import finish
from support.training_jobs import TrainingRun

if TYPE_CHECKING:
    from pathlib import Path

    from support.site import Site

EXAMPLES = sorted((CHECKOUT / "examples").glob("*.yaml"))


@pytest.mark.long
@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=one.stem) for one in EXAMPLES if one.stem != "quickstart"],
)
def test_the_example_trains(example: Path, site: Site, namespace: str) -> None:
    site.local_cluster()
    body = yaml.safe_load(example.read_text())
    for source in body["spec"]["data"]["sources"]:
        if "file" in source:
            claim, _, path = source["file"]["uri"].removeprefix("pvc://").partition("/")
            folder = data_claim(site.kube, namespace=namespace, name=claim)
            (folder / path).write_text(csv_text(price_rows()))
    run = TrainingRun.start(
        site.kube, namespace=namespace, name=body["metadata"]["name"], spec=body["spec"]
    )
    status = finish(run)
    assert status["result"]["baselines"]

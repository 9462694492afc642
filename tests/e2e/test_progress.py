"""Progress reaches the status over TLS, also after the operator's certificates were spoiled."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from support.kube import PODS, SECRETS
from support.outcome import finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.site import Site
    from support.training_jobs import TrainingRun

STEPS = 1500
"""Enough that a run outlasts the 5 s between two writes of progress on any machine."""
SPOILED = base64.b64encode(b"spoiled").decode()


def test_spoiled_certificates_are_made_anew_and_progress_arrives(
    disruptable: Site, train: Callable[..., TrainingRun]
) -> None:
    site = disruptable
    namespace = site.deployed.namespace
    (name,) = [
        one["metadata"]["name"]
        for one in site.kube.list(SECRETS, namespace=namespace)
        if one["metadata"]["name"].endswith("-certificates")
    ]
    site.kube.patch(SECRETS, name, {"data": {"tls.crt": SPOILED}}, namespace=namespace)
    before = site.operator_pod()["metadata"]["name"]
    site.kube.delete(PODS, before, namespace=namespace)
    site.kube.wait(
        SECRETS,
        lambda seen: seen[name]["data"]["tls.crt"] != SPOILED,
        namespace=namespace,
        within_s=60,
        what="the certificates are made anew",
    )
    run = train(limits={"maxSteps": STEPS})
    seen = run.wait_status(
        lambda status: 0 < status.get("progress", {}).get("step", 0) < STEPS,
        within_s=300,
        what="a report from a running trainer",
    )
    progress = seen["progress"]
    assert progress["totalSteps"] == STEPS
    assert 0 < progress["percentage"] < 100
    assert float(progress["loss"]) > 0
    status = finish(run)
    assert status["progress"]["percentage"] == 100
    assert status["result"]["baselines"]

"""Objects as the operator holds them, for its unit tests.

Here: one TrainingJob and one pod of it. Never here: an API server; see `clusters.py` for that.
"""

from typing import Any

import msgspec

from cabildo_api import names
from cabildo_operator.handlers.intake import decode
from cabildo_operator.kube.objects import CustomResource, Pod


def training_job(
    name: str = "job", *, uid: str = "uid-1", version: int = 1, **status: Any
) -> CustomResource:
    return decode(
        {
            "metadata": {
                "name": name,
                "namespace": "ns",
                "uid": uid,
                "resourceVersion": str(version),
                "generation": 1,
            },
            "spec": {"nodes": 2},
            "status": status,
        }
    )


def pod(
    name: str = "job-r1-a2-0-abcde",
    *,
    uid: str = "pod-1",
    owner: str = "uid-1",
    rank: str = "0",
    run: str = "1",
    attempt: str = "2",
    node: str = "",
) -> Pod:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "ns",
                "uid": uid,
                "labels": {
                    names.LABEL_MANAGED_BY: names.MANAGED_BY,
                    names.LABEL_NAME: "job",
                    names.LABEL_UID: owner,
                    names.LABEL_RUN: run,
                    names.LABEL_ATTEMPT: attempt,
                    "batch.kubernetes.io/job-completion-index": rank,
                },
            },
            "spec": {"nodeName": node},
        },
        type=Pod,
    )

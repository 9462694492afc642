"""Whose report counts: rank 0 of the object's current attempt, and nobody else's.

Pure decisions over the stores. A zombie of an earlier attempt, another rank and a pod of another
object are turned away with a reason that says why. `server.py` calls it after `token_review.py`.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from cabildo_api import names
from cabildo_operator.errors import ReportRefusedError
from cabildo_operator.kube.objects import CustomResource, Pod
from cabildo_operator.kube.store import ObjectKey, Store
from cabildo_operator.progress.token_review import Caller

RANK_LABEL: Final = "batch.kubernetes.io/job-completion-index"


class _Attempt(msgspec.Struct, frozen=True):
    """The part of a status that names the current attempt."""

    run: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """A pod that may report."""

    uid: str
    pod_uid: str
    run: int
    attempt: int


def admit(
    key: ObjectKey, *, caller: Caller, objects: Store[CustomResource], pods: Store[Pod]
) -> Reporter:
    """Decide whether `caller` may report about the object at `key`.

    Raises:
        ReportRefusedError: It may not.
    """
    obj = objects.get(key)
    if obj is None:
        raise ReportRefusedError(
            f"there is no {names.KIND} {key.namespace}/{key.name}", code=404, reason="NotFound"
        )
    pod = pods.get((caller.namespace, caller.pod_name))
    if pod is None or pod.metadata.uid != caller.pod_uid:
        # The token proves that the pod exists: the watch is a moment behind.
        raise ReportRefusedError(
            f"pod {caller.namespace}/{caller.pod_name} is not known here (yet)",
            code=503,
            reason="PodUnknown",
        )
    labels = pod.metadata.labels
    if caller.namespace != key.namespace or labels.get(names.LABEL_UID) != obj.metadata.uid:
        raise _forbidden(f"pod {caller.pod_name} does not belong to {key.namespace}/{key.name}")
    if labels.get(RANK_LABEL) != "0":
        raise _forbidden(f"rank {labels.get(RANK_LABEL)} may not report, only rank 0")
    reported = (labels.get(names.LABEL_RUN), labels.get(names.LABEL_ATTEMPT))
    current = msgspec.json.decode(obj.status, type=_Attempt)
    if reported != (str(current.run), str(current.attempt)):
        raise ReportRefusedError(
            f"run {reported[0]} attempt {reported[1]} is over;"
            f" the current one is run {current.run} attempt {current.attempt}",
            code=409,
            reason="AttemptOver",
        )
    return Reporter(
        uid=obj.metadata.uid,
        pod_uid=caller.pod_uid,
        run=current.run,
        attempt=current.attempt,
    )


def _forbidden(message: str) -> ReportRefusedError:
    return ReportRefusedError(message, code=403, reason="Forbidden")

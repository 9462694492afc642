"""The Indexed Job of one attempt: the whole gang, created once and never patched.

Here: the Job, its failure policy and its pod template. Never here: a decision whether there should
be one. Next: `kube/writes.py` POSTs it, the Job controller makes the pods, the trainer starts.
"""

from typing import Any, Final

from cabildo_api import names
from cabildo_api.exit_codes import SIGKILL_CODE, SIGTERM_CODE, ExitCode
from cabildo_api.run_spec import RunSpec
from cabildo_api.training_job import TrainingJobSpec
from cabildo_operator.reconcile.training_job.render.claim import checkpoint_claim
from cabildo_operator.reconcile.training_job.render.environment import render_environment
from cabildo_operator.reconcile.training_job.render.metadata import (
    ARGO_IGNORE_UPDATES,
    Owner,
    attempt_labels,
    attempt_selector,
    owner_reference,
)
from cabildo_operator.reconcile.training_job.render.security import (
    container_security_context,
    pod_security_context,
)
from cabildo_operator.reconcile.training_job.render.volumes import mounted_volumes
from cabildo_operator.reconcile.training_job.settings import PlanSettings

NODE_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def render_job(
    owner: Owner, *, spec: TrainingJobSpec, run: int, attempt: int, settings: PlanSettings
) -> dict[str, Any]:
    """Returns the Job of an attempt.

    `backoffLimit: 0` and `podReplacementPolicy: Failed`: a single rank is never replaced inside a
    live gang; the next attempt starts all of them from the last committed checkpoint.
    """
    labels = attempt_labels(owner, run=run, attempt=attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(owner.name, run, attempt),
            "namespace": owner.namespace,
            "labels": labels | {names.LABEL_RUN_ID: spec.run_id},
            "annotations": {ARGO_IGNORE_UPDATES: "true"},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.nodes,
            "parallelism": spec.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": failure_rules()},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": _annotations(
                        owner, spec=spec, run=run, attempt=attempt, settings=settings
                    ),
                },
                "spec": _pod_spec(owner, spec=spec, run=run, attempt=attempt, settings=settings),
            },
        },
    }


def failure_rules() -> list[dict[str, Any]]:
    """Returns one FailJob rule per class of exit code, in the order in which causes are judged.

    The first rule that matches a pod writes the Job's FailureTarget message, which outlives the
    pod: codes that forbid another attempt come first, then the disruption that excuses any other
    code. No rule ignores a pod, since that would recreate one rank inside a live gang.
    """
    final = (ExitCode.BAD_DATA, ExitCode.NAN_BUDGET, ExitCode.BAD_SPEC)
    others = (int(ExitCode.PREEMPTED), SIGKILL_CODE, SIGTERM_CODE, int(ExitCode.PEER_LOST))
    named = sorted({*map(int, final), *others})
    return [
        *(_code_rule("In", [int(code)]) for code in final),
        {
            "action": "FailJob",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        *(_code_rule("In", [code]) for code in others),
        _code_rule("NotIn", [int(ExitCode.FINISHED), *named]),
    ]


def _code_rule(operator: str, values: list[int]) -> dict[str, Any]:
    codes = {"containerName": names.CONTAINER_TRAINER, "operator": operator, "values": values}
    return {"action": "FailJob", "onExitCodes": codes}


def _annotations(
    owner: Owner, *, spec: TrainingJobSpec, run: int, attempt: int, settings: PlanSettings
) -> dict[str, str]:
    claim = checkpoint_claim(spec.checkpoint.storage, owner=owner)
    run_spec = RunSpec.from_spec(
        spec,
        namespace=owner.namespace,
        name=owner.name,
        uid=owner.uid,
        run=run,
        attempt=attempt,
        uri_prefix=f"pvc://{claim}",
        collective_timeout_s=settings.collective_timeout_s,
    )
    return {
        names.ANNOTATION_RUN: run_spec.to_json(),
        names.ANNOTATION_PROGRESS_CA: settings.progress_ca_pem,
    }


def _pod_spec(
    owner: Owner, *, spec: TrainingJobSpec, run: int, attempt: int, settings: PlanSettings
) -> dict[str, Any]:
    mounted = mounted_volumes(
        checkpoint_claim=checkpoint_claim(spec.checkpoint.storage, owner=owner),
        sources=spec.data.sources,
    )
    container: dict[str, Any] = {
        "name": names.CONTAINER_TRAINER,
        "image": spec.image or settings.trainer_image,
        "env": render_environment(owner, spec=spec, run=run, attempt=attempt, settings=settings),
        "resources": _resources(spec),
        "securityContext": container_security_context(),
        "terminationMessagePath": names.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": [item.mount for item in mounted],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "subdomain": names.service_name(owner.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security_context(),
        "terminationGracePeriodSeconds": spec.run_policy.termination_grace_period_seconds,
        "tolerations": _tolerations(spec, settings=settings),
        "topologySpreadConstraints": [_spread(owner, run=run, attempt=attempt)],
        "containers": [container],
        "volumes": [item.volume for item in mounted],
    }
    return pod | _chosen(spec)


def _resources(spec: TrainingJobSpec) -> dict[str, Any]:
    both = {"requests": spec.resources.requests, "limits": spec.resources.limits}
    return {name: dict(values) for name, values in both.items() if values}


def _tolerations(spec: TrainingJobSpec, *, settings: PlanSettings) -> list[dict[str, Any]]:
    """Returns the user's tolerations, then ours for lost nodes unless the user has their own."""
    own = [item.to_object() for item in spec.scheduling.tolerations]
    taken = {item.get("key") for item in own}
    return own + [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": settings.unreachable_toleration_s,
        }
        for key in NODE_TAINTS
        if key not in taken
    ]


def _spread(owner: Owner, *, run: int, attempt: int) -> dict[str, Any]:
    """Returns the wish for one rank per node: a wish, because a gang on one node still trains."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": attempt_selector(owner, run=run, attempt=attempt)},
    }


def _chosen(spec: TrainingJobSpec) -> dict[str, Any]:
    """Returns the parts of a pod's spec that are absent unless the user asks for them."""
    chosen = {
        "serviceAccountName": spec.service_account_name,
        "imagePullSecrets": [item.to_object() for item in spec.image_pull_secrets],
        "nodeSelector": dict(spec.scheduling.node_selector),
        "priorityClassName": spec.scheduling.priority_class_name,
    }
    return {name: value for name, value in chosen.items() if value}

"""What must be there before an attempt is created.

Here: claims, storage classes and names that are still taken. A dangling reference is Pending with a
reason, never a failure: it heals by itself when the fact changes. Never here: what happens to the
pods later (`troubles.py`). Next: `course.py`.
"""

from cabildo_api import names
from cabildo_api.checkpoint import CheckpointStorage
from cabildo_api.reasons import Reason
from cabildo_api.training_job import TrainingJobSpec
from cabildo_operator.reconcile.training_job.observed import Observed
from cabildo_operator.reconcile.training_job.troubles import Trouble


def unmet(observed: Observed, *, spec: TrainingJobSpec) -> Trouble | None:
    """Returns the first thing that is missing, or None when an attempt can be created."""
    return (
        _leftovers(observed)
        or _checkpoint_claim(observed, spec=spec)
        or _data_claims(observed, spec=spec)
    )


def _leftovers(observed: Observed) -> Trouble | None:
    if not observed.leftovers:
        return None
    what = " and ".join(observed.leftovers)
    return Trouble(
        reason=Reason.PENDING,
        message=f"{what} of a deleted TrainingJob of this name is still being removed.",
    )


def _checkpoint_claim(observed: Observed, *, spec: TrainingJobSpec) -> Trouble | None:
    storage = spec.checkpoint.storage
    if storage.claim_name is not None:
        return _claim(observed, storage.claim_name, field="spec.checkpoint.storage.claimName")
    name = names.claim_name(observed.meta.name)
    if name in observed.claims:
        return _own_claim(observed, name, storage=storage)
    wanted = storage.claim_template.storage_class_name if storage.claim_template else ""
    if wanted and wanted not in observed.storage_classes:
        field = "spec.checkpoint.storage.claimTemplate.storageClassName"
        return _missing(Reason.STORAGE_CLASS_NOT_FOUND, f"{field}: there is no class '{wanted}'")
    if not wanted and not observed.has_default_class:
        return _missing(
            Reason.STORAGE_CLASS_NOT_FOUND,
            "spec.checkpoint.storage.claimTemplate names no storageClassName, and the cluster has"
            " no default class",
        )
    return None


def _own_claim(observed: Observed, name: str, *, storage: CheckpointStorage) -> Trouble | None:
    """Returns what forbids the claim that bears the name of ours.

    One that an earlier object of this name left behind is used again, on purpose: that is what
    retentionPolicy Retain is for. One that is still to be collected, or somebody else's, is not.
    """
    claim, field = observed.claims[name], "spec.checkpoint.storage.claimTemplate"
    labels = claim.metadata.labels
    if (labels.get(names.LABEL_MANAGED_BY), labels.get(names.LABEL_NAME)) != (
        names.MANAGED_BY,
        observed.meta.name,
    ):
        return _missing(
            Reason.CHILD_NAME_CONFLICT,
            f"claim '{name}' exists and was not made by this operator. To use it, name it in"
            " spec.checkpoint.storage.claimName",
        )
    owner = claim.metadata.controller_uid
    if owner not in ("", observed.meta.uid):
        return Trouble(
            reason=Reason.CLAIM_PENDING,
            message=f"{field}: claim '{name}' of a deleted TrainingJob is still being removed.",
        )
    left_behind = labels.get(names.LABEL_UID) != observed.meta.uid
    template = storage.claim_template
    if left_behind and template is not None and template.retention_policy == "Delete":
        return _missing(
            Reason.CHILD_NAME_CONFLICT,
            f"claim '{name}' was left behind by an earlier TrainingJob and would outlive this one"
            " although retentionPolicy is Delete. Delete the claim, or write Retain",
        )
    return _claim(observed, name, field=field)


def _data_claims(observed: Observed, *, spec: TrainingJobSpec) -> Trouble | None:
    for source in spec.data.sources:
        if source.file is not None:
            field = f"spec.data.sources[{source.name}].file.uri"
            trouble = _claim(observed, source.file.claim, field=field)
            if trouble is not None:
                return trouble
    return None


def _claim(observed: Observed, name: str, *, field: str) -> Trouble | None:
    claim = observed.claims.get(name)
    if claim is None:
        where = f"namespace '{observed.meta.namespace}'"
        return _missing(Reason.CLAIM_NOT_FOUND, f"{field}: there is no claim '{name}' in {where}")
    if claim.metadata.deletion_timestamp is not None:
        return _missing(Reason.CLAIM_PENDING, f"{field}: claim '{name}' is being deleted")
    if claim.status.phase == "Lost":
        return _missing(Reason.CLAIM_PENDING, f"{field}: claim '{name}' has lost its volume")
    return None


def _missing(reason: Reason, message: str) -> Trouble:
    return Trouble(reason=reason, message=f"{message}. {reason.remedy}")

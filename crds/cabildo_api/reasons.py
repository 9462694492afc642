"""The words in `reason`: one table for conditions, Events, metrics and docs.

Here: every reason with what it means and what to do about it. Standard library only, because the
trainer reads it before anything heavy is imported. Never here: when a reason applies; that is the
operator's `explain`. Next: `exit_codes.py`, whose codes map onto these reasons.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A CamelCase reason with its meaning and its remedy (empty where nothing needs doing)."""

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str, remedy: str = "") -> Self:
        """Makes a member that is the word itself and carries its two texts."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member

    # The way of a healthy job.
    ACCEPTED = ("Accepted", "The spec is valid and the operator works on it.")
    PENDING = ("Pending", "Nothing has been created yet.")
    WAITING_FOR_PODS = ("WaitingForPods", "The attempt is started; not all of its pods run yet.")
    RUNNING = ("Running", "All pods of the attempt run.")
    NOT_SUSPENDED = ("NotSuspended", "spec.suspend is false.")
    NOT_FINISHED = ("NotFinished", "The run has not ended.")
    PROGRESSING = ("Progressing", "The operator can go on by itself.")
    SUSPENDING = ("Suspending", "The pods take a last checkpoint and end.")
    SUSPENDED = (
        "Suspended",
        "spec.suspend is true and no pod runs.",
        "Set spec.suspend to false to go on from the last checkpoint.",
    )
    RESUMING = ("Resuming", "The next attempt starts from the last checkpoint.")
    COMPLETED = ("Completed", "The run ended with a result.")

    # What a job waits for. It goes on by itself once the fact has changed.
    STORAGE_CLASS_NOT_FOUND = (
        "StorageClassNotFound",
        "The StorageClass of the checkpoints' claim does not exist, or there is no default one.",
        (
            "Create the StorageClass, or suspend the job and name an existing one in"
            " spec.checkpoint.storage.claimTemplate.storageClassName."
        ),
    )
    CLAIM_NOT_FOUND = (
        "ClaimNotFound",
        "A PersistentVolumeClaim that the spec names does not exist in the job's namespace.",
        "Create the claim, or suspend the job and name an existing one.",
    )
    CLAIM_PENDING = (
        "ClaimPending",
        "The checkpoints' claim is not bound to a volume.",
        "Look at the claim's Events: kubectl describe pvc.",
    )
    CHILD_NAME_CONFLICT = (
        "ChildNameConflict",
        "An object with the name of a child exists and belongs to something else.",
        "Delete or rename that object, or give the job another name.",
    )
    CREATE_REFUSED = (
        "CreateRefused",
        "The API server refused a child, for example by quota, policy or Pod Security.",
        "Read the API server's text in the message and change the policy or the spec.",
    )
    IMAGE_UNAVAILABLE = (
        "ImageUnavailable",
        "An image cannot be pulled.",
        "Check spec.image, the registry and spec.imagePullSecrets.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "The scheduler finds no node for a pod.",
        "Lower spec.resources, change spec.scheduling, or add nodes.",
    )
    CONTAINER_CONFIG_INVALID = (
        "ContainerConfigInvalid",
        "The kubelet cannot create or start the container.",
        "Read the kubelet's text in the message; check spec.image and what the pod mounts.",
    )

    # Ends of an attempt that cost no restart.
    PREEMPTED = ("Preempted", "The trainer was told to stop and committed a checkpoint (code 75).")
    POD_DISRUPTED = ("PodDisrupted", "A pod was evicted, drained or pre-empted.")
    POD_DELETED = ("PodDeleted", "A pod was deleted.")
    NODE_LOST = ("NodeLost", "A node with a pod of the gang is no longer ready.")
    SUPERSEDED = ("Superseded", "A new runID replaced the run.")

    # Ends of an attempt that cost one restart.
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "The kernel killed a trainer for using more memory than its limit.",
        "Raise spec.resources.limits.memory, or lower spec.training.batchSize.",
    )
    KILLED = (
        "Killed",
        "A trainer was killed by a signal from outside.",
        "See who killed it: the node's kernel log and the pod's Events.",
    )
    TRAINER_ERROR = (
        "TrainerError",
        "A trainer ended with a code outside the contract.",
        "Read the rank's logs: kubectl logs POD, POD as in the message.",
    )
    RESULT_MISSING = (
        "ResultMissing",
        "Rank 0 ended with code 0 but wrote no complete result.",
        "Check that spec.image is a Cabildo trainer; read the logs of rank 0.",
    )
    PEER_LOST = (
        "PeerLost",
        "Ranks lost contact with another rank (code 69).",
        "See the attempt's logs and the network between its nodes.",
    )

    # Ends of a run.
    INVALID_SPEC = (
        "InvalidSpec",
        "The operator or the trainer cannot work with the spec (code 78).",
        "Change the field named in the message, and set a new spec.runID.",
    )
    INVALID_DATA = (
        "InvalidData",
        "The data did not pass validation (code 65).",
        "Correct the file at the row and column named in the message, and set a new spec.runID.",
    )
    NO_VALID_CHECKPOINT = (
        "NoValidCheckpoint",
        "Checkpoints exist and none of them verifies (code 65).",
        "Restore one from a backup, or set a new spec.runID to start from scratch.",
    )
    NON_FINITE_LOSS = (
        "NonFiniteLoss",
        "Loss or gradients were not finite more often than the budget allows (code 76).",
        "Lower the learning rate or clip gradients harder, and set a new spec.runID.",
    )
    RESTART_LIMIT_REACHED = (
        "RestartLimitReached",
        "More attempts failed than spec.runPolicy.maxRestarts allows.",
        "Mend the last cause, named in the message, and set a new spec.runID.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "The run took longer than spec.runPolicy.activeDeadlineSeconds.",
        "Raise the deadline and set a new spec.runID.",
    )

    # Ends of a merge of models, by `cabildo_trainer.consensus`.
    IMPOSSIBLE_SETTING = (
        "ImpossibleSetting",
        "A rule cannot work with these parameters, or so many participants and faults (code 78).",
        "Follow the arithmetic in the message: more participants, fewer faults, or another rule.",
    )
    MISSING_INPUT = (
        "MissingInput",
        "A rule needs something that was not given: a base, an evaluator, a seed (code 78).",
        "Give what the message names, or choose a rule that does without it.",
    )
    BUDGET_EXCEEDED = (
        "BudgetExceeded",
        "The next step would pass a budget, such as that of privacy (code 78).",
        "Raise the budget, add noise, or stop here: what was spent stays spent.",
    )
    MANIFEST_MISMATCH = (
        "ManifestMismatch",
        "Models that are to be merged differ in names, shapes, types or tokenizer (code 65).",
        "Leave out the model that the message names, or convert it to the form of the others.",
    )
    NON_FINITE_INPUT = (
        "NonFiniteInput",
        "More models hold NaN or Inf than faults are allowed for (code 65).",
        "Leave out the participants that the message names, or raise maxFaulty.",
    )
    DIGEST_MISMATCH = (
        "DigestMismatch",
        "Bytes are not those that a digest names (code 65).",
        "Restore the file from its source; nothing was merged from it.",
    )
    QUORUM_NOT_REACHED = (
        "QuorumNotReached",
        "Too few participants voted the same way (code 69).",
        "Read the count in the message; wait for the missing votes or start another round.",
    )

    # Facts worth an Event that end nothing.
    CHECKPOINT_CORRUPT = (
        "CheckpointCorrupt",
        "A checkpoint did not verify; it was renamed *.corrupt and the one before it was used.",
        "Check the volume; the run goes on by itself.",
    )


def remedy(reason: str) -> str:
    """Returns what to do about a reason, or an empty string for nothing (or an unknown word)."""
    member = Reason._value2member_map_.get(reason)
    return member.remedy if isinstance(member, Reason) else ""

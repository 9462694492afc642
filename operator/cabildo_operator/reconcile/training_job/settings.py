"""What planning a TrainingJob needs to know besides the object: images, addresses, patience.

Here: the values, filled once from the operator's settings. Never here: reading an environment or a
file; that is `settings.py` of the package. Next: `plan.py`, which is handed this.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """The operator's side of a plan.

    Attributes:
        trainer_image: Image of the pods where the spec names none.
        progress_url_base: Address of the progress API without a path, as pods reach it.
        progress_ca_pem: Certificates by which pods know the progress API.
        unreachable_toleration_s: How long pods stay on a node that is not ready or unreachable.
            Kubernetes' own default of 300 s would leave a gang waiting for five minutes.
        collective_timeout_s: After how long a rank takes a silent peer for lost.
        settle_s: How long the next attempt waits for the exit codes of ranks that have been told
            to stop. Codes of one failure arrive from different kubelets seconds apart; without
            this a peer's 69 could start an attempt that another rank's 65 forbids.
        node_verdict_s: How long a charge waits for the verdict about a silent rank's node.
        cache_lag_s: How long a Job just created may be missing from the caches.
    """

    trainer_image: str
    progress_url_base: str
    progress_ca_pem: str
    unreachable_toleration_s: int = 30
    collective_timeout_s: int = 60
    settle_s: int = 7
    node_verdict_s: int = 90
    cache_lag_s: int = 15

"""The table of kinds: which functions observe and plan which kind.

`app.py` reads it; to add a kind, add a function here and its folder next door.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from cabildo_api import names
from cabildo_operator.reconcile.kind import Kind, Plan, Refusal
from cabildo_operator.reconcile.stores import Stores
from cabildo_operator.reconcile.training_job.observed import Observed, observe
from cabildo_operator.reconcile.training_job.plan import plan
from cabildo_operator.reconcile.training_job.settings import PlanSettings
from cabildo_operator.reconcile.training_job.status import PROGRESS_FIELDS
from cabildo_operator.settings import Settings


def training_job(
    stores: Stores, *, settings: Settings, progress_ca: Callable[[], str]
) -> Kind[Observed]:
    """The row of TrainingJob; `progress_ca` gives the CA of the moment."""

    def plan_now(observed: Observed, *, now: datetime, refusal: Refusal | None = None) -> Plan:
        plan_settings = PlanSettings(
            trainer_image=settings.trainer_image,
            progress_url_base=settings.progress_url,
            progress_ca_pem=progress_ca(),
            unreachable_toleration_s=settings.node_unreachable_s,
            collective_timeout_s=settings.collective_timeout_s,
        )
        return plan(observed, now=now, settings=plan_settings, refusal=refusal)

    return Kind(
        name=names.KIND,
        objects=stores.training_jobs,
        observe=partial(observe, stores=stores),
        plan=plan_now,
        progress_fields=PROGRESS_FIELDS,
    )

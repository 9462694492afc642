"""What the operator does about failures and time: the `runPolicy` object.

Here: restarts, back-off, deadlines. Never here: the training's own limits, which are in
`limits.py`. Next: `training_job.py`, which puts all parts together.
"""

from typing import Annotated

from pydantic import Field

from cabildo_api.base import ApiModel


class RunPolicy(ApiModel):
    """How often and how long the operator tries."""

    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 3
    """Attempts that may fail by the job's own fault before it has Failed; evictions, drains and
    lost nodes are not counted."""
    backoff_seconds: Annotated[int, Field(ge=0, le=3600)] = 10
    """Wait before the first restart that counts, in seconds; doubled for each further one."""
    active_deadline_seconds: Annotated[int, Field(ge=0, le=315_360_000)] = 0
    """Seconds of trying, suspension not counted, after which the run has Failed; 0 means no
    deadline."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Seconds that a pod has for a last checkpoint after SIGTERM."""

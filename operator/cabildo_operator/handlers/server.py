"""Runs kopf with the settings that keep it to watching and probes.

`app.py` gives the intake and the probe. kopf opens no watch before `before_watching` returns, so
the first visit already sees all children. API errors are retried for ever: kopf would otherwise
end the process after 54 seconds.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kopf

from cabildo_api import names
from cabildo_operator.handlers.storage import NoEssence, NoProgress

RETRY_CAP_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What kopf calls.

    Attributes:
        before_watching: Awaited before the first watch is opened.
        take: Given the type of a watch event (None: from the initial list) and the object.
        unhealthy: Why the process should be restarted; empty when all is well.
    """

    before_watching: Callable[[], Awaitable[None]]
    take: Callable[[str | None, Mapping[str, Any]], None]
    unhealthy: Callable[[], str]


async def serve(
    hooks: Hooks,
    *,
    probe_host: str,
    probe_port: int,
    stop: asyncio.Event,
    started: asyncio.Event,
) -> None:
    """Run kopf until `stop` is set or a signal comes; `started` is set once it watches."""
    await kopf.operator(
        registry=registry_of(hooks),
        settings=settings(),
        standalone=True,
        clusterwide=True,
        liveness_endpoint=f"http://{probe_host}:{probe_port}/healthz",
        stop_flag=stop,
        ready_flag=started,
    )


def registry_of(hooks: Hooks) -> kopf.OperatorRegistry:
    """All handlers."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        await hooks.before_watching()

    @kopf.on.event(group=names.GROUP, version=names.VERSION, plural=names.PLURAL, registry=registry)
    async def training_job(event: kopf.RawEvent, **_: Any) -> None:
        hooks.take(event["type"], event["object"])

    @kopf.on.probe(registry=registry, id="operator")
    async def probe(**_: Any) -> str:
        if why := hooks.unhealthy():
            raise kopf.PermanentError(why)
        return "ok"

    return registry


def settings() -> kopf.OperatorSettings:
    """Kopf with everything turned off that writes, scans or gives up."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.watching.chunk_size = 500
    chosen.watching.inactivity_timeout = 70.0
    chosen.networking.request_timeout = 30.0
    chosen.networking.connect_timeout = 10.0
    chosen.networking.error_backoffs = EndlessBackoff()
    chosen.queueing.exit_timeout = 0.5
    chosen.queueing.idle_timeout = 1.0
    chosen.persistence.finalizer = f"{names.GROUP}/unused"
    chosen.persistence.progress_storage = NoProgress()
    chosen.persistence.diffbase_storage = NoEssence()
    return chosen


class EndlessBackoff:
    """Delays between retries: doubling, jittered, without end, from the start for each request."""

    def __iter__(self) -> Iterator[float]:
        for attempt in itertools.count():
            longest = min(RETRY_CAP_S, 0.5 * 2.0 ** min(attempt, 30))
            yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

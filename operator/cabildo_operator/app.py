"""The one place that puts the parts together, starts them and stops them.

Every replica: informers, kopf, probes, metrics. The leader also: certificates, the progress API,
the label on its pod, Events and the workers. The process ends when it is told to (exit code 0),
and when the Lease or any part is lost (exit code 1): Kubernetes starts it again as a follower.
"""

import asyncio
import contextlib
import logging
import signal
import urllib.parse
from collections.abc import Coroutine
from typing import Any, Final

from prometheus_client import CollectorRegistry

from cabildo_api import names
from cabildo_operator import errors
from cabildo_operator.certificates import CertificateKeeper, service_hosts
from cabildo_operator.handlers.intake import Intake
from cabildo_operator.handlers.server import Hooks, serve
from cabildo_operator.health import Health
from cabildo_operator.kube import resources
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.events import EventRecorder
from cabildo_operator.kube.informer import Informer
from cabildo_operator.kube.lease import LeaseElector
from cabildo_operator.kube.objects import CustomResource
from cabildo_operator.kube.store import ObjectKey
from cabildo_operator.kube.writes import WriteCounter, Writer
from cabildo_operator.leader_label import LeaderLabel
from cabildo_operator.progress.server import ProgressServer
from cabildo_operator.progress.token_review import TokenReviewer
from cabildo_operator.reconcile import table
from cabildo_operator.reconcile.loop import Loop, Registration
from cabildo_operator.reconcile.routes import Routes
from cabildo_operator.reconcile.stores import Stores
from cabildo_operator.settings import Settings
from cabildo_operator.telemetry.http import TelemetryServer
from cabildo_operator.telemetry.metrics import OperatorMetrics
from cabildo_operator.telemetry.objects import ObjectCollector
from cabildo_operator.work_queue import Key, WorkQueue

CONTROLLER: Final = "trainingjob"
LAST_EVENTS_S: Final = 2.0
FAREWELL_S: Final = 3.0
CHILD_DELAY_S: Final = 0.2
FAILED_CREATES: Final = "reason=FailedCreate,regarding.kind=Job"
"""Pods that quota, policy or Pod Security refuse are told nowhere but in the Job's Events."""
UNCACHED_WATCH_S: Final = 30
"""The API server sends no bookmarks of Events; twice this is less than an informer's patience."""

TRAINING_JOBS: Final = resources.Resource(
    kind=names.KIND, api_version=names.API_VERSION, plural=names.PLURAL, model=CustomResource
)

logger = logging.getLogger(__name__)


class Operator:
    """All parts of one replica."""

    def __init__(self, settings: Settings, *, client: ApiClient, metrics: OperatorMetrics) -> None:
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._stores = Stores()
        self._queue = WorkQueue(clock=asyncio.get_running_loop(), observer=metrics)
        metrics.watch_queue(self._queue)
        self._informers = self._make_informers()
        self._elector = LeaseElector(
            client,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.pod_name,
        )
        self._health = Health(
            informers=self._informers, queue=self._queue, leading=self._elector.leading.is_set
        )
        self._label = LeaderLabel(client, namespace=settings.namespace, pod_name=settings.pod_name)
        self._certificates = CertificateKeeper(
            client,
            namespace=settings.namespace,
            secret=settings.certificate_secret,
            hosts=_progress_hosts(settings),
        )
        self._events = EventRecorder(
            client, controller=f"{names.GROUP}/{CONTROLLER}", instance=settings.pod_name
        )
        self._progress = ProgressServer(
            reviewer=TokenReviewer(client, audience=names.PROGRESS_AUDIENCE),
            board=self._stores.reports,
            objects=self._stores.training_jobs,
            pods=self._stores.pods,
            wake=lambda key, delay_s: self._queue.add_after(_queued(key), delay_s=delay_s),
        )
        self._loop = self._make_loop()
        self._intake = Intake(self._stores.training_jobs, wake=self._wake, gone=self._gone)

    @property
    def stores(self) -> Stores:
        """What is known."""
        return self._stores

    @property
    def health(self) -> Health:
        """Whether all is well."""
        return self._health

    async def run(self) -> None:
        """Run until a signal comes.

        Raises:
            LeaseLostError: Another replica leads.
            Exception: A part ended that never should.
        """
        stop, started = asyncio.Event(), asyncio.Event()
        parts = [
            *(
                self._part(informer.run(), f"informer {informer.kind}")
                for informer in self._informers
            ),
            self._part(self._lead(), "leader"),
        ]
        watching = self._part(
            serve(
                Hooks(
                    before_watching=self._children_known,
                    take=self._intake.take,
                    unhealthy=self._health.unhealthy,
                ),
                probe_host=self._settings.bind_address,
                probe_port=self._settings.probe_port,
                stop=stop,
                started=started,
            ),
            "kopf",
        )
        parts += [watching, self._part(self._await_signal(started), "signal")]
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._stop(parts, watching=watching, stop=stop)
        for part in ended:
            part.result()

    def _part(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def _children_known(self) -> None:
        await asyncio.gather(*(informer.synced.wait() for informer in self._informers))
        logger.info(
            "known: %d jobs, %d pods, %d services, %d claims, %d nodes",
            len(self._stores.jobs),
            len(self._stores.pods),
            len(self._stores.services),
            len(self._stores.claims),
            len(self._stores.nodes),
        )

    async def _await_signal(self, started: asyncio.Event) -> None:
        """End when told to; kopf's own handlers, set until `started`, would end it later."""
        await started.wait()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        await told.wait()
        logger.info("told to end")

    async def _lead(self) -> None:
        """Hold the Lease, and do what only the leader does while it is held."""
        await self._label.detach()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._elector.run())
            await self._elector.leading.wait()
            self._metrics.leader.set(1)
            await self._certificates.start()
            await self._progress.start(
                host=self._settings.bind_address,
                port=self._settings.progress_port,
                context=self._certificates.context,
            )
            await self._children_known()
            group.create_task(self._certificates.run())
            group.create_task(self._events.run())
            group.create_task(self._loop.run(workers=self._settings.workers))
            await self._label.attach()

    async def _stop(
        self,
        parts: list[asyncio.Task[None]],
        *,
        watching: asyncio.Task[None],
        stop: asyncio.Event,
    ) -> None:
        """Workers first, then what others wait for: the label, the Lease; kopf last."""
        own = [part for part in parts if part is not watching]
        if self._elector.leading.is_set():
            await self._events.drain(timeout_s=LAST_EVENTS_S)
        for part in own:
            part.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        await self._progress.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._label.detach()
                await self._elector.release()
        stop.set()
        _, late = await asyncio.wait([watching], timeout=FAREWELL_S)
        for part in late:
            part.cancel()
            await asyncio.gather(part, return_exceptions=True)

    def _wake(self, key: ObjectKey) -> None:
        """Visit soon; an object that nobody has looked at yet goes first."""
        known = self._stores.training_jobs.get(key)
        self._queue.add(_queued(key), urgent=known is not None and bytes(known.status) == b"{}")

    def _wake_for_child(self, key: ObjectKey) -> None:
        """Visit in a moment: children change in bursts, and one visit sees them all."""
        self._queue.add_after(_queued(key), delay_s=CHILD_DELAY_S)

    def _gone(self, obj: CustomResource) -> None:
        self._stores.reports.forget(ObjectKey(obj.metadata.namespace, obj.metadata.name))
        self._loop.forget(obj.metadata.uid)

    def _make_informers(self) -> list[Informer[Any]]:
        stores, routes = self._stores, Routes(stores=self._stores, wake=self._wake_for_child)
        ours = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        rows: list[tuple[Any, Any, Any, str]] = [
            (resources.JOBS, stores.jobs, routes.child, ours),
            (resources.PODS, stores.pods, routes.child, ours),
            (resources.SERVICES, stores.services, routes.child, ours),
            (resources.CLAIMS, stores.claims, routes.claim, ""),
            (resources.NODES, stores.nodes, routes.node, ""),
            (resources.STORAGE_CLASSES, stores.storage_classes, routes.storage_class, ""),
        ]
        refusals = Informer(
            self._client,
            resource=resources.EVENTS,
            store=stores.failed_creates,
            on_change=routes.failed_create,
            field_selector=FAILED_CREATES,
            watch_timeout_s=UNCACHED_WATCH_S,
        )
        return [
            *(
                Informer(
                    self._client,
                    resource=resource,
                    store=store,
                    on_change=on_change,
                    label_selector=selector,
                )
                for resource, store, on_change, selector in rows
            ),
            refusals,
        ]

    def _make_loop(self) -> Loop:
        stores = self._stores
        writer = Writer(
            self._client,
            field_manager=names.FIELD_MANAGER,
            children={
                resources.JOBS.kind: (resources.JOBS, stores.jobs),
                resources.SERVICES.kind: (resources.SERVICES, stores.services),
                resources.CLAIMS.kind: (resources.CLAIMS, stores.claims),
            },
            events=self._events,
            counter=WriteCounter(exit_after=self._settings.exit_after_writes),
        )
        kind = table.training_job(
            stores, settings=self._settings, progress_ca=lambda: self._certificates.trust_pem
        )
        registration = Registration(
            kind=kind,
            resource=TRAINING_JOBS,
            writer=writer,
        )
        return Loop(
            self._client,
            queue=self._queue,
            registrations={names.KIND: registration},
            observer=self._metrics,
        )


async def run(settings: Settings) -> int:
    """Run one replica; returns the process's exit code."""
    logger.info("settings: %s", settings.describe())
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry, controller=CONTROLLER, workers=settings.workers)
    client = ApiClient.from_environment(observe=metrics.requested)
    operator = Operator(settings, client=client, metrics=metrics)
    registry.register(ObjectCollector(operator.stores))
    telemetry = TelemetryServer(registry, unready=operator.health.unready)
    await telemetry.start(host=settings.bind_address, port=settings.metrics_port)
    code = 0
    try:
        await operator.run()
    except* errors.LeaseLostError as lost:
        logger.critical("%s", lost.exceptions[0])
        code = 1
    except* Exception:
        logger.exception("a part of the operator ended")
        code = 1
    finally:
        await telemetry.stop()
        await client.close()
    return code


def _queued(key: ObjectKey) -> Key:
    return Key(names.KIND, key.namespace, key.name)


def _progress_hosts(settings: Settings) -> tuple[str, ...]:
    hosts = service_hosts(settings.progress_service, namespace=settings.namespace)
    other = urllib.parse.urlsplit(settings.progress_url).hostname or ""
    return hosts if other in hosts else (*hosts, other)

"""One visit: key -> observe -> plan -> actions -> status -> wake-up time; the same for all kinds.

`work_queue.py` gives the keys, a `Kind` observes and plans (both without I/O), `kube/writes.py`
acts. A visit looks at levels, never at edges: it may be repeated, cut short or crash anywhere,
and the next one does what is left. Errors bring the key back with an endless, jittered back-off.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from cabildo_operator import errors
from cabildo_operator.kube.actions import Action, Create, EmitEvent
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.events import Regarding
from cabildo_operator.kube.objects import CustomResource
from cabildo_operator.kube.resources import Resource
from cabildo_operator.kube.store import ObjectKey, key_of
from cabildo_operator.kube.writes import Writer
from cabildo_operator.reconcile.kind import Kind, Plan, Refusal
from cabildo_operator.work_queue import Key, WorkQueue

PROGRESS_INTERVAL_S: Final = 5.0
MAX_STALE_PLANS: Final = 3
FRESH_FOR_S: Final = 1.0
"""So long a read past the cache also serves the next action of the same visit that demands one."""
YOUNG_S: Final = 5.0
"""An object that is younger needs no such read: no view of it is older than itself."""
FIRST_STATUS_S: Final = 0.5
"""So long the first status waits beside new objects: their children go first."""
AFTER_WRITES_S: Final = 1.0
"""Look again so long after writing children; echoes of own writes wake nobody."""

logger = logging.getLogger(__name__)


class VisitObserver(Protocol):
    """Told how visits go, for metrics."""

    def visited(self, kind: str, result: str, seconds: float) -> None:
        """A visit ended with ``success``, ``requeue_after`` or ``error``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A kind with the endpoint of its objects and the writer of its children."""

    kind: Kind[Any]
    resource: Resource[CustomResource]
    writer: Writer


class ActionRefusedError(errors.OperatorError):
    """An action was refused; the plan is made once more to explain it."""

    def __init__(self, refusal: Refusal, *, cause: errors.OperatorError) -> None:
        super().__init__(str(cause))
        self.refusal = refusal
        self.reason = cause.reason


class StaleError(errors.OperatorError):
    """What was planned on is not what the API server holds; plan again on that."""


class Loop:
    """Workers that take keys from the queue and visit them."""

    def __init__(
        self,
        client: ApiClient,
        *,
        queue: WorkQueue,
        registrations: Mapping[str, Registration],
        observer: VisitObserver,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._queue = queue
        self._registrations = registrations
        self._observer = observer
        self._now = now
        self._status_written: dict[str, float] = {}

    async def run(self, *, workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self.visit(key)
            finally:
                self._queue.done(key)

    async def visit(self, key: Key) -> None:
        """Visit one key; never raises on what may heal by itself."""
        started, result = time.monotonic(), "error"
        try:
            wake_at = await self._reconcile(key)
        except errors.ConflictError as error:
            self._come_back(key, error, level=logging.DEBUG)
        except errors.OperatorError as error:
            self._come_back(key, error, level=logging.WARNING)
        except Exception as error:
            logger.exception("%s: defect in a visit", key)
            self._come_back(key, error, level=logging.DEBUG)
        else:
            self._queue.forget(key)
            result = "success"
            if wake_at is not None:
                result = "requeue_after"
                delay_s = max(0.05, (wake_at - self._now()).total_seconds())
                self._queue.add_after(key, delay_s=delay_s)
        finally:
            self._observer.visited(key.kind, result, time.monotonic() - started)

    def _come_back(self, key: Key, error: Exception, *, level: int) -> None:
        retry_after_s = getattr(error, "retry_after_s", 0.0)
        delay_s = self._queue.retry(key, at_least_s=retry_after_s)
        logger.log(level, "%s: %s; again in %.1f s", key, error, delay_s)

    async def _reconcile(self, key: Key) -> datetime | None:
        registration = self._registrations[key.kind]
        where = ObjectKey(key.namespace, key.name)
        for _ in range(MAX_STALE_PLANS):
            try:
                return await self._reconcile_once(registration, where)
            except StaleError:
                continue
        raise errors.ConflictError("the object changes faster than it can be planned for")

    async def _reconcile_once(
        self, registration: Registration, where: ObjectKey
    ) -> datetime | None:
        kind = registration.kind
        stored = kind.objects.get(where)
        observed = kind.observe(where)
        if stored is None or observed is None:
            return None
        now = self._now()
        plan = kind.plan(observed, now=now)
        refused: ActionRefusedError | None = None
        try:
            await self._act(registration, stored, plan)
        except ActionRefusedError as error:
            refused = error
            plan = kind.plan(observed, now=now, refusal=error.refusal)
            await self._tell(registration, stored, plan)
        if refused is None and self._queue.favours_urgent and _is_start(stored, plan):
            return now + timedelta(seconds=FIRST_STATUS_S)
        again_at = await self._write_status(registration, stored, plan)
        if refused is not None:
            raise refused
        return min((at for at in (plan.wake_at, again_at) if at is not None), default=None)

    async def _act(self, registration: Registration, stored: CustomResource, plan: Plan) -> None:
        read_at = -math.inf
        for group in _together(plan.actions):
            if isinstance(group[0], Create) and group[0].requires_fresh_read:
                asked_at = time.monotonic()
                if asked_at - read_at > FRESH_FOR_S and not _is_young(stored, now=self._now()):
                    await self._read_fresh(registration, stored)
                    read_at = asked_at
            outcomes = await asyncio.gather(
                *(self._execute(registration, stored, action) for action in group),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome

    async def _execute(
        self, registration: Registration, stored: CustomResource, action: Action
    ) -> None:
        if not isinstance(action, EmitEvent):
            key = Key(registration.kind.name, *key_of(stored))
            self._queue.add_after(key, delay_s=AFTER_WRITES_S)
        regarding = _regarding(registration.resource, stored)
        try:
            await registration.writer.execute(action, regarding=regarding)
        except (errors.RefusedError, errors.ChildNameConflictError) as error:
            raise ActionRefusedError(_refusal(action, error), cause=error) from error

    async def _tell(self, registration: Registration, stored: CustomResource, plan: Plan) -> None:
        """Emit the Events of a plan that explains a refusal, and do nothing else of it."""
        regarding = _regarding(registration.resource, stored)
        for action in plan.actions:
            if isinstance(action, EmitEvent):
                await registration.writer.execute(action, regarding=regarding)

    async def _read_fresh(self, registration: Registration, stored: CustomResource) -> None:
        """Make sure that nothing about the object changed since it was observed.

        This covers UID, deletion, suspension, generation and a finish that another leader
        recorded: a stale cache cannot start an attempt.
        """
        objects, where = registration.kind.objects, key_of(stored)
        try:
            fresh = await self._client.get(
                registration.resource, namespace=where.namespace, name=where.name
            )
        except errors.NotFoundError:
            objects.remove(where, uid=stored.metadata.uid)
            raise StaleError from None
        if fresh.metadata.uid != stored.metadata.uid:
            objects.remove(where, uid=stored.metadata.uid)
        if fresh.metadata.resource_version != stored.metadata.resource_version:
            objects.upsert(fresh)
            raise StaleError

    async def _write_status(
        self, registration: Registration, stored: CustomResource, plan: Plan
    ) -> datetime | None:
        """Write the status if it changed; returns when to come back if that must wait."""
        changed = _changed_fields(stored, plan)
        if not changed:
            return None
        uid, objects = stored.metadata.uid, registration.kind.objects
        if changed <= registration.kind.progress_fields:
            wait_s = PROGRESS_INTERVAL_S - (time.monotonic() - self._status_written.get(uid, -9e9))
            if wait_s > 0:
                return self._now() + timedelta(seconds=wait_s)
        body = _status_body(registration.resource, stored, plan)
        try:
            written = await registration.writer.write_status(registration.resource, body=body)
        except errors.NotFoundError:
            objects.remove(key_of(stored), uid=uid)
            self._status_written.pop(uid, None)
            return None
        except errors.ConflictError:
            await self._read_fresh(registration, stored)
            raise StaleError from None
        self._status_written[uid] = time.monotonic()
        if objects.get(key_of(stored)) is not None:
            objects.upsert(written)
        return None

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._status_written.pop(uid, None)


def _is_young(stored: CustomResource, *, now: datetime) -> bool:
    created = stored.metadata.creation_timestamp
    return created is not None and abs((now - created).total_seconds()) < YOUNG_S


def _together(actions: tuple[Action, ...]) -> Iterator[list[Action]]:
    """The actions in order, those side by side that may be carried out at a time.

    These are Creates; one that demands a fresh read waits for all before it.
    """
    group: list[Action] = []
    for action in actions:
        joins = isinstance(action, Create) and not action.requires_fresh_read
        if group and not (joins and isinstance(group[-1], Create)):
            yield group
            group = []
        group.append(action)
    if group:
        yield group


def _is_start(stored: CustomResource, plan: Plan) -> bool:
    """Whether the plan made an object's first children; they tell what its status would."""
    first = bytes(stored.status) == b"{}"
    return first and any(isinstance(action, Create) for action in plan.actions)


def _changed_fields(stored: CustomResource, plan: Plan) -> set[str]:
    if plan.status is None:
        return set()
    known: dict[str, Any] = msgspec.json.decode(stored.status)
    names = known.keys() | plan.status.keys()
    return {name for name in names if known.get(name) != plan.status.get(name)}


def _status_body(
    resource: Resource[CustomResource], stored: CustomResource, plan: Plan
) -> dict[str, Any]:
    """The body of the apply.

    A status made of an outdated view is never written, neither over a newer one nor to another
    object of that name: hence the resourceVersion (a UID is no precondition for a subresource).
    """
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "namespace": stored.metadata.namespace,
            "name": stored.metadata.name,
            "resourceVersion": stored.metadata.resource_version,
        },
        "status": plan.status,
    }


def _regarding(resource: Resource[CustomResource], stored: CustomResource) -> Regarding:
    return Regarding(
        api_version=resource.api_version,
        kind=resource.kind,
        namespace=stored.metadata.namespace,
        name=stored.metadata.name,
        uid=stored.metadata.uid,
    )


def _refusal(action: Action, error: errors.RefusedError | errors.ChildNameConflictError) -> Refusal:
    return Refusal(
        kind=getattr(action, "kind", ""),
        name=getattr(action, "name", ""),
        code=error.code if isinstance(error, errors.RefusedError) else 409,
        reason=error.reason,
        message=str(error),
    )

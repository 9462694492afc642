"""Kubernetes Events: each fact told once, in the background, never in the way.

`writes.py` hands facts over; one task posts them under a rate limit. A fact's name is made of
the object, the reason and the fact itself, so a fact told twice, also across a crash, is one
Event. Losing one (full queue, API server away) is logged and harmless: conditions carry the truth.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cabildo_operator import errors
from cabildo_operator.kube.actions import EmitEvent
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.resources import EVENTS

MAX_QUEUED: Final = 2_000
MAX_REMEMBERED: Final = 10_000
RATE_PER_S: Final = 50.0
BURST: Final = 100
NOTE_LIMIT: Final = 1_024
ATTEMPTS: Final = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regarding:
    """The object an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class EventRecorder:
    """Posts Events one after the other."""

    def __init__(
        self, client: ApiClient, *, controller: str, instance: str, rate_per_s: float = RATE_PER_S
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance
        self._interval_s = 1.0 / rate_per_s
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_QUEUED)
        self._told: OrderedDict[str, None] = OrderedDict()

    def emit(self, event: EmitEvent, *, regarding: Regarding) -> None:
        """Tell a fact unless it has been told; never blocks, never raises."""
        body = self._render(event, regarding=regarding)
        name = body["metadata"]["name"]
        if name in self._told:
            return
        self._told[name] = None
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        try:
            self._queue.put_nowait(body)
        except asyncio.QueueFull:
            logger.warning("event %s is dropped: %d are waiting", name, MAX_QUEUED)

    async def run(self) -> None:
        """Post until cancelled."""
        earliest = time.monotonic()
        while True:
            body = await self._queue.get()
            try:
                earliest = max(earliest, time.monotonic() - BURST * self._interval_s)
                if (ahead_s := earliest - time.monotonic()) > 0:
                    await asyncio.sleep(ahead_s)
                earliest += self._interval_s
                await self._post(body)
            finally:
                self._queue.task_done()

    async def drain(self, *, timeout_s: float) -> None:
        """Wait until everything told so far is posted, but no longer than that."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            logger.warning("%d events are lost at the end", self._queue.qsize())

    async def _post(self, body: dict[str, Any]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._client.create(EVENTS, body=body)
            except errors.AlreadyExistsError:
                return
            except errors.UnavailableError as error:
                if attempt == ATTEMPTS:
                    logger.warning("event %s is lost: %s", body["metadata"]["name"], error)
                    return
                await asyncio.sleep(max(error.retry_after_s, 0.2 * attempt))
            except errors.ApiError as error:
                logger.warning("event %s is refused: %s", body["metadata"]["name"], error)
                return
            else:
                return

    def _render(self, event: EmitEvent, *, regarding: Regarding) -> dict[str, Any]:
        fact = "\0".join((regarding.uid, event.reason, event.fact or event.message))
        digest = hashlib.sha256(fact.encode()).hexdigest()[:16]
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{regarding.name}.{digest}",
                "namespace": regarding.namespace,
            },
            "type": event.type,
            "reason": event.reason,
            "action": event.reason,
            "note": _shortened(event.message),
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds"),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
        }


def _shortened(note: str) -> str:
    """The API server takes notes of less than 1 KiB, counted in bytes."""
    encoded = note.encode()
    if len(encoded) < NOTE_LIMIT:
        return note
    return encoded[: NOTE_LIMIT - 4].decode(errors="ignore") + "…"

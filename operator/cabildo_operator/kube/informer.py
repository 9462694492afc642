"""Keeps one store equal to what the API server holds: LIST in pages, then WATCH with bookmarks.

Changes go to one callback as (before, after) pairs of partial structs. The watch has a deadline
of its own: the API server sends a bookmark about once a minute, so a silent connection is a
dead one and everything is listed again, as after 410. Errors are retried for ever.
`synced` is set after the first list; `silent_s` feeds the liveness probe.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, TypeVar

import msgspec

from cabildo_operator import errors
from cabildo_operator.kube.client import ApiClient, refusal_of
from cabildo_operator.kube.objects import Object, ObjectList, Status, WatchEvent
from cabildo_operator.kube.resources import Resource
from cabildo_operator.kube.store import Store, version_of

T = TypeVar("T", bound=Object)

OnChange = Callable[[T | None, T | None], None]

PAGE_SIZE: Final = 500
SILENCE_S: Final = 70.0
WATCH_TIMEOUT_S: Final = 300
MAX_BACKOFF_S: Final = 30.0
GATHER_S: Final = 0.1
"""So long events gather in the socket: one wake-up for all of them instead of one for each."""
BEHIND_BYTES: Final = 65_536
"""Whoever finds so much at a time does not wait for more."""

logger = logging.getLogger(__name__)


class Informer(Generic[T]):
    """Mirrors one resource, narrowed by selectors, into a store.

    A kind that the API server does not cache (Events) gets no bookmarks: its `watch_timeout_s` must
    be so short that a watch ends, and is opened again, before silence counts as death.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        resource: Resource[T],
        store: Store[T],
        on_change: OnChange[T],
        label_selector: str = "",
        field_selector: str = "",
        silence_s: float = SILENCE_S,
        watch_timeout_s: int = WATCH_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._resource = resource
        self._store = store
        self._on_change = on_change
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._params = {name: text for name, text in selectors.items() if text}
        self._watch_timeout_s = watch_timeout_s
        self._silence_s = silence_s
        self._decoder = msgspec.json.Decoder(resource.model)
        self._events = msgspec.json.Decoder(WatchEvent)
        self._heard_at = time.monotonic()
        self.synced = asyncio.Event()

    @property
    def kind(self) -> str:
        """The kind that is mirrored."""
        return self._resource.kind

    @property
    def silent_s(self) -> float:
        """Seconds since the API server was last heard of."""
        return time.monotonic() - self._heard_at

    async def run(self) -> None:
        """Mirror until cancelled."""
        failures = 0
        while True:
            try:
                version = await self._list()
                failures = 0
                await self._follow(version)
            except errors.ExpiredError:
                logger.info("%s: resourceVersion expired, listing again", self.kind)
            except (errors.ApiError, msgspec.DecodeError) as error:
                failures += 1
                delay = backoff_s(failures)
                logger.warning("%s: %s; listing again in %.1f s", self.kind, error, delay)
                await asyncio.sleep(delay)

    async def _list(self) -> str:
        objects: list[T] = []
        params = {**self._params, "limit": str(PAGE_SIZE)}
        while True:
            page: ObjectList[T] = await self._client.list_page(self._resource, params=params)
            self._heard()
            objects += page.items
            if not page.metadata.continue_:
                break
            params["continue"] = page.metadata.continue_
        version = page.metadata.resource_version
        for before, after in self._store.replace_all(objects, resource_version=version):
            self._on_change(before, after)
        self.synced.set()
        return version

    async def _follow(self, version: str) -> None:
        """Watch from `version`, reopening where the last one ended, until an error."""
        while True:
            opened = time.monotonic()
            longest_s = self._watch_timeout_s
            timeout_s = longest_s + random.randrange(longest_s)  # noqa: S311 - jitter
            params = {
                **self._params,
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(timeout_s),
            }
            async with self._client.watch(self._resource, params=params) as chunks:
                self._heard()
                async for line in self._lines(chunks):
                    version = self._take(line) or version
            if time.monotonic() - opened < 1.0:
                # A server that is going down ends watches at once: do not spin.
                await asyncio.sleep(backoff_s(1))

    async def _lines(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        rest = b""
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise errors.UnavailableError(f"silent for {self._silence_s:.1f} s") from error
            if chunk is None:
                return
            self._heard()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line:
                    yield line
            if len(chunk) < BEHIND_BYTES:
                await asyncio.sleep(GATHER_S)

    def _take(self, line: bytes) -> str:
        """Apply one event; returns the version to go on from."""
        event = self._events.decode(line)
        if event.type == "ERROR":
            raise refusal_of(msgspec.json.decode(event.object, type=Status))
        obj = self._decoder.decode(event.object)
        version = obj.metadata.resource_version
        if event.type == "BOOKMARK":
            self._store.saw_version(version)
        elif event.type == "DELETED":
            self._store.delete(obj)
            self._on_change(obj, None)
        else:
            before = self._store.upsert(obj)
            if before is None or version_of(before) < version_of(obj):
                # Otherwise the echo of an own write, whose answer is in the store already.
                self._on_change(before, obj)
        return version

    def _heard(self) -> None:
        self._heard_at = time.monotonic()


def backoff_s(failures: int, *, base_s: float = 0.5, cap_s: float = MAX_BACKOFF_S) -> float:
    """Exponential back-off with full jitter over its upper half, never ending."""
    longest = min(cap_s, base_s * 2.0 ** min(failures - 1, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

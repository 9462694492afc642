"""Who leads: one holder of a coordination.k8s.io Lease at a time.

Every replica runs `run`; `leading` is set once this one holds the Lease. Losing it raises
`LeaseLostError`, upon which `app.py` ends the process: what this replica believes may be
outdated from that moment on. `release` hands it over at once on a clean end. As in client-go,
another holder's time is judged by when its record was last seen to change, never by comparing
two machines' clocks.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cabildo_operator import errors
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.objects import Lease, LeaseSpec
from cabildo_operator.kube.resources import LEASES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How the Lease is kept, in seconds.

    `renew_deadline_s` is shorter than `duration_s`: a leader that cannot renew ends before
    another one may take over.
    """

    duration_s: int = 15
    renew_deadline_s: float = 10.0
    renew_s: float = 5.0
    retry_s: float = 2.0


DEFAULT_TIMES: Final = LeaseTimes()


class LeaseElector:
    """Acquires a Lease and keeps it."""

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes = DEFAULT_TIMES,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times
        self._held: Lease | None = None
        self._seen: tuple[str, LeaseSpec] | None = None
        self._seen_at = 0.0
        self.leading = asyncio.Event()

    async def run(self) -> None:
        """Acquire the Lease, then renew it until cancelled.

        Raises:
            LeaseLostError: It was held and could not be kept.
        """
        asked_at = await self._acquire()
        self.leading.set()
        logger.info("%s holds the Lease %s/%s", self._identity, self._namespace, self._name)
        await self._keep(asked_at)

    async def release(self) -> None:
        """Give the Lease back if it is held, so that another replica need not wait."""
        self.leading.clear()
        held, self._held = self._held, None
        if held is None:
            return
        body = self._body(held, holder="", duration_s=1)
        try:
            await self._client.replace(LEASES, body=body)
        except errors.ApiError as error:
            logger.warning("the Lease is not released and must expire: %s", error)
        else:
            logger.info("the Lease is released")

    async def _acquire(self) -> float:
        """Returns when it was asked for: others may count from then on."""
        while True:
            asked_at = time.monotonic()
            try:
                if await self._try_acquire():
                    return asked_at
            except errors.ApiError as error:
                logger.warning("the Lease cannot be asked for: %s", error)
            await asyncio.sleep(self._times.retry_s * random.uniform(0.8, 1.2))  # noqa: S311

    async def _try_acquire(self) -> bool:
        try:
            lease = await self._client.get(LEASES, namespace=self._namespace, name=self._name)
        except errors.NotFoundError:
            body = self._body(None, holder=self._identity, duration_s=self._times.duration_s)
            try:
                self._held = await self._client.create(LEASES, body=body)
            except errors.AlreadyExistsError:
                return False
            return True
        if not self._may_take(lease):
            return False
        body = self._body(lease, holder=self._identity, duration_s=self._times.duration_s)
        try:
            self._held = await self._client.replace(LEASES, body=body)
        except errors.ConflictError:
            return False
        return True

    def _may_take(self, lease: Lease) -> bool:
        record = (lease.metadata.uid, lease.spec)
        if record != self._seen:
            self._seen, self._seen_at = record, time.monotonic()
        if lease.spec.holder_identity in {"", self._identity}:
            return True
        return time.monotonic() - self._seen_at > lease.spec.lease_duration_seconds

    async def _keep(self, renewed_at: float) -> None:
        while True:
            await asyncio.sleep(self._times.renew_s)
            # Others count from when the record changes, which may be right after it is sent.
            asked_at = time.monotonic()
            while not await self._renew(renewed_at + self._times.renew_deadline_s):
                if time.monotonic() - renewed_at > self._times.renew_deadline_s:
                    self._lose("it could not be renewed in time")
                await asyncio.sleep(self._times.retry_s)
                asked_at = time.monotonic()
            renewed_at = asked_at

    async def _renew(self, deadline: float) -> bool:
        if self._held is None:
            self._lose("it was released")
        body = self._body(self._held, holder=self._identity, duration_s=self._times.duration_s)
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                self._held = await self._client.replace(LEASES, body=body)
        except errors.ConflictError:
            return await self._adopt()
        except (errors.ApiError, TimeoutError) as error:
            logger.warning("the Lease is not renewed: %s", error)
            return False
        return True

    async def _adopt(self) -> bool:
        """Our copy is outdated: somebody edited the Lease, or took it."""
        try:
            lease = await self._client.get(LEASES, namespace=self._namespace, name=self._name)
        except errors.ApiError as error:
            logger.warning("the Lease cannot be read: %s", error)
            return False
        if lease.spec.holder_identity != self._identity:
            self._lose(f"{lease.spec.holder_identity!r} holds it")
        self._held = lease
        return False

    def _lose(self, why: str) -> None:
        self.leading.clear()
        self._held = None
        raise errors.LeaseLostError(f"the Lease {self._namespace}/{self._name} is lost: {why}")

    def _body(self, lease: Lease | None, *, holder: str, duration_s: int) -> dict[str, Any]:
        now = datetime.now(UTC)
        metadata = {"namespace": self._namespace, "name": self._name}
        acquired, transitions = now, 0
        if lease is not None:
            metadata["resourceVersion"] = lease.metadata.resource_version
            transitions = lease.spec.lease_transitions
            if lease.spec.holder_identity == holder and lease.spec.acquire_time is not None:
                acquired = lease.spec.acquire_time
            elif holder:
                transitions += 1
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration_s,
                "acquireTime": acquired.isoformat(timespec="microseconds"),
                "renewTime": now.isoformat(timespec="microseconds"),
                "leaseTransitions": transitions,
            },
        }

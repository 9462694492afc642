"""The Lease on a real API server: one leader at a time, and who follows whom."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from cabildo_operator.errors import LeaseLostError, NotFoundError, UnavailableError
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.lease import LeaseElector, LeaseTimes
from cabildo_operator.kube.objects import Lease, ObjectMeta
from support.kube import LEASES, Kube

QUICK = LeaseTimes(duration_s=2, renew_deadline_s=1.5, renew_s=0.2, retry_s=0.1)
NAME = "leader"


class Replica:
    """An elector that runs in a task of its own."""

    def __init__(self, api: ApiClient, *, namespace: str, identity: str) -> None:
        self.elector = LeaseElector(
            api, namespace=namespace, name=NAME, identity=identity, times=QUICK
        )
        self.task = asyncio.create_task(self.elector.run())

    async def leads(self) -> None:
        await asyncio.wait_for(self.elector.leading.wait(), timeout=20)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def replicas(api: ApiClient, *, namespace: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two of them; the first leads."""
    first = Replica(api, namespace=namespace, identity="first")
    await first.leads()
    second = Replica(api, namespace=namespace, identity="second")
    try:
        yield first, second
    finally:
        await first.stop()
        await second.stop()


async def test_one_leads_and_hands_over_at_once_when_it_ends(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    async with replicas(api, namespace=namespace) as (first, second):
        spec = kube.request("GET", LEASES.path(namespace=namespace, name=NAME))["spec"]
        assert spec["holderIdentity"] == "first"
        assert not second.elector.leading.is_set()
        await first.stop()
        await first.elector.release()
        assert not first.elector.leading.is_set()
        await second.leads()
        spec = kube.request("GET", LEASES.path(namespace=namespace, name=NAME))["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 1)


async def test_a_leader_that_dies_is_followed_once_its_lease_is_over(
    api: ApiClient, namespace: str
) -> None:
    async with replicas(api, namespace=namespace) as (first, second):
        await first.stop()
        await second.leads()


async def test_a_renewed_lease_is_never_taken(api: ApiClient, namespace: str) -> None:
    async with replicas(api, namespace=namespace) as (first, second):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.elector.leading.wait(), timeout=2 * QUICK.duration_s)
        assert first.elector.leading.is_set()


async def test_a_restarted_holder_leads_again_without_waiting(
    api: ApiClient, namespace: str
) -> None:
    async with replicas(api, namespace=namespace) as (first, _):
        await first.stop()
        again = Replica(api, namespace=namespace, identity="first")
        await asyncio.wait_for(again.elector.leading.wait(), timeout=QUICK.duration_s)
        await again.stop()


async def test_losing_the_lease_to_another_is_an_error(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    async with replicas(api, namespace=namespace) as (first, _):
        kube.patch(LEASES, NAME, {"spec": {"holderIdentity": "thief"}}, namespace=namespace)
        with pytest.raises(LeaseLostError, match="thief"):
            await asyncio.wait_for(first.task, timeout=20)
        assert not first.elector.leading.is_set()
        await first.elector.release()
        spec = kube.request("GET", LEASES.path(namespace=namespace, name=NAME))["spec"]
        assert spec["holderIdentity"] != "", "what is not held is not released"


async def test_a_harmless_edit_does_not_cost_the_lease(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    async with replicas(api, namespace=namespace) as (first, _):
        change = {"metadata": {"labels": {"touched": "true"}}}
        before = kube.patch(LEASES, NAME, change, namespace=namespace)["spec"]["renewTime"]

        def renewed(seen: dict[str, dict[str, dict[str, str]]]) -> bool:
            return seen[NAME]["spec"]["renewTime"] > before

        await asyncio.to_thread(
            kube.wait, LEASES, renewed, within_s=10, namespace=namespace, what="renewal"
        )
        assert first.elector.leading.is_set()


async def test_a_deleted_lease_is_made_again_by_its_holder(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    async with replicas(api, namespace=namespace) as (first, second):
        await second.stop()
        kube.delete(LEASES, NAME, namespace=namespace)
        await asyncio.to_thread(
            kube.wait,
            LEASES,
            lambda seen: NAME in seen,
            within_s=10,
            namespace=namespace,
            what="the Lease",
        )
        assert first.elector.leading.is_set()


async def test_a_leader_that_cannot_renew_ends_before_another_may_lead(namespace: str) -> None:
    class Unreachable:
        """An API server that was there once."""

        def __init__(self) -> None:
            self.calls = 0

        async def get(self, *_: object, **__: object) -> Lease:
            self.calls += 1
            if self.calls > 1:
                raise UnavailableError("no route to host")
            raise NotFoundError("not yet")

        async def create(self, *_: object, **__: object) -> Lease:
            return Lease(metadata=ObjectMeta(name=NAME, namespace=namespace))

        async def replace(self, *_: object, **__: object) -> Lease:
            raise UnavailableError("no route to host")

    elector = LeaseElector(
        cast("ApiClient", Unreachable()),
        namespace=namespace,
        name=NAME,
        identity="first",
        times=QUICK,
    )
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(LeaseLostError, match="renewed in time"):
        await asyncio.wait_for(elector.run(), timeout=20)
    assert loop.time() - started < QUICK.duration_s + QUICK.renew_s
    assert not elector.leading.is_set()

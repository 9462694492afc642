"""The certificate Secret on a real API server: made once, shared, renewed, loaded live."""

import asyncio
import base64
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from cabildo_operator.certificates import CertificateKeeper
from cabildo_operator.kube.client import ApiClient
from support.kube import SECRETS, Kube

SECRET = "certificates"


class Clock:
    """Starts 61 days ago, so that what is issued later is valid by the machine's clock."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) - timedelta(days=61)

    def __call__(self) -> datetime:
        return self.now


def keeper(
    api: ApiClient, *, namespace: str, now: Callable[[], datetime] | None = None
) -> CertificateKeeper:
    return CertificateKeeper(
        api,
        namespace=namespace,
        secret=SECRET,
        hosts=("localhost",),
        now=now or (lambda: datetime.now(UTC)),
    )


def secret(kube: Kube, *, namespace: str) -> dict[str, Any]:
    return kube.request("GET", SECRETS.path(namespace=namespace, name=SECRET))


async def served(context: ssl.SSLContext, *, trust: str) -> x509.Certificate:
    """The certificate that a client who trusts `trust` is shown."""
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    client = ssl.create_default_context(cadata=trust)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("localhost", port, ssl=client)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
    return x509.load_der_x509_certificate(der)


async def test_the_secret_is_made_and_serves_tls(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    one = keeper(api, namespace=namespace)
    assert one.trust_pem == ""
    await one.start()
    assert set(secret(kube, namespace=namespace)["data"]) == {
        "ca.crt",
        "ca.key",
        "tls.crt",
        "tls.key",
    }
    shown = await served(one.context, trust=one.trust_pem)
    stored = base64.b64decode(secret(kube, namespace=namespace)["data"]["tls.crt"])
    assert shown == x509.load_pem_x509_certificate(stored)


async def test_replicas_that_start_together_share_one_secret(
    api: ApiClient, namespace: str
) -> None:
    replicas = [keeper(api, namespace=namespace) for _ in range(4)]
    await asyncio.gather(*(one.refresh() for one in replicas))
    assert len({one.trust_pem for one in replicas}) == 1
    for one in replicas:
        await served(one.context, trust=replicas[0].trust_pem)


async def test_a_due_leaf_is_renewed_and_served_without_a_new_context(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    clock = Clock()
    one = keeper(api, namespace=namespace, now=clock)
    await one.refresh()
    context, trust = one.context, one.trust_pem
    before = await served(context, trust=trust)
    clock.now += timedelta(days=61)
    await one.refresh()
    after = await served(context, trust=trust)
    assert after != before
    other = keeper(api, namespace=namespace, now=clock)
    version = secret(kube, namespace=namespace)["metadata"]["resourceVersion"]
    await other.refresh()
    assert await served(other.context, trust=trust) == after
    assert secret(kube, namespace=namespace)["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize("data", [{}, {"ca.crt": base64.b64encode(b"garbage").decode()}])
async def test_an_empty_or_broken_secret_is_made_anew_and_keeps_its_labels(
    api: ApiClient, kube: Kube, namespace: str, data: dict[str, str]
) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "labels": {"made-by": "chart"}},
        "type": "Opaque",
        "data": data,
    }
    kube.create(SECRETS, body, namespace=namespace)
    one = keeper(api, namespace=namespace)
    await one.refresh()
    await served(one.context, trust=one.trust_pem)
    assert secret(kube, namespace=namespace)["metadata"]["labels"] == {"made-by": "chart"}


async def test_two_replicas_that_renew_together_end_with_the_same(
    api: ApiClient, namespace: str
) -> None:
    clock = Clock()
    replicas = [keeper(api, namespace=namespace, now=clock) for _ in range(2)]
    await asyncio.gather(*(one.refresh() for one in replicas))
    clock.now += timedelta(days=61)
    await asyncio.gather(*(one.refresh() for one in replicas))
    shown = [await served(one.context, trust=one.trust_pem) for one in replicas]
    assert shown[0] == shown[1]

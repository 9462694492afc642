"""A server that answers as a test's script says: for what a real API server never does on demand.

Here: silence, garbage, refusals, broken connections. Never here: anything that a real API server
would do when asked; such tests are in `tests/cluster`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from cabildo_operator.kube.client import ApiClient, RequestObserver
from cabildo_operator.kube.credentials import Credentials

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def scripted_api(
    answer: Answer,
    *,
    credentials: Credentials | None = None,
    observe: RequestObserver | None = None,
) -> AsyncIterator[ApiClient]:
    """A client whose server answers every request with `answer`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    session = aiohttp.ClientSession(f"http://127.0.0.1:{port}/")
    client = ApiClient(session, credentials=credentials or Credentials(None), observe=observe)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()

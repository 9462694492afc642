"""`/metrics` and `/readyz` on one port, apart from the probes that kopf serves.

Readiness does not depend on leadership: a rolling update would wait for a Lease that the old
replica holds.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST


class TelemetryServer:
    """Serves metrics and readiness."""

    def __init__(self, registry: CollectorRegistry, *, unready: Callable[[], str]) -> None:
        self._registry = registry
        self._unready = unready
        self._runner: web.AppRunner | None = None

    async def start(self, *, host: str, port: int) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        why = self._unready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ok'}\n")

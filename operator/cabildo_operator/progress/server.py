"""The progress API: `POST /v1alpha1/namespaces/<ns>/trainingjobs/<name>/status` over TLS.

Speaks the wire format of Kubeflow Trainer's status server, so that clients made for it work
unchanged. A good report goes to `board.py` and wakes the object's key; anything else gets a 4xx
with `{"error", "reason"}`. Writes nothing to the API server.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import web
from pydantic import ValidationError

from cabildo_api import names
from cabildo_api.progress import ProgressAnswer, ProgressReport
from cabildo_operator import errors
from cabildo_operator.kube.objects import CustomResource, Pod
from cabildo_operator.kube.store import ObjectKey, Store
from cabildo_operator.progress.access import admit
from cabildo_operator.progress.board import ProgressBoard, Report
from cabildo_operator.progress.token_review import TokenReviewer

PATH: Final = f"/{names.VERSION}/namespaces/{{namespace}}/{names.PLURAL}/{{name}}/status"
MAX_BODY_BYTES: Final = 64 * 1024
LATER_S: Final = 5.0
LAST_ANSWERS_S: Final = 1.0

logger = logging.getLogger(__name__)


class ProgressServer:
    """Takes reports."""

    def __init__(
        self,
        *,
        reviewer: TokenReviewer,
        board: ProgressBoard,
        objects: Store[CustomResource],
        pods: Store[Pod],
        wake: Callable[[ObjectKey, float], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reviewer = reviewer
        self._board = board
        self._objects = objects
        self._pods = pods
        self._wake = wake
        self._now = now
        self._runner: web.AppRunner | None = None

    async def start(self, *, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the port."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_explain])
        app.router.add_post(PATH, self._post)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=LAST_ANSWERS_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context)
        await site.start()
        listening: int = self._runner.addresses[0][1]
        logger.info("the progress API listens on port %d", listening)
        return listening

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        key = ObjectKey(request.match_info["namespace"], request.match_info["name"])
        caller = await self._reviewer.review(_bearer(request))
        reporter = admit(key, caller=caller, objects=self._objects, pods=self._pods)
        try:
            body = ProgressReport.model_validate_json(await request.read())
        except ValidationError as error:
            raise errors.ReportRefusedError(
                _first_finding(error), code=422, reason="InvalidReport"
            ) from error
        report = Report(
            uid=reporter.uid,
            pod_uid=reporter.pod_uid,
            run=reporter.run,
            attempt=reporter.attempt,
            received_at=self._now(),
            body=body,
        )
        known = self._board.latest(key, uid=report.uid)
        first = known is None or known.pod_uid != report.pod_uid
        self._board.post(key, report=report)
        # A status takes progress every few seconds only: reports in between need no visit.
        self._wake(key, 0.0 if first else LATER_S)
        return _json(200, ProgressAnswer().to_object())


@web.middleware
async def _explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every refusal into JSON."""
    try:
        return await handler(request)
    except errors.ReportRefusedError as error:
        logger.info("report on %s refused: %s", request.path, error)
        return _json(error.code, {"error": str(error), "reason": error.reason})
    except errors.ApiError as error:
        logger.warning("report on %s cannot be checked: %s", request.path, error)
        return _json(503, {"error": f"the API server: {error}", "reason": "Unavailable"})
    except web.HTTPException as error:
        return _json(error.status, {"error": error.reason, "reason": "BadRequest"})


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.ReportRefusedError(
            "send the projected token as `Authorization: Bearer <token>`",
            code=401,
            reason="Unauthenticated",
        )
    return token.strip()


def _first_finding(error: ValidationError) -> str:
    finding = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in finding["loc"])
    return f"{path}: {finding['msg']}" if path else str(finding["msg"])


def _json(code: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=code, body=msgspec.json.encode(body), content_type="application/json"
    )

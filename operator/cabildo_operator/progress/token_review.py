"""Who sent a report: the API server says which pod a token was projected into.

Answers are kept for a short while by the token's hash, never by the token itself, because a
trainer reports every few seconds. `server.py` asks, `access.py` decides what the pod may do.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cabildo_operator import errors
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.resources import TOKEN_REVIEWS

POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
USER_PREFIX: Final = "system:serviceaccount:"

GOOD_FOR_S: Final = 60.0
BAD_FOR_S: Final = 5.0
MAX_KEPT: Final = 10_000
MAX_ASKING: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The pod that a token belongs to."""

    namespace: str
    pod_name: str
    pod_uid: str


class TokenReviewer:
    """Asks the API server about tokens, and remembers the answers for a while."""

    def __init__(
        self,
        client: ApiClient,
        *,
        audience: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._audience = audience
        self._clock = clock
        self._asking = 0
        self._kept: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()

    async def review(self, token: str) -> Caller:
        """The pod behind a token.

        Raises:
            ReportRefusedError: The token is not good for reports.
            ApiError: The API server does not answer.
        """
        digest = hashlib.sha256(token.encode()).digest()
        until, caller = self._kept.get(digest, (0.0, None))
        if self._clock() >= until:
            caller = await self._ask_in_turn(token)
            self._keep(digest, caller)
        if caller is None:
            raise errors.ReportRefusedError(
                f"the token is not a pod's token for audience {self._audience!r}",
                code=401,
                reason="Unauthenticated",
            )
        return caller

    def _keep(self, digest: bytes, caller: Caller | None) -> None:
        lasts_s = GOOD_FOR_S if caller is not None else BAD_FOR_S
        self._kept[digest] = (self._clock() + lasts_s, caller)
        self._kept.move_to_end(digest)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _ask_in_turn(self, token: str) -> Caller | None:
        """Ask, unless too many questions are open: anybody can send made-up tokens."""
        if self._asking >= MAX_ASKING:
            raise errors.ReportRefusedError(
                "too many unknown tokens at a time", code=429, reason="TooManyRequests"
            )
        self._asking += 1
        try:
            return await self._ask(token)
        finally:
            self._asking -= 1

    async def _ask(self, token: str) -> Caller | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [self._audience]},
        }
        review = await self._client.create(TOKEN_REVIEWS, body=body)
        status = review.status
        if not status.authenticated or self._audience not in status.audiences:
            return None
        names, uids = status.user.extra.get(POD_NAME, ()), status.user.extra.get(POD_UID, ())
        if not status.user.username.startswith(USER_PREFIX) or not names or not uids:
            return None
        namespace = status.user.username.removeprefix(USER_PREFIX).partition(":")[0]
        return Caller(namespace=namespace, pod_name=names[0], pod_uid=uids[0])

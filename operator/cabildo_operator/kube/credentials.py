"""Who the operator is to the API server, as a header: a token, a token file, a plugin's word.

lightkube knows the ways of a kubeconfig (its `Auth` flows); here they are asked for headers, so
that `client.py` can send them with whatever carries its bytes. A client certificate is part of
the TLS context instead. Headers are kept until the API server answers 401, then asked for anew:
the kubelet replaces a pod's token file long before the old token ends.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast


class AuthFlow(Protocol):
    """The part of lightkube's authentication that is used."""

    def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Yield a request with credentials; once more after a 401."""
        ...


@dataclass(slots=True)
class _Request:
    """What a flow decorates."""

    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a flow looks at to see whether its credentials were good."""

    status_code: int = 401


class Credentials:
    """Headers that tell who we are."""

    def __init__(self, flow: object | None) -> None:
        self._flow = cast("AuthFlow | None", flow)
        self._headers: Mapping[str, str] | None = {} if flow is None else None

    async def headers(self) -> Mapping[str, str]:
        """The headers of the moment."""
        if self._headers is None:
            self._headers = await self._ask(refused=False)
        return self._headers

    async def renew(self) -> bool:
        """The API server refused them: ask for new ones; returns whether there are any."""
        if self._flow is None:
            return False
        self._headers = await self._ask(refused=True)
        return True

    async def _ask(self, *, refused: bool) -> Mapping[str, str]:
        assert self._flow is not None
        request = _Request()
        flow = self._flow.async_auth_flow(request)
        try:
            await anext(flow)
            if refused:
                await flow.asend(_Answer())
        except StopAsyncIteration:
            # The flow knows no other credentials: the same ones again.
            pass
        finally:
            await flow.aclose()
        return request.headers

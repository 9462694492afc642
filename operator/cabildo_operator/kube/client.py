"""A thin client of the API server: typed paths, bytes decoded into partial structs.

lightkube supplies what is hard to get right, which is kubeconfig, in-cluster configuration, TLS
and credentials; aiohttp carries the bytes at less cost than lightkube's own transport,
and only the fields that are read are decoded (docs/decisions). Retries are the callers': the
informer's, the lease's, the work queue's.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from lightkube import KubeConfig
from lightkube.config import client_adapter
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from cabildo_operator import errors
from cabildo_operator.kube.credentials import Credentials
from cabildo_operator.kube.objects import Object, ObjectList, Status
from cabildo_operator.kube.resources import Resource

T = TypeVar("T", bound=Object)

RequestObserver = Callable[[str, int, float], None]
"""Told method, status code (0: no answer) and seconds of every request but watches."""

REQUEST_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 64
UNREAD_BYTES: Final = 1
"""What a watch may read ahead: events that nobody has asked for yet stay in the socket."""

HTTP_OK: Final = 200
HTTP_ERROR: Final = 400
HTTP_UNAUTHORIZED: Final = 401
HTTP_SERVER_ERROR: Final = 500

NO_ANSWER: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What aiohttp raises when there is no answer."""

_APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_JSON: Final = {"Content-Type": "application/json"}


class ApiClient:
    """One connection pool to one API server."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        *,
        credentials: Credentials,
        observe: RequestObserver | None = None,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._observe = observe

    @classmethod
    def from_environment(cls, *, observe: RequestObserver | None = None) -> "ApiClient":
        """Use KUBECONFIG when set, else the pod's service account.

        Raises:
            SettingsError: There is neither, or it is broken.
        """
        try:
            config = KubeConfig.from_env().get()
            assert config is not None, "without a default, lightkube raises instead"
            user = config.user or User()
            tls = client_adapter.verify_cluster(
                config.cluster, user, config.abs_file, trust_env=False
            )
            credentials = Credentials(client_adapter.user_auth(user))
        except (ConfigError, OSError) as error:
            raise errors.SettingsError(
                "KUBECONFIG", value="...", remedy=f"names no cluster to work with: {error}"
            ) from error
        http = aiohttp.ClientSession(
            base_url=config.cluster.server.rstrip("/") + "/",
            connector=aiohttp.TCPConnector(ssl=tls, limit=MAX_CONNECTIONS, keepalive_timeout=60.0),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return cls(http, credentials=credentials, observe=observe)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def get(self, resource: Resource[T], *, namespace: str = "", name: str) -> T:
        """Read one object from the API server, past every cache of ours."""
        path = resource.path(namespace=namespace, name=name)
        return msgspec.json.decode(await self._send("GET", path), type=resource.model)

    async def list_page(self, resource: Resource[T], *, params: Mapping[str, str]) -> ObjectList[T]:
        """Read one page of a list over all namespaces."""
        content = await self._send("GET", resource.path(), params=params)
        # The type is known when it runs, which no type checker can follow.
        return msgspec.json.decode(content, type=ObjectList[resource.model])  # type: ignore[name-defined]

    @asynccontextmanager
    async def watch(
        self, resource: Resource[T], *, params: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch; yields chunks of bytes that the caller splits into lines."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._http.get(
                resource.path().lstrip("/"),
                params={**params, "watch": "true"},
                headers=await self._credentials.headers(),
                timeout=timeout,
                read_bufsize=UNREAD_BYTES,
            ) as response:
                if response.status != HTTP_OK:
                    if response.status == HTTP_UNAUTHORIZED:
                        await self._credentials.renew()
                    raise _refusal(response.status, await response.read(), response.headers)
                yield response.content.iter_any()
        except NO_ANSWER as error:
            raise _no_answer(error) from error

    async def create(self, resource: Resource[T], *, body: Mapping[str, Any]) -> T:
        """POST a new object."""
        namespace = body.get("metadata", {}).get("namespace", "")
        content = await self._send(
            "POST", resource.path(namespace=namespace), body=body, headers=_JSON
        )
        return msgspec.json.decode(content, type=resource.model)

    async def replace(self, resource: Resource[T], *, body: Mapping[str, Any]) -> T:
        """PUT a whole object; its resourceVersion guards against a write in between."""
        metadata = body["metadata"]
        path = resource.path(namespace=metadata.get("namespace", ""), name=metadata["name"])
        content = await self._send("PUT", path, body=body, headers=_JSON)
        return msgspec.json.decode(content, type=resource.model)

    async def apply(
        self,
        resource: Resource[T],
        *,
        body: Mapping[str, Any],
        field_manager: str,
        subresource: str = "",
    ) -> T:
        """Server-side apply, taking over the fields that are written."""
        metadata = body["metadata"]
        path = resource.path(
            namespace=metadata.get("namespace", ""), name=metadata["name"], subresource=subresource
        )
        params = {"fieldManager": field_manager, "force": "true"}
        content = await self._send("PATCH", path, body=body, params=params, headers=_APPLY)
        return msgspec.json.decode(content, type=resource.model)

    async def merge(
        self, resource: Resource[T], *, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> T:
        """Merge-patch an object."""
        path = resource.path(namespace=namespace, name=name)
        content = await self._send("PATCH", path, body=patch, headers=_MERGE)
        return msgspec.json.decode(content, type=resource.model)

    async def delete(
        self, resource: Resource[T], *, namespace: str, name: str, uid: str, propagation: str
    ) -> None:
        """Delete the object of that UID."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": uid},
        }
        path = resource.path(namespace=namespace, name=name)
        await self._send("DELETE", path, body=options, headers=_JSON)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        request: dict[str, Any] = {"params": params, "data": content, "headers": headers or {}}
        code, answer, told = await self._exchange(method, path=path, **request)
        if code == HTTP_UNAUTHORIZED and await self._credentials.renew():
            code, answer, told = await self._exchange(method, path=path, **request)
        if code >= HTTP_ERROR:
            raise _refusal(code, answer, told)
        return answer

    async def _exchange(
        self, method: str, *, path: str, headers: Mapping[str, str], **request: Any
    ) -> tuple[int, bytes, Mapping[str, str]]:
        started, code = time.monotonic(), 0
        try:
            async with self._http.request(
                method,
                path.lstrip("/"),
                headers={**headers, **await self._credentials.headers()},
                **request,
            ) as response:
                answer = await response.read()
                code = response.status
                return code, answer, response.headers
        except NO_ANSWER as error:
            raise _no_answer(error) from error
        finally:
            if self._observe is not None:
                self._observe(method, code, time.monotonic() - started)


def _no_answer(error: Exception) -> errors.UnavailableError:
    return errors.UnavailableError(f"no answer: {type(error).__name__} {error}".rstrip())


def refusal_of(status: Status, *, retry_after_s: float = 0.0) -> errors.ApiError:
    """The error that a Status of the API server means."""
    kind: type[errors.ApiError]
    match status.code, status.reason:
        case 404, _:
            kind = errors.NotFoundError
        case 409, "AlreadyExists":
            kind = errors.AlreadyExistsError
        case 409, _:
            kind = errors.ConflictError
        case 422, _ if _is_another_object(status):
            kind = errors.ConflictError
        case 410, _:
            kind = errors.ExpiredError
        case ((401 | 408 | 429), _):
            kind = errors.UnavailableError
        case code, _ if code >= HTTP_SERVER_ERROR:
            kind = errors.UnavailableError
        case _:
            kind = errors.RefusedError
    return kind(
        status.message or f"HTTP {status.code}",
        code=status.code,
        reason=status.reason,
        retry_after_s=retry_after_s,
    )


def _is_another_object(status: Status) -> bool:
    """Whether an apply was refused because the name belongs to another UID by now."""
    causes = (status.details or {}).get("causes") or ()
    return any(cause.get("field") == "metadata.uid" for cause in causes)


def _refusal(code: int, content: bytes, headers: Mapping[str, str]) -> errors.ApiError:
    try:
        status = msgspec.json.decode(content, type=Status)
    except msgspec.DecodeError:
        status = Status(message=content[:200].decode(errors="replace"), code=code)
    retry_after = headers.get("Retry-After", "")
    return refusal_of(
        msgspec.structs.replace(status, code=status.code or code),
        retry_after_s=float(retry_after) if retry_after.isdecimal() else 0.0,
    )

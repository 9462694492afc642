"""The client: what each answer of the API server means, and who we say we are."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from lightkube.config.client_adapter import BearerTokenFileAuth

from cabildo_operator import errors
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.credentials import Credentials
from cabildo_operator.kube.resources import EVENTS, JOBS, NODES, SERVICES
from support.scripted_api import scripted_api


def refusal(code: int, *, reason: str = "", **more: Any) -> web.Response:
    status = {"kind": "Status", "message": "told", "reason": reason, "code": code, **more}
    return web.json_response(status, status=code)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (404, "NotFound", errors.NotFoundError),
        (409, "AlreadyExists", errors.AlreadyExistsError),
        (409, "Conflict", errors.ConflictError),
        (410, "Expired", errors.ExpiredError),
        (400, "BadRequest", errors.RefusedError),
        (403, "Forbidden", errors.RefusedError),
        (422, "Invalid", errors.RefusedError),
        (401, "Unauthorized", errors.UnavailableError),
        (429, "TooManyRequests", errors.UnavailableError),
        (500, "InternalError", errors.UnavailableError),
        (504, "Timeout", errors.UnavailableError),
    ],
)
async def test_every_status_has_its_error(
    code: int, reason: str, expected: type[errors.ApiError]
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return refusal(code, reason=reason)

    async with scripted_api(answer) as client:
        with pytest.raises(errors.ApiError, match="told") as raised:
            await client.get(JOBS, namespace="ns", name="a")
    assert type(raised.value) is expected
    assert (raised.value.code, raised.value.reason) == (code, reason)


async def test_an_apply_to_another_uid_is_a_conflict() -> None:
    async def answer(_: web.Request) -> web.Response:
        details = {"causes": [{"field": "metadata.uid", "message": "immutable"}]}
        return refusal(422, reason="Invalid", details=details)

    async with scripted_api(answer) as client:
        body = {"metadata": {"name": "a", "namespace": "ns"}}
        with pytest.raises(errors.ConflictError):
            await client.apply(SERVICES, body=body, field_manager="test")


async def test_a_busy_server_says_when_to_come_back() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "7"}, text="slow down")

    async with scripted_api(answer) as client:
        with pytest.raises(errors.UnavailableError, match="slow down") as raised:
            await client.get(NODES, name="n1")
    assert raised.value.retry_after_s == 7.0


async def test_no_answer_is_unavailable_and_observed_with_code_0() -> None:
    seen: list[tuple[str, int]] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with scripted_api(answer, observe=lambda *a: seen.append(a[:2])) as client:
        with pytest.raises(errors.UnavailableError, match="no answer"):
            await client.get(JOBS, namespace="ns", name="a")
    assert seen == [("GET", 0)]


async def test_requests_go_where_the_kind_lives() -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(f"{request.method} {request.path_qs} {request.content_type}")
        return web.json_response({"metadata": {"name": "a"}})

    body = {"metadata": {"name": "a", "namespace": "ns"}}
    async with scripted_api(answer) as client:
        await client.create(EVENTS, body=body)
        await client.replace(JOBS, body=body)
        await client.apply(JOBS, body=body, field_manager="me", subresource="status")
        await client.merge(SERVICES, namespace="ns", name="a", patch={})
        await client.delete(JOBS, namespace="ns", name="a", uid="u", propagation="Foreground")
        await client.get(NODES, name="n1")
    jobs = "/apis/batch/v1/namespaces/ns/jobs"
    assert seen == [
        "POST /apis/events.k8s.io/v1/namespaces/ns/events application/json",
        f"PUT {jobs}/a application/json",
        f"PATCH {jobs}/a/status?fieldManager=me&force=true application/apply-patch+yaml",
        "PATCH /api/v1/namespaces/ns/services/a application/merge-patch+json",
        f"DELETE {jobs}/a application/json",
        "GET /api/v1/nodes/n1 application/octet-stream",
    ]


async def test_a_replaced_token_file_is_read_again_when_the_old_token_is_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    accepted, seen = ["Bearer old"], []

    async def answer(request: web.Request) -> web.Response:
        token = request.headers["Authorization"]
        seen.append(token)
        if token not in accepted:
            return refusal(401, reason="Unauthorized")
        return web.json_response({"metadata": {"name": "a"}})

    credentials = Credentials(BearerTokenFileAuth(str(file)))
    async with scripted_api(answer, credentials=credentials) as client:
        await client.get(NODES, name="a")
        accepted[0] = "Bearer new"
        file.write_text("new")
        await client.get(NODES, name="a")
        await client.get(NODES, name="a")
        accepted.clear()
        with pytest.raises(errors.UnavailableError):
            await client.get(NODES, name="a")
    assert seen[:4] == ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]


async def test_credentials_that_cannot_be_renewed_are_sent_again() -> None:
    class Fixed:
        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            request.headers["Authorization"] = "Bearer fixed"
            yield request

    credentials = Credentials(Fixed())
    assert await credentials.headers() == {"Authorization": "Bearer fixed"}
    assert await credentials.renew()
    assert await credentials.headers() == {"Authorization": "Bearer fixed"}
    assert not await Credentials(None).renew()


async def test_a_watch_that_is_refused_renews_the_credentials(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] == "Bearer old":
            file.write_text("new")
            return refusal(401)
        return web.Response(body=b"line\n")

    async def watch(client: ApiClient) -> bytes:
        async with client.watch(JOBS, params={}) as chunks:
            return b"".join([chunk async for chunk in chunks])

    credentials = Credentials(BearerTokenFileAuth(str(file)))
    async with scripted_api(answer, credentials=credentials) as client:
        with pytest.raises(errors.UnavailableError):
            await watch(client)
        assert await watch(client) == b"line\n"


def test_a_kubeconfig_without_a_context_is_a_setting_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    empty = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    file.write_bytes(msgspec.json.encode(empty))
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(errors.SettingsError, match="names no cluster"):
        ApiClient.from_environment()

"""The informer when the API server misbehaves; when it behaves: `tests/cluster`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from cabildo_operator.kube.informer import MAX_BACKOFF_S, Informer, backoff_s
from cabildo_operator.kube.objects import Job
from cabildo_operator.kube.resources import JOBS
from cabildo_operator.kube.store import Store
from support.scripted_api import scripted_api

WITHIN_S = 20


def job(name: str, *, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}}


class Script:
    """Lists and watches to be answered one after the other; the last of each is repeated."""

    def __init__(self, *, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.listed = self.watched = 0
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        if "watch" not in request.query:
            answer = self.lists[min(self.listed, len(self.lists) - 1)]
            self.listed += 1
            if isinstance(answer, int):
                return web.json_response({"code": answer, "message": "told"}, status=answer)
            return web.json_response(answer)
        answer = self.watches[min(self.watched, len(self.watches) - 1)]
        self.watched += 1
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in answer:
            if piece is None:
                await asyncio.Event().wait()
            await response.write(piece if isinstance(piece, bytes) else line(piece))
        return response


def line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def page(*items: dict[str, Any], version: int, more: str = "") -> dict[str, Any]:
    return {
        "metadata": {"resourceVersion": str(version), "continue": more},
        "items": list(items),
    }


class Mirror:
    def __init__(self) -> None:
        self.store: Store[Job] = Store()
        self._changed = asyncio.Event()
        self.changes: list[str] = []

    def note(self, before: Job | None, after: Job | None) -> None:
        obj = after or before
        assert obj is not None
        self.changes.append(f"{'+' if after else '-'}{obj.metadata.name}")
        self._changed.set()

    async def until(self, *expected: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.changes != list(expected):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def mirror(script: Script, *, silence_s: float = 60.0) -> AsyncIterator[Mirror]:
    made = Mirror()
    async with scripted_api(script) as client:
        informer = Informer(
            client,
            resource=JOBS,
            store=made.store,
            on_change=made.note,
            label_selector="a=b",
            silence_s=silence_s,
        )
        task = asyncio.create_task(informer.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabildo_operator.kube.informer.backoff_s", lambda _: 0.0)


async def test_pages_are_followed_and_the_watch_starts_where_the_list_ended() -> None:
    script = Script(
        lists=[
            page(job("a", version=1), version=5, more="next"),
            page(job("b", version=2), version=5),
        ],
        watches=[[{"type": "ADDED", "object": job("c", version=6)}, None]],
    )
    async with mirror(script) as seen:
        await seen.until("+a", "+b", "+c")
    assert script.asked[1]["continue"] == "next"
    assert script.asked[2]["resourceVersion"] == "5"
    assert script.asked[2]["allowWatchBookmarks"] == "true"
    assert all(query["labelSelector"] == "a=b" for query in script.asked)


async def test_an_event_split_over_packets_is_put_together() -> None:
    event = line({"type": "ADDED", "object": job("a", version=6)})
    script = Script(
        lists=[page(version=5)], watches=[[event[:10], event[10:40], event[40:] + b"\n", None]]
    )
    async with mirror(script) as seen:
        await seen.until("+a")


async def test_a_bookmark_moves_the_place_to_go_on_from() -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    script = Script(
        lists=[page(version=5)],
        watches=[[bookmark], [{"type": "ADDED", "object": job("a", version=10)}, None]],
    )
    async with mirror(script) as seen:
        await seen.until("+a")
    assert [q["resourceVersion"] for q in script.asked if "watch" in q] == ["5", "9"]
    assert script.listed == 1


async def test_an_expired_version_means_a_new_list() -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    script = Script(
        lists=[
            page(job("a", version=1), job("b", version=2), version=5),
            page(job("b", version=2), job("c", version=8), version=9),
        ],
        watches=[[gone], [None]],
    )
    async with mirror(script) as seen:
        await seen.until("+a", "+b", "+c", "-a")
    assert [q["resourceVersion"] for q in script.asked if "watch" in q][-1] == "9"


async def test_a_silent_connection_is_given_up_and_everything_is_listed_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(lists=[page(version=5), page(job("a", version=6), version=6)], watches=[[None]])
    async with mirror(script, silence_s=0.2) as seen:
        await seen.until("+a")
    assert script.listed >= 2
    assert "silent for 0.2 s" in caplog.text


@pytest.mark.parametrize(
    "trouble", [500, 403, {"no": "list"}, page({"metadata": {"name": 7}}, version=1)]
)
async def test_a_failing_list_is_tried_again(trouble: Any) -> None:
    script = Script(lists=[trouble, page(job("a", version=1), version=2)], watches=[[None]])
    async with mirror(script) as seen:
        await seen.until("+a")


async def test_garbage_in_a_watch_means_a_new_list() -> None:
    script = Script(
        lists=[page(version=5), page(job("a", version=6), version=6)],
        watches=[[b"not json\n"], [None]],
    )
    async with mirror(script) as seen:
        await seen.until("+a")


async def test_a_connection_cut_in_the_middle_is_no_end() -> None:
    class Cut(Script):
        async def __call__(self, request: web.Request) -> web.StreamResponse:
            if "watch" in request.query and self.watched == 0:
                self.watched += 1
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b'{"type": "ADD')
                assert request.transport is not None
                request.transport.abort()
                return response
            return await super().__call__(request)

    script = Cut(lists=[page(version=5), page(job("a", version=6), version=6)], watches=[[None]])
    async with mirror(script) as seen:
        await seen.until("+a")


async def test_a_kind_without_bookmarks_is_watched_in_short_pieces_and_counts_as_heard() -> None:
    again = asyncio.Event()

    class Reopened(Script):
        async def __call__(self, request: web.Request) -> web.StreamResponse:
            if self.watched:
                again.set()
            return await super().__call__(request)

    script = Reopened(lists=[page(version=5)], watches=[[], [None]])
    seen = Mirror()
    async with scripted_api(script) as client:
        informer = Informer(
            client,
            resource=JOBS,
            store=seen.store,
            on_change=seen.note,
            field_selector="reason=x",
            watch_timeout_s=3,
        )
        informer._heard_at -= 1_000
        task = asyncio.create_task(informer._follow("5"))
        async with asyncio.timeout(WITHIN_S):
            await again.wait()
        assert informer.silent_s < 100
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {query["fieldSelector"] for query in script.asked} == {"reason=x"}
    assert all(3 <= int(query["timeoutSeconds"]) < 6 for query in script.asked)
    assert [query["resourceVersion"] for query in script.asked] == ["5", "5"]


def test_back_off_grows_to_its_cap_with_jitter() -> None:
    assert 0.25 <= backoff_s(1) <= 0.5
    assert MAX_BACKOFF_S / 2 <= backoff_s(1_000) <= MAX_BACKOFF_S
    assert len({backoff_s(20) for _ in range(10)}) > 1

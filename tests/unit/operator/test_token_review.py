"""Tokens: asked about once a while, never kept, and not without bound."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from cabildo_operator.errors import ReportRefusedError, UnavailableError
from cabildo_operator.progress.token_review import (
    BAD_FOR_S,
    GOOD_FOR_S,
    MAX_ASKING,
    MAX_KEPT,
    POD_NAME,
    POD_UID,
    Caller,
    TokenReviewer,
)
from support.scripted_api import scripted_api

AUDIENCE = "cabildo.dev/progress"
USER = "system:serviceaccount:ns:default"
EXTRA = {POD_NAME: ["pod"], POD_UID: ["uid"]}


class Review:
    """Answers every TokenReview the same way, and counts them."""

    def __init__(self, **status: Any) -> None:
        self.status = status
        self.asked = 0

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked += 1
        spec = (await request.json())["spec"]
        assert spec["audiences"] == [AUDIENCE]
        return web.json_response({"metadata": {}, "status": self.status}, status=201)


def good(**change: Any) -> Review:
    status = {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {"username": USER, "extra": EXTRA},
    }
    return Review(**{**status, **change})


async def test_a_good_token_names_its_pod_and_is_asked_about_once_a_while() -> None:
    now, review = [0.0], good()
    async with scripted_api(review) as client:
        reviewer = TokenReviewer(client, audience=AUDIENCE, clock=lambda: now[0])
        for _ in range(3):
            caller = await reviewer.review("token")
            assert caller == Caller(namespace="ns", pod_name="pod", pod_uid="uid")
        assert review.asked == 1
        now[0] = GOOD_FOR_S
        await reviewer.review("token")
        assert review.asked == 2
        assert "token" not in repr(vars(reviewer)["_kept"])


@pytest.mark.parametrize(
    "change",
    [
        {"authenticated": False},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"user": {"username": "admin", "extra": EXTRA}},
        {"user": {"username": USER, "extra": {}}},
    ],
)
async def test_any_other_token_is_refused_and_asked_about_again_soon(
    change: dict[str, Any],
) -> None:
    now, review = [0.0], good(**change)
    async with scripted_api(review) as client:
        reviewer = TokenReviewer(client, audience=AUDIENCE, clock=lambda: now[0])
        for _ in range(2):
            with pytest.raises(ReportRefusedError) as refused:
                await reviewer.review("token")
            assert refused.value.code == 401
        assert review.asked == 1
        now[0] = BAD_FOR_S
        with pytest.raises(ReportRefusedError):
            await reviewer.review("token")
        assert review.asked == 2


async def test_made_up_tokens_cannot_flood_the_api_server() -> None:
    release, review = asyncio.Event(), good()

    async def slow(request: web.Request) -> web.Response:
        await release.wait()
        return await review(request)

    async with scripted_api(slow) as client:
        reviewer = TokenReviewer(client, audience=AUDIENCE)
        asking = [asyncio.create_task(reviewer.review(f"t{n}")) for n in range(MAX_ASKING)]
        await asyncio.sleep(0)
        with pytest.raises(ReportRefusedError) as refused:
            await reviewer.review("one more")
        assert refused.value.code == 429
        release.set()
        await asyncio.gather(*asking)
        await reviewer.review("one more")


async def test_an_api_server_that_does_not_answer_is_no_verdict() -> None:
    async def down(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async with scripted_api(down) as client:
        reviewer = TokenReviewer(client, audience=AUDIENCE)
        with pytest.raises(UnavailableError):
            await reviewer.review("token")


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_KEPT >= 1_000
    monkeypatch.setattr("cabildo_operator.progress.token_review.MAX_KEPT", 2)
    review = good()
    async with scripted_api(review) as client:
        reviewer = TokenReviewer(client, audience=AUDIENCE, clock=lambda: 0.0)
        for token in ("a", "b", "c", "c", "a"):
            await reviewer.review(token)
    assert review.asked == 4, "the oldest was forgotten, the newest was not"

"""The tests' own way of waiting, proven against the real API server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from support.kube import SECRETS, NotInTimeError

if TYPE_CHECKING:
    from support.kube import Kube


def test_wait_sees_an_object_that_is_made_while_it_watches(kube: Kube, namespace: str) -> None:
    listed = threading.Event()

    def make() -> None:
        listed.wait(10)
        kube.create(SECRETS, {"metadata": {"name": "late"}}, namespace=namespace)

    def is_there(seen: dict[str, object]) -> bool:
        listed.set()
        return "late" in seen

    maker = threading.Thread(target=make)
    maker.start()
    assert kube.wait(SECRETS, is_there, namespace=namespace, within_s=10)
    maker.join()


def test_wait_fails_at_its_deadline_and_says_what_it_saw(kube: Kube, namespace: str) -> None:
    kube.create(SECRETS, {"metadata": {"name": "other"}}, namespace=namespace)
    with pytest.raises(NotInTimeError, match="the secret called never") as failure:
        kube.wait(
            SECRETS,
            lambda seen: "never" in seen,
            namespace=namespace,
            within_s=1,
            what="the secret called never",
        )
    assert "other" in str(failure.value)

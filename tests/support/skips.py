"""Skipped tests hide things: in CI (`CI=true`) one that is skipped for no listed reason fails.

Here: the list, and the hook that `tests/conftest.py` takes over. Never here: a skip. On a
developer's machine a skip stays a skip: no root, no Go, a foreign cluster.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

BUSY = "the machine is busy"
"""Begins the reason of a test that measured a time which says nothing."""
ALLOWED = (BUSY, "release paths of amd64")
ALLOWED_ON_A_FOREIGN_CLUSTER = (
    "needs the local cluster",
    "breaks things in ",
    "default/quickstart is there already",
    "the audit log of a foreign cluster",
)


def is_allowed(reason: str) -> bool:
    """Whether a test may be skipped in CI for this reason, by how it begins."""
    foreign = os.environ.get("CLUSTER") == "kubeconfig"
    return reason.startswith(ALLOWED + (ALLOWED_ON_A_FOREIGN_CLUSTER if foreign else ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that CI must not make into a failure."""
    report = yield
    in_ci = os.environ.get("CI", "").lower() in ("1", "true")
    expected_to_fail = hasattr(report, "wasxfail")
    if report.skipped and in_ci and not expected_to_fail and call.excinfo is not None:
        reason = str(call.excinfo.value)
        if not is_allowed(reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped in CI, which hides it: {reason}"
    return report

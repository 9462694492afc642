"""Fixtures of the control-plane tests: the operator's own client, inside the test's process.

Here: what lets a test hold one part of the operator against the real API server. Never here:
the whole operator; `start_operator` in `tests/conftest.py` runs it as a process.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cabildo_operator.kube.client import ApiClient


@pytest.fixture
async def api(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiClient]:
    """The operator's client with the rights of an administrator."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    client = ApiClient.from_environment()
    yield client
    await client.close()

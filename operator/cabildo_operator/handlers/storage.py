"""What kopf would keep on every object, if it were let: nothing.

kopf computes the "essence" of an object on every event, whether a handler asks for it or not, by
deep copies that cost more than all else it does here. No handler of ours asks. `server.py` puts
these into kopf's settings.
"""

from typing import Any, cast

import kopf
from kopf import BodyEssence


class NoEssence(kopf.DiffBaseStorage):
    """Every object is like any other, and none was ever handled."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> BodyEssence:
        """Nothing to compare."""
        del body, extra_fields
        return cast("BodyEssence", {})

    def fetch(self, *, body: kopf.Body) -> BodyEssence | None:
        """Nothing was stored."""
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: BodyEssence) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """No handler ever has progress to keep."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        """Nothing was stored."""

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Store nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing to remove."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Touch nothing."""

    def clear(self, *, essence: BodyEssence) -> BodyEssence:
        """Nothing to clear."""
        return essence

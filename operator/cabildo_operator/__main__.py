"""`python -m cabildo_operator`: settings, logs, the garbage collector, then `app.run`."""

import asyncio
import gc
import sys
from typing import Final

from cabildo_operator import app
from cabildo_operator.errors import SettingsError
from cabildo_operator.settings import Settings
from cabildo_operator.telemetry import logs

GC_THRESHOLDS: Final = (50_000, 20, 50)
"""Objects die by their reference counts here; the default, 700 of them, finds next to nothing."""


def main() -> int:
    """Run one replica; returns the exit code: 2 for wrong settings."""
    try:
        settings = Settings.from_environment()
        logs.configure(log_format=settings.log_format, level=settings.log_level)
        _calm_collector()
        return asyncio.run(app.run(settings))
    except SettingsError as error:
        sys.stderr.write(f"cabildo-operator: {error}\n")
        return 2


def _calm_collector() -> None:
    """Look for cycles less often, and never among modules and classes: they stay anyway.

    Every full collection would otherwise walk through all that was imported, in the midst of a
    burst of new objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


if __name__ == "__main__":
    sys.exit(main())

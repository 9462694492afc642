"""`python -m cabildo_operator`: settings, logs, then `app.run`."""

import asyncio
import sys

from cabildo_operator import app
from cabildo_operator.errors import SettingsError
from cabildo_operator.settings import Settings
from cabildo_operator.telemetry import logs


def main() -> int:
    """Run one replica; returns the exit code: 2 for wrong settings."""
    try:
        settings = Settings.from_environment()
        logs.configure(log_format=settings.log_format, level=settings.log_level)
        return asyncio.run(app.run(settings))
    except SettingsError as error:
        sys.stderr.write(f"cabildo-operator: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Logs: one line per record, JSON or text, to standard error.

Called once by `__main__.py`. Libraries that report every request are turned down.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

from cabildo_operator.settings import LogFormat, LogLevel

QUIET: Final = ("kopf", "httpx2", "httpcore2", "aiohttp.access", "asyncio")


def configure(
    *, log_format: LogFormat, level: LogLevel, stream: TextIO | None = None
) -> logging.Handler:
    """Send all records to `stream`, by default standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    return handler


class TextFormatter(logging.Formatter):
    """Time, level, logger, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()

"""What a pod's log says: one line a fact.

Here: lines. Never here: numbers that anything depends on; those are in the record. Next:
`kubectl logs`.
"""

from __future__ import annotations

import sys
import time


def say(text: str) -> None:
    """Writes a line with the time of day in UTC."""
    sys.stdout.write(f"{_now()} {text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Writes a line about something that went wrong to standard error."""
    sys.stderr.write(f"{_now()} {text}\n")
    sys.stderr.flush()


def _now() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())

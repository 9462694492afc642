"""What a pod's log says: one line a fact.

Here: lines. Never here: numbers that anything depends on; those are in the record. Next: `kubectl logs`.
"""

from __future__ import annotations

import time


def say(text: str) -> None:
    """Prints a line with the time of day in UTC."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}", flush=True)

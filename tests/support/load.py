"""Whether times measured on this machine say something.

Here: waiting, within bounds, until nobody else works. Never here: a judgement of a time.
"""

from __future__ import annotations

import os
import time

IDLE_LOAD = 1.0
LOOK_EVERY_S = 2.0


def is_idle(*, within_s: float) -> bool:
    """Wait until the load of the last minute is low; tell whether it came to that.

    What a test did just before is in that figure too, and takes a minute or two to leave it.
    """
    deadline = time.monotonic() + within_s
    while os.getloadavg()[0] >= IDLE_LOAD:
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_EVERY_S)
    return True

"""SIGTERM: heard in every phase, acted upon at once or at the next step.

Here: the handler, a watcher thread and the rule when a stop may be immediate. The interpreter runs
Python handlers only between bytecodes of the main thread, which may sit in an import, in a
rendezvous or in a collective for a minute; so the signal's number goes through a pipe to a thread
that is always awake. Standard library only: this is imported before anything heavy. Never here: the
checkpoint that a stop causes; that is `loop.py`. Next: `loop.py`, which adds `stop_requested` to
its all-reduced flags.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Listens for SIGTERM and SIGINT from construction on.

    Until `cooperate` and after `stop_cooperating` a signal ends the process at once through
    `on_stop_at_once`; in between it sets `stop_requested`, and `on_grace_over` is called if the
    process still lives when the grace period is nearly over (a peer is gone and a collective
    waits).
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._cooperative = False
        self._grace_s = 0.0
        self._on_stop_at_once: Callable[[], None] | None = None
        self._on_grace_over: Callable[[], None] | None = None
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, _noticed)
        threading.Thread(target=self._watch, name="stop-signals", daemon=True).start()

    def on_stop(
        self,
        *,
        at_once: Callable[[], None],
        grace_over: Callable[[], None],
        grace_s: float,
    ) -> None:
        """Says what ends the process; a signal that has come already ends it now.

        Args:
            at_once: Ends the process outside of training; does not return.
            grace_over: Ends the process when a stop did not come through; does not return.
            grace_s: Time from the signal to `grace_over`.
        """
        with self._lock:
            self._on_stop_at_once = at_once
            self._on_grace_over = grace_over
            self._grace_s = grace_s
            pending = self._requested.is_set()
        if pending:
            at_once()

    @property
    def stop_requested(self) -> bool:
        """Whether a stop signal has come."""
        return self._requested.is_set()

    def cooperate(self) -> None:
        """From now on there is work to save: a signal only sets `stop_requested`."""
        with self._lock:
            self._cooperative = True

    def stop_cooperating(self) -> None:
        """From now on there is nothing left to save: a signal ends the process at once."""
        with self._lock:
            self._cooperative = False
            pending = self._requested.is_set()
            at_once = self._on_stop_at_once
        if pending and at_once:
            at_once()

    def _watch(self) -> None:
        while os.read(self._reader, 1)[0] not in STOP_SIGNALS:
            pass
        with self._lock:
            self._requested.set()
            at_once = None if self._cooperative else self._on_stop_at_once
            grace_over, grace_s = self._on_grace_over, self._grace_s
        if at_once:
            at_once()
        elif grace_over:
            threading.Event().wait(grace_s)
            grace_over()


def _noticed(_number: int, _frame: object) -> None:
    """Does nothing: a Python handler must exist for the interpreter to write to the wakeup pipe."""

"""Progress to the operator: a thread that posts the newest record and never holds up training.

Here: rate, transport and the operator's directive. The wire format is that of Kubeflow Trainer's
status server. A server that is slow, down or refuses costs training nothing: a report that could
not be sent is replaced by the next one. Never here: what a report says; that is `record.py`. Next:
the operator's `progress/`.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cabildo_api.progress import Directive, ProgressAnswer, ProgressReport
from cabildo_trainer.report.console import complain

if TYPE_CHECKING:
    from cabildo_trainer.report.record import RunRecord
    from cabildo_trainer.settings import ProgressEndpoint

INTERVAL_S: Final = 1.0
"""Shortest time between two reports."""
STEPS_INTERVAL_S: Final = 5.0
"""Shortest time from a report to the next one that says no more than that steps were done."""
REQUEST_TIMEOUT_S: Final = 5.0
FLUSH_S: Final = 3.0


class ProgressReporter:
    """Posts the newest report in the background, at most one a second and fewer between events."""

    def __init__(
        self, endpoint: ProgressEndpoint | None, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._endpoint = endpoint
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._waiting: RunRecord | None = None
        self._busy = False
        self._closing = False
        self._directive = Directive.NONE
        self._complained = ""
        self._sent_time = 0.0
        if endpoint is not None:
            threading.Thread(target=self._send_all, name="progress", daemon=True).start()

    def publish(self, record: RunRecord, *, urgent: bool = True) -> None:
        """Hands over the record, of which the state at the time of sending is reported.

        Args:
            record: What to report.
            urgent: Whether it says more than that steps were done.
        """
        if self._endpoint is None or self._waiting is record:
            return
        if not urgent and time.monotonic() - self._sent_time < STEPS_INTERVAL_S:
            return
        with self._changed:
            self._waiting = record
            self._changed.notify_all()

    def take_directive(self) -> Directive:
        """Returns what the operator asked for since the last call."""
        with self._changed:
            directive, self._directive = self._directive, Directive.NONE
            return directive

    def close(self, *, timeout_s: float = FLUSH_S) -> None:
        """Sends what waits without regard to the rate, and gives up after a while."""
        if self._endpoint is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._waiting is None and not self._busy, timeout=timeout_s
            )

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                record, self._waiting, self._busy = self._waiting, None, True
            assert record is not None
            self._sent_time = time.monotonic()
            directive = self._try_to_send(record)
            with self._changed:
                self._busy = False
                if directive is not Directive.NONE:
                    self._directive = directive
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closing, timeout=self._interval_s)

    def _try_to_send(self, record: RunRecord) -> Directive:
        try:
            return self._send(record.progress())
        except Exception as error:  # noqa: BLE001 - no fault may end the thread
            self._complain(error)
            return Directive.NONE

    def _send(self, report: ProgressReport) -> Directive:
        assert self._endpoint is not None
        body = json.dumps(report.to_object()).encode()
        headers = {"Content-Type": "application/json"}
        if self._endpoint.token_file:
            # The kubelet renews the token in place.
            token = Path(self._endpoint.token_file).read_text(encoding="utf-8").strip()
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(  # noqa: S310 - the URL is the operator's
            self._endpoint.url, data=body, headers=headers, method="POST"
        )
        with urllib.request.urlopen(  # noqa: S310 - as above
            request, timeout=REQUEST_TIMEOUT_S, context=self._tls()
        ) as answer:
            content = answer.read()
        self._complained = ""
        return ProgressAnswer.model_validate_json(content or b"{}").directive

    def _tls(self) -> ssl.SSLContext | None:
        assert self._endpoint is not None
        if not self._endpoint.url.startswith("https://"):
            return None
        # Made anew for each request: the operator renews its CA while a run goes on.
        return ssl.create_default_context(cafile=self._endpoint.ca_file or None)

    def _complain(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._complained:
            complain(f"progress could not be reported: {text}")
            self._complained = text

"""What the operator does, in the shapes of controller-runtime, so that its dashboards fit.

`work_queue.py`, `reconcile/loop.py` and `kube/client.py` report here through the small protocols
that they declare. Label sets start at 0. The state of objects is in `objects.py` next door.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cabildo_operator.work_queue import WorkQueue

QUEUE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
RESULTS: Final = ("success", "requeue_after", "error")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
CODES: Final = (0, 200, 201, 403, 404, 409, 422, 429, 500, 503)
"""Answers that alerts ask for: a rate cannot see the first of a series that began with it."""


class OperatorMetrics:
    """The operator's own metrics for one controller."""

    def __init__(self, registry: CollectorRegistry, *, controller: str, workers: int) -> None:
        self._registry = registry
        self._controller = controller
        self._adds = self._counter("workqueue_adds", "Keys added.", label="name")
        self._retries = self._counter(
            "workqueue_retries", "Keys that come back after an error.", label="name"
        )
        self._waited = self._histogram(
            "workqueue_queue_duration_seconds", "How long keys wait.", label="name"
        )
        self._worked = self._histogram(
            "workqueue_work_duration_seconds", "How long visits take.", label="name"
        )
        self._errors = self._counter("reconcile_errors", "Visits that failed.")
        self._seconds = self._histogram("reconcile_time_seconds", "How long visits take.")
        self._gauge("max_concurrent_reconciles", "Workers.").set(workers)
        self.leader = self._gauge(
            "leader_election_master_status", "1 on the leading replica.", label="name"
        )
        self._reconciles = Counter(
            "cabildo_reconcile",
            "Visits by result.",
            ["controller", "result"],
            registry=registry,
        )
        for result in RESULTS:
            self._reconciles.labels(controller, result)
        self._requests = Counter(
            "cabildo_rest_client_requests",
            "Requests to the API server; code 0: no answer.",
            ["method", "code"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "cabildo_rest_client_request_duration_seconds",
            "How long requests to the API server take.",
            ["method"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        for method in METHODS:
            self._request_seconds.labels(method)
            for code in CODES:
                self._requests.labels(method, str(code))

    def _counter(self, name: str, text: str, *, label: str = "controller") -> Counter:
        family = Counter(f"cabildo_{name}", text, [label], registry=self._registry)
        return family.labels(self._controller)

    def _gauge(self, name: str, text: str, *, label: str = "controller") -> Gauge:
        family = Gauge(f"cabildo_{name}", text, [label], registry=self._registry)
        return family.labels(self._controller)

    def _histogram(self, name: str, text: str, *, label: str = "controller") -> Histogram:
        family = Histogram(
            f"cabildo_{name}", text, [label], buckets=QUEUE_BUCKETS, registry=self._registry
        )
        return family.labels(self._controller)

    def watch_queue(self, queue: WorkQueue) -> None:
        """Show the queue's state whenever metrics are read."""
        self._gauge("workqueue_depth", "Keys waiting.", label="name").set_function(
            lambda: len(queue)
        )
        self._gauge(
            "workqueue_unfinished_work_seconds",
            "Age of visits in progress, summed.",
            label="name",
        ).set_function(lambda: sum(queue.working_s))
        self._gauge(
            "workqueue_longest_running_processor_seconds",
            "Age of the longest visit in progress.",
            label="name",
        ).set_function(lambda: max(queue.working_s, default=0.0))
        self._gauge("active_workers", "Visits in progress.").set_function(
            lambda: len(queue.working_s)
        )

    def added(self) -> None:
        """A key entered the queue."""
        self._adds.inc()

    def retried(self) -> None:
        """A key is to come back after an error."""
        self._retries.inc()

    def taken(self, waited_s: float) -> None:
        """A worker took a key."""
        self._waited.observe(waited_s)

    def finished(self, worked_s: float) -> None:
        """A worker is done with a key."""
        self._worked.observe(worked_s)

    def visited(self, kind: str, result: str, seconds: float) -> None:
        """A visit ended."""
        del kind  # one controller per kind, and one kind
        self._reconciles.labels(self._controller, result).inc()
        self._seconds.observe(seconds)
        if result == "error":
            self._errors.inc()

    def requested(self, method: str, code: int, seconds: float) -> None:
        """A request to the API server was answered."""
        self._requests.labels(method, str(code)).inc()
        self._request_seconds.labels(method).observe(seconds)

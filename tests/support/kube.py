"""The API server as the tests see it: plain JSON in, plain JSON out, waiting by watching.

Here: one small client and `wait`, which lists, watches and asks a question after every
event until it has an answer or the deadline passes. Never here: knowledge of what the
operator does. Tests deliberately do not use the operator's own client or informer, so
that a mistake there cannot hide itself. Next: `training_jobs.py` speaks our kind.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import urllib3
from kubernetes import config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Object = dict[str, Any]
Answer = TypeVar("Answer")

BAD_REQUEST = 400
NOT_FOUND = 404
GONE = 410


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API."""

    prefix: str
    plural: str
    namespaced: bool = True

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of the collection, an object or its subresource."""
        parts = [self.prefix.strip("/")]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


NAMESPACES = Resource("/api/v1", "namespaces", namespaced=False)
NODES = Resource("/api/v1", "nodes", namespaced=False)
PERSISTENT_VOLUMES = Resource("/api/v1", "persistentvolumes", namespaced=False)
PODS = Resource("/api/v1", "pods")
SERVICES = Resource("/api/v1", "services")
SECRETS = Resource("/api/v1", "secrets")
SERVICE_ACCOUNTS = Resource("/api/v1", "serviceaccounts")
CLAIMS = Resource("/api/v1", "persistentvolumeclaims")
RESOURCE_QUOTAS = Resource("/api/v1", "resourcequotas")
CORE_EVENTS = Resource("/api/v1", "events")
JOBS = Resource("/apis/batch/v1", "jobs")
DEPLOYMENTS = Resource("/apis/apps/v1", "deployments")
LEASES = Resource("/apis/coordination.k8s.io/v1", "leases")
STORAGE_CLASSES = Resource("/apis/storage.k8s.io/v1", "storageclasses", namespaced=False)
CRDS = Resource("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
CLUSTER_ROLES = Resource("/apis/rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False)
TRAINING_JOBS = Resource("/apis/cabildo.dev/v1alpha1", "trainingjobs")


class ApiRefusedError(Exception):
    """The API server answered with an error status.

    Args:
        status: The HTTP status code.
        body: The answer, as text.
    """

    def __init__(self, status: int, *, body: str) -> None:
        super().__init__(f"{status}: {body[:2000]}")
        self.status = status
        self.body = body

    @property
    def message(self) -> str:
        """The `message` of the Status object, or the whole body."""
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(self.body)["message"])
        return self.body


class NotInTimeError(AssertionError):
    """What was awaited did not happen before the deadline."""


class Kube:
    """A JSON client for one cluster.

    Args:
        kubeconfig: The kubeconfig file.
        context: The context in it; the current one by default.
    """

    def __init__(self, kubeconfig: Path, *, context: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        client = config.new_client_from_config(str(kubeconfig), context=context)
        settings = client.configuration
        self._host = settings.host.rstrip("/")
        self._headers = {"Accept": "application/json"}
        token = settings.get_api_key_with_prefix("authorization")
        if token:
            self._headers["Authorization"] = token
        self._pool = urllib3.PoolManager(
            maxsize=8,
            ca_certs=settings.ssl_ca_cert,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            cert_reqs="CERT_REQUIRED" if settings.verify_ssl else "CERT_NONE",
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the decoded answer.

        Raises:
            ApiRefusedError: With any status of 400 and above.
        """
        answer = self._pool.request(
            method,
            self._url(path, query=query),
            headers={**self._headers, "Content-Type": content_type},
            body=None if body is None else json.dumps(body).encode(),
            timeout=urllib3.Timeout(connect=5.0, read=30.0),
            retries=urllib3.Retry(total=2, connect=2, read=0, other=0, status=0),
        )
        if answer.status >= BAD_REQUEST:
            raise ApiRefusedError(answer.status, body=answer.data.decode(errors="replace"))
        return json.loads(answer.data) if answer.data else {}

    def text(self, path: str, *, query: Mapping[str, str] | None = None) -> str:
        """Return an answer that is no JSON, such as a pod's log."""
        answer = self._pool.request("GET", self._url(path, query=query), headers=self._headers)
        if answer.status >= BAD_REQUEST:
            raise ApiRefusedError(answer.status, body=answer.data.decode(errors="replace"))
        return answer.data.decode(errors="replace")

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object | None:
        """Return an object, or None when it does not exist."""
        try:
            return self.request("GET", resource.path(namespace=namespace, name=name))
        except ApiRefusedError as refusal:
            if refusal.status == NOT_FOUND:
                return None
            raise

    def list(
        self, resource: Resource, *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Return all objects of a resource."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        return list(self.request("GET", resource.path(namespace=namespace), query=query)["items"])

    def create(self, resource: Resource, body: Object, *, namespace: str = "") -> Object:
        """Create an object under strict field validation, as kubectl does."""
        path = resource.path(namespace=namespace)
        return self.request("POST", path, query={"fieldValidation": "Strict"}, body=body)

    def apply(self, resource: Resource, body: Object, *, namespace: str = "") -> Object:
        """Server-side apply an object as the tests' own field manager."""
        return self.request(
            "PATCH",
            resource.path(namespace=namespace, name=body["metadata"]["name"]),
            query={"fieldManager": "cabildo-tests", "force": "true", "fieldValidation": "Strict"},
            body=body,
            content_type="application/apply-patch+yaml",
        )

    def patch(
        self, resource: Resource, name: str, change: Object, *, namespace: str = "", sub: str = ""
    ) -> Object:
        """Merge a change into an object."""
        return self.request(
            "PATCH",
            resource.path(namespace=namespace, name=name, subresource=sub),
            query={"fieldValidation": "Strict"},
            body=change,
            content_type="application/merge-patch+json",
        )

    def delete(
        self, resource: Resource, name: str, *, namespace: str = "", options: Object | None = None
    ) -> None:
        """Delete an object in the background; one that is already gone is fine."""
        body = {"propagationPolicy": "Background", **(options or {})}
        path = resource.path(namespace=namespace, name=name)
        with suppress_status(NOT_FOUND):
            self.request("DELETE", path, body=body)

    def wait(
        self,
        resource: Resource,
        question: Callable[[Mapping[str, Object]], Answer | None],
        *,
        within_s: float,
        namespace: str = "",
        labels: str = "",
        what: str = "",
    ) -> Answer:
        """List and watch until the question has an answer, and return it.

        Args:
            resource: What to watch.
            question: Asked with all objects by name after the list and after every
                event; a true answer ends the wait, an empty or false one does not.
            within_s: The deadline, seconds from now.
            namespace: The namespace; all of them when empty.
            labels: A label selector.
            what: What is awaited, in words, for the error.

        Raises:
            NotInTimeError: At the deadline, with the objects as last seen.
        """
        deadline = time.monotonic() + within_s
        seen: dict[str, Object] = {}
        for seen in self._states(resource, namespace=namespace, labels=labels, deadline=deadline):
            answer = question(seen)
            if answer:
                return answer
        last = json.dumps([_brief(one) for one in seen.values()], indent=1)
        msg = f"not within {within_s:.0f} s: {what or question}\nlast seen: {last[:6000]}"
        raise NotInTimeError(msg)

    def _states(
        self, resource: Resource, *, namespace: str, labels: str, deadline: float
    ) -> Iterator[dict[str, Object]]:
        """Yield all objects by name, again and again as they change, until the deadline."""
        while time.monotonic() < deadline:
            path = resource.path(namespace=namespace)
            listed = self.request("GET", path, query={"labelSelector": labels})
            state = {one["metadata"]["name"]: one for one in listed["items"]}
            yield state
            version = listed["metadata"]["resourceVersion"]
            for event in self._watch(path, labels=labels, version=version, deadline=deadline):
                name = event["object"].get("metadata", {}).get("name")
                if event["type"] == "ERROR":
                    break
                if event["type"] == "DELETED":
                    state.pop(name, None)
                elif event["type"] != "BOOKMARK":
                    state[name] = event["object"]
                yield state

    def _watch(self, path: str, *, labels: str, version: str, deadline: float) -> Iterator[Object]:
        left_s = max(1, int(deadline - time.monotonic() + 0.999))
        query = {
            "watch": "1",
            "labelSelector": labels,
            "resourceVersion": version,
            "timeoutSeconds": str(left_s),
        }
        answer = self._pool.request(
            "GET",
            self._url(path, query=query),
            headers=self._headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5.0, read=left_s + 2.0),
        )
        try:
            if answer.status == GONE:
                return
            if answer.status >= BAD_REQUEST:
                raise ApiRefusedError(answer.status, body=answer.data.decode(errors="replace"))
            yield from _json_lines(answer)
        finally:
            answer.close()

    def _url(self, path: str, *, query: Mapping[str, str] | None) -> str:
        given = {key: value for key, value in (query or {}).items() if value}
        return self._host + path + ("?" + urlencode(given) if given else "")


class suppress_status:  # noqa: N801 - reads as contextlib.suppress does
    """A context that swallows a refusal with one of the given statuses."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = statuses

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, ApiRefusedError) and error.status in self._statuses


def _json_lines(answer: urllib3.BaseHTTPResponse) -> Iterator[Object]:
    """Decode a watch: one JSON document a line, cut off where the connection ends."""
    buffer = b""
    try:
        for chunk in answer.stream(65536):
            *lines, buffer = (buffer + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line)
    except (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ProtocolError):
        return


def _brief(one: Object) -> Object:
    """Return what helps to see why a wait failed, without managed fields."""
    meta = one["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    if "deletionTimestamp" in meta:
        kept["deletionTimestamp"] = meta["deletionTimestamp"]
    return {"metadata": kept, "status": one.get("status")}

"""How the commands reach a cluster: KUBECONFIG, as kubectl does.

Here: the official client's set-up, deadlines, and API errors in one line. Never here: what a
command does with it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cabildo_cli.errors import CliError

DEFAULT_KUBECONFIG: Final = "~/.kube/config"


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock, or never.

    Args:
        at_s: `time.monotonic()` of the moment; None for never.
    """

    at_s: float | None

    def is_over(self) -> bool:
        """Tell whether the moment has passed."""
        return self.at_s is not None and time.monotonic() >= self.at_s

    def remaining_s(self, *, at_most: int) -> int:
        """Return the whole seconds left, at least 1 and at most `at_most`."""
        if self.at_s is None:
            return at_most
        return max(1, min(at_most, int(self.at_s - time.monotonic())))


@dataclass(frozen=True)
class ClusterClients:
    """The official client's API groups for one context.

    Args:
        api_client: The configured `kubernetes.client.ApiClient`.
        namespace: The namespace of the context, `default` where it names none.
        context: The context's name; empty in a pod, which has none.
    """

    api_client: Any
    namespace: str
    context: str

    @classmethod
    def from_environment(cls) -> ClusterClients:
        """Follow KUBECONFIG, then `~/.kube/config`, then the pod's own service account."""
        return cls._load(os.environ.get("KUBECONFIG"))

    @classmethod
    def from_kubeconfig(cls, path: Path) -> ClusterClients:
        """Use the current context of the file `path`."""
        return cls._load(str(path))

    @classmethod
    def _load(cls, path: str | None) -> ClusterClients:
        from kubernetes import client, config  # noqa: PLC0415  (0.3 s that `--help` need not pay)

        configuration = client.Configuration()
        try:
            if path or Path(DEFAULT_KUBECONFIG).expanduser().exists():
                config.load_kube_config(path, client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise CliError(
                f"no cluster to talk to: {error}",
                remedy="Set KUBECONFIG, or bring one up with: cabildo cluster up",
            ) from error
        try:
            _, active = config.list_kube_config_contexts(config_file=path)
        except config.ConfigException:
            active = {"name": "", "context": {}}  # in a pod there is none
        return cls(
            api_client=client.ApiClient(configuration),
            namespace=active["context"].get("namespace", "default"),
            context=active["name"],
        )

    @cached_property
    def custom_objects(self) -> Any:
        """`kubernetes.client.CustomObjectsApi`."""
        from kubernetes import client  # noqa: PLC0415

        return client.CustomObjectsApi(self.api_client)

    @cached_property
    def core(self) -> Any:
        """`kubernetes.client.CoreV1Api`."""
        from kubernetes import client  # noqa: PLC0415

        return client.CoreV1Api(self.api_client)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the deadline `timeout_s` seconds from now; None is never."""
        return Deadline(None if timeout_s is None else time.monotonic() + timeout_s)


def api_error_text(error: Any) -> str:
    """Return the API server's own words for a `kubernetes.client.ApiException`."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"

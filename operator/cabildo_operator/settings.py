"""Every setting of the operator: read once from the environment, checked once, passed down.

`__main__.py` reads it, `app.py` prints it at start and hands each part what it needs. Nothing
below this module looks at the environment. The chart's values map one to one to these variables.
"""

import dataclasses
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, cast, get_args

from cabildo_operator.errors import SettingsError

T = TypeVar("T", int, float)

LogFormat = Literal["text", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings tree."""

    namespace: str
    """CABILDO_NAMESPACE: namespace of the operator itself. Default: the pod's, else `default`."""

    pod_name: str
    """CABILDO_POD_NAME: name of the own pod, identity in the Lease and carrier of the leader
    label. Default: the host's name."""

    trainer_image: str
    """CABILDO_TRAINER_IMAGE: image of pods whose `spec.image` is empty. No default."""

    progress_service: str
    """CABILDO_PROGRESS_SERVICE: Service that trainers report to; the certificate is for it.
    Default: `cabildo-progress`."""

    progress_url: str
    """CABILDO_PROGRESS_URL: where trainers report to, when not to that Service: an operator that
    runs outside the cluster. Default: `https://<service>.<namespace>.svc`."""

    lease_name: str
    """CABILDO_LEASE_NAME: Lease that the leading replica holds. Default: `cabildo-leader`."""

    certificate_secret: str
    """CABILDO_CERTIFICATE_SECRET: Secret with CA and leaf, made by the operator when absent.
    Default: `cabildo-certificates`."""

    workers: int
    """CABILDO_WORKERS: visits in progress at a time. Default 32: a visit mostly waits for the API
    server, and making a job's children takes five requests one after the other."""

    node_unreachable_s: int
    """CABILDO_NODE_UNREACHABLE_SECONDS: how long pods stay on a node that is not ready or cannot
    be reached. Seconds, default 30; Kubernetes' own 300 would keep a gang waiting."""

    collective_timeout_s: int
    """CABILDO_COLLECTIVE_TIMEOUT_SECONDS: how long a rank waits for its peers before it ends with
    exit code 69. Seconds, default 60."""

    log_format: LogFormat
    """CABILDO_LOG_FORMAT: `json` (default) or `text`."""

    log_level: LogLevel
    """CABILDO_LOG_LEVEL: DEBUG, INFO (default), WARNING or ERROR."""

    metrics_port: int
    """CABILDO_METRICS_PORT: `/metrics` and `/readyz`. Default 8000."""

    probe_port: int
    """CABILDO_PROBE_PORT: `/healthz`. Default 8081."""

    progress_port: int
    """CABILDO_PROGRESS_PORT: the progress API. Default 8443; 0 takes a free one."""

    bind_address: str
    """CABILDO_BIND_ADDRESS: where the three servers listen. Default: all addresses."""

    exit_after_writes: int
    """CABILDO_EXIT_AFTER_WRITES: fault injection for crash tests: end at once after the n-th
    write that reconciling made (Lease, Events, certificates and the leader label do not count).
    Default 0: never."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read and check all settings.

        Raises:
            SettingsError: One is missing or wrong.
        """
        read = _Reader(os.environ if environment is None else environment)
        namespace = read.text("CABILDO_NAMESPACE", default=_own_namespace())
        service = read.text("CABILDO_PROGRESS_SERVICE", default="cabildo-progress")
        url = read.text("CABILDO_PROGRESS_URL", default=f"https://{service}.{namespace}.svc")
        if not url.startswith("https://"):
            raise SettingsError("CABILDO_PROGRESS_URL", value=url, remedy="must be an https URL")
        return cls(
            namespace=namespace,
            pod_name=read.text("CABILDO_POD_NAME", default=socket.gethostname()),
            trainer_image=read.required(
                "CABILDO_TRAINER_IMAGE", remedy="name the image of the trainer"
            ),
            progress_service=service,
            progress_url=url.rstrip("/"),
            lease_name=read.text("CABILDO_LEASE_NAME", default="cabildo-leader"),
            certificate_secret=read.text(
                "CABILDO_CERTIFICATE_SECRET", default="cabildo-certificates"
            ),
            workers=read.whole("CABILDO_WORKERS", default=32, least=1, most=256),
            node_unreachable_s=read.whole(
                "CABILDO_NODE_UNREACHABLE_SECONDS", default=30, least=0, most=3600
            ),
            collective_timeout_s=read.whole(
                "CABILDO_COLLECTIVE_TIMEOUT_SECONDS", default=60, least=5, most=3600
            ),
            log_format=cast(
                "LogFormat", read.choice("CABILDO_LOG_FORMAT", "json", get_args(LogFormat))
            ),
            log_level=cast(
                "LogLevel", read.choice("CABILDO_LOG_LEVEL", "INFO", get_args(LogLevel))
            ),
            metrics_port=read.port("CABILDO_METRICS_PORT", default=8000),
            probe_port=read.port("CABILDO_PROBE_PORT", default=8081),
            progress_port=read.port("CABILDO_PROGRESS_PORT", default=8443),
            bind_address=read.text("CABILDO_BIND_ADDRESS", default="0.0.0.0"),  # noqa: S104
            exit_after_writes=read.whole(
                "CABILDO_EXIT_AFTER_WRITES", default=0, least=0, most=1_000_000
            ),
        )

    def describe(self) -> str:
        """All settings on one line; none of them is a secret."""
        return " ".join(f"{name}={value!r}" for name, value in dataclasses.asdict(self).items())


@dataclass(frozen=True, slots=True)
class _Reader:
    environment: Mapping[str, str]

    def text(self, name: str, *, default: str) -> str:
        return self.environment.get(name, "").strip() or default

    def required(self, name: str, *, remedy: str) -> str:
        value = self.text(name, default="")
        if not value:
            raise SettingsError(name, value=value, remedy=remedy)
        return value

    def whole(self, name: str, *, default: int, least: int, most: int) -> int:
        text = self.text(name, default=str(default))
        value = _number(name, text=text, convert=int)
        if not least <= value <= most:
            raise SettingsError(name, value=text, remedy=f"must be {least} to {most}")
        return value

    def port(self, name: str, *, default: int) -> int:
        return self.whole(name, default=default, least=0, most=65535)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default=default)
        if value not in choices:
            raise SettingsError(name, value=value, remedy=f"must be one of {', '.join(choices)}")
        return value


def _number(name: str, *, text: str, convert: Callable[[str], T]) -> T:
    try:
        return convert(text)
    except ValueError:
        raise SettingsError(name, value=text, remedy="must be a whole number") from None


def _own_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"

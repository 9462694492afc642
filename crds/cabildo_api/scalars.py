"""Single values that several models share: times, names, URIs.

Here: annotated types with their bounds. Never here: objects. Next: the modules that use them.
"""

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    PlainSerializer,
    StringConstraints,
)

from cabildo_api.base import Remedy

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
LABEL_VALUE: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"


def whole_seconds(value: datetime) -> datetime:
    """Returns `value` in UTC without microseconds, as the API server keeps it."""
    return value.astimezone(UTC).replace(microsecond=0)


def format_time(value: datetime) -> str:
    """Returns the RFC 3339 text of a time, such as `2026-11-22T13:34:20Z`."""
    return whole_seconds(value).strftime(TIME_FORMAT)


Time = Annotated[
    AwareDatetime,
    AfterValidator(whole_seconds),
    PlainSerializer(format_time, return_type=str, when_used="json"),
]
"""metav1.Time: whole seconds, so that a status compares equal after a round trip."""

ItemName = Annotated[
    str,
    StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63),
    Remedy("use lower-case letters, digits and '-', at most 63"),
]
ObjectName = Annotated[
    str,
    StringConstraints(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253),
    Remedy("use the name of the object: lower-case letters, digits, '-' and '.'"),
]
LabelValue = Annotated[
    str,
    StringConstraints(pattern=LABEL_VALUE, min_length=1, max_length=63),
    Remedy(
        "use letters, digits, '-', '_' and '.', at most 63, starting and ending with one of"
        " the first two"
    ),
]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
MetricName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
MetricValue = Annotated[str, StringConstraints(max_length=64)]
Uri = Annotated[str, StringConstraints(max_length=1024)]
Digest = Annotated[str, StringConstraints(max_length=128)]
Text = Annotated[str, StringConstraints(max_length=1024)]
ShortText = Annotated[str, StringConstraints(max_length=64)]

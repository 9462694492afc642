"""The kinds of Kubernetes that the operator uses, and where their endpoints are.

`client.py` builds its paths from these; `writes.py` finds a kind by name. Kinds of our own are
added by whoever puts the parts together.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from cabildo_operator.kube import objects

T = TypeVar("T", bound=objects.Object)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource(Generic[T]):
    """One kind's endpoint and the partial struct its answers are decoded into."""

    kind: str
    api_version: str
    plural: str
    model: type[T]
    namespaced: bool = True

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection, an object or its subresource."""
        parts = ["apis" if "/" in self.api_version else "api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/" + "/".join(parts)


JOBS = Resource(kind="Job", api_version="batch/v1", plural="jobs", model=objects.Job)
PODS = Resource(kind="Pod", api_version="v1", plural="pods", model=objects.Pod)
SERVICES = Resource(kind="Service", api_version="v1", plural="services", model=objects.Service)
CLAIMS = Resource(
    kind="PersistentVolumeClaim",
    api_version="v1",
    plural="persistentvolumeclaims",
    model=objects.PersistentVolumeClaim,
)
NODES = Resource(
    kind="Node", api_version="v1", plural="nodes", model=objects.Node, namespaced=False
)
STORAGE_CLASSES = Resource(
    kind="StorageClass",
    api_version="storage.k8s.io/v1",
    plural="storageclasses",
    model=objects.StorageClass,
    namespaced=False,
)
EVENTS = Resource(
    kind="Event", api_version="events.k8s.io/v1", plural="events", model=objects.Event
)
LEASES = Resource(
    kind="Lease",
    api_version="coordination.k8s.io/v1",
    plural="leases",
    model=objects.Lease,
)
SECRETS = Resource(kind="Secret", api_version="v1", plural="secrets", model=objects.Secret)
TOKEN_REVIEWS = Resource(
    kind="TokenReview",
    api_version="authentication.k8s.io/v1",
    plural="tokenreviews",
    model=objects.TokenReview,
    namespaced=False,
)

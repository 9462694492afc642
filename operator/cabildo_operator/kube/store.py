"""What the operator knows of one kind: objects by namespace and name, and by index.

Filled by `informer.py` (and by `handlers/` for our own kinds), read by every reconcile; no
I/O, no kinds of our own. Two ways in: `upsert` for what a watch says, `remember` for what the
API server answered to our own write, so that the next reconcile already sees it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from cabildo_operator.kube.objects import Object

T = TypeVar("T", bound=Object)

MAX_DEPARTED: Final = 5_000


class ObjectKey(NamedTuple):
    """Where an object is found; cluster-scoped ones have an empty namespace."""

    namespace: str
    name: str


class Store(Generic[T]):
    """Objects of one kind.

    An older version never replaces a newer one, also not when the name belongs to another UID by
    now: kopf may deliver the last events of a deleted object after the first ones of its successor.
    `resourceVersion`s are compared as numbers, which Kubernetes guarantees for its own storage.
    With `departed_for_s` the last state of removed objects can be asked for so long: how a pod
    ended may be visible for milliseconds only.
    """

    def __init__(
        self,
        *,
        indexes: Mapping[str, Callable[[T], Hashable | None]] | None = None,
        departed_for_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._indexes = dict(indexes or {})
        self._objects: dict[ObjectKey, T] = {}
        self._by_index: dict[str, dict[Hashable, dict[ObjectKey, T]]] = {
            name: {} for name in self._indexes
        }
        self._seen_version = 0
        self._departed_for_s = departed_for_s
        self._departed: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._departed_by_index: dict[tuple[str, Hashable], dict[str, T]] = {}
        self._clock = clock

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._objects.values()))

    def get(self, key: tuple[str, str]) -> T | None:
        """The object at (namespace, name)."""
        return self._objects.get(ObjectKey(*key))

    def by_index(self, value: Hashable, *, index: str = "owner") -> tuple[T, ...]:
        """All objects whose index function gave `value`, ordered by name."""
        found = self._by_index[index].get(value)
        if not found:
            return ()
        return tuple(found[key] for key in sorted(found))

    def upsert(self, obj: T) -> T | None:
        """Take in what a watch said; returns what was known before."""
        self._seen_version = max(self._seen_version, version_of(obj))
        return self._put(obj)

    def remember(self, obj: T) -> None:
        """Take in the answer to a write of our own, unless the watch is past it already.

        Without that check an answer that arrives after the object's DELETED event would bring
        the object back for good.
        """
        if version_of(obj) > self._seen_version:
            self._put(obj)

    def departed(self, value: Hashable, *, index: str = "owner") -> tuple[T, ...]:
        """Objects of that index value that were removed a short while ago, oldest first."""
        self._expire()
        return tuple(self._departed_by_index.get((index, value), {}).values())

    def delete(self, obj: T) -> None:
        """Take in what a watch said about an object's end; `obj` is its last state."""
        self._seen_version = max(self._seen_version, version_of(obj))
        self.remove(key_of(obj), uid=obj.metadata.uid)
        self._depart(obj)

    def remove(self, key: tuple[str, str], *, uid: str = "") -> T | None:
        """Forget an object; with `uid` only that very one. Returns what was known."""
        where = ObjectKey(*key)
        known = self._objects.get(where)
        if known is None or (uid and known.metadata.uid != uid):
            return None
        del self._objects[where]
        self._unindex(where, known)
        return known

    def saw_version(self, resource_version: str) -> None:
        """A bookmark or a list: everything up to this version has been seen."""
        self._seen_version = max(self._seen_version, _number(resource_version))

    def replace_all(
        self, objects: Iterable[T], *, resource_version: str = ""
    ) -> list[tuple[T | None, T | None]]:
        """Take in a whole list; returns the changes as (before, after) pairs.

        An object remembered from an own write that the list is too old to know stays.
        """
        listed = _number(resource_version)
        changes: list[tuple[T | None, T | None]] = []
        missing = dict(self._objects)
        for obj in objects:
            missing.pop(key_of(obj), None)
            before = self._put(obj)
            if before is None or version_of(before) != version_of(obj):
                changes.append((before, obj))
        for key, gone in missing.items():
            if not listed or version_of(gone) <= listed:
                self.remove(key)
                self._depart(gone)
                changes.append((gone, None))
        self._seen_version = max(self._seen_version, listed)
        return changes

    def _depart(self, obj: T) -> None:
        if not self._departed_for_s or obj.metadata.uid in self._departed:
            return
        self._departed[obj.metadata.uid] = (self._clock(), obj)
        for name, function in self._indexes.items():
            bucket = self._departed_by_index.setdefault((name, function(obj)), {})
            bucket[obj.metadata.uid] = obj
        self._expire()

    def _expire(self) -> None:
        oldest = self._clock() - self._departed_for_s
        while self._departed:
            uid, (since, obj) = next(iter(self._departed.items()))
            if since > oldest and len(self._departed) <= MAX_DEPARTED:
                return
            del self._departed[uid]
            for name, function in self._indexes.items():
                place = (name, function(obj))
                self._departed_by_index[place].pop(uid)
                if not self._departed_by_index[place]:
                    del self._departed_by_index[place]

    def _put(self, obj: T) -> T | None:
        key = key_of(obj)
        known = self._objects.get(key)
        if known is not None:
            if version_of(known) > version_of(obj):
                return known
            self._unindex(key, known)
        self._objects[key] = obj
        for name, function in self._indexes.items():
            value = function(obj)
            if value is not None:
                self._by_index[name].setdefault(value, {})[key] = obj
        return known

    def _unindex(self, key: ObjectKey, obj: T) -> None:
        for name, function in self._indexes.items():
            value = function(obj)
            if value is None:
                continue
            bucket = self._by_index[name].get(value)
            if bucket is not None:
                bucket.pop(key, None)
                if not bucket:
                    del self._by_index[name][value]


def key_of(obj: Object) -> ObjectKey:
    """Where an object is found."""
    return ObjectKey(obj.metadata.namespace, obj.metadata.name)


def version_of(obj: Object) -> int:
    """An object's `resourceVersion` as a number; 0 when it is not one."""
    return _number(obj.metadata.resource_version)


def _number(resource_version: str) -> int:
    return int(resource_version) if resource_version.isdecimal() else 0

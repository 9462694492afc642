"""Carries out actions: the only place where children are created, changed and deleted.

`reconcile/loop.py` hands over what a plan asked for, one action at a time, in order. What the
API server answers goes into the stores at once, so that the next visit need not wait for the
watch. Every action may be repeated after a crash without effect.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, assert_never

from cabildo_operator import errors
from cabildo_operator.kube.actions import Action, Apply, Create, Delete, EmitEvent
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.events import EventRecorder, Regarding
from cabildo_operator.kube.objects import Object
from cabildo_operator.kube.resources import Resource
from cabildo_operator.kube.store import Store

T = TypeVar("T", bound=Object)

KILLED = 137
"""Exit status of a process that SIGKILL ended, as a kubelet reports it."""


class WriteCounter:
    """Fault injection: ends the process at once, as SIGKILL would, right after its n-th write.

    For crash tests of the operator. 0, the default, never does. Nothing is closed, flushed or
    released. Not a signal: the kernel spares a container's first process from its own SIGKILL.
    """

    def __init__(self, *, exit_after: int = 0, end: Callable[[int], None] = os._exit) -> None:
        self._exit_after = exit_after
        self._end = end
        self.count = 0

    def wrote(self) -> None:
        """One more write has been answered by the API server."""
        self.count += 1
        if self.count == self._exit_after:
            self._end(KILLED)


class Writer:
    """Executes actions against the API server."""

    def __init__(
        self,
        client: ApiClient,
        *,
        field_manager: str,
        children: Mapping[str, tuple[Resource[Any], Store[Any]]],
        events: EventRecorder,
        counter: WriteCounter,
    ) -> None:
        self._client = client
        self._field_manager = field_manager
        self._children = children
        self._events = events
        self._counter = counter

    async def execute(self, action: Action, *, regarding: Regarding) -> None:
        """Carry out one action.

        Raises:
            ChildNameConflictError: The name is taken by an object of somebody else's.
            ApiError: The API server did not do it.
        """
        match action:
            case Create():
                await self._create(action)
            case Apply():
                await self._apply(action)
            case Delete():
                await self._delete(action)
            case EmitEvent():
                self._events.emit(action, regarding=regarding)
            case _:
                assert_never(action)

    async def write_status(self, resource: Resource[T], *, body: Mapping[str, Any]) -> T:
        """Apply a status; `metadata.resourceVersion` in the body is a precondition."""
        written = await self._client.apply(
            resource, body=body, field_manager=self._field_manager, subresource="status"
        )
        self._counter.wrote()
        return written

    async def _create(self, action: Create) -> None:
        resource, store = self._children[action.kind]
        try:
            created = await self._client.create(resource, body=action.body)
        except errors.AlreadyExistsError as error:
            if not action.owner_uid:
                # All of these are watched: it will be observed, and judged then.
                raise errors.ConflictError(str(error), code=error.code) from error
            existing = await self._client.get(
                resource, namespace=action.namespace, name=action.name
            )
            if existing.metadata.controller_uid != action.owner_uid:
                raise errors.ChildNameConflictError(
                    action.kind, namespace=action.namespace, name=action.name
                ) from None
            store.remember(existing)
        else:
            self._counter.wrote()
            store.remember(created)

    async def _apply(self, action: Apply) -> None:
        resource, store = self._children[action.kind]
        metadata = {**action.body["metadata"], "uid": action.uid}
        applied = await self._client.apply(
            resource,
            body={**action.body, "metadata": metadata},
            field_manager=self._field_manager,
        )
        self._counter.wrote()
        store.remember(applied)

    async def _delete(self, action: Delete) -> None:
        resource, _ = self._children[action.kind]
        try:
            await self._client.delete(
                resource,
                namespace=action.namespace,
                name=action.name,
                uid=action.uid,
                propagation=action.propagation,
            )
        except (errors.NotFoundError, errors.ConflictError):
            # Gone, or another object by now: what was to be deleted is not there.
            return
        self._counter.wrote()

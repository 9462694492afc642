"""The label by which the progress Service finds the leader: on the leader's pod, nowhere else.

A container that restarts inside its pod finds the label of its former life: followers take it
off. Outside a cluster there is no pod, and nothing happens.
"""

import asyncio
import logging

from cabildo_api import names
from cabildo_operator import errors
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.resources import PODS

RETRY_S = 2.0

logger = logging.getLogger(__name__)


class LeaderLabel:
    """Puts the label on the own pod and takes it off."""

    def __init__(self, client: ApiClient, *, namespace: str, pod_name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._pod_name = pod_name

    async def attach(self) -> None:
        """Put the label on; retried until it is there or there is no such pod."""
        while True:
            if await self._set("true"):
                return
            await asyncio.sleep(RETRY_S)

    async def detach(self) -> None:
        """Take the label off; a failure is harmless, since followers answer no reports."""
        await self._set(None)

    async def _set(self, value: str | None) -> bool:
        patch = {"metadata": {"labels": {names.LABEL_LEADER: value}}}
        try:
            await self._client.merge(
                PODS, namespace=self._namespace, name=self._pod_name, patch=patch
            )
        except errors.NotFoundError:
            logger.info("there is no pod %s to carry the leader's label", self._pod_name)
        except errors.ApiError as error:
            logger.warning("own pod cannot be labelled: %s", error)
            return False
        return True

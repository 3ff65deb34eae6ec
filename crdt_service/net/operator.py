"""Connects to a node for a person or a job: to copy, restore, or have it leave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from crdt_service.kernel.error import UnreachableError
from crdt_service.net.channel import Channel
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import OPERATOR_NAME, Credentials
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import NODE, Identity

_DIAL_SECONDS_MAX = 5.0


@dataclass(frozen=True)
class Operator:
    """Who holds the cluster's secret, and a certificate for its name where the nodes ask for one."""

    cluster: ClusterIdentity
    credentials: Credentials | None = None
    name: str = OPERATOR_NAME

    @contextlib.asynccontextmanager
    async def connect(self, address: tuple[str, int]) -> AsyncIterator[tuple[Channel, Identity]]:
        """Open a channel to a node; end it whatever happens.

        Raises:
            ServiceError: The node cannot be reached, or either end refuses the other.
        """
        # It names no node: nothing is addressed to an operator.
        identity = Identity(NODE, self.name, "")
        try:
            async with asyncio.timeout(_DIAL_SECONDS_MAX):
                other, channel = await open_channel(*address, self.cluster, identity, self.credentials)
        except (OSError, EOFError) as error:
            raise UnreachableError(f"{address[0]}:{address[1]}") from error
        try:
            yield channel, other
        finally:
            channel.close()

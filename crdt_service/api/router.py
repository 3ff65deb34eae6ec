"""Sends reads and writes to nodes, and tries another only where that cannot apply a write twice."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol, cast

from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.membership.rendezvous import order_nodes
from crdt_service.membership.view import Member
from crdt_service.replication.port import Channel
from crdt_service.wire.message import ReadRequest, ValueReply, WriteRequest

# Refusals that say more about the node than about the write.
_ELSEWHERE = {"storage_full", "overloaded", "stopping", "node_unreachable"}
_NO_NODE = ServiceError("no_node", "no node is reachable", "check the nodes; /v1/cluster lists them")


class Directory(Protocol):
    """Open channels by node id, and all members."""

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Channels by node id."""
        ...

    def peers(self) -> list[Member]:
        """Return every member."""
        ...


class Router:
    """Routes by key, or to the node that the caller pins."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def members(self) -> list[Member]:
        """Return every node."""
        return self._directory.peers()

    async def read(self, key: str, node_id: str | None) -> tuple[str, ValueReply]:
        """Return (node id, its reply) from the first node that answers.

        Raises:
            ServiceError: None does, or the node refuses.
        """
        last: ServiceError = _NO_NODE
        for channel in self._choose(key, node_id):
            try:
                return channel.node_id, cast(ValueReply, await channel.request(partial(ReadRequest, key=key)))
            except (UnreachableError, OutcomeUnknownError) as error:
                last = error if isinstance(error, UnreachableError) else UnreachableError(channel.node_id)
        raise last

    async def write(self, key: str, type_name: str, op: bytes, node_id: str | None) -> tuple[str, ValueReply]:
        """Return (node id, its reply) once the write is durable there.

        Another node is tried only if the one before surely did not apply the write: a counter would count twice.

        Raises:
            OutcomeUnknownError: A node got the write and its answer is lost.
            ServiceError: It was refused everywhere.
        """
        last: ServiceError = _NO_NODE
        for channel in self._choose(key, node_id):
            try:
                reply = await channel.request(partial(WriteRequest, key=key, type_name=type_name, op=op))
                return channel.node_id, cast(ValueReply, reply)
            except ServiceError as error:
                if error.code not in _ELSEWHERE:
                    raise
                last = error
        raise last

    def _choose(self, key: str, node_id: str | None) -> list[Channel]:
        channels = self._directory.channels
        if node_id is None:
            return [channels[name] for name in order_nodes(key, channels)]
        if node_id not in channels:
            raise UnreachableError(node_id)
        return [channels[node_id]]

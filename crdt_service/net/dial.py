"""Opens an authenticated channel to an address."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ServiceError
from crdt_service.net.channel import Channel, Observe
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import Credentials, shaking_hands
from crdt_service.net.handshake import Identity, dial
from crdt_service.wire.message import PROTOCOL_BEFORE

# Raising it waits longer for addresses that take packets and answer none; a lost packet is sent again after a second.
CONNECT_SECONDS_MAX = 1.0
# Raising it waits longer for processes that stand still; lowering it gives up on busy ones.
HANDSHAKE_SECONDS_MAX = 2.0


async def open_channel(
    host: str,
    port: int,
    cluster: ClusterIdentity,
    identity: Identity,
    credentials: Credentials | None = None,
    *,
    observe: Observe | None = None,
    clock: HybridClock | None = None,
    may_fall_back: Callable[[], bool] = lambda: True,
) -> tuple[Identity, Channel]:
    """Connect, over TLS if there are credentials, and authenticate; return who listens there and the channel to it.

    A listener that hangs up at the first word without a reason is dialled once more in the protocol before, if
    `may_fall_back` says so then. One of this release refuses that, so two of them never speak it. With a `clock` the
    listener is asked for the time at once, before anything else.

    Raises:
        OSError: No process listens there, or none that answers.
        ServiceError: Either end refuses the other.
    """
    try:
        connection, other = await _connect(host, port, cluster, identity, credentials)
    except ServiceError as error:
        if not isinstance(error.__cause__, EOFError) or not may_fall_back():
            raise
        try:
            before = replace(identity, protocol=PROTOCOL_BEFORE)
            connection, other = await _connect(host, port, cluster, before, credentials)
        except (ServiceError, OSError):
            raise error from None
    channel = Channel(other.node_id, connection, observe, replica=other.replica, protocol=other.protocol, clock=clock)
    connection.start(channel)
    if clock is not None:
        channel.pulse()
    return other, channel


async def _connect(
    host: str, port: int, cluster: ClusterIdentity, identity: Identity, credentials: Credentials | None
) -> tuple[Connection, Identity]:
    loop = asyncio.get_running_loop()
    context = None if credentials is None else credentials.dialler()
    dialled = await _dial(host, port)
    async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
        with shaking_hands():
            name = None if context is None else host
            _, connection = await loop.create_connection(Connection, sock=dialled, ssl=context, server_hostname=name)
        try:
            return connection, await dial(connection, cluster, identity)
        except BaseException:
            connection.close()
            raise


async def _dial(host: str, port: int) -> socket.socket:
    """Return a socket to the first address of a host that answers.

    Raises:
        OSError: None does.
    """
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        dialled = socket.socket(family, kind, protocol)
        dialled.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await loop.sock_connect(dialled, address)
            return dialled
        except OSError as error:  # TimeoutError is one.
            failure = error
            dialled.close()
        except BaseException:
            dialled.close()
            raise
    raise failure

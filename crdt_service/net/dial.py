"""Opens an authenticated channel to an address."""

import asyncio
from dataclasses import replace

from crdt_service.kernel.error import ServiceError
from crdt_service.net.channel import Channel, Observe
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import Credentials, shaking_hands
from crdt_service.net.handshake import Identity, dial
from crdt_service.wire.message import PROTOCOL_BEFORE


async def open_channel(
    host: str,
    port: int,
    secret: bytes,
    identity: Identity,
    credentials: Credentials | None = None,
    *,
    observe: Observe | None = None,
) -> tuple[Identity, Channel]:
    """Connect, over TLS if there are credentials, and authenticate; return who listens there and the channel to it.

    A listener that hangs up at the first word without a reason is dialled once more in the protocol before.

    Raises:
        OSError: Nobody listens there.
        ServiceError: Either end refuses the other.
    """
    try:
        connection, other = await _connect(host, port, secret, identity, credentials)
    except ServiceError as error:
        if not isinstance(error.__cause__, EOFError):
            raise
        try:
            before = replace(identity, protocol=PROTOCOL_BEFORE)
            connection, other = await _connect(host, port, secret, before, credentials)
        except (ServiceError, OSError):
            raise error from None
    channel = Channel(other.node_id, connection, observe, replica=other.replica, protocol=other.protocol)
    connection.start(channel)
    return other, channel


async def _connect(
    host: str, port: int, secret: bytes, identity: Identity, credentials: Credentials | None
) -> tuple[Connection, Identity]:
    context = None if credentials is None else credentials.dialler()
    with shaking_hands():
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port, ssl=context)
    try:
        return connection, await dial(connection, secret, identity)
    except BaseException:
        connection.close()
        raise

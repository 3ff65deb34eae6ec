"""Opens an authenticated channel to an address."""

import asyncio

from crdt_service.net.channel import Channel, Observe
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import Credentials, shaking_hands
from crdt_service.net.handshake import Identity, dial


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

    Raises:
        OSError: Nobody listens there.
        ServiceError: Either end refuses the other.
    """
    context = None if credentials is None else credentials.dialler()
    with shaking_hands():
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port, ssl=context)
    try:
        other = await dial(connection, secret, identity)
    except BaseException:
        connection.close()
        raise
    channel = Channel(other.node_id, connection, observe)
    connection.start(channel)
    return other, channel

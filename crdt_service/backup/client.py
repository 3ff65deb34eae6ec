"""Takes a backup from a running node, and restores one into running nodes."""

import random
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from crdt_service.backup.file import BackupReader, BackupWriter, Summary, make_header
from crdt_service.kernel.error import ServiceError
from crdt_service.net.channel import Channel
from crdt_service.net.operator import Operator
from crdt_service.wire.message import BackupReply, BackupRequest, RestoreReply, RestoreRequest
from crdt_service.wire.seal import Key


async def take_backup(operator: Operator, address: tuple[str, int], path: Path, keys: Sequence[Key]) -> Summary:
    """Write a node's states to a new file at `path`.

    Raises:
        ConfigError: There is such a file already.
        ServiceError: The node refuses or cannot be reached; no file is left.
        OSError: The disk is full or failed; no file is left.
    """
    name = secrets.token_hex(16)
    async with operator.connect(address) as (channel, node):
        reply = await _fetch(channel, name, 0)
        header = make_header(node.node_id, node.replica, reply.started_at, reply.total)
        writer = BackupWriter(path, keys, random.SystemRandom(), header)
        part = 0
        try:
            while True:
                writer.add(reply.deltas)
                if reply.is_last:
                    return writer.finish()
                part += 1
                reply = await _fetch(channel, name, part)
        except BaseException:
            writer.abort()
            raise


async def restore_backup(
    operator: Operator, path: Path, keys: Sequence[Key], addresses: Sequence[tuple[str, int]]
) -> tuple[Summary, int]:
    """Join a file's states into each of the nodes; return what it holds and how many states were refused.

    The whole file is read and checked before anything is sent. Joined again, a state changes nothing, so an interrupted
    restore is simply begun again.

    Raises:
        ConfigError: The file cannot be read, or its key is not given.
        DamagedBackupError: The file is not whole.
        ServiceError: A node refuses or cannot be reached.
    """
    reader = BackupReader(path, keys)
    summary = reader.verify()
    refused = 0
    for address in addresses:
        async with operator.connect(address) as (channel, _):
            for states in reader.read():
                reply = await channel.request(partial(RestoreRequest, deltas=states))
                refused += cast(RestoreReply, reply).refused
    return summary, refused


async def _fetch(channel: Channel, name: str, part: int) -> BackupReply:
    return cast(BackupReply, await channel.request(partial(BackupRequest, backup=name, part=part)))


class RefusedStatesError(ServiceError):
    """Some of a backup's states were not taken."""

    def __init__(self, count: int) -> None:
        super().__init__(
            "states_refused",
            f"{count} states were refused, all others are restored",
            "see the nodes' logs; a stamp in the future is taken once its time has come",
        )

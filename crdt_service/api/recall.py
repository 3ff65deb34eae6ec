"""What became of a named write whose answer is lost: its node knows, and other owners may have heard of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from crdt_service.api.many import Answer
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.replication.port import Channel
from crdt_service.wire.message import Concern, ReceiptRequest, Request, Token, ValueReply

# Raising it finds out later; lowering it asks more often.
AGAIN_SECONDS = 0.1
_PROTOCOL_OF_RECEIPTS = 4


async def find_out(
    channels: Mapping[str, Channel],
    node_id: str,
    others: Sequence[str],
    *,
    build: Callable[[int], Request],
    recall: Callable[[int], ReceiptRequest],
    elsewhere: set[str],
    seconds_max: float,
) -> Answer | None:
    """Return the answer to a named write, None if there is none in time.

    Its own node is sent it again once it is back: it knows whether it had applied it, and does so now if not. Any other
    may not have heard of it yet, and is only asked what it has.

    Args:
        channels: Channels by node id, as they come and go.
        node_id: The node that got the write.
        others: Nodes that may have its receipt.
        build: The write.
        recall: Asks for its receipt.
        elsewhere: Codes of refusals after which it is as unknown as before.
        seconds_max: For how long to look.

    Raises:
        ServiceError: Its node refuses it, having looked whether it had applied it.
    """
    try:
        async with asyncio.timeout(max(0.0, seconds_max)):
            while True:
                if (channel := channels.get(node_id)) is not None:
                    try:
                        return node_id, cast(ValueReply, await channel.request(build))
                    except (UnreachableError, OutcomeUnknownError):  # It is gone, still or again.
                        pass
                    except ServiceError as error:
                        if error.code in elsewhere:
                            return None
                        raise
                for name in others:
                    channel = channels.get(name)
                    if channel is not None and await _has_receipt(channel, recall):
                        # It does nothing there, and is answered as it would have been.
                        return name, cast(ValueReply, await channel.request(build))
                await asyncio.sleep(AGAIN_SECONDS)
    except TimeoutError:
        return None


def recalling(key: str, concern: Concern, token: Token) -> Callable[[int], ReceiptRequest]:
    """Return what asks for the receipt of a write."""
    return partial(ReceiptRequest, key=key, concern=concern, token=token)


async def _has_receipt(channel: Channel, recall: Callable[[int], ReceiptRequest]) -> bool:
    if channel.protocol < _PROTOCOL_OF_RECEIPTS:
        return False
    try:
        return bool(cast(ValueReply, await channel.request(recall)).type_name)
    except ServiceError:
        return False

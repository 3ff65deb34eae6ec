"""Has the nodes that a smaller cluster does without hand over what they hold, before their pods go."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import cast

from crdt_service.kernel.config import split_address
from crdt_service.kernel.error import ServiceError
from crdt_service.membership.link import Endpoint
from crdt_service.membership.table import DEAD
from crdt_service.net.operator import Operator
from crdt_service.wire.message import LeaveReply, LeaveRequest, MemberUpdate, TableReply, TableRequest

POLL_SECONDS = 1.0


async def resize(operator: Operator, peers: list[Endpoint], node_count: int, report: Callable[[str], None]) -> None:
    """Return once no live node numbered `node_count` or more, by the end of its id, holds anything.

    Interrupted, it may simply be begun again; a node that starts anew takes part again. Where no node answers it does
    nothing: a cluster that is down must not keep an upgrade from repairing it, and volumes keep what they hold.

    Args:
        operator: Connects to nodes.
        peers: Where nodes listen; the first that answers tells of all.
        node_count: How many nodes stay.
        report: Called with a line of progress.

    Raises:
        ServiceError: One of those that go refuses, or ends before it has handed all over.
    """
    members = await _read_members(operator, peers)
    if not members:
        report("no node answers, so none hands anything over; the volumes keep what they hold")
        return
    going = [member for member in members if _is_surplus(member, node_count)]
    report(f"{len(members)} nodes, {len(going)} to hand over what they hold")
    await asyncio.gather(*(_have_leave(operator, member, report) for member in going))


async def _read_members(operator: Operator, peers: list[Endpoint]) -> list[MemberUpdate]:
    for address in peers:
        with contextlib.suppress(ServiceError):
            async with operator.connect(address) as (channel, _):
                table = cast(TableReply, await channel.request(partial(TableRequest, updates=[])))
                return [member for member in table.updates if member.liveness < DEAD]
    return []


def _is_surplus(member: MemberUpdate, node_count: int) -> bool:
    ordinal = member.node_id.rpartition("-")[2]
    return ordinal.isdecimal() and int(ordinal) >= node_count


async def _have_leave(operator: Operator, member: MemberUpdate, report: Callable[[str], None]) -> None:
    async with operator.connect(split_address(member.address, f"address of {member.node_id}")) as (channel, _):
        before = -1
        while (held := cast(LeaveReply, await channel.request(LeaveRequest)).held) > 0:
            if held != before:
                report(f"{member.node_id} holds {held} slots still")
            before = held
            await asyncio.sleep(POLL_SECONDS)
    report(f"{member.node_id} holds nothing any more")

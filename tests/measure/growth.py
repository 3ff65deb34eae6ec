"""What gossip and repairs cost each node at rest as clusters grow, at replication factor 3, in virtual time.

Messages have their real size, without the heads of frames and TLS. Nothing differs between the nodes.
"""

import asyncio

from benchmarks.page import markdown
from crdt_service.kernel.slot import SLOTS
from crdt_service.membership.placement import Placement
from tests.sim.growth import QUIET_INTERVALS, SIZES
from tests.sim.membership import World
from tests.unit.service.side import Side, repairer

REPLICATION_FACTOR = 3
GOSSIP_SECONDS = 10.0
FANOUT = 3
HEAD = (
    "nodes",
    "gossip messages",
    "gossip bytes",
    "co-owners, mean",
    "most",
    "repair messages",
    "repair bytes",
)


def tables(nodes_max):
    """Return one table, per node and interval."""
    return markdown(HEAD, [measure(count) for count in SIZES if count <= nodes_max])


def measure(count):
    world = World(count, seed=0, interval_seconds=GOSSIP_SECONDS, fanout=FANOUT)
    world.run(GOSSIP_SECONDS)
    world.totals()
    world.run(QUIET_INTERVALS * GOSSIP_SECONDS)
    messages, size = (total / count / QUIET_INTERVALS for total in world.totals())
    placement = Placement(world.peers["node-0"].swim.placement_members(), REPLICATION_FACTOR)
    peers, most, repair_messages, repair_bytes = asyncio.run(measure_repairs(placement))
    return (
        f"{count:,}",
        f"{messages:.1f}",
        f"{size:,.0f}",
        f"{peers:.1f}",
        f"{most}",
        f"{repair_messages:.1f}",
        f"{repair_bytes:,.0f}",
    )


async def measure_repairs(placement):
    """Return co-owners per node, the most of a node, then messages and bytes per node and interval.

    Each node compares its roots with each co-owner; a request and its reply count once, at the node that asks.
    """
    owned = {node_id: placement.owns(node_id) for node_id in placement.members}
    asked = {node_id: set() for node_id in owned}
    for slot in range(SLOTS):
        for node_id in placement.owners(slot):
            asked[node_id].update(placement.owners(slot))
    one, two = Side("jarvis-crdt-0"), Side("jarvis-crdt-1")
    repairs = repairer(one)
    for node_id, peers in asked.items():
        peers.discard(node_id)
        for peer in peers:
            slots = owned[node_id] & owned[peer]
            await repairs.repair(two, None if len(slots) == SLOTS else slots)
    count = len(owned)
    peers = [len(each) for each in asked.values()]
    return sum(peers) / count, max(peers), 2 * len(two.requests) / count, two.moved_bytes / count

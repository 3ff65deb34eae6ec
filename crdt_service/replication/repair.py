"""The digest exchange: compare roots, descend where sums differ, then move states; pure answers and plans.

Its bytes follow the difference: about 20 when nothing differs, else for each differing key its path down the tree, its
name and its state. A sum is shown in 4 bytes, so one difference in 2**32 stays hidden; the roots, of 8 bytes, still
differ then, and the next exchange shows other bits of the sums.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import xor

from crdt_service.kernel.error import MalformedError
from crdt_service.kernel.slot import NAME_BYTES, SLOT_BITS, SLOTS
from crdt_service.replication.commits import PUSH_BYTES_MAX, delta_bytes, group_deltas
from crdt_service.replication.snapshot import Snapshots
from crdt_service.store.store import Store
from crdt_service.store.tree import CHILDREN, DEPTH_MAX, LEVEL_BITS, SLOT_DEPTH, Tree
from crdt_service.wire.message import (
    DIGEST_BYTES,
    Delta,
    FetchReply,
    FetchRequest,
    RootReply,
    RootRequest,
    SumReply,
    SumRequest,
)
from crdt_service.wire.number import decode_ascending

# A node with so few keys lists them: another level would cost more than it spares.
LISTED_KEYS_MAX = 3
# About 7 ms of work between two others of the loop. Raising it spares round trips and holds writes up for longer.
ANSWER_KEYS_MAX = 4096
NODES_MAX = 4096
# More than slots of 10**5 keys have at any depth; only a peer that makes sums up comes to it.
FOUND_NODES_MAX = 1 << 18
# What travels of a sum or digest. A byte more costs about 20 for each differing key.
_SHOWN_BYTES = 4
_SHOWN_MASK = (1 << 8 * _SHOWN_BYTES) - 1
_ROW_BYTES = DIGEST_BYTES + _SHOWN_BYTES
_SLOT_SHIFT = 8 * NAME_BYTES - SLOT_BITS

Slots = frozenset[int] | None
Node = tuple[int, int | None]


@dataclass(slots=True)
class Difference:
    """What a descent has found so far.

    Attributes:
        window: The lowest of the bits that this exchange shows of sums and digests.
        nodes: Nodes of the next depth that differ, ascending, with what the peer shows of their sums if that is known.
        theirs: Name to what the peer shows of its digest, of keys that differ from ours or that we lack.
        missing: Names of our keys that the peer lacks.
    """

    window: int
    nodes: list[Node] = field(default_factory=list)
    theirs: dict[int, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)


def encode_slots(slots: Slots) -> bytes:
    """Return the map of some slots, empty for all."""
    return b"" if slots is None else sum(1 << slot for slot in slots).to_bytes(SLOTS // 8, "little")


def decode_slots(data: bytes) -> Slots:
    """Return the slots of a map.

    Raises:
        MalformedError: It is no map.
    """
    if not data:
        return None
    if len(data) != SLOTS // 8:
        raise MalformedError(f"a map of slots has {len(data)} bytes")
    bits = int.from_bytes(data, "little")
    return frozenset(slot for slot in range(SLOTS) if bits >> slot & 1)


def encode_root(store: Store, slots: Slots) -> bytes:
    """Return the sum to compare first."""
    return Tree(store, slots).root().to_bytes(DIGEST_BYTES, "big")


def answer_root(store: Store, request: RootRequest) -> RootReply:
    """Return the sum of everything in the slots.

    Raises:
        MalformedError: It names no slots.
    """
    return RootReply(request.id, encode_root(store, decode_slots(request.slots)))


def answer_sums(store: Store, request: SumRequest) -> SumReply:
    """Return what is under the asked nodes: as many as are looked at soon, and at least one.

    Raises:
        MalformedError: It names no slots, or nodes that are not in this depth.
    """
    tree = Tree(store, decode_slots(request.slots))
    nodes = decode_ascending(request.nodes, 1 << request.depth * LEVEL_BITS)
    served = inner = cost = 0
    sums, rows = bytearray(), bytearray()
    for node in nodes:
        cost += tree.cost(request.depth, node)
        if served and cost > ANSWER_KEYS_MAX:
            break
        tree.visit(request.depth, node)
        if tree.count(request.depth, node) > LISTED_KEYS_MAX and request.depth < DEPTH_MAX - 1:
            inner |= 1 << served
            for total in tree.sums(request.depth, node)[:-1]:
                sums += _show(total, request.window).to_bytes(_SHOWN_BYTES, "big")
        else:
            for name, digest in tree.rows(request.depth, node):
                rows += name.to_bytes(DIGEST_BYTES, "big")
                rows += _show(digest, request.window).to_bytes(_SHOWN_BYTES, "big")
        served += 1
    return SumReply(request.id, served, inner.to_bytes((served + 7) // 8, "little"), bytes(sums), bytes(rows))


def answer_fetch(store: Store, snapshots: Snapshots, request: FetchRequest) -> FetchReply:
    """Return the asked keys' states, as many as fit about 1 MiB and are soon found, and at least a part of one.

    Raises:
        MalformedError: The names are cut short, or the snapshot has no such part.
    """
    deltas: list[Delta] = []
    total = cost = served = 0
    names = list(_decode_numbers(request.names, DIGEST_BYTES))
    if request.snapshot and names:
        deltas, snapshot = snapshots.serve(request.snapshot, request.part, partial(encode_named, store, names[0]))
        return FetchReply(request.id, int(not snapshot), deltas, snapshot)
    for name in names:
        cost += store.scan_cost(name >> _SLOT_SHIFT, is_fresh=False)
        if served and cost > ANSWER_KEYS_MAX:
            break
        parts = encode_named(store, name)
        total += sum(map(delta_bytes, parts))
        if total > PUSH_BYTES_MAX:
            if not served:
                deltas, snapshot = snapshots.serve(0, 0, partial(iter, parts))
                return FetchReply(request.id, int(not snapshot), deltas, snapshot)
            break
        deltas += parts
        served += 1
    return FetchReply(request.id, served, deltas)


def encode_names(names: Iterable[int]) -> bytes:
    """Return the names of keys as 8 bytes each."""
    return b"".join(name.to_bytes(DIGEST_BYTES, "big") for name in names)


def encode_named(store: Store, name: int) -> list[Delta]:
    """Return the whole states of the key of a name in deltas of about 1 MiB or less, none if there is no such key."""
    key = _find_key(store, name)
    return [] if key is None else store.split_key(key, PUSH_BYTES_MAX)


def begin(window: int, root: bytes) -> Difference:
    """Return the start of a descent from the root, whose sum at the peer is `root`."""
    return Difference(window, [(0, _show(int.from_bytes(root, "big"), window))])


def take_nodes(tree: Tree, depth: int, nodes: list[Node]) -> list[Node]:
    """Return the first of the nodes, so few that comparing them is soon done, and at least one."""
    cost = 0
    for count, (node, _) in enumerate(nodes[:NODES_MAX]):
        cost += tree.cost(depth, node)
        if count and cost > ANSWER_KEYS_MAX:
            return nodes[:count]
    return nodes[:NODES_MAX]


def compare(tree: Tree, depth: int, asked: list[Node], reply: SumReply, found: Difference) -> None:
    """Add to `found` what differs under the nodes that the reply serves.

    Raises:
        MalformedError: The reply does not fit the nodes asked for.
    """
    inner, sums = _check_reply(depth, asked, reply)
    listed: set[int] = set()
    for place, (node, whole) in enumerate(asked[: reply.served]):
        tree.visit(depth, node)
        if inner >> place & 1:
            shown = [next(sums) for _ in range(CHILDREN - 1)]
            theirs = [*shown, None if whole is None else reduce(xor, shown, whole)]
            for child, total in enumerate(tree.sums(depth, node)):
                if _show(total, found.window) != theirs[child]:
                    found.nodes.append((node * CHILDREN + child, theirs[child]))
        elif depth < SLOT_DEPTH and tree.count(depth, node) > ANSWER_KEYS_MAX:
            # The peer has next to nothing here: slot by slot is soon enough to look through all of ours.
            found.nodes += [(node * CHILDREN + child, None) for child in range(CHILDREN)]
        else:
            listed.add(node)
    if len(found.nodes) > FOUND_NODES_MAX:
        raise MalformedError("sums: they lead nowhere")
    _compare_rows(tree, depth, listed, reply.rows, found)


def _compare_rows(tree: Tree, depth: int, listed: set[int], rows: bytes, found: Difference) -> None:
    shift = 8 * NAME_BYTES - depth * LEVEL_BITS
    theirs = {
        name: row & _SHOWN_MASK
        for row in _decode_numbers(rows, _ROW_BYTES)
        if (name := row >> 8 * _SHOWN_BYTES) >> shift in listed
    }
    ours = {name: _show(digest, found.window) for node in listed for name, digest in tree.rows(depth, node)}
    found.theirs.update((name, digest) for name, digest in theirs.items() if ours.get(name) != digest)
    found.missing += sorted(ours.keys() - theirs.keys())


def plan_push(store: Store, found: Difference, names: list[int]) -> list[int]:
    """Return which of `names` the peer still lacks something of, now that its states are joined here."""
    keys = {name: _find_key(store, name) for name in names}
    return [
        name
        for name, key in keys.items()
        if key is not None and _show(store.digest(key), found.window) != found.theirs[name]
    ]


def split_pushes(store: Store, names: list[int]) -> Iterator[list[Delta]]:
    """Yield the states behind `names` in groups of about 1 MiB; each key's as they are when its first delta is due."""
    return group_deltas((delta for name in names for delta in encode_named(store, name)), PUSH_BYTES_MAX)


def _find_key(store: Store, name: int) -> str | None:
    return store.scan(name >> _SLOT_SHIFT, is_fresh=False).find(name)


def _check_reply(depth: int, asked: list[Node], reply: SumReply) -> tuple[int, Iterator[int]]:
    """Return which nodes are inner, and their children's sums."""
    served, is_last = reply.served, depth == DEPTH_MAX - 1
    if not 0 < served <= len(asked):
        raise MalformedError("sums: the reply does not fit the request")
    inner = int.from_bytes(reply.inner[: (served + 7) // 8], "little")
    rows_max = LISTED_KEYS_MAX * (served - inner.bit_count())
    if (
        len(reply.inner) != (served + 7) // 8
        or inner >> served
        or (inner and is_last)
        or len(reply.sums) != inner.bit_count() * (CHILDREN - 1) * _SHOWN_BYTES
        or len(reply.rows) % _ROW_BYTES
        or (len(reply.rows) > rows_max * _ROW_BYTES and not is_last)
    ):
        raise MalformedError("sums: the reply does not fit the request")
    return inner, _decode_numbers(reply.sums, _SHOWN_BYTES)


def _show(digest: int, window: int) -> int:
    return digest >> window & _SHOWN_MASK


def _decode_numbers(data: bytes, size: int) -> Iterator[int]:
    if len(data) % size:
        raise MalformedError("a list of digests is cut short")
    return (int.from_bytes(data[start : start + size], "big") for start in range(0, len(data), size))

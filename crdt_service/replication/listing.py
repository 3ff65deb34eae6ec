"""Pages of what a node holds, and how those of several nodes become one page."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from crdt_service.resolution.explanation import explain_listed
from crdt_service.resolution.sibling import Place
from crdt_service.store.store import Address, Store
from crdt_service.wire.message import (
    LISTED_KEYS_MAX,
    Conflict,
    ConflictsReply,
    ConflictsRequest,
    ListedKey,
    ListReply,
    ListRequest,
)

# Raising it makes each answer larger, and fewer of them needed.
PAGE_BYTES_MAX = 1 << 20
# How many deleted keys one page passes over. Raising it makes pages among many of them fewer, and each take longer.
VACANT_KEYS_MAX = 4096


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


P = TypeVar("P", bound=_Ordered)
T = TypeVar("T")


class Page(NamedTuple, Generic[P, T]):
    """What one node answered.

    Attributes:
        items: By place, in order.
        upto: Beyond this place the node may hold more; None if it does not.
    """

    items: Sequence[tuple[P, T]]
    upto: P | None


class Merged(NamedTuple):
    """A key of a listing made of several nodes' answers.

    Attributes:
        listed: As `node_id` lists it, with the type that readers see.
        other_types: Further types that it holds.
        node_id: The node that answers for it.
        others: Owners of it that answered, too, and hold something else or nothing of it.
    """

    listed: ListedKey
    node_id: str
    others: list[str]
    other_types: tuple[str, ...] = ()


def answer_conflicts(store: Store, request: ConflictsRequest) -> ConflictsReply:
    """Return the conflicts beyond the cursor: as many as asked for, fewer if they pass about 1 MiB, at least one."""
    after = None if request.after is None else Place(*request.after)
    conflicts: list[Conflict] = []
    total = 0
    for place in store.conflicts.walk(request.prefix, after):
        if len(conflicts) == request.limit or total > PAGE_BYTES_MAX:
            return ConflictsReply(request.id, conflicts, True)
        stamp, resolution = explain_listed(store.conflicts, place, store.get(Address(*place.address)))
        conflicts.append(Conflict(*place, stamp, resolution))
        total += len(resolution)
    return ConflictsReply(request.id, conflicts, False)


def answer_list(store: Store, request: ListRequest) -> ListReply:
    """Return the keys beyond the cursor that are not missing; all slots of the store's index are to be built before.

    A key that holds several types comes once for each, the type that readers see last: backends of the release before,
    which do not know of the others, take that one.
    """
    keys: list[ListedKey] = []
    vacant = count = 0
    last = request.after
    for key in store.index.walk(request.prefix, request.after):
        types = store.types(key)
        if count == request.limit or vacant == VACANT_KEYS_MAX or len(keys) + len(types) > LISTED_KEYS_MAX:
            return ListReply(request.id, keys, last)
        last = key
        if types:
            count += 1
            keys += [ListedKey(key, datatype.name, store.etag(key)) for datatype in reversed(types)]
        else:
            vacant += 1
    return ListReply(request.id, keys, None)


def merge_conflicts(
    replies: Mapping[str, ConflictsReply], limit: int
) -> tuple[list[tuple[str, Conflict]], Place | None]:
    """Return (node id and conflict, by place, at most `limit`; the place to go on after, None at the end).

    Where nodes hold other siblings of one place, the one that knows the newest answers, of several the first by name.
    """

    def choose(place: Place, held: Mapping[str, Conflict]) -> str:
        return max(sorted(held), key=lambda node_id: held[node_id].stamp)

    pages: dict[str, Page[Place, Conflict]] = {}
    for node_id, reply in replies.items():
        items = [(Place(each.key, each.path, each.tag), each) for each in reply.conflicts]
        pages[node_id] = Page(items, items[-1][0] if reply.more and items else None)
    return merge_pages(pages, limit, choose)


def merge_keys(
    replies: Mapping[str, ListReply], limit: int, owners: Callable[[str], Sequence[str]]
) -> tuple[list[Merged], str | None]:
    """Return (keys that any node holds, in order, at most `limit`; the key to go on after, None at the end).

    Of each key its first owner that holds it answers, without one the first other node by name. An owner that answered
    and does not list a key says that it is missing.
    """

    def choose(key: str, held: Mapping[str, ListedKey]) -> str:
        return next((owner for owner in owners(key) if owner in held), min(held))

    pages = {
        node_id: Page([(listed.key, listed) for listed in reply.keys], reply.upto) for node_id, reply in replies.items()
    }
    chosen, following = merge_pages(pages, limit, choose)
    digests = {node_id: {listed.key: listed.digest for listed in reply.keys} for node_id, reply in replies.items()}

    def contradict(listed: ListedKey) -> list[str]:
        return [
            owner
            for owner in owners(listed.key)
            if owner in digests and digests[owner].get(listed.key) != listed.digest
        ]

    further: dict[tuple[str, str], list[str]] = {}
    for node_id, reply in replies.items():
        for listed, after in pairwise(reply.keys):
            if listed.key == after.key:
                further.setdefault((node_id, listed.key), []).insert(0, listed.type_name)
    merged = [
        Merged(listed, node_id, contradict(listed), tuple(further.get((node_id, listed.key), ())))
        for node_id, listed in chosen
    ]
    return merged, following


def merge_pages(
    pages: Mapping[str, Page[P, T]], limit: int, choose: Callable[[P, Mapping[str, T]], str]
) -> tuple[list[tuple[str, T]], P | None]:
    """Return (node id and item, by place, at most `limit`; the place to go on after, None at the end).

    `choose` returns which of the nodes that hold something at a place answers for it.
    """
    held: dict[P, dict[str, T]] = {}
    for node_id, page in pages.items():
        for place, item in page.items:
            held.setdefault(place, {})[node_id] = item
    # Beyond what the shortest answer reached, its node may know more.
    horizon = min((page.upto for page in pages.values() if page.upto is not None), default=None)
    places = [place for place in sorted(held) if horizon is None or not horizon < place]
    kept = places[:limit]
    items = [(node_id, held[place][node_id]) for place in kept for node_id in [choose(place, held[place])]]
    if len(kept) < len(places):
        return items, kept[-1]
    return items, horizon

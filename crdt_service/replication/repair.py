"""The digest exchange: root, then differing buckets, then differing states; pure answers and plans.

Its bytes follow the difference: 8 when nothing differs, else 2 KiB for the buckets, 20 per entry of a differing bucket,
and the differing states.
"""

from collections.abc import Iterator

from crdt_service.replication.outbox import PUSH_BYTES_MAX, delta_bytes
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    BucketReply,
    BucketRequest,
    Delta,
    FetchReply,
    FetchRequest,
    RootReply,
    RootRequest,
)


def answer_root(store: Store, request: RootRequest) -> RootReply:
    """Return all bucket digests if the roots differ."""
    return RootReply(request.id, [] if request.root == store.digests.root() else store.digests.buckets())


def answer_bucket(store: Store, request: BucketRequest) -> BucketReply:
    """Return what a bucket holds."""
    return BucketReply(request.id, list(store.digests.entries(request.bucket).items()))


def answer_fetch(store: Store, request: FetchRequest) -> FetchReply:
    """Return the asked states, as many as fit about 1 MiB and at least one."""
    deltas: list[Delta] = []
    total = 0
    for served, name in enumerate(request.names):
        delta = store.encode_named(name)
        if delta is None:
            continue
        total += delta_bytes(delta)
        if deltas and total > PUSH_BYTES_MAX:
            return FetchReply(request.id, served, deltas)
        deltas.append(delta)
    return FetchReply(request.id, len(request.names), deltas)


def plan_buckets(store: Store, theirs: list[bytes]) -> list[int]:
    """Return the numbers of the buckets that differ."""
    return [number for number, digest in enumerate(store.digests.buckets()) if theirs and digest != theirs[number]]


def plan_states(store: Store, bucket: int, theirs: dict[bytes, bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return (names to fetch, names to push) in a bucket: each side gets what it lacks, both where both differ."""
    ours = store.digests.entries(bucket)
    fetch = [name for name, digest in theirs.items() if ours.get(name) != digest]
    push = [name for name, digest in ours.items() if theirs.get(name) != digest]
    return fetch, push


def split_pushes(store: Store, names: list[bytes]) -> Iterator[list[Delta]]:
    """Yield the states behind `names` in parts of about 1 MiB."""
    part: list[Delta] = []
    total = 0
    for name in names:
        delta = store.encode_named(name)
        if delta is None:
            continue
        if part and total + delta_bytes(delta) > PUSH_BYTES_MAX:
            yield part
            part, total = [], 0
        part.append(delta)
        total += delta_bytes(delta)
    if part:
        yield part

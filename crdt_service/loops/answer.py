"""A node's answers to requests, whatever carried them."""

from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import refresh
from crdt_service.replication import repair
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    BucketRequest,
    PushReply,
    PushRequest,
    ReadRequest,
    Reply,
    Request,
    RootRequest,
    ValueReply,
    WriteRequest,
)


async def answer(store: Store, committer: Committer, request: Request) -> Reply:
    """Return the reply to a request.

    Raises:
        ServiceError: It was refused and changed nothing.
    """
    if isinstance(request, ReadRequest):
        reading = store.read(request.key)
        return ValueReply(request.id, *((reading.type, reading.value) if reading else ("", b"")))
    if isinstance(request, WriteRequest):
        reading = await committer.write(request.key, request.type_name, request.op)
        return ValueReply(request.id, reading.type, reading.value)
    if isinstance(request, PushRequest):
        return PushReply(request.id, await committer.join(request.deltas, request.committed_at))
    if isinstance(request, RootRequest):
        await refresh(store)
        return repair.answer_root(store, request)
    if isinstance(request, BucketRequest):
        return repair.answer_bucket(store, request)
    return repair.answer_fetch(store, request)

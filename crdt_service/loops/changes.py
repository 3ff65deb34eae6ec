"""Tells readers which keys changed on this node, and lets them wait for the next change."""

import asyncio

from crdt_service.kernel.slot import slot_of
from crdt_service.store.store import Store
from crdt_service.wire.message import Change, ChangesReply, ChangesRequest

# Raising it holds up other requests for longer where many large states changed: each is hashed once.
_SLICE_KEYS = 32


class ChangeStream:
    """Answers from the store's ring of changes.

    Args:
        epoch: Names this run of the process; never the same again, and not 0.
    """

    def __init__(self, store: Store, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self._arrival: asyncio.Future[None] | None = None

    async def answer(self, request: ChangesRequest) -> ChangesReply:
        """Return the keys that changed since a position, none if none do until the time is up."""
        changes = self._store.changes
        if request.epoch != self._epoch or not changes.reaches(request.after):
            return ChangesReply(request.id, self._epoch, changes.newest, [], True)
        if request.after == changes.newest and request.wait_ms:
            await self._wait(request.wait_ms / 1000)
        if not changes.reaches(request.after):
            return ChangesReply(request.id, self._epoch, changes.newest, [], True)
        upto, numbers = changes.take(request.after, request.limit)
        shown: list[Change] = []
        for place, (key, number) in enumerate(numbers.items(), 1):
            if key not in self._store.slots[slot_of(key)]:
                continue  # Handed over with its slot, which is no deletion; or purged, long after it was emptied.
            datatype = self._store.find(key)
            shown.append(Change(number, key, "" if datatype is None else datatype.name, self._store.etag(key)))
            if not place % _SLICE_KEYS:
                await asyncio.sleep(0)
        return ChangesReply(request.id, self._epoch, upto, shown, False)

    async def _wait(self, seconds: float) -> None:
        """Return after the next change, or when the time is up; one future serves all who wait."""
        if self._arrival is None:
            self._arrival = asyncio.get_running_loop().create_future()
            self._store.changes.on_change = self._wake
        await asyncio.wait([self._arrival], timeout=seconds)

    def _wake(self) -> None:
        if self._arrival is not None:
            self._arrival.set_result(None)
        self._arrival = self._store.changes.on_change = None

"""Operators: look at the placement through a node, and have another one decided."""

import asyncio
from functools import partial

from crdt_service.kernel.error import ServiceError
from crdt_service.wire.message import PROTOCOL, PlacementRequest, PlacementWord, ProposeRequest

AGAIN_SECONDS = 1.0


class Operator:
    """One who is connected to no node for long."""

    name = "operator"
    asker = ("operator", "")
    hybrid = None
    is_alive = True
    protocol = PROTOCOL
    hears_all = True

    def __init__(self, world, randomness):
        self._world = world
        self._random = randomness

    def propose(self, reason, node_count=0, *, at=None, **fields):
        """Propose it once, through one node or one that is drawn, and do not care what becomes of that."""
        node = at or self._random.choice(self._world.names)
        self._world.loop.create_task(self._propose(node, reason, node_count, **fields))

    def insist(self, node_count):
        """Have so many nodes own all slots, however often that has to be tried before all is calm."""
        self._world.loop.create_task(self._insist(node_count))

    async def resize(self, node_count, seconds):
        """Have so many nodes own all slots; tell whether they do after some seconds at most."""
        deadline = self._world.loop.time() + seconds
        while self._world.loop.time() < deadline:
            document = await self._propose(self._random.choice(self._world.names), "resize", node_count)
            if document is not None and document.next is None and document.old.node_count == node_count:
                return True
            await asyncio.sleep(AGAIN_SECONDS)
        return False

    async def _insist(self, node_count):
        while not self._world.is_calm and not await self.resize(node_count, AGAIN_SECONDS):
            pass

    async def _propose(self, node, reason, node_count, **fields):
        """Return the document that is in force then as far as that node knows, None if it did not say."""
        try:
            link = await self._world.network.connect(self, node)
        except OSError:
            return None
        try:
            known = (await link.request(partial(PlacementRequest, word=PlacementWord(0)))).document
            if known is None:
                return None
            build = partial(ProposeRequest, epoch=known.epoch, reason=reason, node_count=node_count, **fields)
            reply = await link.request(build)
        except ServiceError as error:
            self._world.trace("not proposed", node, reason, node_count, error.code)
            return None
        finally:
            link.close()
        self._world.trace("proposed", node, reason, node_count, reply.word.epoch)
        return reply.document or known

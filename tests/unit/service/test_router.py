"""A write goes to another node only if the one before surely did not apply it."""

from types import SimpleNamespace

import pytest

from crdt_service.api.router import Router
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.membership.rendezvous import order_nodes
from crdt_service.membership.view import View
from crdt_service.wire.message import ValueReply

KEY = "k"
FIRST, SECOND = order_nodes(KEY, ["node-0", "node-1"])


class FakeChannel:
    def __init__(self, node_id, outcome):
        self.node_id = node_id
        self.outcome = outcome
        self.requests = []

    async def request(self, build):
        self.requests.append(build(1))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return ValueReply(1, "pn_counter", b"1")


def route(first, second=None):
    channels = {FIRST: FakeChannel(FIRST, first), SECOND: FakeChannel(SECOND, second)}
    return Router(SimpleNamespace(channels=channels, peers=list)), channels


async def write(router, node=None):
    return (await router.write(KEY, "pn_counter", b'{"increment":1}', node))[0]


async def test_a_write_whose_outcome_is_unknown_is_never_sent_again():
    router, channels = route(OutcomeUnknownError(FIRST))
    with pytest.raises(OutcomeUnknownError):
        await write(router)
    assert channels[SECOND].requests == []


@pytest.mark.parametrize("code", ["storage_full", "overloaded", "stopping"])
async def test_a_write_that_a_node_surely_did_not_apply_goes_to_the_next(code):
    router, _ = route(ServiceError(code, "", ""))
    assert await write(router) == SECOND
    router, _ = route(UnreachableError(FIRST))
    assert await write(router) == SECOND


async def test_a_refusal_of_the_write_itself_is_final():
    router, channels = route(ServiceError("type_conflict", "", ""))
    with pytest.raises(ServiceError) as refused:
        await write(router)
    assert (refused.value.code, channels[SECOND].requests) == ("type_conflict", [])


async def test_a_pinned_write_stays_on_its_node():
    router, channels = route(None, ServiceError("storage_full", "", ""))
    with pytest.raises(ServiceError) as refused:
        await write(router, SECOND)
    assert (refused.value.code, channels[FIRST].requests) == ("storage_full", [])


async def test_a_read_is_tried_everywhere():
    router, _ = route(OutcomeUnknownError(FIRST))
    assert (await router.read(KEY, None))[0] == SECOND
    router, _ = route(OutcomeUnknownError(FIRST), OutcomeUnknownError(SECOND))
    with pytest.raises(UnreachableError):
        await router.read(KEY, None)


async def test_without_nodes_the_error_says_so():
    router = Router(SimpleNamespace(channels={}, peers=list))
    with pytest.raises(ServiceError) as refused:
        await write(router)
    assert refused.value.code == "no_node"


def test_the_order_of_nodes_changes_only_for_keys_of_a_lost_one():
    nodes = ["a", "b", "c", "d"]
    for number in range(200):
        order = order_nodes(f"k{number}", nodes)
        assert order_nodes(f"k{number}", order[1:]) == order[1:]


def test_the_view_follows_discovery_and_hides_this_process():
    view = View()
    a, b = ("10.0.0.1", 8001), ("10.0.0.2", 8001)
    assert view.plan({a, b}) == ({a, b}, set())
    assert view.update(a, "self", "node-0")
    assert view.update(b, "reachable", "node-1")
    assert not view.update(b, "reachable", "node-1")
    assert [(member.id, member.state) for member in view.peers()] == [("node-1", "reachable")]
    assert view.plan({a}) == (set(), {b})
    assert not view.update(b, "reachable")
    assert view.peers() == []

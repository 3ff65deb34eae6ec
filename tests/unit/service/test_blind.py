"""Which writes any member may take, as the items of a request."""

from crdt_service.store.batch import is_blind
from crdt_service.wire.message import Token, WriteItem

ADD = b'{"add": "x"}'


def test_only_plain_writes_of_blind_operations_are_blind():
    assert is_blind(WriteItem("k", "aw_set", ADD))
    assert not is_blind(WriteItem("k", "aw_set", b'{"remove": "x"}'))
    assert not is_blind(WriteItem("k", "aw_set", ADD, if_match=b""))
    assert not is_blind(WriteItem("k", "aw_set", ADD, token=Token(bytes(16), bytes(8))))
    assert not is_blind(WriteItem("k", "", b"", is_delete=True))


def test_what_every_node_refuses_is_blind():
    assert is_blind(WriteItem("k", "no_such_type", ADD))
    assert is_blind(WriteItem("k", "aw_set", b"{"))
    assert is_blind(WriteItem("k", "map", b'{"update": {"f": {"type": "graph", "op": {}}}}'))

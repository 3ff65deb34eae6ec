"""How many owners a concern asks for."""

import pytest

from crdt_service.replication.quorum import needed
from crdt_service.wire.message import Concern


@pytest.mark.parametrize(("replicas", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4), (100, 51)])
def test_two_majorities_always_share_an_owner(replicas, majority):
    assert (1, majority, replicas) == tuple(needed(concern, replicas) for concern in Concern)
    assert 2 * majority > replicas

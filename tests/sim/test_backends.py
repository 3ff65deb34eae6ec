"""Worlds with backends that must keep their promises to clients, and bugs that break each of them."""

from unittest import mock

import pytest

from crdt_service.api.freshness import Freshness
from tests.sim.backends import run_backends

BUG_SEEDS_MAX = 20


def what_was_written_is_forgotten():
    return mock.patch.object(Freshness, "note_write", lambda *_: None)


def what_was_read_is_forgotten():
    return mock.patch.object(Freshness, "note_read", lambda *_: None)


def whoever_answers_is_believed():
    return mock.patch("crdt_service.api.freshness.covers", lambda *_: True)


BUGS = {
    what_was_written_is_forgotten: "read_your_writes",
    what_was_read_is_forgotten: "monotonic_reads",
    whoever_answers_is_believed: "read_your_writes",
}


@pytest.mark.parametrize("seed", range(6))
def test_a_backend_keeps_every_promise_to_its_clients(seed):
    findings, _, shown = run_backends(seed)
    assert {} == findings
    assert shown > 0


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(bug):
    found = set()
    for seed in range(BUG_SEEDS_MAX):
        with bug():
            found |= run_backends(seed)[0].keys()
        if BUGS[bug] in found:
            return
    pytest.fail(f"{BUG_SEEDS_MAX} seeds found only {found}")


def test_a_world_replays_identically():
    assert run_backends(1)[1] == run_backends(1)[1] != run_backends(2)[1]

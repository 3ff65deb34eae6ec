"""What a process listens on: one family, both, or the one that the machine has."""

import errno
import socket

import pytest

from crdt_service.__main__ import _advertise
from crdt_service.kernel.config import join_address, split_address
from crdt_service.net.listener import open_listeners


def close(listeners):
    for listener in listeners:
        listener.close()


def test_everywhere_is_both_families_on_one_port():
    listeners = open_listeners("::", 0, 8)
    port = listeners[0].getsockname()[1]
    assert {port} == {each.getsockname()[1] for each in listeners}
    hosts = {"127.0.0.1": "127.0.0.1", "::1": "::1"} if len(listeners) == 2 else {"127.0.0.1": "127.0.0.1"}
    for host, seen in hosts.items():
        with socket.create_connection((host, port)):
            listener = listeners[":" in host]
            listener.setblocking(True)
            accepted, address = listener.accept()
            accepted.close()
            # An address of IPv4 is the one that other members and limits know it by.
            assert seen == address[0]
    close(listeners)


@pytest.mark.parametrize("lacking", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("reason", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_that_lacks_a_family_has_the_other(monkeypatch, lacking, reason):
    create = socket.create_server

    def create_server(address, *, family, backlog):
        if family == lacking:
            raise OSError(reason, "no such family")
        return create(address, family=family, backlog=backlog)

    monkeypatch.setattr(socket, "create_server", create_server)
    listeners = open_listeners("::", 0, 8)
    assert [({socket.AF_INET, socket.AF_INET6} - {lacking}).pop()] == [each.family for each in listeners]
    close(listeners)


def test_a_port_that_is_taken_is_no_lacking_family():
    taken = open_listeners("127.0.0.1", 0, 8)
    with pytest.raises(OSError) as raised:
        open_listeners("::", taken[0].getsockname()[1], 8)
    assert errno.EADDRINUSE == raised.value.errno
    close(taken)


@pytest.mark.parametrize(
    ("text", "address", "joined"),
    [
        ("10.1.2.3:8001", ("10.1.2.3", 8001), "10.1.2.3:8001"),
        ("[fd00::5]:8001", ("fd00::5", 8001), "[fd00::5]:8001"),
        ("fd00::5:8001", ("fd00::5", 8001), "[fd00::5]:8001"),
        ("node-0.example:8001", ("node-0.example", 8001), "node-0.example:8001"),
    ],
)
def test_a_pods_address_of_either_family_is_advertised_so_that_peers_can_dial_it(text, address, joined):
    """The chart writes `$(POD_IP):8001`, where an address of IPv6 has no brackets."""
    assert address == split_address(text, "--advertise")
    assert joined == join_address(*address) == _advertise(text, "[::]:8001")
    assert address == split_address(joined, "--peer")


def test_a_process_that_listens_everywhere_advertises_nothing_by_itself():
    assert ["", "", "[fd00::5]:8001"] == [
        _advertise("", listen) for listen in ("[::]:8001", "0.0.0.0:8001", "[fd00::5]:8001")
    ]

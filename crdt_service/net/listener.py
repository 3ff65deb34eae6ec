"""Opens the sockets that a process listens on."""

import errno
import socket

# Every address, of both families.
EVERYWHERE = "::"
_LACKING = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def open_listeners(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return non-blocking sockets that listen on a port; `::` means every address of IPv4 and of IPv6.

    Each family has a socket of its own, so that clients over IPv4 have the same address as without IPv6.

    Args:
        host: A name or an address.
        port: 0 draws one, the same for both families.
        backlog: How many connections wait to be accepted, for each socket.

    Raises:
        OSError: The address cannot be listened on; for `::`, neither family's.
    """
    listeners: list[socket.socket] = []
    hosts = ("0.0.0.0", EVERYWHERE) if host == EVERYWHERE else (host,)  # noqa: S104 - a cluster's policies bound it.
    for each in hosts:
        family = socket.AF_INET6 if ":" in each else socket.AF_INET
        try:
            # The socket of IPv6 takes IPv6 alone.
            listener = socket.create_server((each, port), family=family, backlog=backlog)
        except OSError as error:
            # A machine may lack a family.
            if error.errno in _LACKING and (listeners or each != hosts[-1]):
                continue
            for opened in listeners:
                opened.close()
            raise
        listener.setblocking(False)
        port = int(listener.getsockname()[1])
        listeners.append(listener)
    return listeners

"""Who waits to prove the secret: bounded for each address and for all strangers, with room of their own for members.

A newcomer is never turned away: where there is no room, who waited longest goes. A handshake takes milliseconds and who
only holds its place waits for ever, so that strangers push each other out. It knows neither sockets nor time.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

# Raising either lets strangers hold more descriptors and memory; lowering it cuts handshakes while many begin at once,
# as after a cut of the network. Several processes may share an address.
ADDRESS_MAX = 64
STRANGERS_MAX = 256

_T = TypeVar("_T", bound=Hashable)


class Lobby(Generic[_T]):
    """Guests by address, in the order in which they came.

    Args:
        is_member: Tells whether members are at an address: strangers elsewhere push none from there out.
        address_max: Guests of one address.
        strangers_max: Guests of all addresses that are no members'.
    """

    def __init__(
        self,
        is_member: Callable[[str], bool],
        *,
        address_max: int = ADDRESS_MAX,
        strangers_max: int = STRANGERS_MAX,
    ) -> None:
        self._is_member = is_member
        self._address_max = address_max
        self._strangers_max = strangers_max
        self._guests: dict[str, dict[_T, None]] = {}
        self._strangers: dict[_T, str] = {}

    def __len__(self) -> int:
        return sum(map(len, self._guests.values()))

    def enter(self, address: str, guest: _T) -> _T | None:
        """Let a guest in; return who has to go for it, if anybody, and who is no guest any more."""
        neighbours = self._guests.setdefault(address, {})
        neighbours[guest] = None
        if not self._is_member(address):
            self._strangers[guest] = address
        if len(neighbours) > self._address_max:
            gone = next(iter(neighbours))
            self.leave(address, gone)
            return gone
        if len(self._strangers) > self._strangers_max:
            gone, where = next(iter(self._strangers.items()))
            self.leave(where, gone)
            return gone
        return None

    def leave(self, address: str, guest: _T) -> None:
        """Forget a guest, if it is one still."""
        self._strangers.pop(guest, None)
        neighbours = self._guests.get(address)
        if neighbours is not None:
            neighbours.pop(guest, None)
            if not neighbours:
                del self._guests[address]

"""A bounded room that callers share, so that no caller can fill it.

Each caller may hold as much as all callers together leave free: dynamic thresholds with a factor of 1, as switches
share their buffer between ports (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). One caller alone
gets half, three that want everything a quarter each, and who comes next still finds room.
"""

from collections.abc import Callable

from crdt_service.kernel.error import ServiceError


class Room:
    """What one kind of resource has of it, counted in whatever unit its user counts in.

    Args:
        name: What is shared, as metrics and errors name it.
        size: How much there is.
        on_refused: Called with the name when a caller gets nothing.
    """

    def __init__(self, name: str, size: int, on_refused: Callable[[str], object] = lambda name: None) -> None:
        self._name = name
        self._on_refused = on_refused
        self._held: dict[str, int] = {}
        self.free = size

    def holds(self, caller: str) -> int:
        """Return how much a caller holds."""
        return self._held.get(caller, 0)

    def has(self, caller: str, amount: int = 1) -> bool:
        """Tell whether a caller may take so much."""
        return self._held.get(caller, 0) + amount <= self.free

    def take(self, caller: str, amount: int = 1) -> None:
        """Take so much for a caller; `give` must follow.

        Raises:
            ServiceError: It is more than the caller's share.
        """
        if not self.has(caller, amount):
            raise self.refuse()
        self.force(caller, amount)

    def force(self, caller: str, amount: int) -> None:
        """Take so much even if it is more than there is, for what can no longer be refused; `give` must follow."""
        if amount:
            self.free -= amount
            self._held[caller] = self._held.get(caller, 0) + amount

    def give(self, caller: str, amount: int = 1) -> None:
        """Give so much back."""
        if amount:
            self.free += amount
            left = self._held[caller] - amount
            if left:
                self._held[caller] = left
            else:
                del self._held[caller]

    def refuse(self) -> ServiceError:
        """Count a refusal and return what to tell the caller."""
        self._on_refused(self._name)
        return ServiceError(
            "overloaded",
            f"more is asked for than there is room for: {self._name}",
            "retry later and ask for less at once, or run more backends",
        )

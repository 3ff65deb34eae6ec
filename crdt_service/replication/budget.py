"""How fast repairs may go, all peers together."""

# Raising it heals sooner after a partition, and leaves writes less of the network and of both ends' CPU.
REPAIR_BYTES_PER_SECOND = 32 << 20
# Less than a timer keeps anyway.
_PAUSE_SECONDS_MIN = 0.005


class Budget:
    """A leaky bucket of bytes."""

    def __init__(self) -> None:
        self._spent_until_seconds = 0.0

    def spend(self, now_seconds: float, size_bytes: int) -> float:
        """Take `size_bytes`; return how many seconds to wait before the next."""
        start = max(now_seconds, self._spent_until_seconds)
        self._spent_until_seconds = start + size_bytes / REPAIR_BYTES_PER_SECOND
        pause = self._spent_until_seconds - now_seconds
        return pause if pause >= _PAUSE_SECONDS_MIN else 0.0

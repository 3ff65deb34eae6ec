"""Cutting what a state holds into parts that a peer takes."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

# Entries, elements or origins of one part: a peer refuses a state that lists more at once, however many it may hold.
# Raising it lets one frame of a hostile peer become more memory: about 64 MiB at 2**17.
PART_ITEMS_MAX = 1 << 17

T = TypeVar("T")


def cut(items: Iterable[T], measure: Callable[[T], int], bytes_max: int) -> Iterator[list[T]]:
    """Yield consecutive items in lists of at most `bytes_max`, or of one larger item; of none, one empty list.

    No list is longer than `PART_ITEMS_MAX`.
    """
    part: list[T] = []
    total = 0
    for item in items:
        size = measure(item)
        if part and (total + size > bytes_max or len(part) == PART_ITEMS_MAX):
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    yield part

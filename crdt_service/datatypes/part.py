"""Cutting what a state holds into parts of a bounded size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def cut(items: Iterable[T], measure: Callable[[T], int], bytes_max: int) -> Iterator[list[T]]:
    """Yield consecutive items in lists of at most `bytes_max`, or of one larger item; of none, one empty list."""
    part: list[T] = []
    total = 0
    for item in items:
        size = measure(item)
        if part and total + size > bytes_max:
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    yield part

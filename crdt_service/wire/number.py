"""Ascending numbers as gaps of 7 bits a byte, low bits first (LEB128): what is dense takes one byte each."""

from crdt_service.kernel.error import MalformedError


def encode_ascending(numbers: list[int]) -> bytes:
    """Return the bytes of strictly ascending numbers from 0 on."""
    data = bytearray()
    expected = 0
    for number in numbers:
        gap = number - expected
        while gap > 0x7F:
            data.append(gap & 0x7F | 0x80)
            gap >>= 7
        data.append(gap)
        expected = number + 1
    return bytes(data)


def decode_ascending(data: bytes, end: int) -> list[int]:
    """Return the numbers in `data`, each less than `end`.

    Raises:
        MalformedError: They are not.
    """
    numbers: list[int] = []
    gap = shift = expected = 0
    for byte in data:
        gap |= (byte & 0x7F) << shift
        shift += 7
        if gap + expected >= end or shift > 70:
            raise MalformedError("a number is out of range")
        if byte < 0x80:
            numbers.append(expected + gap)
            expected += gap + 1
            gap = shift = 0
    if shift:
        raise MalformedError("a number is cut short")
    return numbers

"""Length-prefixed frames: 4 bytes big-endian length, then that many bytes of msgpack."""

from typing import Protocol

from crdt_service.kernel.error import MalformedError

FRAME_BYTES_MAX = 16 << 20
# Before the other end has proved the secret, it may send no more than a handshake needs.
HANDSHAKE_BYTES_MAX = 1024
_PREFIX_BYTES = 4


class ByteReader(Protocol):
    """The part of `asyncio.StreamReader` that frames need."""

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` bytes or raise `asyncio.IncompleteReadError`."""
        ...


def encode_frame(body: bytes) -> bytes:
    """Return `body` with its prefix.

    Raises:
        MalformedError: It is larger than a frame may be.
    """
    if len(body) > FRAME_BYTES_MAX:
        raise MalformedError(f"a frame of {len(body)} bytes is too large")
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


async def read_frame(reader: ByteReader, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Return the next frame's body.

    Raises:
        MalformedError: The frame claims more than `bytes_max`.
        asyncio.IncompleteReadError: The stream ended.
    """
    size = int.from_bytes(await reader.readexactly(_PREFIX_BYTES), "big")
    if size > bytes_max:
        raise MalformedError(f"a frame claims {size} bytes")
    return await reader.readexactly(size)

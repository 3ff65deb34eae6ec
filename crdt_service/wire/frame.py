"""Length-prefixed frames: 4 bytes big-endian length, then that many bytes of msgpack."""

import struct

from crdt_service.kernel.error import MalformedError

FRAME_BYTES_MAX = 16 << 20
# Before the other end has proved the secret, it may send no more than a handshake needs.
HANDSHAKE_BYTES_MAX = 1024
_PREFIX = struct.Struct(">I")
# A TLS record starts with its type and the version 3; as a length either would be refused anyway.
_TLS_ALERT_OR_HANDSHAKE = (0x1503, 0x1603)


def encode_frame(body: bytes) -> bytes:
    """Return `body` with its prefix.

    Raises:
        MalformedError: It is larger than a frame may be.
    """
    if len(body) > FRAME_BYTES_MAX:
        raise MalformedError(f"a frame of {len(body)} bytes is too large")
    return _PREFIX.pack(len(body)) + body


class FrameBuffer:
    """Bytes in, in whatever pieces they arrive; bodies of frames out. Copies each byte a bounded number of times.

    Attributes:
        bytes_max: The largest body that is accepted.
    """

    __slots__ = ("_at", "_data", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._data: bytes | bytearray = b""
        self._at = 0

    def __len__(self) -> int:
        """Return how many bytes wait, prefixes included."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        if self._at == len(self._data):
            self._data = data
        else:
            rest = self._data if isinstance(self._data, bytearray) else bytearray(self._data)
            del rest[: self._at]
            rest += data
            self._data = rest
        self._at = 0

    def next_frame(self) -> bytes | bytearray | None:
        """Return the next body, or None until more bytes arrive.

        Raises:
            MalformedError: The frame claims more than `bytes_max`.
        """
        data, start = self._data, self._at + _PREFIX.size
        if start > len(data):
            return None
        size: int = _PREFIX.unpack_from(data, self._at)[0]
        if size > self.bytes_max:
            if size >> 16 in _TLS_ALERT_OR_HANDSHAKE:
                raise MalformedError("the other end speaks TLS and this one does not")
            raise MalformedError(f"a frame claims {size} bytes")
        end = start + size
        if end > len(data):
            return None
        self._at = end
        return data[start:end]

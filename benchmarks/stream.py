"""Bare connections, so that a client library's cost is not measured instead of the system."""

import asyncio
import ssl
from typing import Any

import msgspec


class Stream:
    """A TCP connection to 127.0.0.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext | None = None) -> "Stream":
        """Connect to a port of this machine, over TLS if there is a context."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def close(self) -> None:
        """End the connection."""
        self.writer.close()


class JsonHttp:
    """JSON over one persistent HTTP/1.1 connection; only what the measured servers answer with."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def post(self, path: str, body: object) -> Any:
        """Return the decoded answer to a POST.

        Raises:
            ValueError: The answer is no success, or has no end.
        """
        data = msgspec.json.encode(body)
        status, answer = await self._exchange(b"POST %s" % path.encode(), data)
        if status != 200:
            raise ValueError(f"{path}: HTTP {status}: {answer[:200]!r}")
        return msgspec.json.decode(answer)

    async def get_status(self, path: str) -> int:
        """Return the status of a GET."""
        return (await self._exchange(b"GET %s" % path.encode(), b""))[0]

    async def close(self) -> None:
        """End the connection."""
        await self._stream.close()

    async def _exchange(self, start: bytes, data: bytes) -> tuple[int, bytes]:
        self._stream.writer.write(
            b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (start, len(data), data)
        )
        head = (await self._stream.reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        _, found, rest = head.partition(b"content-length:")
        if found:
            return status, await self._stream.reader.readexactly(int(rest.partition(b"\r\n")[0]))
        if b"transfer-encoding: chunked" not in head:
            raise ValueError(f"no length in the answer: {head!r}")
        answer = b""
        while size := int((await self._stream.reader.readuntil(b"\r\n"))[:-2], 16):
            answer += (await self._stream.reader.readexactly(size + 2))[:-2]
        await self._stream.reader.readuntil(b"\r\n")
        return status, answer

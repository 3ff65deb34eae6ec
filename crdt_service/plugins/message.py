"""What a process and its plugin's worker say to each other: one reply for each call, in order.

Values, operations and changes travel as JSON, so that only the plugin's side decodes them.
"""

import socket
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from crdt_service.plugins.caller import Caller
from crdt_service.wire.frame import FRAME_BYTES_MAX, FrameBuffer, encode_frame

_MESSAGE_LENGTH_MAX = 500
_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Sentence = Annotated[str, Meta(max_length=500)]
_Text = Annotated[str, Meta(max_length=_MESSAGE_LENGTH_MAX)]


class Call(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """What the worker is asked."""


class Configure(Call, frozen=True):
    """The first call: load the plugin below `directory` (empty for what is installed) and configure it."""

    name: str
    directory: str
    memory_bytes: int
    settings: bytes


class Write(msgspec.Struct, array_like=True, frozen=True):
    """A write on its way."""

    key: str
    type_name: str
    op: bytes


class Value(msgspec.Struct, array_like=True, frozen=True):
    """A value on its way to a reader."""

    key: str
    type_name: str
    text: bytes


class PassWrites(Call, frozen=True):
    """Validate and transform writes; answered with `Texts`."""

    caller: Caller
    writes: tuple[Write, ...]


class PassValues(Call, frozen=True):
    """Transform values; answered with `Texts`."""

    values: tuple[Value, ...]


class Tell(Call, frozen=True):
    """Changes; answered with `Texts`, of none."""

    changes: tuple[bytes, ...]


class Serve(Call, frozen=True):
    """A request to an endpoint; answered with `Served` or `Refused`."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    caller: Caller


class Page(msgspec.Struct, array_like=True, frozen=True):
    """An endpoint as the API needs to know it."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: Annotated[str, Meta(max_length=200, pattern=r"\A[a-z0-9_-]+(/[a-z0-9_-]+)*\Z")]
    sentence: Annotated[str, Meta(min_length=1, max_length=500)]
    access: Literal["read", "write", "admin"]
    parameters: Annotated[dict[_Name, _Sentence], Meta(max_length=16)]
    keys: Annotated[tuple[_Name, ...], Meta(max_length=16)] = ()
    narrows: bool = False


class Answer(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """What the worker answers."""


class Ready(Answer, frozen=True):
    """The plugin is loaded: what it implements."""

    hooks: Annotated[tuple[_Name, ...], Meta(max_length=16)]
    pages: Annotated[tuple[Page, ...], Meta(max_length=32)]


class Texts(Answer, frozen=True):
    """JSON in the order of the call; empty for what stays as it is.

    Attributes:
        texts: The JSON.
        refusals: Why the plugin refuses what stands at these places.
    """

    texts: tuple[bytes, ...]
    refusals: dict[int, _Text] = {}


class Served(Answer, frozen=True):
    """What an endpoint answers."""

    status: Annotated[int, Meta(ge=200, le=599)]
    body: Annotated[bytes, Meta(max_length=1 << 20)]


class Refused(Answer, frozen=True):
    """The plugin says no."""

    message: _Text


class Failed(Answer, frozen=True):
    """The plugin raised; `is_fatal` if its worker ends now."""

    message: _Text
    is_fatal: bool = False


AnyCall = Configure | PassWrites | PassValues | Tell | Serve
AnyAnswer = Ready | Texts | Served | Refused | Failed
_encoder = msgspec.msgpack.Encoder()
call_decoder: "msgspec.msgpack.Decoder[Any]" = msgspec.msgpack.Decoder(AnyCall)
answer_decoder: "msgspec.msgpack.Decoder[Any]" = msgspec.msgpack.Decoder(AnyAnswer)


def encode(message: Call | Answer) -> bytes:
    """Return a frame.

    Raises:
        MalformedError: It is too large.
    """
    return encode_frame(_encoder.encode(message))


def shorten(text: object) -> str:
    """Return a text as a message may carry it."""
    return str(text)[:_MESSAGE_LENGTH_MAX]


class Pipe:
    """One end that waits for what the other says."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = FrameBuffer(FRAME_BYTES_MAX)

    def send(self, frame: bytes) -> None:
        """Write a frame."""
        self._end.sendall(frame)

    def receive(self) -> bytes | bytearray | None:
        """Return the next frame's body; None once the other end is gone.

        Raises:
            TimeoutError: The socket's time is over.
            MalformedError: The frame is too large.
        """
        while (body := self._buffer.next_frame()) is None:
            data = self._end.recv(1 << 16)
            if not data:
                return None
            self._buffer.feed(data)
        return body

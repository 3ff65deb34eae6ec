"""The part of the Yjs update format (v1, as yrs writes it) that documents use.

It is read strictly, so that the library only ever sees what it could have written itself. An update is the structs of
at most one client, each with consecutive clocks, then what it deletes of any client. Clocks count UTF-16 units of text,
items of lists and writes of maps. Roots hold texts, list items and map leaves; there are no nested types, so nothing
nests in the library either.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from crdt_service.datatypes.json_value import check_json
from crdt_service.datatypes.operation import TEXT_BYTES_MAX
from crdt_service.kernel.error import MalformedError

CLIENT_MAX = 2**53 - 1
# yrs counts in 32 bits.
CLOCK_MAX = 2**31 - 1
LEAF_BYTES_MAX = 64 << 10
PATH_PARTS_MAX = 32
TEXT_ROOT, LIST_ROOT, MAP_ROOT = "t", "l", "m"

_GC, _DELETED, _STRING, _ANY = 0, 1, 4, 8
_HAS_ORIGIN, _HAS_RIGHT_ORIGIN, _HAS_KEY = 0x80, 0x40, 0x20
_ANY_STRING = 119
_path = msgspec.json.Decoder(list[str])

# First clock and length.
Span = tuple[int, int]
Deletions = dict[int, list[Span]]


class Snapshot(NamedTuple):
    """What a document showed: the structs before each client's clock, but for those deleted (Yjs' ``Y.Snapshot``)."""

    clocks: dict[int, int]
    deletions: Deletions


@dataclass(slots=True)
class Update:
    """What an update holds and needs.

    Attributes:
        client: Whose structs it holds, 0 if none.
        first: Clock of the first struct.
        end: Clock behind the last struct.
        structs: Offset and clock of each struct.
        needs: (Position of a struct, client, clock that must be known of it before), in order; none of its own.
        roots: Names of roots that it writes to.
        has_wide_text: Whether any text is not ASCII.
        structs_bytes: Where the structs end in the encoding.
        gone: Spans of the structs whose content is gone already.
        deletions: What it deletes.
    """

    client: int = 0
    first: int = 0
    end: int = 0
    structs: list[tuple[int, int]] = field(default_factory=list)
    needs: list[tuple[int, int, int]] = field(default_factory=list)
    roots: set[str] = field(default_factory=set)
    has_wide_text: bool = False
    structs_bytes: int = 0
    gone: list[Span] = field(default_factory=list)
    deletions: Deletions = field(default_factory=dict)


def read_update(data: bytes) -> Update:
    """Return what `data` holds and needs.

    Raises:
        MalformedError: It is no update of one client within the limits.
    """
    return _Reader(data).read()


def read_structs(data: bytes) -> Update:
    """Return what the structs of `data` are, without reading what follows them.

    Raises:
        MalformedError: They break the format or its limits.
    """
    return _Reader(data).read_structs()


def read_snapshot(data: bytes) -> Snapshot:
    """Return the snapshot that `write_snapshot` wrote, which an update without structs is as well.

    Raises:
        MalformedError: It is none.
    """
    return _Reader(data).read_snapshot()


def write_snapshot(snapshot: Snapshot) -> bytes:
    """Return the canonical bytes of a snapshot."""
    clocks = (number for item in sorted(snapshot.clocks.items()) for number in item)
    return write_numbers(len(snapshot.clocks), *clocks) + write_deletions(snapshot.deletions)


def read_path(key: str) -> list[str]:
    """Return the path behind a key of the map.

    Raises:
        MalformedError: There is none.
    """
    try:
        path = _path.decode(key)
        canonical = write_path(path)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedError("document: a key is no path") from error
    if not 0 < len(path) <= PATH_PARTS_MAX or canonical != key:
        raise MalformedError("document: a key is no canonical path")
    return path


def write_path(path: list[str]) -> str:
    """Return the key of a path in the map."""
    return msgspec.json.encode(path).decode()


def write_numbers(*numbers: int) -> bytes:
    """Return unsigned integers in 7-bit groups, least significant first."""
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def write_deletions(deletions: Deletions) -> bytes:
    """Return the second part of an update; spans are joined where they meet."""
    out = bytearray(write_numbers(len(deletions)))
    for client, spans in sorted(deletions.items()):
        joined: list[Span] = []
        for first, length in sorted(spans):
            if joined and first <= sum(joined[-1]):
                begin = joined[-1][0]
                joined[-1] = (begin, max(sum(joined[-1]), first + length) - begin)
            else:
                joined.append((first, length))
        out += write_numbers(client, len(joined), *(number for span in joined for number in span))
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._update = Update()

    def read(self) -> Update:
        update = self.read_structs()
        try:
            self._read_deletions()
        except IndexError as error:
            raise MalformedError("document: an update ends early") from error
        if self._at != len(self._data) or not (update.client or update.deletions):
            raise MalformedError("document: an update is empty, or bytes follow it")
        return update

    def read_snapshot(self) -> Snapshot:
        clocks: dict[int, int] = {}
        try:
            for _ in range(self._number(len(self._data))):
                client, clock = self._number(CLIENT_MAX), self._number(CLOCK_MAX)
                clocks[client] = clock
            self._read_deletions()
        except IndexError as error:
            raise MalformedError("document: a snapshot ends early") from error
        if self._at != len(self._data):
            raise MalformedError("document: bytes follow a snapshot")
        return Snapshot(clocks, self._update.deletions)

    def read_structs(self) -> Update:
        update = self._update
        try:
            if self._number(1):
                structs = self._number(len(self._data))
                update.client = self._number(CLIENT_MAX)
                update.first = update.end = self._number(CLOCK_MAX)
                for _ in range(structs):
                    update.structs.append((self._at, update.end))
                    update.end += self._struct()
                    if update.end > CLOCK_MAX:
                        raise MalformedError("document: a clock is out of range")
                if update.client == 0 or update.end == update.first:
                    raise MalformedError("document: an update holds nothing of nobody")
        except IndexError as error:
            raise MalformedError("document: an update ends early") from error
        update.structs_bytes = self._at
        return update

    def _struct(self) -> int:
        """Read one struct; return how many clocks it takes."""
        info = self._data[self._at]
        self._at += 1
        if info == _GC:
            return self._gone()
        kind = info & 0x1F
        root = None
        if info & _HAS_ORIGIN:
            self._need_id()
        if info & _HAS_RIGHT_ORIGIN:
            self._need_id()
        if not info & (_HAS_ORIGIN | _HAS_RIGHT_ORIGIN):
            root = self._parent(bool(info & _HAS_KEY))
        if kind == _DELETED:
            return self._gone()
        if kind == _STRING:
            text = self._text(len(self._data))
            if root not in (None, TEXT_ROOT) or not text:
                raise MalformedError("document: text outside of a text")
            self._update.has_wide_text |= not text.isascii()
            return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
        if kind == _ANY:
            count = self._length()
            if root == TEXT_ROOT or (count != 1 and info & _HAS_KEY):
                raise MalformedError("document: a leaf inside a text, or two in one place")
            for _ in range(count):
                if self._data[self._at] != _ANY_STRING:
                    raise MalformedError("document: a leaf is no text")
                self._at += 1
                check_json(self._text(LEAF_BYTES_MAX).encode(), LEAF_BYTES_MAX)
            return count
        raise MalformedError("document: content of an unknown kind")

    def _gone(self) -> int:
        length = self._length()
        self._update.gone.append((self._update.end, length))
        return length

    def _parent(self, has_key: bool) -> str:
        """Read the root and the key that a struct belongs to; return the root's kind."""
        if self._number(1) != 1:
            raise MalformedError("document: a nested type")
        root = self._text(TEXT_BYTES_MAX + 1)
        kind = root[:1]
        if kind not in (TEXT_ROOT, LIST_ROOT, MAP_ROOT) or (kind == MAP_ROOT) != has_key or root[1:] * has_key:
            raise MalformedError("document: an unknown root")
        if has_key:
            read_path(self._text(LEAF_BYTES_MAX))
        self._update.roots.add(root)
        return kind

    def _need_id(self) -> None:
        client, end, update = self._number(CLIENT_MAX), self._number(CLOCK_MAX) + 1, self._update
        if client != update.client:
            update.needs.append((len(update.structs) - 1, client, end))
        elif end > update.end:
            raise MalformedError("document: a struct needs what comes after it")

    def _read_deletions(self) -> None:
        for _ in range(self._number(len(self._data))):
            client = self._number(CLIENT_MAX)
            if client == 0 or client in self._update.deletions:
                raise MalformedError("document: deletions of nobody, or of one client twice")
            spans = self._update.deletions[client] = []
            for _ in range(self._number(len(self._data))):
                first, length = self._number(CLOCK_MAX), self._length()
                if client == self._update.client and first + length > self._update.end:
                    raise MalformedError("document: an update deletes what comes after it")
                spans.append((first, length))
            if not spans:
                raise MalformedError("document: deletions of nothing")

    def _length(self) -> int:
        length = self._number(CLOCK_MAX)
        if length == 0:
            raise MalformedError("document: a length of zero")
        return length

    def _text(self, bytes_max: int) -> str:
        size = self._number(bytes_max)
        text = self._data[self._at : self._at + size]
        if len(text) < size:
            raise MalformedError("document: an update ends early")
        self._at += size
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise MalformedError("document: text is no UTF-8") from error

    def _number(self, most: int) -> int:
        number = byte = self._data[self._at]
        self._at += 1
        if byte >= 0x80:
            number &= 0x7F
            shift = 7
            while byte >= 0x80:
                if shift > 63:
                    raise MalformedError("document: a number is too long")
                byte = self._data[self._at]
                self._at += 1
                number |= (byte & 0x7F) << shift
                shift += 7
            if byte == 0:
                raise MalformedError("document: a number is not minimal")
        if number > most:
            raise MalformedError("document: a number is out of range")
        return number

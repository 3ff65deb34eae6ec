"""Parameters of a request, each described once: what reads it also documents it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from crdt_service.kernel.error import OperationError

# Taken as it is, it would be a second way to write the same, and part of a percent sign that somebody forgot to encode.
BROKEN_PERCENT = re.compile(b"%(?![0-9A-Fa-f]{2})")
# More fields than any request has.
_FIELDS_MAX = 16
# Proxies that compress answers weaken the tags, or add how they did it.
_ETAG = re.compile(r'(?:W/)?"([0-9a-f]{16})(?:--?(?:gzip|br|zstd|deflate))?"')
_ETAGS = re.compile(r'\s*(?:W/)?"[^"\s]*"\s*(?:,\s*(?:W/)?"[^"\s]*"\s*)*|\s*\*\s*')
ANY_ETAG = b"*"
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Parameter:
    """A query parameter or header.

    Attributes:
        name: As it is sent; a header's in lower case.
        where: In which part of the request.
        sentence: What it does, for people.
        schema: Its JSON schema.
        allowed: What may be given, to say in an error.
        default: What a request without it has.
        read: Returns the value of a text, None if it is none.
    """

    name: str
    where: Literal["query", "header"]
    sentence: str
    schema: Mapping[str, Any]
    allowed: str
    default: Any
    read: Callable[[str], Any]


def choice(name: str, values: Mapping[str, Any], default: str, sentence: str) -> Parameter:
    """Return a query parameter that takes one of some words."""
    schema = {"type": "string", "enum": list(values), "default": default}
    return Parameter(name, "query", sentence, schema, _either(values), values[default], values.get)


def name(name: str, names: Iterable[str], sentence: str) -> Parameter:
    """Return a query parameter that takes one of some names; a request without it has an empty one."""
    known = {each: each for each in names}
    schema = {"type": "string", "enum": list(known)}
    return Parameter(name, "query", sentence, schema, _either(known), "", known.get)


def flag(name: str, default: bool, sentence: str) -> Parameter:
    """Return a query parameter that is `true` or `false`."""
    values = {"true": True, "false": False}
    return Parameter(
        name, "query", sentence, {"type": "boolean", "default": default}, _either(values), default, values.get
    )


def count(name: str, lowest: int, highest: int, default: int, sentence: str) -> Parameter:
    """Return a query parameter that is a whole number within bounds."""
    schema = {"type": "integer", "minimum": lowest, "maximum": highest, "default": default}

    def read(text: str) -> int | None:
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(highest))):
            return None
        number = int(text)
        return number if lowest <= number <= highest else None

    return Parameter(name, "query", sentence, schema, f"a number from {lowest} to {highest}", default, read)


def text(name: str, bytes_max: int, sentence: str, default: str | None = None) -> Parameter:
    """Return a query parameter that is any text of bounded size in UTF-8."""
    schema = {"type": "string", "maxLength": bytes_max}
    allowed = f"at most {bytes_max} bytes"
    return Parameter(
        name,
        "query",
        sentence,
        schema,
        allowed,
        default,
        lambda given: given if len(given.encode()) <= bytes_max else None,
    )


def header(name: str, length_max: int, sentence: str) -> Parameter:
    """Return a header of bounded length in printable ASCII, without spaces."""
    schema = {"type": "string", "maxLength": length_max, "pattern": r"^[\x21-\x7e]+$"}
    allowed = f"1 to {length_max} printable ASCII characters"
    return Parameter(
        name,
        "header",
        sentence,
        schema,
        allowed,
        None,
        lambda given: given if len(given) <= length_max and _PRINTABLE.fullmatch(given) else None,
    )


def etag(name: str, sentence: str) -> Parameter:
    """Return a header that takes an entity tag as this API gives it, and has its digest."""
    schema = {"type": "string", "pattern": f"^{_ETAG.pattern}$"}

    def read(given: str) -> bytes | None:
        match = _ETAG.fullmatch(given)
        return bytes.fromhex(match[1]) if match else None

    return Parameter(name, "header", sentence, schema, "an ETag of this API", None, read)


def etags(name: str, sentence: str) -> Parameter:
    """Return a header that takes entity tags of any server, and has the digests of those that this API gave.

    `*` is among them as `ANY_ETAG`.
    """

    def read(given: str) -> frozenset[bytes] | None:
        if _ETAGS.fullmatch(given) is None:
            return None
        return frozenset([ANY_ETAG] if given.strip() == "*" else map(bytes.fromhex, _ETAG.findall(given)))

    return Parameter(name, "header", sentence, {"type": "string"}, "ETags", frozenset(), read)


def marker(name: str, word: str, value: Any, sentence: str) -> Parameter:
    """Return a header that takes one word, which stands for a value."""
    return Parameter(name, "header", sentence, {"type": "string", "enum": [word]}, word, None, {word: value}.get)


def show_etag(digest: bytes) -> bytes:
    """Return an entity tag as a header carries it."""
    return b'"%s"' % digest.hex().encode()


class Reader:
    """Reads the parameters of one kind of request."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        parameters = list(parameters)
        self._defaults = {parameter.name: parameter.default for parameter in parameters}
        self._query = {parameter.name: parameter for parameter in parameters if parameter.where == "query"}
        self._headers = {parameter.name.encode(): parameter for parameter in parameters if parameter.where == "header"}

    def read(self, query_string: bytes, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
        """Return the value of every parameter by its name.

        Raises:
            OperationError: One is unknown, repeated or malformed.
        """
        values = self._defaults.copy()
        if query_string:
            self._read_query(query_string, values)
        if self._headers:
            self._read_headers(headers, values)
        return values

    def _read_query(self, query_string: bytes, values: dict[str, Any]) -> None:
        if BROKEN_PERCENT.search(query_string):
            raise OperationError("the query has a % that begins no byte", "encode % as %25", "invalid_query")
        try:
            pairs = parse_qsl(
                query_string.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_FIELDS_MAX,
            )
        except ValueError as error:
            raise OperationError(
                f"the query is not understood: {error}", "percent-encode it as UTF-8", "invalid_query"
            ) from error
        seen = set()
        for name, given in pairs:
            parameter = self._query.get(name)
            if parameter is None:
                known = ", ".join(self._query) or "none"
                raise OperationError(f"query: unknown parameter {name[:64]!r}", f"use {known}", "invalid_query")
            if name in seen:
                raise OperationError(f"query: {name} is given twice", "give it once", "invalid_query")
            seen.add(name)
            values[name] = _read(parameter, given, "invalid_query")

    def _read_headers(self, headers: Iterable[tuple[bytes, bytes]], values: dict[str, Any]) -> None:
        seen = set()
        for raw_name, given in headers:
            parameter = self._headers.get(raw_name)
            if parameter is None:
                continue
            if raw_name in seen:
                raise OperationError(f"header {parameter.name} is given twice", "give it once", "invalid_header")
            seen.add(raw_name)
            values[parameter.name] = _read(parameter, given.decode("latin-1").strip(), "invalid_header")


def _read(parameter: Parameter, given: str, code: str) -> Any:
    value = parameter.read(given)
    if value is None:
        raise OperationError(f"{parameter.name}: {given[:64]!r} is not allowed", f"give {parameter.allowed}", code)
    return value


def _either(values: Iterable[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}"

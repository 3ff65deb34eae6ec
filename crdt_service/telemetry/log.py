"""Log lines: JSON where machines read them, text for people; each says when, where, and for which request."""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import msgspec

from crdt_service.telemetry.context import request

_LEVELS = {"development": logging.DEBUG, "staging": logging.INFO, "production": logging.INFO}
_COLOURS = {logging.DEBUG: 2, logging.INFO: 32, logging.WARNING: 33, logging.ERROR: 31, logging.CRITICAL: 41}
_ESCAPED = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
# Attribute of a record that holds more than its message.
FIELDS = "fields"
_encoder = msgspec.json.Encoder(enc_hook=str)
_log = logging.getLogger(__name__)


def configure_logging(environment: str, node: str, stream: TextIO = sys.stderr, *, level: int | None = None) -> None:
    """Write all log lines to `stream` from now on, those of libraries, warnings and unhandled exceptions as well.

    Args:
        environment: `development` for text and level DEBUG; `staging` or `production` for JSON and level INFO.
        node: Name of this process in every line.
        stream: Where to.
        level: The least that is written, instead of the environment's.
    """
    handler = logging.StreamHandler(stream)
    is_text = environment == "development"
    handler.setFormatter(TextFormatter(is_coloured=stream.isatty()) if is_text else JsonFormatter(node))
    logging.basicConfig(level=_LEVELS[environment] if level is None else level, handlers=[handler], force=True)
    for library in ("asyncio", "urllib3"):
        logging.getLogger(library).setLevel(max(logging.INFO, logging.root.level))
    logging.captureWarnings(True)
    sys.excepthook = _log_unhandled


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, node, the request's ids, fields, exception."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: Mapping[str, Any] = getattr(record, FIELDS, {})
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clean(record.getMessage()),
            "node": self._node,
            **_request_fields(),
            **{name: _clean(value) if isinstance(value, str) else value for name, value in fields.items()},
        }
        if record.exc_info:
            line["exception"] = _clean(self.formatException(record.exc_info))
        return _encoder.encode(line).decode()


class TextFormatter(logging.Formatter):
    """Time, level, logger and message, then what JSON has as fields; control characters are escaped."""

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__()
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the lines of an exception."""
        time = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        level = f"{record.levelname:<8}"
        if self._is_coloured:
            level = f"\x1b[{_COLOURS.get(record.levelno, 0)}m{level}\x1b[0m"
        fields = {**_request_fields(), **getattr(record, FIELDS, {})}
        parts = [time, level, record.name.removeprefix("crdt_service.")]
        parts += [record.getMessage().translate(_ESCAPED)]
        parts += [f"{name}={value}".translate(_ESCAPED) for name, value in fields.items()]
        line = _clean(" ".join(parts))
        return f"{line}\n{_clean(self.formatException(record.exc_info))}" if record.exc_info else line


def _request_fields() -> dict[str, str]:
    context = request.get()
    if context is None:
        return {}
    return {name: value for name, value in zip(context._fields, context, strict=True) if value}


def _clean(text: str) -> str:
    """Return what UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _log_unhandled(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("unhandled exception", exc_info=(kind, error, trace))

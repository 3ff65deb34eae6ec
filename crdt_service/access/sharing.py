"""Lets all backends drain the same buckets, through a key of the store that clients cannot reach.

The key is a map with a field for each backend, which it alone writes: its report. A round writes that and reads all
others in one request; what others wrote through another owner of the key arrives with the next.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from crdt_service.access.buckets import REPORTED_MAX, Buckets, Report
from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.kernel.ident import RESERVED_PREFIX

KEY = f"{RESERVED_PREFIX}rate-limits"
TYPE = "map"
# Raising it lets more requests through before others hear of them; lowering it costs the nodes a write each.
ROUND_SECONDS = 1.0
# The least between two rounds, however much is let through.
HURRY_SECONDS = 0.1
_ROUND_SECONDS_MAX = 2.0
# Without a round for so long, each backend keeps to its part of the limits.
ALONE_SECONDS = 5.0
# A backend that let nothing through still says so often that it is there …
_BEAT_SECONDS = 20.0
# … and is forgotten by the others when it has not for so long.
_GONE_SECONDS = 70.0
_BACKENDS_MAX = 1000
_log = logging.getLogger(__name__)


class Field(msgspec.Struct, forbid_unknown_fields=True):
    """What a backend says.

    Attributes:
        beat: Grows with each writing.
        callers: Its report.
    """

    beat: int
    callers: Annotated[Report, Meta(max_length=REPORTED_MAX)]


_fields = msgspec.json.Decoder(Annotated[dict[str, Field], Meta(max_length=_BACKENDS_MAX)])


class Store(Protocol):
    """The key, as the nodes have it."""

    async def update(self, operation: bytes) -> bytes:
        """Apply an operation to the key and return its value as JSON.

        Raises:
            ServiceError: It cannot be done now.
        """

    async def read(self) -> bytes:
        """Return the key's value as JSON.

        Raises:
            ServiceError: It cannot be read now.
        """


class Sharing:
    """Exchanges reports.

    Attributes:
        buckets: What is shared.
    """

    def __init__(self, store: Store, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Share nothing yet; `name` is this backend's own for as long as it runs, and never anyone's again."""
        self._store = store
        self._name = name
        self._monotonic = monotonic
        self._hurried = asyncio.Event()
        self.buckets = Buckets(hurry=self._hurried.set)
        self._beat = 0
        self._written_seconds = float("-inf")
        self._written_used: dict[str, int] = {}
        self._heard_seconds = float("-inf")
        # By backend, its last beat with what it reported, and when that was new.
        self._others: dict[str, tuple[Field, float]] = {}
        self._is_alone = False
        self._has_left = False

    @property
    def parts(self) -> int:
        """Between how many backends the limits are divided: 1 while reports are exchanged, else all last heard of."""
        return len(self._others) + 1 if self._is_alone else 1

    async def run(self) -> None:
        """Exchange until cancelled."""
        while True:
            self._hurried.clear()
            await self.round()
            await asyncio.sleep(HURRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), ROUND_SECONDS - HURRY_SECONDS)

    async def round(self) -> None:
        """Exchange once; a failure is logged if it makes a difference."""
        if self._has_left:
            return
        try:
            async with asyncio.timeout(_ROUND_SECONDS_MAX):
                await self._exchange()
        except (ServiceError, TimeoutError) as error:
            if not self._is_alone and self._monotonic() - self._heard_seconds > ALONE_SECONDS:
                self._is_alone = True
                _log.warning("rate limits are not shared; this backend allows 1/%d of each: %s", self.parts, error)
            return
        if self._is_alone:
            _log.info("rate limits are shared again")
        self._is_alone = False

    async def leave(self) -> None:
        """Take this backend's report away for good; one that stays is forgotten in time."""
        self._has_left = True
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_ROUND_SECONDS_MAX):
                await self._store.update(_remove(self._name))

    async def _exchange(self) -> None:
        now = self._monotonic()
        report = self.buckets.report(now)
        used = {caller: usage.used for caller, usage in report.items()}
        if used != self._written_used or now - self._written_seconds >= _BEAT_SECONDS:
            self._beat += 1
            value = await self._store.update(_assign(self._name, Field(self._beat, report)))
            self._written_used, self._written_seconds = used, now
        else:
            value = await self._store.read()
        fields = decode_fields(value)
        now = self._heard_seconds = self._monotonic()
        fields.pop(self._name, None)
        self.buckets.merge({name: field.callers for name, field in fields.items()}, now)
        for name in self._others.keys() - fields.keys():
            del self._others[name]
            self.buckets.forget(name)
        for name, field in fields.items():
            known = self._others.get(name)
            if known is None or known[0].beat != field.beat:
                self._others[name] = (field, now)
            elif now - known[1] > _GONE_SECONDS:
                await self._store.update(_remove(name))


def decode_fields(value: bytes) -> dict[str, Field]:
    """Return all reports in the key's value, by backend.

    Raises:
        MalformedError: It holds something else.
    """
    try:
        fields: dict[str, Field] = _fields.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"{KEY}: {error}") from error
    return fields


def _assign(name: str, field: Field) -> bytes:
    return msgspec.json.encode({"update": {name: {"type": "lww_register", "op": {"assign": field}}}})


def _remove(name: str) -> bytes:
    return msgspec.json.encode({"remove": name})

"""The keys that are good now, from a file that may change at any time."""

import asyncio
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crdt_service.access.audit import audit
from crdt_service.access.key import ApiKey, decode_keys, hash_token, read_id
from crdt_service.access.principal import Principal, Scope
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.file_version import read_version

# Kubernetes takes a minute or so to bring a changed Secret into a pod; looking at the file is cheap.
LOOK_SECONDS = 1.0
_FOREVER = float("inf")
_REMEDY = "send `Authorization: Bearer jarvis_…` with a key that is good"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it is looked up."""

    digest: bytes
    starts_seconds: float
    ends_seconds: float
    principal: Principal


_NOBODY = Entry(bytes(32), _FOREVER, -_FOREVER, Principal("", "", Scope.READ))


class Keyring:
    """Tells whose a token is.

    The file is looked at each second, and read again when it changed: written to, renamed over, or behind another link,
    as Kubernetes changes a mounted Secret. One that cannot be used is logged once, and the keys before stay.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Read the file; `clock` returns seconds since 1970.

        Raises:
            ConfigError: It cannot be used.
        """
        self._path = path
        self._clock = clock
        self._version = read_version(path)
        self._keys: dict[str, ApiKey] = {}
        self._entries: dict[bytes, Entry] = {}
        self._load()

    def authenticate(self, token: bytes) -> Principal:
        """Return whose token that is. Whatever is wrong with it, the same work is done.

        Raises:
            ServiceError: It is no token, nobody's, or not good now.
        """
        entry = self._entries.get(read_id(token), _NOBODY)
        if not hmac.compare_digest(hash_token(token), entry.digest) or entry is _NOBODY:
            raise ServiceError("unauthenticated", "the API key is not known", _REMEDY)
        now = self._clock()
        if now >= entry.ends_seconds:
            raise ServiceError("key_expired", "the API key has expired", _REMEDY)
        if now < entry.starts_seconds:
            raise ServiceError("unauthenticated", "the API key is not good yet", _REMEDY)
        return entry.principal

    def is_good(self, principal: Principal) -> bool:
        """Tell whether the key of a caller that was let in before is still there, unchanged and not expired."""
        entry = self._entries.get(principal.id.encode(), _NOBODY)
        return entry.principal == principal and entry.starts_seconds <= self._clock() < entry.ends_seconds

    def known_id(self, token: bytes) -> str:
        """Return the id in a token if there is such a key, to name it in logs; else nothing, as it may be a secret."""
        key_id = read_id(token)
        return key_id.decode() if key_id in self._entries else ""

    async def run(self) -> None:
        """Follow the file until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed."""
        version = read_version(self._path)
        if version == self._version:
            return
        self._version = version
        before = self._keys
        try:
            self._load()
        except ConfigError as error:
            _log.error("new API keys are not used, the old ones stay: %s", error)
            return
        after = self._keys
        audit(
            "api_keys_changed",
            added=sorted(after.keys() - before.keys()),
            removed=sorted(before.keys() - after.keys()),
            changed=sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        )

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{self._path}: cannot read the API keys: {error.strerror}",
                "make the file with `python -m crdt_service api-key create`",
            ) from error
        keys = decode_keys(data, str(self._path)).keys
        self._keys = {key.id: key for key in keys}
        self._entries = {key.id.encode(): make_entry(key) for key in keys}


def make_entry(key: ApiKey) -> Entry:
    """Return what is asked of a key at each request."""
    return Entry(
        bytes.fromhex(key.sha256),
        key.not_before.timestamp() if key.not_before else -_FOREVER,
        key.expires_at.timestamp() if key.expires_at else _FOREVER,
        Principal(key.id, key.name, Scope[key.scope.upper()], key.prefixes, key.rate_limit, key.lineage),
    )

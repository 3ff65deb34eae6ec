"""API keys: their tokens, and the file that holds only hashes of them.

A token is ``jarvis_<id>_<secret>``: a fixed beginning and alphabet, so that scanners for leaked secrets find it; an id
of 16 hexadecimal digits, by which it is looked up; and a secret of 64, which are 256 random bits. No dictionary reaches
those, so a plain SHA-256 of the token is kept: a slow password hash would only cost each request milliseconds.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from crdt_service.access.limit import Limit
from crdt_service.kernel.error import ConfigError
from crdt_service.kernel.ident import KEY_BYTES_MAX

FILE_BYTES_MAX = 1 << 20
_ID_BYTES = 8
_SECRET_BYTES = 32
_MARK = "jarvis"
TOKEN_LENGTH = len(_MARK) + 2 + 2 * (_ID_BYTES + _SECRET_BYTES)
_TOKEN = re.compile(rb"jarvis_[0-9a-f]{16}_[0-9a-f]{64}")

KeyId = Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[ -~]+\Z")]
Prefix = Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
Moment = Annotated[datetime, Meta(tz=True)]
ScopeName = Literal["read", "write", "admin"]


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One key of the file.

    Attributes:
        id: The part of the token that is no secret.
        name: What operators call it.
        sha256: Of the token, in hexadecimal.
        scope: `read`, `write`, which includes reading, or `admin`, which includes both.
        prefixes: Keys of the store that it may touch begin with one of these; empty for all.
        not_before: From when it is good; None for ever before.
        expires_at: From when it is good no more; None for never.
        rate_limit: Of its own; None for the one of the configuration.
        succeeds: The id of the first of the keys that this one replaces, one after the other; None if it replaces none.
    """

    id: KeyId
    name: Name
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
    scope: ScopeName
    prefixes: Annotated[tuple[Prefix, ...], Meta(max_length=64)] = ()
    not_before: Moment | None = None
    expires_at: Moment | None = None
    rate_limit: Limit | None = None
    succeeds: KeyId | None = None

    @property
    def lineage(self) -> str:
        """The id by which a caller stays the same when its key is rotated."""
        return self.succeeds or self.id


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All keys; a file that names none is a mistake, while one that lists none lets nobody in."""

    keys: Annotated[tuple[ApiKey, ...], Meta(max_length=1000)]


def new_key(
    name: str,
    scope: ScopeName,
    randomness: Callable[[int], bytes],
    *,
    prefixes: tuple[str, ...] = (),
    not_before: datetime | None = None,
    expires_at: datetime | None = None,
    rate_limit: Limit | None = None,
    succeeds: str | None = None,
) -> tuple[ApiKey, str]:
    """Return a fresh key and its token, which is nowhere else; `randomness` returns that many random bytes."""
    key_id = randomness(_ID_BYTES).hex()
    token = f"{_MARK}_{key_id}_{randomness(_SECRET_BYTES).hex()}"
    key = ApiKey(
        id=key_id,
        name=name,
        sha256=hash_token(token.encode()).hex(),
        scope=scope,
        prefixes=prefixes,
        not_before=not_before,
        expires_at=expires_at,
        rate_limit=rate_limit,
        succeeds=succeeds,
    )
    return key, token


def is_token(token: bytes) -> bool:
    """Tell whether that has the form of a token."""
    return _TOKEN.fullmatch(token) is not None


def hash_token(token: bytes) -> bytes:
    """Return the 32 bytes of the hash; of what is longer than any token no more is read than shows that."""
    return hashlib.sha256(token[: TOKEN_LENGTH + 1]).digest()


def read_id(token: bytes) -> bytes:
    """Return the id in a token, empty if it has not the form of one."""
    mark, _, rest = token.partition(b"_")
    return rest.partition(b"_")[0] if mark == _MARK.encode() and len(token) == TOKEN_LENGTH else b""


def decode_keys(data: bytes, where: str) -> KeyFile:
    """Return the keys in a file's bytes; `where` names it in errors.

    Raises:
        ConfigError: It is too large, no JSON, breaks the schema, or contradicts itself.
    """
    remedy = "make it with `python -m crdt_service api-key`; docs/security.md says what is allowed"
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{where}: larger than 1 MiB", remedy)
    try:
        file = msgspec.json.decode(data, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}", remedy) from error
    seen = set()
    named: dict[str, list[ApiKey]] = {}
    for key in file.keys:
        named.setdefault(key.name, []).append(key)
        if key.id in seen:
            raise ConfigError(f"{where}: two keys have the id {key.id}", remedy)
        seen.add(key.id)
        if key.scope == "admin" and key.prefixes:
            raise ConfigError(f"{where}: the key {key.id} is of scope admin and has prefixes", "remove either")
        if key.not_before and key.expires_at and key.not_before >= key.expires_at:
            raise ConfigError(f"{where}: the key {key.id} expires before it is good", "correct either moment")
    for name, keys in named.items():
        if not _is_one_caller(keys):
            ids = ", ".join(key.id for key in keys)
            raise ConfigError(f"{where}: the keys {ids} have the name {name!r}", "give each a name of its own")
    return file


def _is_one_caller(keys: list[ApiKey]) -> bool:
    """Tell whether keys of one name are one key and its successors.

    The release before noted no successors: its own have the same rights, and all but the last expire.
    """
    if len({key.lineage for key in keys}) == 1:
        return True
    rights = {(key.scope, key.prefixes, key.rate_limit) for key in keys}
    return len(rights) == 1 and sum(key.expires_at is None for key in keys) <= 1


def encode_keys(file: KeyFile) -> bytes:
    """Return the file's bytes."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"

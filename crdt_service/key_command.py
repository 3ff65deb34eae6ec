"""``api-key``: what operators do with a file of API keys, and how a cluster gets its first."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from crdt_service.access.key import (
    ApiKey,
    KeyFile,
    ScopeName,
    decode_keys,
    encode_keys,
    hash_token,
    is_token,
    new_key,
    read_id,
)
from crdt_service.access.limit import Limit
from crdt_service.disk.private import replace_private
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.net.kubernetes import SECRET, ExistsError, Kubernetes

KEYS_ENTRY = "api-keys.json"
TOKEN_ENTRY = "token"  # noqa: S105 - where it is, not what.


def create_key(
    path: Path,
    name: str,
    scope: ScopeName,
    *,
    prefixes: tuple[str, ...],
    not_before: datetime | None,
    expires_at: datetime | None,
    rate_limit: Limit | None,
) -> str:
    """Add a key to the file, which is made if there is none; return the token, which is nowhere else.

    Raises:
        ConfigError: The file cannot be used, has a key of this name, or the key would break its rules.
    """
    file = _read(path) if path.exists() else KeyFile(())
    for known in file.keys:
        if known.name == name:
            raise ConfigError(f"{path}: the key {known.id} is called {name!r}", "give another name, or rotate that key")
    key, token = new_key(
        name,
        scope,
        secrets.token_bytes,
        prefixes=prefixes,
        not_before=not_before,
        expires_at=expires_at,
        rate_limit=rate_limit,
    )
    _write(path, KeyFile((*file.keys, key)))
    return token


def list_keys(path: Path) -> bytes:
    """Return all keys as JSON, without their hashes.

    Raises:
        ConfigError: The file cannot be used.
    """
    shown = [
        {name: value for name, value in msgspec.to_builtins(key).items() if name != "sha256"}
        for key in _read(path).keys
    ]
    return msgspec.json.format(msgspec.json.encode(shown), indent=2)


def revoke_key(path: Path, key_id: str) -> None:
    """Remove a key from the file.

    Raises:
        ConfigError: The file cannot be used, or there is no such key.
    """
    file = _read(path)
    gone = _find(file, key_id, path)
    _write(path, KeyFile(tuple(key for key in file.keys if key is not gone)))


def rotate_key(path: Path, key_id: str, overlap: timedelta, now: Callable[[], datetime]) -> str:
    """Add a successor with the same rights, and let the key expire after `overlap`; return the successor's token.

    Raises:
        ConfigError: The file cannot be used, there is no such key, or it has expired.
    """
    file = _read(path)
    old = _find(file, key_id, path)
    ends = now() + overlap
    if old.expires_at is not None and old.expires_at <= now():
        raise ConfigError(f"{path}: the key {key_id} has expired", "create a new one")
    new, token = new_key(
        old.name,
        old.scope,
        secrets.token_bytes,
        prefixes=old.prefixes,
        rate_limit=old.rate_limit,
        succeeds=old.lineage,
    )
    old_ends = ends if old.expires_at is None else min(old.expires_at, ends)
    kept = tuple(msgspec.structs.replace(key, expires_at=old_ends) if key is old else key for key in file.keys)
    _write(path, KeyFile((*kept, new)))
    return token


def draw_token(api: Kubernetes, keys_name: str, token_name: str) -> str:
    """Create the Secret with the token of an admin key, and an empty one for the key file; return what was done.

    Once there is a key file its token is the operators' affair, and none is drawn. It takes no right to read: who may
    create Secrets must not read any, since Kubernetes puts a token of whatever account into a Secret that asks for it.
    The token's Secret comes first, so that an attempt that was cut off is completed by the next.

    Raises:
        ServiceError: The Kubernetes API cannot be reached or refuses.
    """
    with suppress(ExistsError):
        api.create(SECRET, keys_name, {}, dry_run=True)
        _, token = new_key("admin", "admin", secrets.token_bytes)
        with suppress(ExistsError):
            api.create(SECRET, token_name, {TOKEN_ENTRY: token.encode()})
        api.create(SECRET, keys_name, {})
        return f"secrets {token_name} and {keys_name} created"
    return f"secret {keys_name} exists and is kept"


def install_keys(api: Kubernetes, keys_name: str, token_name: str) -> str:
    """Write the key file of one admin key, whose token was drawn, into its Secret; return what was done.

    What is there is kept.

    Raises:
        ServiceError: The Kubernetes API cannot be reached or refuses, or there is no Secret to fill, or no token.
    """
    stored = api.read(SECRET, keys_name)
    if stored is None:
        raise ServiceError("kubernetes_refused", f"there is no secret {keys_name}", "run `api-key draw` first")
    if KEYS_ENTRY in stored.data:
        return f"secret {keys_name} exists and is kept"
    drawn = api.read(SECRET, token_name)
    key = _restore(drawn.data if drawn else {}, token_name)
    api.replace(SECRET, keys_name, {KEYS_ENTRY: encode_keys(KeyFile((key,)))}, stored.version)
    return f"secret {keys_name} filled"


def _restore(entries: dict[str, bytes], name: str) -> ApiKey:
    """Return the admin key whose token is in a Secret.

    Raises:
        ServiceError: There is none.
    """
    token = entries.get(TOKEN_ENTRY, b"").strip()
    if not is_token(token):
        remedy = "delete it, and the empty Secret of the key file, and try again"
        raise ServiceError("kubernetes_refused", f"secret {name} holds no token", remedy)
    return ApiKey(id=read_id(token).decode(), name="admin", sha256=hash_token(token).hex(), scope="admin")


def _find(file: KeyFile, key_id: str, path: Path) -> ApiKey:
    for key in file.keys:
        if key.id == key_id:
            return key
    raise ConfigError(f"{path}: no key has the id {key_id[:64]}", "`api-key list` shows all")


def _read(path: Path) -> KeyFile:
    try:
        return decode_keys(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the API keys: {error.strerror}", "check the path") from error


def _write(path: Path, file: KeyFile) -> None:
    """Replace the file at once, readable by its owner alone.

    Raises:
        ConfigError: It would break the file's rules, or cannot be written.
    """
    data = encode_keys(file)
    decode_keys(data, str(path))
    try:
        replace_private(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the API keys: {error.strerror}", "check the path") from error

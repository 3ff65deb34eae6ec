"""The configuration file that nodes and backends share, and the secret file."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from crdt_service.kernel.error import ConfigError

SECRET_BYTES_MIN = 32
_CONFIG_BYTES_MAX = 1 << 20


class CrdtConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the cluster replicates.

    Attributes:
        cluster_enabled: Whether nodes look for peers at all.
        sync_interval_seconds: Time between digest exchanges with each peer.
        replication_factor: Nodes that must be reachable for the backend to call the cluster healthy.
    """

    cluster_enabled: bool
    sync_interval_seconds: Annotated[float, Meta(ge=0.1, le=3600)]
    replication_factor: Annotated[int, Meta(ge=1, le=100)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; every key is required."""

    environment: Literal["development", "staging", "production"]
    crdt: CrdtConfig
    peer_service: Annotated[str, Meta(min_length=1, max_length=253)]
    peer_port: Annotated[int, Meta(ge=1, le=65535)]


def read_config(path: Path) -> Config:
    """Return the configuration in the JSON file at `path`.

    Raises:
        ConfigError: The file is missing, unreadable, no JSON, or breaks the schema.
    """
    data = _read_file(path, "configuration file")
    if len(data) > _CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: larger than 1 MiB", "give the service's JSON configuration")
    try:
        return msgspec.json.decode(data, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: {error}", "correct the value; docs/configuration.md lists what is allowed"
        ) from error


def read_secret(path: Path) -> bytes:
    """Return the cluster secret, white space at both ends removed, at least 32 bytes.

    Raises:
        ConfigError: The file is missing, unreadable or too short.
    """
    secret = _read_file(path, "secret file").strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"{path}: the secret has {len(secret)} bytes", f"give at least {SECRET_BYTES_MIN} random bytes"
        )
    return secret


def split_address(text: str, flag: str) -> tuple[str, int]:
    """Return (host, port) of ``HOST:PORT``.

    Raises:
        ConfigError: It is no such pair; `flag` says where it was given.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"{flag} {text}: no HOST:PORT", "give for example 0.0.0.0:8001")
    return host.strip("[]"), int(port)


def _read_file(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the {what}: {error.strerror}", "check the path and its permissions"
        ) from error

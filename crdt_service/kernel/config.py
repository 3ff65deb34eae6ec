"""The configuration file that nodes and backends share, and the files of secrets, names and counts."""

import base64
import binascii
import contextlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from crdt_service.kernel.error import ConfigError

SECRET_BYTES_MIN = 32
NODES_MAX = 1000
# As long as a DNS name.
CLUSTER_NAME_MAX = 253
_CONFIG_BYTES_MAX = 1 << 20
_T = TypeVar("_T")


class GossipConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How nodes find out who is in the cluster.

    Attributes:
        enabled: Whether members are probed; otherwise discovery and channels alone tell.
        interval_seconds: Time between two rounds of probes.
        fanout: Members that each round probes.
    """

    enabled: bool
    interval_seconds: Annotated[float, Meta(ge=0.1, le=3600)]
    fanout: Annotated[int, Meta(ge=1, le=10)]


class ConflictRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which strategy decides between siblings, and where; crdt_service/resolution says what each strategy does.

    Attributes:
        prefix: Keys that begin so.
        type: Type of the key; for `map` the rule holds in its multi-value fields.
        strategy: Name of the strategy, ``PLUGIN.STRATEGY`` for one of a plugin.
        sources: Node ids, the first before the others; always for the strategy `priority`, for no other
            that is built in.
    """

    prefix: Annotated[str, Meta(max_length=512)]
    type: Literal["any", "mv_register", "map"]
    strategy: Annotated[str, Meta(max_length=64)]
    sources: Annotated[list[Annotated[str, Meta(min_length=1, max_length=63)]], Meta(max_length=100)]


class CrdtConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the cluster replicates.

    Attributes:
        cluster_enabled: Whether nodes look for peers at all.
        sync_interval_seconds: Time between digest exchanges with each peer.
        clustered_factor: `replication_factor` where nodes look for peers; in the file it has that name.
        gossip: Membership.
        conflict_resolution: What a multi-value register shows of concurrent writes.
        conflict_rules: In the mode `advanced`, the first that matches and can decide does.
    """

    cluster_enabled: bool
    sync_interval_seconds: Annotated[float, Meta(ge=0.1, le=3600)]
    clustered_factor: Annotated[int, Meta(ge=1, le=100)] = msgspec.field(name="replication_factor")
    gossip: GossipConfig
    conflict_resolution: Literal["lww", "multi_value", "advanced"]
    conflict_rules: Annotated[list[ConflictRule], Meta(max_length=100)]

    @property
    def replication_factor(self) -> int:
        """Nodes that own each slot, and that must be reachable for the backend to call the cluster healthy.

        One where nodes look for no peers: a second owner would keep a copy of its own.
        """
        return self.clustered_factor if self.cluster_enabled else 1


class RateLimitingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many requests a caller may send.

    Attributes:
        enabled: Whether that is limited.
        requests_per_minute: Sustained.
        burst_limit: At once.
    """

    enabled: bool
    requests_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)]
    burst_limit: Annotated[int, Meta(ge=1, le=1_000_000)]


class SecurityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may do what through the API.

    Attributes:
        api_key_required: Whether callers need an API key.
        rate_limiting: For each of them.
    """

    api_key_required: bool
    rate_limiting: RateLimitingConfig


class PluginConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin; crdt_service/plugins runs it.

    Attributes:
        name: Of its file or entry point.
        required: Whether requests are refused while it does not work; else they are done without it.
        timeout_ms: Time that it has for each request.
        memory_mib: Address space of its process.
        settings: What it is told at its start.
    """

    name: Annotated[str, Meta(pattern=r"\A[a-z]([a-z0-9-]{0,30}[a-z0-9])?\Z")]
    required: bool
    timeout_ms: Annotated[int, Meta(ge=1, le=10_000)]
    memory_mib: Annotated[int, Meta(ge=64, le=4096)]
    settings: dict[str, object]


class PluginsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of plugins; every key is required.

    Attributes:
        directory: Where plugins are, beside those that are installed; empty for nowhere.
        plugins: In the order in which requests pass them.
    """

    directory: str
    plugins: Annotated[list[PluginConfig], Meta(max_length=16)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; every key is required."""

    environment: Literal["development", "staging", "production"]
    crdt: CrdtConfig
    security: SecurityConfig
    peer_service: Annotated[str, Meta(min_length=1, max_length=253)]
    peer_port: Annotated[int, Meta(ge=1, le=65535)]


def read_config(path: Path) -> Config:
    """Return the configuration in the JSON file at `path`.

    Raises:
        ConfigError: The file is missing, unreadable, no JSON, or breaks the schema.
    """
    return _read_json(path, Config)


def read_plugins(path: Path | None) -> PluginsConfig:
    """Return the plugins in the JSON file at `path`; none without a path.

    Raises:
        ConfigError: The file is missing, unreadable, no JSON, breaks the schema, or names a plugin twice.
    """
    if path is None:
        return PluginsConfig("", [])
    config = _read_json(path, PluginsConfig)
    names = [plugin.name for plugin in config.plugins]
    if len(names) > len(set(names)):
        raise ConfigError(f"{path}: two plugins have the same name", "give each a name of its own")
    return config


class Secrets(NamedTuple):
    """What proves that a process belongs to a cluster.

    Attributes:
        file: All that the file holds, which the release before takes for one secret.
        accepted: The first is the one to prove with, each is accepted.
    """

    file: bytes
    accepted: tuple[bytes, ...]


def read_secrets(path: Path) -> Secrets:
    """Return the cluster secrets in a file, white space at both ends removed, each at least 32 bytes.

    A file of exactly two lines of printable text, each long enough, holds two secrets; any other holds one.

    Raises:
        ConfigError: The file is missing, unreadable or too short.
    """
    secret = _read_file(path, "secret file").strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"{path}: the secret has {len(secret)} bytes", f"give at least {SECRET_BYTES_MIN} random bytes"
        )
    lines = tuple(line.strip() for line in secret.splitlines())
    is_pair = len(lines) == 2 and all(len(line) >= SECRET_BYTES_MIN and _is_printable(line) for line in lines)
    return Secrets(secret, lines if is_pair else (secret,))


def read_cluster_name(path: Path) -> str:
    """Return the cluster's name in a file.

    Raises:
        ConfigError: The file is missing, unreadable, or holds no name.
    """
    name = _read_file(path, "file of the cluster's name").decode(errors="replace").strip()
    return check_cluster_name(name, str(path))


def check_cluster_name(name: str, where: str) -> str:
    """Return `name` if it is 1 to 253 printable ASCII characters.

    Raises:
        ConfigError: It is not; `where` says where it was given.
    """
    if not 0 < len(name) <= CLUSTER_NAME_MAX or not name.isascii() or not name.isprintable():
        raise ConfigError(
            f"{where}: {name[:40]!r} is no name of a cluster",
            f"give 1 to {CLUSTER_NAME_MAX} printable ASCII characters",
        )
    return name


def read_encryption_key(path: Path) -> bytes:
    """Return the key in a file: base64 of at least 32 bytes, or at least 32 bytes as they are.

    White space at both ends of printable text is not part of the key; text that can be base64 is.

    Raises:
        ConfigError: The file is missing, unreadable or too short.
    """
    data = _read_file(path, "encryption key file")
    text = data.strip()
    if _is_printable(text):
        data = text
        with contextlib.suppress(binascii.Error):
            data = base64.b64decode(text, validate=True)
    if len(data) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"{path}: the encryption key has {len(data)} bytes",
            f"give at least {SECRET_BYTES_MIN} random bytes, as they are or in base64",
        )
    return data


def read_encryption_keys(path: Path) -> list[bytes]:
    """Return the key in a file; of a directory first that in `encryption-key`, then those of the other files by name.

    Names that begin with a dot do not count: a mounted Secret has some.

    Raises:
        ConfigError: One is missing, unreadable or too short.
    """
    if not path.is_dir():
        return [read_encryption_key(path)]
    current = path / "encryption-key"
    others = sorted(each for each in path.iterdir() if each.name[:1] != "." and each != current)
    return [read_encryption_key(each) for each in (current, *others)]


def read_node_count(path: Path) -> int:
    """Return how many nodes there are to be, as a file says.

    Raises:
        ConfigError: The file is missing, unreadable, or holds no count.
    """
    return check_node_count(_read_file(path, "file of the node count").decode(errors="replace").strip(), str(path))


def check_node_count(text: str, where: str) -> int:
    """Return the number of nodes in a text, 1 to 1000.

    Raises:
        ConfigError: It is none; `where` says where it was given.
    """
    if not text.isdecimal() or not 1 <= int(text) <= NODES_MAX:
        raise ConfigError(f"{where}: {text[:40]!r} is no number of nodes", f"give 1 to {NODES_MAX}")
    return int(text)


def split_address(text: str, flag: str) -> tuple[str, int]:
    """Return (host, port) of ``HOST:PORT``; an address of IPv6 may be in brackets, or not.

    Raises:
        ConfigError: It is no such pair; `flag` says where it was given.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"{flag} {text}: no HOST:PORT", "give for example 0.0.0.0:8001")
    return host.strip("[]"), int(port)


def _is_printable(text: bytes) -> bool:
    return text.isascii() and text.decode("ascii").isprintable()


def join_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, an address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_json(path: Path, kind: type[_T]) -> _T:
    data = _read_file(path, "configuration file")
    if len(data) > _CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: larger than 1 MiB", "give the service's JSON configuration")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: {error}", "correct the value; docs/configuration.md lists what is allowed"
        ) from error


def _read_file(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the {what}: {error.strerror}", "check the path and its permissions"
        ) from error

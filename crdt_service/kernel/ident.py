"""Names of nodes, replicas and keys, and their limits."""

import random
import re

from crdt_service.kernel.error import ConfigError, OperationError

KEY_BYTES_MAX = 512
REPLICA_BYTES_MAX = 80
# Keys that begin so are Jarvis's own: clients neither reach nor see them.
RESERVED_PREFIX = "_jarvis/"
_ZONE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_node_id(node_id: str) -> str:
    """Return `node_id` if it is a DNS label of 1 to 63 characters.

    Raises:
        ConfigError: It is not.
    """
    if not _NODE_ID.fullmatch(node_id):
        raise ConfigError(f"node id {node_id!r} is no DNS label", "use lower-case letters, digits and '-', at most 63")
    return node_id


def check_zone(zone: str) -> str:
    """Return `zone` if it is empty or a label's value: at most 63 letters, digits, '-', '_' and '.'.

    Raises:
        ConfigError: It is not.
    """
    if not _ZONE.fullmatch(zone):
        raise ConfigError(f"zone {zone!r} is no label", "use letters, digits, '-', '_' and '.', at most 63, or nothing")
    return zone


def new_replica(node_id: str, randomness: random.Random) -> str:
    """Return the replica id of a fresh data directory: ``<node id>~<8 hex>``.

    Dots and counter entries are named by it. It is drawn once per data directory, not per boot: a boot would add an
    entry to every counter each time, while reuse after a crash is safe because nothing is shown or pushed before it is
    on disk. A node that lost its disk must not reuse its old dots, so a fresh directory does get a fresh id.
    """
    return f"{node_id}~{randomness.getrandbits(32):08x}"


def is_replica(text: str) -> bool:
    """Tell whether `text` may name a replica."""
    return 0 < len(text) <= REPLICA_BYTES_MAX and text.isascii() and text.isprintable()


def is_replica_of(replica: str, node_id: str) -> bool:
    """Tell whether `replica` names a directory of that node, as `new_replica` does."""
    owner, _, drawn = replica.partition("~")
    return is_replica(replica) and bool(drawn) and owner == node_id and _NODE_ID.fullmatch(node_id) is not None


def check_key(key: str) -> str:
    """Return `key` if it is 1 to 512 bytes of UTF-8.

    Raises:
        OperationError: It is not.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= KEY_BYTES_MAX:
        raise OperationError("a key is 1 to 512 bytes of UTF-8", "choose a key within these limits", "invalid_key")
    return key


def is_reserved(key: str) -> bool:
    """Tell whether clients neither reach nor see that key."""
    return key.startswith(RESERVED_PREFIX)


def check_client_key(key: str) -> str:
    """Return `key` if it is a key that clients may use.

    Raises:
        OperationError: It is none, or a reserved one.
    """
    if is_reserved(key):
        raise OperationError(
            f"keys that begin with {RESERVED_PREFIX} are reserved", "choose a key that begins otherwise", "invalid_key"
        )
    return check_key(key)

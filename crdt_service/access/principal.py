"""Who asks, and what they may do."""

from dataclasses import dataclass
from enum import IntEnum

from crdt_service.access.limit import Limit
from crdt_service.kernel.error import OperationError, ServiceError
from crdt_service.kernel.ident import RESERVED_PREFIX, check_client_key, is_reserved


class Scope(IntEnum):
    """What a key opens; each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    Attributes:
        id: Of its API key; empty where keys are off.
        name: What operators call the key; empty where keys are off.
        scope: The most it may do.
        prefixes: Keys that it may touch begin with one of these; empty for all.
        limit: Of its own; None for the one that all share.
        lineage: The id of the first of the keys that its own replaced; empty where keys are off.
    """

    id: str
    name: str
    scope: Scope
    prefixes: tuple[str, ...] = ()
    limit: Limit | None = None
    lineage: str = ""

    def may_touch(self, key: str) -> bool:
        """Tell whether the caller may read, write or see that key; nobody may a reserved one."""
        if is_reserved(key):
            return False
        return not self.prefixes or key.startswith(self.prefixes)

    def check(self, key: str) -> str:
        """Return `key` if it is a key and the caller may touch it.

        Raises:
            ServiceError: It is none, reserved, or outside the caller's prefixes.
        """
        check_client_key(key)
        if not self.may_touch(key):
            raise self._refuse(f"the key {key[:64]!r}")
        return key

    def narrow(self, prefix: str) -> str:
        """Return the prefix to list instead of `prefix`, so that all of it is the caller's.

        Reserved keys are in no listing: leave out what `may_touch` does not grant.

        Raises:
            ServiceError: It is reserved, outside the caller's prefixes, or wider than several of them.
        """
        if is_reserved(prefix):
            raise OperationError(f"the prefix {RESERVED_PREFIX} is reserved", "list another prefix", "invalid_key")
        if not self.prefixes or prefix.startswith(self.prefixes):
            return prefix
        inside = [each for each in self.prefixes if each.startswith(prefix)]
        if len(inside) != 1:
            raise self._refuse(f"the prefix {prefix[:64]!r}")
        return inside[0]

    def _refuse(self, what: str) -> ServiceError:
        allowed = ", ".join(map(repr, self.prefixes[:8]))
        return ServiceError(
            "forbidden", f"the API key may not touch {what}", f"stay within {allowed}, or use another key"
        )


# Every caller where keys are off.
ANYONE = Principal("", "", Scope.ADMIN)
# A caller of public pages where keys are on: may touch nothing.
STRANGER = Principal("", "", Scope.READ, (RESERVED_PREFIX,))

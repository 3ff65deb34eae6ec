"""Who asks, as plugins see it."""

from typing import Literal

import msgspec

from crdt_service.access.principal import Principal
from crdt_service.kernel.ident import is_reserved


class Caller(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        id: Of the API key; empty where keys are off.
        name: What operators call the key; empty where keys are off.
        scope: The most that it may do, as the key has it; `admin` where keys are off.
        prefixes: Keys of the store that it may touch begin with one of these; empty for all.
    """

    id: str = ""
    name: str = ""
    scope: Literal["read", "write", "admin"] = "admin"
    prefixes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.id

    def may_touch(self, key: str) -> bool:
        """Tell whether the caller may read, write or see a key of the store; of a prefix, every key below it."""
        return not is_reserved(key) and (not self.prefixes or key.startswith(self.prefixes))


def describe_caller(principal: Principal) -> Caller:
    """Return a caller of the API as plugins see it."""
    scope: Literal["read", "write", "admin"] = principal.scope.name.lower()  # type: ignore[assignment]
    return Caller(principal.id, principal.name, scope, principal.prefixes)

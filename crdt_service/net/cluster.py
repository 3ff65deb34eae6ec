"""Which cluster a process is of, and the secrets that prove it, as its files say now."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crdt_service.kernel.config import Secrets, check_cluster_name, read_cluster_name, read_secrets
from crdt_service.net.certificate import Reloaded


@dataclass(frozen=True)
class ClusterIdentity:
    """What two processes of one cluster share.

    Attributes:
        read_name: Returns the cluster's name; empty for an operator, who takes the cluster that is dialled.
        read_secrets: Returns the secrets that prove who belongs to it.
    """

    read_name: Callable[[], str]
    read_secrets: Callable[[], Secrets]

    @classmethod
    def fixed(cls, name: str, *secrets: bytes) -> "ClusterIdentity":
        """Return one that never changes; the first secret is the one to prove with."""
        held = Secrets(b"\n".join(secrets), secrets)
        return cls(lambda: name, lambda: held)

    @classmethod
    def of_files(cls, secret_file: Path, name: str | Path) -> "ClusterIdentity":
        """Return one that follows the file of the secrets, and that of the name if there is one.

        Raises:
            ConfigError: A file cannot be used.
        """
        secrets = Reloaded((secret_file,), partial(read_secrets, secret_file), "cluster secrets")
        if isinstance(name, Path):
            return cls(Reloaded((name,), partial(read_cluster_name, name), "names of the cluster").get, secrets.get)
        given = check_cluster_name(name, "--cluster-name") if name else ""
        return cls(lambda: given, secrets.get)

"""A certificate authority for clusters on loopback and for tests: keys and certificates as PEM files in a directory."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from crdt_service.certificates.issue import LIFETIME, Wanted, issue, make_authority

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """What a process is given."""

    certificate: Path
    key: Path
    authority: Path

    def arguments(self) -> list[str]:
        return ["--tls-cert", str(self.certificate), "--tls-key", str(self.key), "--tls-ca", str(self.authority)]


class Authority:
    """Signs certificates for DNS names and addresses; each that it issues serves both ends of a connection."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._pair = make_authority(datetime.datetime.now(datetime.UTC))
        self.file = directory / "ca.crt"
        self.file.write_bytes(self._pair.certificate)

    def issue(self, *names: str, lifetime: datetime.timedelta = DAY) -> Files:
        """Write ``<first name>.crt`` and ``.key``, over older ones; a negative lifetime has passed already."""
        begin = datetime.datetime.now(datetime.UTC) + lifetime - LIFETIME
        pair = issue(self._pair, Wanted(names, is_peer=True), begin)
        files = Files(self._directory / f"{names[0]}.crt", self._directory / f"{names[0]}.key", self.file)
        files.key.touch(mode=0o600)
        files.key.write_bytes(pair.key)
        files.certificate.write_bytes(pair.certificate)
        return files

"""Backups in a bucket that speaks the protocol of S3: an object of each file, below a prefix and the backup's id.

Objects cannot be renamed: the manifest is written last and removed first, and without it nothing of a backup counts.
There is no lock either: two jobs write under ids of their own, and a node serves one of them at a time.
"""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from crdt_service.backup.manifest import NAME, is_id, read_time
from crdt_service.kernel.error import ConfigError, ServiceError

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "access-key-id", "secret-access-key"
# A backup that has no manifest after so long is of a job that was killed: jobs end sooner.
_UNFINISHED_AGE = timedelta(days=1)
# Raising them has a job wait for a store that is away for longer before it fails.
_RETRIES_MAX = 5
_RETRY_SECONDS_MAX = 60
_TIMEOUT_SECONDS = 60
# What the service answers, which errors hold as text alone.
_SAID = re.compile(r"<Code>(\w+)</Code>\s*<Message>([^<]*)</Message>")
_REFUSED = re.compile(r"status code: 40[13] ")


class Bucket:
    """See `Destination`.

    Args:
        url: Like ``s3://bucket/prefix``.
        endpoint: Where the service is, such as ``https://s3.us-west-2.amazonaws.com``.
        region: Which the service expects in signatures.
        credentials: Folder with a file of the access key's id, and one of its secret.

    Raises:
        ConfigError: The credentials cannot be read, or the URL is none.
    """

    def __init__(self, url: str, *, endpoint: str, region: str, credentials: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigError(f"--destination {url}: no s3://BUCKET/PREFIX", "give a folder, or such a URL")
        self._url = url
        with self._telling():
            self._store = S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                config={
                    "endpoint": endpoint,
                    "region": region,
                    "access_key_id": _read(credentials / ACCESS_KEY_ID),
                    "secret_access_key": _read(credentials / SECRET_ACCESS_KEY),
                },
                client_options={
                    "allow_http": endpoint.startswith("http:"),
                    "timeout": timedelta(seconds=_TIMEOUT_SECONDS),
                },
                retry_config={
                    "max_retries": _RETRIES_MAX,
                    "retry_timeout": timedelta(seconds=_RETRY_SECONDS_MAX),
                },
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """See `Destination`; it keeps nobody away."""
        names = self._names()
        oldest = datetime.now(UTC) - _UNFINISHED_AGE
        for backup in {name.partition("/")[0] for name in names}:
            if is_id(backup) and f"{backup}/{NAME}" not in names and read_time(backup) < oldest:
                self.abandon(backup)
        yield

    def backups(self) -> list[str]:
        """See `Destination`."""
        found = (name.removesuffix(f"/{NAME}") for name in self._names() if name.endswith(f"/{NAME}"))
        return sorted(backup for backup in found if is_id(backup))

    def write(self, backup: str, name: str, data: bytes) -> None:
        """See `Destination`."""
        with self._telling():
            obstore.put(self._store, f"{backup}/{name}", data, use_multipart=False)

    def publish(self, backup: str, manifest: bytes) -> None:
        """See `Destination`."""
        self.write(backup, NAME, manifest)

    def abandon(self, backup: str) -> None:
        """See `Destination`."""
        names = sorted(self._names(backup), key=lambda name: not name.endswith(f"/{NAME}"))
        for name in names:
            with self._telling():
                obstore.delete(self._store, name)

    def read(self, backup: str, name: str) -> bytes:
        """See `Destination`."""
        with self._telling():
            return bytes(obstore.get(self._store, f"{backup}/{name}").bytes())

    def remove(self, backup: str) -> None:
        """See `Destination`."""
        self.abandon(backup)

    def _names(self, folder: str | None = None) -> set[str]:
        with self._telling():
            return {each["path"] for part in obstore.list(self._store, folder) for each in part}

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            said = str(error)
            answer = _SAID.search(said)
            code, why = answer.groups() if answer else ("", said.partition("\n")[0][:300])
            if code == "NoSuchKey":
                raise FileNotFoundError(f"{self._url}: {why}") from error
            if code == "NoSuchBucket" or _REFUSED.search(said):
                raise ConfigError(
                    f"--destination {self._url}: the service refuses: {code or 'no'}: {why}",
                    "check the bucket, the access key, its rights and the region",
                ) from error
            raise ServiceError(
                "bucket_failed", f"{self._url}: {why}", "check the endpoint, and try again later"
            ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"--s3-credentials {path}: {error.strerror}",
            f"give a folder with the files {ACCESS_KEY_ID} and {SECRET_ACCESS_KEY}",
        ) from error

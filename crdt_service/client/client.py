"""The blocking client."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

from crdt_service.client import request as requests
from crdt_service.client.connection import (
    FAILURES,
    Token,
    explain_failure,
    make_headers,
    new_request_id,
    plan_access,
)
from crdt_service.client.error import ApiError, read_error
from crdt_service.client.feed import Follower
from crdt_service.client.request import Concern, Deletion, Request, Write
from crdt_service.client.retry import DEFAULT, Retry
from crdt_service.client.view import Change, Cluster, Conflict, Health, Item, Key, ListedKey, Owners, Reset

T = TypeVar("T")


class Client:
    """Calls one backend, or a load balancer before many; use as a context manager, from any number of threads.

    A read that fails for a while is made again; a write only where the service, or the lack of a connection, says that
    nothing was done. Every method raises ApiError.

    Args:
        url: Where the API is, as `https://jarvis.example`.
        token: Returns the API key; `read_token_file` makes one. Keys do not belong on command lines.
        ca_file: PEM file of the authorities that may vouch for the server; without, those that the system trusts.
        timeout_seconds: How long one attempt may take to connect, and then between two pieces of its answer.
        retry: When a call is made again.
        transport: Sends requests in the place of the network.
        sleep: Pauses between attempts.
        randomness: Draws the pauses.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        ca_file: Path | None = None,
        timeout_seconds: float = 10.0,
        retry: Retry = DEFAULT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        randomness: random.Random | None = None,
    ) -> None:
        access = plan_access(url, ca_file, timeout_seconds, has_transport=transport is not None)
        self._http = httpx.Client(transport=transport, **access.options())
        self._feed_timeout = access.feed_timeout
        self._token = token
        self._retry = retry
        self._sleep = sleep
        self._randomness = randomness or random.SystemRandom()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read(self, key: str, *, concern: Concern = "one", node: str | None = None, type_name: str | None = None) -> Key:
        """Return a key, as a majority or all of its owners know it if `concern` says so, or as `node` has it.

        Of a key that holds several types, `type_name` names the one to read.

        Raises:
            NotFoundError: There is no such key.
        """
        return self.send(requests.read_key(key, concern=concern, node=node, type_name=type_name))

    def explain(self, key: str, *, node: str | None = None, type_name: str | None = None) -> Key:
        """Return a key as one node has it, with the resolution of each of its conflicts.

        Raises:
            NotFoundError: There is no such key.
        """
        request = requests.read_key(key, concern="one", node=node, type_name=type_name, explain=True)
        return self.send(request)

    def write(
        self,
        key: str,
        type_name: str,
        op: Mapping[str, Any],
        *,
        concern: Concern = "one",
        node: str | None = None,
        value: bool = True,
        if_match: str | None = None,
        idempotency_key: str | None = None,
        is_named: bool = False,
    ) -> Key:
        """Apply an operation to a key and return the key after it, without its value unless `value`.

        Args:
            key: The key.
            type_name: Its type.
            op: One of the type's operations.
            concern: How many of the key's owners must have it.
            node: Ask this node alone.
            value: Whether to answer with the value.
            if_match: Write only if the key's ETag is this; only if the key is missing if it is empty.
            idempotency_key: Names this write of this key, which then has one effect however often it is sent; so it is
                made again, too, where its answer was lost.
            is_named: Whether to write to that type of a key which holds several, though it shows another one.
        """
        request = requests.write_key(
            key,
            type_name,
            op,
            concern=concern,
            node=node,
            value=value,
            if_match=if_match,
            idempotency_key=idempotency_key,
            is_named=is_named,
        )
        return self.send(request)

    def delete(
        self,
        key: str,
        *,
        concern: Concern = "one",
        node: str | None = None,
        type_name: str | None = None,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Key:
        """Empty a key, of `type_name` alone if given, and return it without a value; the last arguments as in `write`.

        Raises:
            NotFoundError: There is no such key.
        """
        request = requests.delete_key(
            key,
            concern=concern,
            node=node,
            type_name=type_name,
            if_match=if_match,
            idempotency_key=idempotency_key,
        )
        return self.send(request)

    def write_batch(
        self,
        writes: Iterable[Write | Deletion],
        *,
        concern: Concern = "one",
        node: str | None = None,
        type_name: str | None = None,
        value: bool = False,
        idempotency_key: str | None = None,
    ) -> list[Item]:
        """Apply many writes, each by itself, and return what became of each; `idempotency_key` names them all.

        `type_name` names the one type of all, of keys that hold several; deletions then empty their keys of it alone.
        """
        request = requests.write_batch(
            writes, concern=concern, node=node, type_name=type_name, value=value, idempotency_key=idempotency_key
        )
        return self.send(request).results

    def read_batch(
        self,
        keys: Iterable[str],
        *,
        concern: Concern = "one",
        node: str | None = None,
        type_name: str | None = None,
    ) -> list[Item]:
        """Return what many keys hold, of `type_name` if given; a missing one is an item with an error."""
        return self.send(requests.read_batch(keys, concern=concern, node=node, type_name=type_name)).results

    def keys(self, prefix: str = "", *, page_size: int = 100) -> Iterator[ListedKey]:
        """Yield the keys that begin so, in order, a page at a time."""
        cursor: str | None = None
        while True:
            page = self.send(requests.list_keys(prefix, page_size, cursor))
            yield from page.keys
            cursor = page.cursor
            if cursor is None:
                return

    def changes(self, prefix: str = "", *, cursor: str | None = None) -> Iterator[Change | Reset]:
        """Yield which keys that begin so change, as they do, after `cursor` or from now on, without end.

        A feed that is lost is opened again where it was. Without `cursor` the first item is a `Reset` that says where
        the feed begins.
        """
        follower = Follower(cursor, self._retry, self._randomness)
        while True:
            failed: ApiError | None = None
            request = requests.follow_changes(prefix, follower.cursor)
            request_id = new_request_id()
            try:
                with self._http.stream(
                    request.method,
                    request.path,
                    params=request.query,
                    headers=make_headers(request, request_id, self._token),
                    timeout=self._feed_timeout,
                ) as answer:
                    if answer.status_code != 200:
                        raise read_error(answer.status_code, answer.headers, answer.read(), request_id)
                    for piece in answer.iter_bytes():
                        yield from follower.take(piece)
            except ApiError as error:
                failed = error
            except FAILURES as failure:
                failed = explain_failure(failure, request, request_id)
            self._sleep(follower.plan(failed))

    def conflicts(self, prefix: str = "", *, page_size: int = 100) -> Iterator[Conflict]:
        """Yield the conflicts in keys that begin so, in the order of keys, a page at a time."""
        cursor: str | None = None
        while True:
            page = self.send(requests.list_conflicts(prefix, page_size, cursor))
            yield from page.conflicts
            cursor = page.cursor
            if cursor is None:
                return

    def owners(self, key: str) -> Owners:
        """Return which nodes own a key, which need not exist."""
        return self.send(requests.show_placement(key))

    def cluster(self) -> Cluster:
        """Return the members, the links of the backend, and how keys are spread."""
        return self.send(requests.show_cluster())

    def health(self) -> Health:
        """Return whether requests can be served."""
        return self.send(requests.show_health())

    def send(self, request: Request[T]) -> T:
        """Return the answer to a request, made again as often as may be."""
        request_id = new_request_id()
        attempt = 1
        while True:
            try:
                return self._attempt(request, request_id)
            except ApiError as error:
                pause = self._retry.plan(attempt, error, request.is_safe, self._randomness)
                if pause is None:
                    raise
            self._sleep(pause)
            attempt += 1

    def _attempt(self, request: Request[T], request_id: str) -> T:
        headers = make_headers(request, request_id, self._token)
        try:
            answer = self._http.request(
                request.method, request.path, params=request.query, content=request.body, headers=headers
            )
        except FAILURES as failure:
            raise explain_failure(failure, request, request_id) from failure
        return request.decode(answer.status_code, answer.headers, answer.content, request_id)

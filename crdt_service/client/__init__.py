"""A typed client of the HTTP API; it needs httpx and msgspec, and nothing else of this service.

from crdt_service.client import Client

with Client("http://localhost:8000") as client:
    client.write("visits", "pn_counter", {"increment": 3}, concern="majority")
    print(client.read("visits").value)
"""

from crdt_service.client.asynchronous import AsyncClient
from crdt_service.client.client import Client
from crdt_service.client.connection import read_token_file
from crdt_service.client.error import ApiError, NotFoundError
from crdt_service.client.request import Concern, Deletion, Write
from crdt_service.client.retry import NEVER, Retry
from crdt_service.client.view import Change, Cluster, Conflict, Health, Item, Key, ListedKey, Owners, Reset

__all__ = [
    "NEVER",
    "ApiError",
    "AsyncClient",
    "Change",
    "Client",
    "Cluster",
    "Concern",
    "Conflict",
    "Deletion",
    "Health",
    "Item",
    "Key",
    "ListedKey",
    "NotFoundError",
    "Owners",
    "Reset",
    "Retry",
    "Write",
    "read_token_file",
]

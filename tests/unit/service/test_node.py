"""A node that replays its log is alive, not ready, and can be stopped."""

import asyncio
import contextlib
import json
import threading

import httpx
import pytest

from crdt_service.kernel.config import (
    Config,
    CrdtConfig,
    GossipConfig,
    PluginsConfig,
    RateLimitingConfig,
    SecurityConfig,
)
from crdt_service.node import Node
from loadtests.cluster import free_port

CONFIG = Config(
    "development",
    CrdtConfig(True, 1.0, 1, GossipConfig(True, 1.0, 1), "lww", []),
    SecurityConfig(False, RateLimitingConfig(False, 1, 1)),
    "localhost",
    free_port(),
)


class HeldNode(Node):
    """Replays its log once `release` is set."""

    release = threading.Event()

    def _replay(self):
        self.release.wait()
        super()._replay()


@pytest.fixture
async def held(tmp_path):
    """(node, URL of its probes, the event that stops it, the task that runs it)."""
    HeldNode.release = threading.Event()
    node = HeldNode(
        CONFIG,
        bytes(32),
        node_id="node-0",
        data_dir=tmp_path,
        peers=[],
        zone="",
        advertise="",
        credentials=None,
        plugins=PluginsConfig("", []),
        node_count=lambda: 1,
    )
    port, stopping = free_port(), asyncio.Event()
    running = asyncio.create_task(node.run(("127.0.0.1", free_port()), ("127.0.0.1", port), stopping))
    yield f"http://127.0.0.1:{port}", stopping, running
    HeldNode.release.set()
    stopping.set()
    await running


async def get(url):
    """Return (status, body), once the port answers."""
    async with httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(url)
                return answer.status_code, answer.json()
            await asyncio.sleep(0.01)


async def ready(url):
    while (await get(f"{url}/ready"))[0] != 200:  # noqa: ASYNC110 - another task's work, seen from outside.
        await asyncio.sleep(0.01)


async def test_a_node_is_alive_while_it_recovers_and_ready_after_that(held):
    url, _, _ = held
    assert (200, {"live": True}) == await get(f"{url}/live")
    assert (503, {"ready": False}) == await get(f"{url}/ready")
    status, body = await get(f"{url}/health")
    assert (503, "unhealthy", "node-0") == (status, body["status"], body["node"])
    assert [("serving", False, "recovering, 0 states in memory")] == [tuple(check.values()) for check in body["checks"]]

    HeldNode.release.set()
    await ready(url)
    status, body = await get(f"{url}/health")
    assert (200, "healthy") == (status, body["status"]), json.dumps(body)


async def test_a_node_that_recovers_ends_when_it_is_asked_to(held):
    url, stopping, running = held
    await get(f"{url}/live")
    stopping.set()
    await asyncio.sleep(0)
    HeldNode.release.set()
    await running

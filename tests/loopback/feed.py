"""A client of the change feed that shares no code with the service."""

import json

import httpx

WRITE = {"type": "pn_counter", "op": {"increment": 1}}


class Feed:
    """A client of one feed.

    Attributes:
        cursor: The id of the last event, or of what came between events.
    """

    def __init__(self, url, headers=None, **query):
        self._client = httpx.Client(timeout=60)
        self._opened = self._client.stream("GET", url + "/v1/changes", params=query, headers=headers)
        self.response = self._opened.__enter__()
        assert 200 == self.response.raise_for_status().status_code
        self._lines = self.response.iter_lines()
        self.cursor = None
        self._read_block()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._opened.__exit__(None, None, None)
        self._client.close()

    def _read_block(self):
        fields = {}
        while line := next(self._lines):
            name, _, value = line.partition(": ")
            fields[name] = value
        self.cursor = fields.get("id", self.cursor)
        return fields

    def next(self):
        """The next event: (name, data)."""
        while "event" not in (fields := self._read_block()):
            pass
        return fields["event"], json.loads(fields["data"])

    def read_until(self, *keys):
        """All changes up to those where each of these keys has been told: (key, data) in order."""
        told = []
        while set(keys) - {key for key, _ in told}:
            name, data = self.next()
            assert "change" == name, data
            told.append((data["key"], data))
        return told


def write(cluster, key, node="", url=None):
    path = f"/v1/keys/{key}" + (f"?node={node}" if node else "")
    answer = cluster.client.post((url or cluster.url) + path, json=WRITE)
    assert 200 == answer.status_code, answer.text

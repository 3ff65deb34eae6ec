"""Concurrent edits of a document over HTTP, on real processes."""

import pytest

from tests.loopback.request import code_of


@pytest.mark.parametrize("concern", ["one", "majority"])
def test_an_edit_of_the_version_that_was_read_means_what_its_writer_meant(cluster, concern):
    path = f"/v1/keys/plan-{concern}"

    def edit(op):
        return cluster.post(f"{path}?concern=all", {"type": "document", "op": op})["value"]

    edit({"append": {"text": "t", "value": "Plan: write tests."}})
    read = cluster.get(f"{path}?concern={concern}")["value"]
    edit({"insert": {"text": "t", "at": 0, "value": "# Title\n"}})
    written = edit({"insert": {"text": "t", "at": 6, "value": "NOT ", "base": read["version"]}})
    assert {"t": "# Title\nPlan: NOT write tests."} == written["texts"]
    assert (1, 3) == (read["edits"], written["edits"])
    for name in cluster.node_ids:
        assert written == cluster.get(f"{path}?node={name}")["value"]


@pytest.mark.parametrize(("base", "expected"), [("no version", (400, "invalid_base")), (None, (409, "unknown_base"))])
def test_a_base_that_is_of_no_use_is_refused_and_changes_nothing(cluster, base, expected):
    other = cluster.post(
        "/v1/keys/other-plan", {"type": "document", "op": {"append": {"text": "t", "value": "a much longer text"}}}
    )
    path = f"/v1/keys/plan-refused-{expected[1]}"
    before = cluster.post(f"{path}?concern=all", {"type": "document", "op": {"append": {"text": "t", "value": "ab"}}})[
        "value"
    ]
    op = {"insert": {"text": "t", "at": 1, "value": "x", "base": base or other["value"]["version"]}}
    reply = cluster.client.post(cluster.url + path, json={"type": "document", "op": op})
    assert expected == code_of(reply)
    assert before == cluster.get(path)["value"]

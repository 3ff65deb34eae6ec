"""The API keeps to the document that it serves: generated requests, valid and not, against a real cluster.

A fixed seed and number of requests; of a request that fails the report says how to repeat it.
"""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

REQUESTS_MAX = 50
CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_generated_requests_are_answered_as_documented(cluster, tmp_path):
    report = tmp_path / "requests.har"
    for key in tomllib.loads(CONFIG.read_text())["dictionaries"]["keys"]["values"]:
        cluster.post(f"/v1/keys/{key}?concern=all", {"type": "aw_set", "op": {"add": "x"}})
    paths = cluster.get("/openapi.json")["paths"]
    endless = [path for path, methods in paths.items() if "text/event-stream" in json.dumps(methods)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", f"{cluster.url}/openapi.json"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(REQUESTS_MAX), "--seed", "5"),
            *("--generation-database", "none", "--continue-on-failure", "--no-color"),
            *(argument for path in endless for argument in ("--exclude-path", path)),
            *("--report", "har", "--report-har-path", report),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    # It would also pass had nothing got past the door.
    statuses = answered(report)
    for path in (*endless, "/openapi.json"):  # Schemathesis leaves out what it has read already.
        del paths[path]
    accepted = {operation for operation, known in statuses.items() if 200 in known}
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == accepted
    assert {200, 400, 404, 409} <= set().union(*statuses.values())


def answered(report):
    """The statuses that each operation answered with."""
    statuses = defaultdict(set)
    for entry in json.loads(report.read_text())["log"]["entries"]:
        path = urlsplit(entry["request"]["url"]).path
        if path.startswith(("/v1/keys/", "/v1/placement/")):
            path = "/".join([*path.split("/")[:3], "{key}"])
        statuses[entry["request"]["method"], path].add(entry["response"]["status"])
    return statuses

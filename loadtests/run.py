"""Bounded headless Locust run against a fresh loopback cluster: `python -m loadtests.run [--users 20] [--seconds 15]`.

Locust patches the standard library when imported, so it runs in its own process. Exits non-zero if any request failed.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtests.cluster import LoopbackCluster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, LoopbackCluster(Path(directory)) as cluster:
        print(f"{options.users} users for {options.seconds} s against {cluster.url}", file=sys.stderr)
        arguments = ["--headless", "--host", cluster.url, "--users", str(options.users), "--spawn-rate", "20"]
        limits = ["--run-time", f"{options.seconds}s", "--only-summary", "--loglevel", "WARNING"]
        tables = ["--csv", f"{directory}/load"]
        locustfile = Path(__file__).with_name("locustfile.py")
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(locustfile), *arguments, *limits, *tables], check=False
        )
        with Path(directory, "load_stats.csv").open() as table:
            total = next(row for row in csv.DictReader(table) if row["Name"] == "Aggregated")
    requests, failures = int(total["Request Count"]), int(total["Failure Count"])
    print(f"{requests} requests, {failures} failures, {float(total['Requests/s']):.0f}/s, p99 {total['99%']} ms")
    return 0 if done.returncode == 0 and requests and not failures else 1


if __name__ == "__main__":
    sys.exit(main())

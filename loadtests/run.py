"""Bounded headless Locust runs against fresh loopback clusters: `python -m loadtests.run [--users 20] [--seconds 15]`.

One as bare as can be, then one with HTTPS, mutual TLS between the processes, API keys and
rate limits, which are not reached.
Locust patches the standard library when imported, so it runs in its own process. Exits non-zero if any request failed.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtests.cluster import LoopbackCluster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    plain, secured = (run(options.users, options.seconds, is_secured=is_secured) for is_secured in (False, True))
    print(f"secured, a request costs {secured.cpu_us / plain.cpu_us:.2f} times the CPU of one that is not")
    return 0 if plain.is_good and secured.is_good else 1


@dataclass(frozen=True)
class Outcome:
    """Attributes: `cpu_us` is that of all nodes and the backend, for each request."""

    is_good: bool
    cpu_us: float


def run(users: int, seconds: int, *, is_secured: bool) -> Outcome:
    limits = {"enabled": is_secured, "requests_per_minute": 1_000_000, "burst_limit": 1_000_000}
    options = {"tls": is_secured, "api_keys": is_secured, "rate_limiting": limits}
    with tempfile.TemporaryDirectory() as directory, LoopbackCluster(Path(directory), **options) as cluster:
        how = "TLS everywhere, keys and limits" if is_secured else "no TLS, keys or limits"
        access: dict[str, str] = {}
        if cluster.authority is not None:
            access = {"JARVIS_API_KEY_FILE": str(cluster.token_file), "SSL_CERT_FILE": str(cluster.authority.file)}
        print(f"{users} users for {seconds} s against {cluster.url}, {how}", file=sys.stderr)
        arguments = ["--headless", "--host", cluster.url, "--users", str(users), "--spawn-rate", "20"]
        ends = ["--run-time", f"{seconds}s", "--only-summary", "--loglevel", "WARNING"]
        tables = ["--csv", f"{directory}/load"]
        locustfile = Path(__file__).with_name("locustfile.py")
        cpu = cluster.cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(locustfile), *arguments, *ends, *tables],
            env={**os.environ, **access},
            check=False,
        )
        cpu = cluster.cpu_seconds() - cpu
        with Path(directory, "load_stats.csv").open() as table:
            total = next(row for row in csv.DictReader(table) if row["Name"] == "Aggregated")
    requests, failures = int(total["Request Count"]), int(total["Failure Count"])
    cpu_us = cpu / max(requests, 1) * 1e6
    rate, p99 = float(total["Requests/s"]), total["99%"]
    print(f"{how}: {requests} requests, {failures} failures, {rate:.0f}/s, p99 {p99} ms, {cpu_us:.0f} CPU µs/request")
    return Outcome(done.returncode == 0 and requests > 0 and not failures, cpu_us)


if __name__ == "__main__":
    sys.exit(main())

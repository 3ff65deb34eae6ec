"""A backend that stops serves on until its clients know, and slow clients keep nobody else from being served."""

import signal
import socket
import subprocess
import threading

import httpx
import pytest

from loadtests.cluster import command, environment, free_port, wait_until

WRITE = {"type": "pn_counter", "op": {"increment": 1}}


@pytest.fixture
def lingering(cluster):
    """(url, process) of another backend that lingers for 2 seconds."""
    port = free_port()
    shared = ["--config", str(cluster.config_file), "--secret-file", str(cluster.secret_file)]
    peers = [argument for peer, _ in cluster.ports.values() for argument in ("--peer", f"127.0.0.1:{peer}")]
    arguments = ["backend", *shared, "--listen", f"127.0.0.1:{port}", "--linger", "2", *peers]
    process = subprocess.Popen(command(*arguments), env=environment())
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: httpx.get(url + "/ready").is_success, "the backend to be ready", cluster.logs)
    yield url, process
    process.kill()
    process.wait()


def test_no_request_is_dropped_while_a_backend_stops(cluster, lingering):
    url, process = lingering
    answers = []

    def load():
        with httpx.Client() as client:
            while True:
                answer = client.post(url + "/v1/keys/drain", json=WRITE)
                answers.append(answer.status_code)
                if answer.headers.get("connection") == "close":
                    return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) > 50, "some load", cluster.logs)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert {200} == set(answers)
    assert 503 == httpx.get(url + "/ready").status_code
    assert 0 == process.wait()
    wait_until(
        lambda: len(answers) == cluster.get("/v1/keys/drain?concern=all")["value"], "every write once", cluster.logs
    )


def test_bodies_that_never_come_keep_nobody_waiting(cluster):
    held = []
    try:
        for number in range(300):  # More than may be at work at once.
            slow = socket.create_connection(("127.0.0.1", cluster.api_port))
            slow.sendall(b"POST /v1/keys/slow-%d HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{" % number)
            held.append(slow)
        assert 1 == cluster.post("/v1/keys/quick?concern=all", WRITE)["value"]
    finally:
        for slow in held:
            slow.close()


@pytest.mark.parametrize("given", ["-1", "301", "nan", "soon"])
def test_a_linger_that_is_none_is_refused(given):
    done = subprocess.run(
        command("backend", "--config", "x", "--secret-file", "x", "--listen", "127.0.0.1:0", f"--linger={given}"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, True) == (done.returncode, "argument --linger" in done.stderr)

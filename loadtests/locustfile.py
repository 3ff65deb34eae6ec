"""Agents that write and read shared state; run by `make load` through run.py, or by `locust --host URL` alone.

`JARVIS_API_KEY_FILE` names a file with an API key, if one is needed.
"""

import os
import random
from pathlib import Path

from locust import FastHttpUser, constant_throughput, task

KEY_FILE = os.environ.get("JARVIS_API_KEY_FILE")


class Agent(FastHttpUser):
    wait_time = constant_throughput(20)
    default_headers = {"Authorization": f"Bearer {Path(KEY_FILE).read_text().strip()}"} if KEY_FILE else None
    insecure = False  # HTTPS is verified; SSL_CERT_FILE names the authority.

    @task(3)
    def increment(self):
        self.write(f"counter-{random.randrange(100)}", "pn_counter", {"increment": 1})

    @task(3)
    def assign(self):
        self.write(f"register-{random.randrange(1000)}", "lww_register", {"assign": {"load": random.random()}})

    @task(2)
    def change_set(self):
        op = random.choice(("add", "add", "remove"))
        self.write(f"set-{random.randrange(100)}", "aw_set", {op: f"element-{random.randrange(50)}"})

    @task(4)
    def read(self):
        url = f"/v1/keys/register-{random.randrange(1000)}"
        with self.client.get(url, name="read", catch_response=True) as answer:
            if answer.status_code in (200, 404):
                answer.success()

    def write(self, key, type_name, op):
        self.client.post(f"/v1/keys/{key}", json={"type": type_name, "op": op}, name=f"write {type_name}")

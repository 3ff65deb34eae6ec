"""Nodes that do not reach each other, and their meeting."""

from loadtests.cluster import wait_until


def start_apart(cluster):
    """Start all nodes of a cluster, each with itself as its only peer, and a backend that reaches them all.

    Before that they have decided together who owns what: without a placement none of them takes anything.
    """
    start_together(cluster)
    for name in cluster.node_ids:
        cluster.kill(name)
    for name in cluster.node_ids:
        cluster.start_node(name, peers=[name])
    cluster.start_backend()
    await_all(cluster)
    for name in cluster.node_ids:
        wait_until(lambda name=name: is_serving(cluster, name), f"{name} to serve alone", cluster.logs)


def is_serving(cluster, name):
    """Whether a node waits for nothing before it serves: it has a seat, and did not wait longer for others to vouch."""
    checks = {check["name"]: check["message"] for check in cluster.probe(name, "/health").json()["checks"]}
    return "this node" not in checks["placement"]


def heal(cluster):
    """Start all nodes again, with all of them as peers."""
    for name in cluster.node_ids:  # All first: nobody hears of the others in between, and forgets that at its end.
        cluster.kill(name)
    start_together(cluster)
    await_all(cluster)


def start_together(cluster):
    for name in cluster.node_ids:
        cluster.start_node(name)
    for name in cluster.node_ids:
        cluster.wait_ready(name)


def await_all(cluster):
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "all nodes", cluster.logs)

"""Nodes that do not know each other, and their meeting."""

from loadtests.cluster import wait_until


def start_apart(cluster):
    """Start all nodes of a cluster, each with itself as its only peer, and a backend that reaches them all."""
    for name in cluster.node_ids:
        cluster.start_node(name, peers=[name])
    cluster.start_backend()
    await_all(cluster)


def heal(cluster):
    """Start all nodes again, with all of them as peers."""
    for name in cluster.node_ids:  # All first: nobody hears of the others in between, and forgets that at its end.
        cluster.kill(name)
    for name in cluster.node_ids:
        cluster.start_node(name)
    for name in cluster.node_ids:
        cluster.wait_ready(name)
    await_all(cluster)


def await_all(cluster):
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "all nodes", cluster.logs)

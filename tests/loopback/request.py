def ask(cluster, method, path, token=None, *, url=None, headers=None, **more):
    """The answer of the cluster's backend, or of the one at `url`, whatever its status."""
    headers = {**(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
    return cluster.client.request(method, (url or cluster.url) + path, headers=headers, **more)


def code_of(answer):
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]

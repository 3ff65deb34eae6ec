"""Expressions that several panels need, and the selectors that the choices at the top of a dashboard narrow."""

from typing import Final

# A Prometheus of many namespaces may watch several clusters, whose pods have the same names.
CLUSTER: Final = 'namespace="$namespace"'
CHOSEN: Final = f'{CLUSTER}, instance=~"$instance"'
NODES: Final = f'job="jarvis-crdt", {CHOSEN}'
BACKENDS: Final = f'job="jarvis-backend", {CHOSEN}'
# Probes and scrapes are frequent, quick and never fail: among few requests they would hide those that do.
_ASKED: Final = 'route!~"/(live|ready|health|metrics)"'
_FAILED: Final = 'status=~"5.."'
CLUSTER_REQUESTS: Final = f"{_ASKED}, {CLUSTER}"
REQUESTS: Final = f"{_ASKED}, {CHOSEN}"


def rate(metric: str, selector: str) -> str:
    """Return how much a counter grows each second, over a window that holds some scrapes."""
    return f"rate({metric}{{{selector}}}[$__rate_interval])"


def quantile(share: float, metric: str, selector: str, *labels: str) -> str:
    """Return a quantile of a histogram, for each combination of `labels`."""
    by, grown = ", ".join(("le", *labels)), rate(f"{metric}_bucket", selector)
    return f"histogram_quantile({share:g}, sum by ({by}) ({grown}))"


def buckets(metric: str, selector: str) -> str:
    """Return how many observations of a histogram fell into each bucket, for a heatmap."""
    return f"sum by (le) (increase({metric}_bucket{{{selector}}}[$__rate_interval]))"


def or_zero(expr: str, label: str = "") -> str:
    """Return an expression that is 0 where there is nothing to count; `label`, if given, is `none` then."""
    nothing = f'label_replace(vector(0), "{label}", "none", "", "")' if label else "vector(0)"
    return f"{expr} or on() {nothing}"


def error_share(selector: str) -> str:
    """Return the share of requests that failed through no fault of the client; 0 while there are none."""
    failed = or_zero(f"sum({rate('jarvis_requests_total', f'{selector}, {_FAILED}')})")
    answered = or_zero(f"sum({rate('jarvis_requests_total', selector)})")
    return f"({failed}) / clamp_min({answered}, 1e-9)"


def used_share(selector: str) -> str:
    """Return the share of each volume that is used."""
    free, capacity = (f'jarvis_storage_bytes{{state="{state}", {selector}}}' for state in ("free", "capacity"))
    return f"1 - {free} / ignoring(state) {capacity}"

"""Is it fast?"""

from typing import Final

from harness.dashboard.board import Board, Row
from harness.dashboard.choice import BACKEND, NAMESPACE
from harness.dashboard.panel import Chart, Heatmap, Query, Stat, Unit
from harness.dashboard.promql import BACKENDS, CHOSEN, REQUESTS, buckets, error_share, or_zero, quantile, rate

_ANSWERED: Final = "jarvis_requests_total"
_DURATION: Final = "jarvis_request_duration_seconds"
_ASKED: Final = "jarvis_database_query_duration_seconds"
_DURATION_STEPS: Final = ((0.25, "orange"), (1.0, "red"))
_LIMITED: Final = f'status="429", {REQUESTS}'
_REFUSED: Final = f'status=~"4..", {REQUESTS}'
_FAILED: Final = f'status=~"5..", {REQUESTS}'

_NOW: Final = Row(
    "Is it fast?",
    (
        Stat(
            "Requests",
            "Requests answered a second, probes and scrapes left out, as everywhere below.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum({rate(_ANSWERED, REQUESTS)})"), "requests"),),
        ),
        Stat(
            "Latency, p99",
            "99 of 100 requests were answered within this time. Empty while there are none.",
            Unit.SECONDS,
            (Query(quantile(0.99, _DURATION, REQUESTS), "p99"),),
            _DURATION_STEPS,
        ),
        Stat(
            "Server errors",
            "Share of requests answered with 5xx.",
            Unit.SHARE,
            (Query(error_share(REQUESTS), "errors"),),
            ((0.01, "orange"), (0.1, "red")),
        ),
        Stat(
            "Rate limited",
            "Requests refused with 429 a second: callers above their limit.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum({rate(_ANSWERED, _LIMITED)})"), "limited"),),
            ((1, "orange"),),
        ),
        Stat(
            "Open feeds",
            "Change feeds that clients have open. A backend refuses more than 10,000.",
            Unit.COUNT,
            (Query(f"sum(jarvis_feeds{{{CHOSEN}}})", "feeds"),),
        ),
        Stat(
            "Nodes out of reach",
            "The most nodes that any backend does not reach, or that take no more of its requests.",
            Unit.COUNT,
            (
                Query(
                    "max(sum by (instance) "
                    f'(jarvis_database_connections{{state=~"full|unreachable|refused", {CHOSEN}}}))',
                    "nodes",
                ),
            ),
            ((1, "red"),),
        ),
    ),
)
_REQUESTS: Final = Row(
    "Requests",
    (
        Chart(
            "Requests by route",
            "Requests answered, by the path of their route.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum by (route) ({rate(_ANSWERED, REQUESTS)})", "route"), "{{route}}"),),
            stacked=True,
        ),
        Chart(
            "Requests by status",
            "Requests answered, by HTTP status.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum by (status) ({rate(_ANSWERED, REQUESTS)})", "status"), "{{status}}"),),
            stacked=True,
        ),
        Chart(
            "Requests by backend",
            "Requests that each backend answered. Lines far apart are clients that hold few long connections.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum by (instance) ({rate(_ANSWERED, REQUESTS)})", "instance"), "{{instance}}"),),
        ),
        Chart(
            "Latency",
            "From a request's headers to the end of its answer, or to the start of a feed.",
            Unit.SECONDS,
            tuple(Query(quantile(share, _DURATION, REQUESTS), f"p{share * 100:g}") for share in (0.5, 0.9, 0.99)),
            _DURATION_STEPS,
        ),
        Heatmap(
            "Latency, all requests",
            "How many requests took how long. Writes with concern=majority or all are a band of their own.",
            Unit.SECONDS,
            (Query(buckets(_DURATION, REQUESTS), "{{le}}"),),
        ),
        Chart(
            "Latency by route, p99",
            "Batches and listings do more than one key's work, and take longer.",
            Unit.SECONDS,
            (Query(quantile(0.99, _DURATION, REQUESTS, "route"), "{{route}}"),),
            _DURATION_STEPS,
        ),
    ),
)
_ERRORS: Final = Row(
    "Errors",
    (
        Chart(
            "Server errors by route",
            "Requests answered with 5xx: nodes out of reach, too few owners for a concern, overload, or a defect.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum by (route, status) ({rate(_ANSWERED, _FAILED)})", "route"), "{{status}} {{route}}"),),
        ),
        Chart(
            "Client errors by route",
            "Requests refused with 4xx, rate limits among them. Many 401 are a key that was revoked.",
            Unit.REQUESTS_PER_SECOND,
            (Query(or_zero(f"sum by (route, status) ({rate(_ANSWERED, _REFUSED)})", "route"), "{{status}} {{route}}"),),
        ),
        Chart(
            "Failures on the way to nodes",
            "Requests to nodes that failed through no fault of the client, by code. Those that another node could "
            "answer are seen by no client.",
            Unit.PER_SECOND,
            (Query(f"sum by (kind) ({rate('jarvis_database_errors_total', BACKENDS)})", "{{kind}}"),),
        ),
    ),
)
_NODES: Final = Row(
    "From backends to nodes",
    (
        Chart(
            "Connections to nodes",
            "Connections of all backends by state; full ones make requests wait.",
            Unit.COUNT,
            (Query(f"sum by (state) (jarvis_database_connections{{{CHOSEN}}})", "{{state}}"),),
            stacked=True,
        ),
        Chart(
            "Requests to nodes",
            "Requests that backends send to nodes, by kind. A majority read or a write that is tried again is several.",
            Unit.REQUESTS_PER_SECOND,
            (Query(f"sum by (operation) ({rate(f'{_ASKED}_count', BACKENDS)})", "{{operation}}"),),
            stacked=True,
        ),
        Chart(
            "Latency of requests to nodes, p99",
            "Until a node's reply; what is left of the API's latency is the backend's own.",
            Unit.SECONDS,
            (Query(quantile(0.99, _ASKED, BACKENDS, "operation"), "{{operation}}"),),
        ),
        Chart(
            "Open feeds by backend",
            "Change feeds that clients have open. They all fall to 0 where a backend stops, and open elsewhere.",
            Unit.COUNT,
            (Query(f"jarvis_feeds{{{CHOSEN}}}", "{{instance}}"),),
        ),
    ),
)

BOARD: Final = Board(
    "jarvis-api",
    "Jarvis: API",
    "Is it fast? Requests, their latency and errors, and what backends ask of nodes.",
    (NAMESPACE, BACKEND),
    (_NOW, _REQUESTS, _ERRORS, _NODES),
)

"""What an expression of PromQL may ask for: every series of the service, with its labels."""

import re
from collections.abc import Iterator

from crdt_service.metrics.catalogue import CATALOGUE, CONTAINER, PLATFORM, Kind

# What Prometheus itself makes of each scrape and of each alert.
_OWN = {"up": {"job", "instance", "namespace"}, "ALERTS": {"alertname", "alertstate", "namespace"}}
_SCRAPED = {"job", "instance", "namespace"}


def read_series() -> dict[str, set[str]]:
    """Return the labels of each series by its name."""
    series = dict(_OWN)
    for metric in (*CATALOGUE, *CONTAINER, *PLATFORM):
        labels = _SCRAPED | {label.name for label in metric.labels}
        if metric.kind is Kind.HISTOGRAM:
            series |= {f"{metric.name}_bucket": labels | {"le"}}
            series |= {f"{metric.name}_{part}": labels for part in ("sum", "count")}
        else:
            series[metric.name] = labels
    return series


def find_selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the name of each series in an expression, and the labels it is selected by."""
    without_texts = re.sub(r'"[^"]*"', '""', expr)
    for name, selector in re.findall(r"\b((?:jarvis|process|python)_\w+|up|ALERTS)\b(?:{([^}]*)})?", without_texts):
        yield name, set(re.findall(r"(\w+)\s*[=!]", selector))


def find_grouped(expr: str) -> set[str]:
    """Return the labels by which an expression groups."""
    return {label for by in re.findall(r"by \(([^)]*)\)", expr) for label in by.split(", ")}

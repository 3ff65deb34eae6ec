"""All that the API serves, in one place."""

from collections.abc import Callable

from crdt_service.api.asgi import TEXT
from crdt_service.api.batch import Batches
from crdt_service.api.call import Call, Response
from crdt_service.api.cluster import ClusterPages
from crdt_service.api.conflicts import Conflicts
from crdt_service.api.feed.hub import Hub
from crdt_service.api.feed.page import Changes
from crdt_service.api.health import BackendFacts
from crdt_service.api.keys import Keys
from crdt_service.api.listing import Listing
from crdt_service.api.openapi import Specification
from crdt_service.api.pace import Shared
from crdt_service.api.plugins import PluginPages
from crdt_service.api.route import Access, Route
from crdt_service.api.router import Router
from crdt_service.kernel.config import Config
from crdt_service.plugins.host import Plugins


def make_routes(
    config: Config,
    router: Router,
    *,
    hub: Hub,
    render_metrics: Callable[[], bytes],
    is_draining: Callable[[], bool],
    facts: Callable[[], BackendFacts],
    plugins: Plugins,
    is_key_required: bool = False,
) -> list[Route]:
    """Return every route, in the order in which they are documented; `facts` tells how the nodes are."""
    metrics = Shared(render_metrics)

    async def show_metrics(call: Call) -> Response:
        return Response(200, await metrics.get(), TEXT)

    routes = [
        *Keys(router, plugins).routes(),
        *Listing(router).routes(),
        *Batches(router, plugins).routes(),
        *Conflicts(router).routes(),
        *Changes(hub).routes(),
        *ClusterPages(config, router, is_draining, facts).routes(),
        *PluginPages(plugins).routes(),
        Route(
            "GET",
            "/metrics",
            "show_metrics",
            Access.PUBLIC,
            "Show metrics for Prometheus.",
            show_metrics,
            media="text/plain",
            answers_per_second=20,
        ),
    ]
    routes.append(Specification(lambda: routes, is_key_required=is_key_required).route())
    return routes

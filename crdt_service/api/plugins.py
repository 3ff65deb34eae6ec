"""``/v1/plugins``: which plugins there are, and the pages that they serve."""

import re
from typing import Any

import msgspec

from crdt_service.access.principal import Principal
from crdt_service.api.call import Call, Response, show
from crdt_service.api.parameter import text
from crdt_service.api.route import Access, Route
from crdt_service.kernel.error import ServiceError
from crdt_service.plugins.caller import describe_caller
from crdt_service.plugins.host import Plugins
from crdt_service.plugins.message import Page, Serve
from crdt_service.plugins.plugin import Plugin, PluginView

PATH = "/v1/plugins"
_PARAMETER_BYTES_MAX = 1024
_WITH_BODY = ("POST", "PUT")
_body = msgspec.json.Decoder(msgspec.Raw)


class PluginsView(msgspec.Struct):
    """All plugins, in their order."""

    plugins: list[PluginView]


class PluginPages:
    """The listing, and a route for each endpoint of a plugin."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    def routes(self) -> list[Route]:
        """Return what is served of itself."""
        return [
            Route(
                "GET",
                PATH,
                "list_plugins",
                Access.ADMIN,
                "List the plugins of this backend, what they implement and how they do.",
                self.list,
                result=PluginsView,
            )
        ]

    def routes_of(self, plugin: Plugin) -> list[Route]:
        """Return the routes of what a plugin serves."""
        return [self._make_route(plugin, page) for page in plugin.pages()]

    async def list(self, call: Call) -> Response:
        """Answer with the plugins."""
        return show(PluginsView(self._plugins.views()))

    def _make_route(self, plugin: Plugin, page: Page) -> Route:
        has_body = page.method in _WITH_BODY

        async def answer(call: Call) -> Response:
            query = {name: value for name, value in call.values.items() if value is not None}
            _check_keys(page, call.principal, query)
            body = b""
            if has_body:
                body = bytes(call.decode_body(_body, "JSON"))
            caller = describe_caller(call.principal)
            served = await self._plugins.serve(plugin, Serve(page.method, page.path, query, body, caller))
            return Response(served.status, served.body)

        return Route(
            page.method,
            f"{PATH}/{plugin.name}/{page.path}",
            re.sub(r"\W", "_", f"{page.method.lower()}_{plugin.name}_{page.path}"),
            Access(page.access),
            page.sentence,
            answer,
            tuple(text(name, _PARAMETER_BYTES_MAX, sentence) for name, sentence in page.parameters.items()),
            body=msgspec.Raw if has_body else None,
            result=Any,
            errors=("plugin_refused", "plugin_unavailable"),
        )


def _check_keys(page: Page, principal: Principal, query: dict[str, str]) -> None:
    """Judge an endpoint by the keys that it is asked about.

    Raises:
        ServiceError: One is not the caller's to touch; or the caller is limited to prefixes, and the endpoint does not
            say how it keeps to them.
    """
    for name in page.keys:
        if name in query:
            principal.check(query[name])
    if not principal.prefixes or page.narrows:
        return
    if not page.keys:
        raise ServiceError(
            "forbidden",
            f"the API key is limited to prefixes, which {page.path!r} does not keep to",
            "use a key without prefixes",
        )
    if missing := [name for name in page.keys if name not in query]:
        raise ServiceError(
            "forbidden",
            f"the API key is limited to prefixes, and {', '.join(missing)} is not given",
            "name a key within them",
        )

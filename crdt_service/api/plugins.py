"""``/v1/plugins``: which plugins there are, and the pages that they serve."""

import re
from typing import Any

import msgspec

from crdt_service.api.call import Call, Response, show
from crdt_service.api.parameter import text
from crdt_service.api.route import Access, Route
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
                Access.READ,
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
            body = b""
            if has_body:
                body = bytes(call.decode_body(_body, "JSON"))
            query = {name: value for name, value in call.values.items() if value is not None}
            served = await self._plugins.serve(plugin, Serve(page.method, page.path, query, body, call.principal.id))
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

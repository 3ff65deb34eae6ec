import asyncio

import uvloop

SOCKETS = ("test_connection.py", "test_http.py", "test_tls.py")


def pytest_asyncio_loop_factories(config, item):
    """What opens sockets is tested on the loop in use and on asyncio's own: their transports differ."""
    factories = {"asyncio": asyncio.new_event_loop}
    return {**factories, "uvloop": uvloop.new_event_loop} if item.path.name in SOCKETS else factories

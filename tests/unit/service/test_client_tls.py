"""The client over real TLS: whom it trusts."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from crdt_service.client import NEVER, ApiError, Client
from loadtests.authority import Authority

KEY = {"key": "k", "type": "g_set", "node": "node-0", "value": ["x"]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(KEY).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(params=[False, True], ids=["root", "intermediate"])
def authority(tmp_path, request):
    return Authority(tmp_path / "authority", is_intermediate=request.param)


@pytest.fixture
def port(authority, request):
    """A server with a certificate of that name."""
    files = authority.issue(request.param)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *arguments: None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def read(port, ca_file):
    with Client(f"https://localhost:{port}", ca_file=ca_file, retry=NEVER) as client:
        return client.read("k").value


@pytest.mark.parametrize("port", ["localhost"], indirect=True)
def test_a_server_that_the_authority_vouches_for_is_trusted(port, authority):
    assert ["x"] == read(port, authority.file)


@pytest.mark.parametrize("port", ["localhost"], indirect=True)
def test_others_vouch_for_nothing(port, tmp_path):
    for ca_file in (None, Authority(tmp_path / "stranger").file):
        with pytest.raises(ApiError) as raised:
            read(port, ca_file)
        assert "unreachable" == raised.value.code
        assert "certificate verify failed" in raised.value.message


@pytest.mark.parametrize("port", ["elsewhere"], indirect=True)
def test_a_certificate_of_another_name_is_refused(port, authority):
    with pytest.raises(ApiError) as raised:
        read(port, authority.file)
    assert "doesn't match" in raised.value.message or "not valid for" in raised.value.message

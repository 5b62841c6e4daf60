"""Other addons, options and people change flows; what they make of them is judged as well."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, Program
from support.http import client_hello, connect_refusal, connect_tunnel, read_alert, request_over, request_via_proxy
from support.origin import Origins
from support.sockets import read_exactly
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"

type StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="module")
def program() -> Program:
    """Who has scripts and options of his own has mitmdump; `tests/attacks` tries some with the runner."""
    return "mitmdump"


def test_map_remote_to_a_denied_host(
    gateway: StartGateway, names: object, rules: str, origin: Origins, wire: Wire
) -> None:
    origin.http(WEB)
    with gateway(rules, {"map_remote": "|http://www.example.com/a|http://evil.example/a"}, data_path="inspect") as gw:
        reply = request_via_proxy(gw, "GET", "http://www.example.com/a")
        assert (reply.status, reply.header("x-egress-reason")) == (403, "no_rule")
        assert request_via_proxy(gw, "GET", "http://www.example.com/b").status == 200
    wire.assert_nothing_left(SECOND, name="evil.example")


def test_map_remote_to_an_allowed_host(gateway: StartGateway, names: object, rules: str, origin: Origins) -> None:
    server = origin.https(OTHER, "other.example.com")
    option = {"map_remote": "|http://www.example.com/|https://other.example.com/"}
    with gateway(rules, option, data_path="inspect") as gw:
        assert request_via_proxy(gw, "GET", "http://www.example.com/mapped").status == 200
    assert server.requests[0].all("host") == ["other.example.com"]
    assert server.requests[0].connection.sni == "other.example.com"


def test_a_proxy_password_is_asked_for_first(
    gateway: StartGateway, names: object, rules: str, origin: Origins, wire: Wire
) -> None:
    server = origin.http(WEB)
    with gateway(rules, {"proxyauth": "me:secret"}, data_path="inspect") as gw:
        for url in ("http://www.example.com/", "http://evil.example/"):
            reply = request_via_proxy(gw, "GET", url)
            assert (reply.status, reply.header("x-egress-reason")) == (407, None)
            assert reply.header("proxy-authenticate")
        assert connect_refusal(gw, "www.example.com:443").status == 407
        # More than a socket takes by itself, so that it meets the end of the gateway's patience.
        upload = request_via_proxy(gw, "POST", "http://www.example.com/", body=b"x" * 50_000_000)
        assert upload.status == 407
        assert not wire.syns_to(WEB)
        password = {"Proxy-Authorization": "Basic bWU6c2VjcmV0"}
        with gw.connect() as sock:
            assert request_over(sock, "GET", "http://www.example.com/").status == 407
            assert request_over(sock, "GET", "http://www.example.com/", password).status == 200
            assert request_over(sock, "GET", "http://evil.example/", password).status == 403
        status, sock = connect_tunnel(gw, "www.example.com:80", password)
        with sock:
            assert status == 200
            assert request_over(sock, "GET", "/in", {"Host": "www.example.com"}).status == 200
        assert connect_refusal(gw, "evil.example:443", password).status == 403
        assert gw.wait_for_log(reason="proxy_authentication_required")
    assert all(request.header("proxy-authorization") is None for request in server.requests)


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "other_addon.py"
    path.write_text(text, encoding="utf-8")
    return path


MISCHIEF = {
    "changes the host": "flow.request.host = 'evil.example'",
    "changes the host data": "flow.request.data.host = 'evil.example'",
    "changes the port": "flow.request.port = 22",
    "changes Host": "flow.request.headers['Host'] = 'evil.example'",
    "removes the refusal": "flow.response = None; flow.request.data.host = 'evil.example'",
    "halts the chain": "flow.request.data.host = 'evil.example'; raise AddonHalt",
    "raises": "flow.request.data.host = 'evil.example'; raise RuntimeError",
    "streams": "flow.request.data.host = 'evil.example'; flow.request.stream = True",
}


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("deed", list(MISCHIEF))
@pytest.mark.parametrize("body", [b"", b"x" * 2_000_000], ids=["no body", "body"])
@pytest.mark.slow
def test_another_script_that(
    gateway: StartGateway,
    names: object,
    rules: str,
    origin: Origins,
    wire: Wire,
    tmp_path: Path,
    hook: str,
    deed: str,
    body: bytes,
) -> None:
    server = origin.http(WEB)
    text = f"from mitmproxy.exceptions import AddonHalt\ndef {hook}(flow):\n    {MISCHIEF[deed]}\n"
    with gateway(rules, data_path="inspect", scripts_before=[script(tmp_path, text)]) as gw:
        reply = request_via_proxy(gw, "POST" if body else "GET", "http://www.example.com/", body=body)
        if hook == "requestheaders" or not body:
            assert reply.status in (400, 403, 421, 502), reply
            assert reply.header("x-egress-reason")
            assert not server.requests
    wire.assert_nothing_left(SECOND, name="evil.example")
    wire.assert_nothing_left(WEB, port=22)


@pytest.mark.parametrize("hook", ["client_connected", "next_layer", "http_connect", "server_connect"])
def test_another_script_that_keeps_the_hook_from_the_gateway(
    gateway: StartGateway, names: object, rules: str, wire: Wire, tmp_path: Path, origin: Origins, hook: str
) -> None:
    origin.http(SECOND)
    text = f"from mitmproxy.exceptions import AddonHalt\ndef {hook}(_):\n    raise AddonHalt\n"
    with gateway(rules, data_path="inspect", scripts_before=[script(tmp_path, text)]) as gw:
        gw.raw(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        gw.raw(
            b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n"
            b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        )
    wire.assert_nothing_left(SECOND, name="evil.example")


@pytest.mark.parametrize("hook", ["server_connect", "server_connected", "requestheaders", "request", "responseheaders"])
def test_another_script_that_halts_on_an_allowed_host(
    gateway: StartGateway, names: DnsServer, rules: str, wire: Wire, tmp_path: Path, hook: str
) -> None:
    """The name has only an address that may not be dialled."""
    names.set("www.example.com", ["10.0.0.5"])
    names.set("tcp.example.com", ["10.0.0.5"])
    text = f"from mitmproxy.exceptions import AddonHalt\ndef {hook}(_):\n    raise AddonHalt\n"
    with gateway(rules, data_path="inspect", scripts_before=[script(tmp_path, text)]) as gw:
        assert request_via_proxy(gw, "GET", "http://www.example.com/").status in (403, 502)
        assert connect_refusal(gw, "tcp.example.com:25").status in (403, 502)
        with connect_tunnel(gw, "www.example.com:443")[1] as sock:
            sock.sendall(client_hello("www.example.com"))
            assert read_alert(sock)
    wire.assert_nothing_left("10.0.0.5")


def test_a_connection_nobody_has_judged_is_not_dialled(
    gateway: StartGateway, tmp_path: Path, origin: Origins, make_rule: Callable[..., str]
) -> None:
    """mitmproxy would look `localhost` up itself and connect, were it left to it."""
    server = origin.tcp("127.0.0.1", 8098, greeting=b"hello")
    text = "from mitmproxy.exceptions import AddonHalt\ndef server_connect(_):\n    raise AddonHalt\n"
    rules = make_rule("localhost", "8098 tcp", more="allowPrivate: true")
    with gateway(rules, data_path="inspect", scripts_before=[script(tmp_path, text)]) as gw:
        assert connect_refusal(gw, "localhost:8098").status == 502
    assert not server.connections
    with gateway(rules, data_path="inspect") as gw, connect_tunnel(gw, "localhost:8098")[1] as sock:
        assert read_exactly(sock, 5) == b"hello"

"""Scripts beside ours that point a request elsewhere, after it was judged: the new destination is judged as well.

Scripts work on flows, so the data path is inspect. They are the operator's own code; these are its mistakes.
"""

import textwrap
from pathlib import Path

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway
from support.http import client_hello, connect_tunnel, read_alert, request_via_proxy, tls_client
from support.lab import ALLOWED, DENIED, DENIED_AT, OTHER, RULES, Lab, Places, Port, is_outside, say
from support.wire import Wire

# The word is read at each hook, so that one gateway serves all of these.
SCRIPT = """
    import pathlib
    from mitmproxy import connection, ctx, http

    WORD = pathlib.Path({word!r})

    def _in(hook):
        def run(data):
            for line in WORD.read_text().splitlines():
                name, _, statement = line.partition(": ")
                if name == hook:
                    exec(statement, {{"data": data, "http": http, "connection": connection, "ctx": ctx}})
        return run

    class Redirects:
        pass

    for name in ("requestheaders", "request", "next_layer", "server_connect", "tls_start_server", "http_connect",
                 "tls_clienthello", "response", "client_connected"):
        setattr(Redirects, name, staticmethod(_in(name)))

    addons = [Redirects()]
"""
TO_DENIED = f"data.request.host = '{DENIED}'"
TO_ADDRESS = f"data.request.host = '{DENIED_AT}'"
ATTACKS = {
    "the host in requestheaders": f"requestheaders: {TO_DENIED}",
    "the host in request": f"request: {TO_DENIED}",
    "the address in request": f"request: {TO_ADDRESS}",
    "the raw host in request": f"request: data.request.data.host = '{DENIED}'",
    "the URL in request": f"request: data.request.url = 'http://{DENIED}/'",
    "the Host header in request": f"request: data.request.headers['host'] = '{DENIED}'",
    "two Host headers in request": f"request: data.request.headers.add('host', '{DENIED}')",
    "the port in request": "request: data.request.port = 22",
    "the server's address in request": f"request: data.server_conn = connection.Server(address=('{DENIED}', 80))",
    "the server's address in server_connect": f"server_connect: data.server.address = ('{DENIED_AT}', 80)",
    "the server's name in server_connect": f"server_connect: data.server.address = ('{DENIED}', 80)",
    "another proxy on the way": (
        "server_connect: from mitmproxy.net.server_spec import ServerSpec; "
        f"data.server.via = ServerSpec(('http', ('{DENIED_AT}', 80)))"
    ),
    "a forgotten error in server_connect": (
        f"server_connect: data.server.error = None; data.server.address = ('{DENIED}', 80)"
    ),
    "a header that splits in request": f"request: data.request.headers['x'] = 'a\\r\\nHost: {DENIED}'",
    "a path that splits in request": f"request: data.request.path = '/ HTTP/1.1\\r\\nHost: {DENIED}\\r\\nX: '",
    "a header name that splits in request": f"request: data.request.headers['Host: {DENIED}\\r\\nx'] = 'a'",
    "a header that splits in requestheaders": f"requestheaders: data.request.headers['x'] = 'a\\r\\nHost: {DENIED}'",
    "a method that splits in request": (
        f"request: data.request.method = 'GET / HTTP/1.1\\r\\nHost: {DENIED}\\r\\n\\r\\nGET'"
    ),
    "another host that is allowed, with the old Host header": f"request: data.request.data.host = '{OTHER}'",
}


@pytest.fixture(scope="module", params=["scripts_before", "scripts_after"])
def word(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    directory = tmp_path_factory.mktemp("script")
    script, word = directory / "redirects.py", directory / "word"
    script.write_text(textwrap.dedent(SCRIPT).format(word=str(word)))
    word.write_text("")
    return request.param, script, word


@pytest.fixture
def redirecting(shared_gateway, word: tuple[str, Path, Path], dns: DnsServer, wire: Wire, places: Places) -> Lab:
    where, script, _ = word
    gateway: Gateway = shared_gateway(RULES, **{where: [script]})
    return Lab(gateway, dns, wire, places, Port(0))


@pytest.fixture(scope="module")
def places(module_origin, module_dns) -> Places:
    return Places.build(module_origin, module_dns)


@pytest.mark.parametrize("statement", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_request_that_a_script_points_elsewhere(redirecting: Lab, word, statement: str) -> None:
    lab, file = redirecting, word[2]
    assert request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/").status == 200
    lab.wire.clear()
    allowed, other = len(lab.places.allowed.requests), len(lab.places.other.requests)
    file.write_text(statement)
    try:
        response = request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/", {"Connection": "close"})
        status = response.status
    except OSError:
        status = 0
    finally:
        file.write_text("")
    nothing_went_astray(lab)
    assert status in (0, 200, 400, 403, 421, 502, 503)
    # Whatever came from the allowed host is what was asked of it.
    for request in lab.places.allowed.requests[allowed:]:
        assert request.all("host") == [ALLOWED]
    for request in lab.places.other.requests[other:]:
        assert request.all("host") == [OTHER]


@pytest.mark.parametrize(
    "statement",
    [
        f"server_connect: data.server.address = ('{DENIED_AT}', 443)",
        f"server_connect: data.server.address = ('{DENIED}', 443)",
        "tls_clienthello: data.ignore_connection = True",
        f"http_connect: data.request.host = '{DENIED}'",
        f"http_connect: data.request.data.host = '{DENIED}'; data.request.authority = '{DENIED}:443'",
        "http_connect: data.response = http.Response.make(200)",
    ],
)
def test_a_tunnel_that_a_script_points_elsewhere(redirecting: Lab, word, ca, statement: str) -> None:
    lab, file = redirecting, word[2]
    file.write_text(statement)
    try:
        for sni in (ALLOWED, DENIED):
            lab.wire.clear()
            status, sock = connect_tunnel(lab.gateway, f"{ALLOWED}:443")
            with sock:
                if status == 200:
                    say(sock, client_hello(sni))
                    try:
                        alert = read_alert(sock)
                    except (AssertionError, TimeoutError):
                        assert sni == ALLOWED, "somebody answered to the denied name"
                    else:
                        assert alert is None or alert.level == 2
            nothing_went_astray(lab)
    finally:
        file.write_text("")


def test_a_certificate_that_a_script_wants_to_ignore(redirecting: Lab, word, ca) -> None:
    """TLS origination is verified for the name that was judged, whatever a script has set up."""
    lab, file = redirecting, word[2]
    lab.dns.set("b.wild.example", ["203.0.113.11"])  # whose certificate is for another name
    file.write_text(f"tls_start_server: data.conn.sni = '{OTHER}'")
    try:
        response = request_via_proxy(lab.gateway, "GET", "http://b.wild.example:443/")
        assert response.status in (502, 503)
    finally:
        file.write_text("")


def test_a_flow_that_is_sent_again(redirecting: Lab, word) -> None:
    """A replay has no client, and is judged all the same."""
    lab, file = redirecting, word[2]
    for host, port in ((DENIED, 80), (DENIED_AT, 80)):
        lab.wire.clear()
        replay = (
            "response: from mitmproxy.test import tflow; f = data.copy(); f.response = None; "
            f"f.request.host = '{host}'; f.request.port = {port}; ctx.master.commands.call('replay.client', [f])"
        )
        file.write_text(replay)
        assert request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/").status == 200
        file.write_text("")
        lab.gateway.wait_for_log(lambda entry: entry["verdict"] == "deny", authority=f"{host}:{port}")
        nothing_went_astray(lab)


def test_the_control(redirecting: Lab, ca) -> None:
    lab = redirecting
    status, sock = connect_tunnel(lab.gateway, f"{ALLOWED}:443")
    assert status == 200
    with sock, tls_client(sock, ALLOWED, ca.pem_path):
        pass


def nothing_went_astray(lab: Lab) -> None:
    lab.wire.assert_nothing_left(DENIED_AT, name=DENIED)
    ports = {packet.dport for packet in lab.wire.packets if packet.is_syn and is_outside(packet)}
    assert ports <= {80, 443}

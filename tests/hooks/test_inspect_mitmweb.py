"""mitmweb: flows carry their verdict, and what a person edits or replays is judged like everything else."""

import json
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from support.ca import SessionCa
from support.gateway import Gateway, Program
from support.http import Response, connect_tunnel, request_over, request_via_proxy, tls_client
from support.origin import Origins
from support.waiting import PATIENCE, eventually
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"


class Web:
    """mitmweb's own API, as its page uses it."""

    def __init__(self, gateway: Gateway) -> None:
        self.url = gateway.web_url
        proxy = urllib.request.ProxyHandler({})
        self.opener = urllib.request.build_opener(proxy)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {
            "Authorization": "Bearer x",
            "Content-Type": "application/json",
            "Cookie": "_mitmproxy_xsrf=t",
            "X-XSRFToken": "t",
        }
        data = json.dumps(body).encode() if body is not None else b"" if method != "GET" else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with self.opener.open(request, timeout=PATIENCE) as response:
            text = response.read()
        return json.loads(text) if text else None

    def flow(self, path: str) -> dict[str, Any]:
        """The flow whose request has this path, once there is one."""

        def found() -> list[dict[str, Any]]:
            flows = self.call("GET", "/flows")
            return [flow for flow in flows if flow.get("request", {}).get("path") == path]

        flow: dict[str, Any] = eventually(found, f"a flow for {path}")[-1]
        return flow


@pytest.fixture(scope="module")
def program() -> Program:
    return "mitmweb"


@pytest.fixture
def web_gateway(shared_gateway: Callable[..., Gateway], names: object, rules: str) -> Gateway:
    return shared_gateway(rules)


@pytest.fixture
def web(web_gateway: Gateway) -> Web:
    return Web(web_gateway)


def test_inspect_is_the_default_here(web_gateway: Gateway) -> None:
    assert "data path inspect" in web_gateway.output


def test_flows_carry_their_verdict(web_gateway: Gateway, web: Web, origin: Origins) -> None:
    origin.http(WEB)
    assert request_via_proxy(web_gateway, "GET", "http://www.example.com/allowed").status == 200
    assert request_via_proxy(web_gateway, "GET", "http://evil.example/denied").status == 403
    allowed, denied = web.flow("/allowed"), web.flow("/denied")
    assert allowed["comment"] == "allowed by default/allow-www-example-com"
    assert allowed["marked"] == ""
    assert allowed["server_conn"]["peername"][0] == WEB
    assert allowed["server_conn"]["address"] == ["www.example.com", 80]
    assert denied["comment"].startswith("refused: no_rule")
    assert denied["marked"] == "\N{NO ENTRY}"
    assert denied["response"]["status_code"] == 403


def test_tunnels_are_told_in_the_event_log(web_gateway: Gateway, web: Web, origin: Origins, ca: SessionCa) -> None:
    origin.https(WEB, "www.example.com")
    _, sock = connect_tunnel(web_gateway, "www.example.com:443")
    with sock, tls_client(sock, "www.example.com", ca.pem_path) as tls:
        request_over(tls, "GET", "/", {"Host": "www.example.com"})
    eventually(
        lambda: [e for e in web.call("GET", "/events") if "TLS www.example.com:443 allowed" in e["message"]],
        "the tunnel in the event log",
    )


def test_the_onboarding_app_does_not_answer(web_gateway: Gateway) -> None:
    assert request_via_proxy(web_gateway, "GET", "http://mitm.it/").status == 403


def edited(web_gateway: Gateway, web: Web, path: str, change: dict[str, Any]) -> Response:
    """The answer to a request that was intercepted, changed and let go on."""
    web.call("PUT", "/options", {"intercept": f"~u {path}"})
    replies: list[Response] = []

    def ask() -> None:
        replies.append(request_via_proxy(web_gateway, "GET", f"http://www.example.com{path}"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        eventually(lambda: web.flow(path)["intercepted"], "the request to be held")
        flow_id = web.flow(path)["id"]
        web.call("PUT", f"/flows/{flow_id}", {"request": change})
        web.call("POST", f"/flows/{flow_id}/resume")
    finally:
        web.call("PUT", "/options", {"intercept": None})
        web.call("POST", "/flows/resume")
        thread.join(2 * PATIENCE)
    return replies[0]


@pytest.mark.parametrize(
    "change", [{"host": "evil.example"}, {"port": 22}, {"host": "10.0.0.5"}], ids=["host", "port", "address"]
)
def test_an_edited_destination_is_judged(
    web_gateway: Gateway, web: Web, origin: Origins, wire: Wire, change: dict[str, Any]
) -> None:
    server = origin.http(WEB)
    path = f"/edited-{next(iter(change.values()))}"
    assert edited(web_gateway, web, path, change).status in (403, 421)
    assert not server.requests
    wire.assert_nothing_left(SECOND, name="evil.example")
    wire.assert_nothing_left("10.0.0.5")
    wire.assert_nothing_left(WEB, port=22)


def test_an_edited_path_goes_out(web_gateway: Gateway, web: Web, origin: Origins) -> None:
    server = origin.http(WEB)
    assert edited(web_gateway, web, "/before", {"path": "/after"}).status == 200
    assert server.requests[0].target == "/after"


def test_a_replayed_request_is_judged(web_gateway: Gateway, web: Web, origin: Origins, wire: Wire) -> None:
    server = origin.http(WEB)
    secure = origin.https(OTHER, "other.example.com")
    request_via_proxy(web_gateway, "GET", "http://www.example.com/replayed")
    request_via_proxy(web_gateway, "GET", "http://other.example.com:443/replayed-tls")
    request_via_proxy(web_gateway, "GET", "http://evil.example/replayed-denied")
    for path in ("/replayed", "/replayed-tls", "/replayed-denied"):
        web.call("POST", f"/flows/{web.flow(path)['id']}/replay")
    eventually(lambda: len(server.requests) == 2 and len(secure.requests) == 2, "both replays to arrive")
    assert secure.connections[1].sni == "other.example.com"
    eventually(
        lambda: sum(entry["path"] == "/replayed-denied" for entry in web_gateway.access_log()) == 2,
        "the refused replay in the log",
    )
    wire.assert_nothing_left(SECOND, name="evil.example")

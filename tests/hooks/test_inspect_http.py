"""Plain requests to an explicit proxy, through mitmproxy's own HTTP layer."""

import hashlib
import re
import socket
import time
from typing import Any

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, Reply, read_reply
from support.http import read_response, request_over, request_via_proxy
from support.origin import Origins, sha256_of_pseudo_random
from support.waiting import eventually
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"


def test_an_allowed_request_goes_to_the_address_of_its_name(inspect: Gateway, origin: Origins, wire: Wire) -> None:
    server = origin.http(WEB)
    reply = request_via_proxy(inspect, "GET", "http://www.example.com/path?q=1", {"X-Mine": "1"})
    assert (reply.status, reply.body) == (200, f"/path of {WEB}:80\n".encode())
    (request,) = server.requests
    assert request.target == "/path?q=1"
    assert request.all("host") == ["www.example.com"]
    assert request.header("x-mine") == "1"
    entry = inspect.wait_for_log(path="/path?q=1")
    assert entry["verdict"] == "allow"
    assert entry["response_code"] == 200
    assert entry["upstream_host"] == f"{WEB}:80"


def test_a_denied_host_is_refused_and_nothing_leaves(inspect: Gateway, wire: Wire) -> None:
    reply = request_via_proxy(inspect, "GET", "http://evil.example/denied")
    assert reply.status == 403
    assert reply.header("x-egress-reason") == "no_rule"
    assert reply.header("proxy-status")
    assert "evil.example" in reply.text
    entry = inspect.wait_for_log(path="/denied")
    assert (entry["verdict"], entry["reason"]) == ("deny", "no_rule")
    wire.assert_nothing_left(SECOND, name="evil.example")


def test_hop_by_hop_and_mesh_headers_stay_here(inspect: Gateway, origin: Origins) -> None:
    server = origin.http(WEB)
    secret = {
        "Proxy-Authorization": "Basic eDp5",
        "Proxy-Connection": "keep-alive",
        "X-Envoy-Peer": "a",
        "X-Forwarded-Client-Cert": "b",
        "Connection": "X-Hop",
        "X-Hop": "c",
    }
    assert request_via_proxy(inspect, "GET", "http://www.example.com/", secret).status == 200
    (request,) = server.requests
    for name in secret:
        assert request.header(name) is None
    assert "egress-gateway" in (request.header("via") or "")


def test_headers_only_the_gateway_may_send_are_removed_from_responses(inspect: Gateway, origin: Origins) -> None:
    server = origin.http(WEB)
    server.answers["/forged"] = (
        b"HTTP/1.1 200 OK\r\nProxy-Status: egress; error=x\r\nX-Egress-Reason: no_rule\r\nContent-Length: 0\r\n\r\n"
    )
    reply = request_via_proxy(inspect, "GET", "http://www.example.com/forged")
    assert reply.status == 200
    assert reply.header("proxy-status") is None
    assert reply.header("x-egress-reason") is None


def test_many_requests_on_one_connection(inspect: Gateway, origin: Origins) -> None:
    """mitmproxy hangs at the sixth where a pin breaks its pool."""
    server = origin.http(WEB)
    with inspect.connect() as sock:
        for number in range(20):
            reply = request_over(sock, "GET", f"http://www.example.com/n{number}")
            assert reply.status == 200
    assert len(server.requests) == 20
    assert len(server.connections) == 1


def test_requests_to_different_hosts_on_one_connection_never_share_an_upstream(
    inspect: Gateway, origin: Origins
) -> None:
    first, second = origin.http(WEB), origin.http(OTHER)
    with inspect.connect() as sock:
        for _ in range(4):
            assert request_over(sock, "GET", "http://www.example.com/a").body == f"/a of {WEB}:80\n".encode()
            assert request_over(sock, "GET", "http://other.example.com/b").body == f"/b of {OTHER}:80\n".encode()
            denied = request_over(sock, "GET", "http://evil.example/c")
            assert denied.status == 403
    assert {request.header("host") for request in first.requests} == {"www.example.com"}
    assert {request.header("host") for request in second.requests} == {"other.example.com"}


def test_plain_http_to_an_https_port_becomes_verified_tls(inspect: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "www.example.com")
    for _ in range(2):
        reply = request_via_proxy(inspect, "GET", "http://www.example.com:443/secure")
        assert reply.status == 200, reply.text
    request = server.requests[0]
    assert request.connection.sni == "www.example.com"
    assert request.connection.alpn == "http/1.1"
    assert request.all("host") == ["www.example.com"]
    assert request.target == "/secure"
    entry = inspect.wait_for_log(path="/secure")
    assert entry["tls_mode"] == "originate"


def test_a_certificate_for_another_name_is_refused(inspect: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "wrong.example.com")
    reply = request_via_proxy(inspect, "GET", "http://www.example.com:443/wrong-certificate")
    assert reply.status == 502
    assert reply.header("x-egress-reason") == "upstream_tls_failed"
    assert not server.requests
    entry = inspect.wait_for_log(path="/wrong-certificate")
    assert (entry["verdict"], entry["response_flags"]) == ("allow", "UF")


def test_a_name_that_does_not_resolve(inspect: Gateway) -> None:
    reply = request_via_proxy(inspect, "GET", "http://gone.any.example.com/nx")
    assert reply.status == 502
    assert reply.header("x-egress-reason") == "name_not_resolved"
    assert inspect.wait_for_log(path="/nx")["response_flags"] == "DF"


def test_nobody_listens(inspect: Gateway) -> None:
    reply = request_via_proxy(inspect, "GET", "http://www.example.com:8080/refused")
    assert reply.status == 502
    assert reply.header("x-egress-reason") == "connect_failed"


def test_a_private_address_is_not_dialled(inspect: Gateway, dns: DnsServer, wire: Wire) -> None:
    dns.set("private.any.example.com", ["10.1.2.3"], ttl=0)
    reply = request_via_proxy(inspect, "GET", "http://private.any.example.com/private")
    assert reply.status == 403
    assert reply.header("x-egress-reason") == "address_not_allowed"
    wire.assert_nothing_left("10.1.2.3")


def test_the_address_that_was_judged_is_dialled_whatever_dns_says_next(
    inspect: Gateway, origin: Origins, dns: DnsServer, wire: Wire
) -> None:
    origin.http(WEB)
    dns.sequence("rebind.any.example.com", [[WEB], ["10.0.0.5"]], ttl=0)
    reply = request_via_proxy(inspect, "GET", "http://rebind.any.example.com/rebind")
    assert reply.status == 200
    wire.assert_nothing_left("10.0.0.5")


def test_the_next_address_is_tried_when_the_first_does_not_answer(
    inspect: Gateway, origin: Origins, dns: DnsServer
) -> None:
    origin.http(WEB)
    dns.set("two.any.example.com", [SECOND, WEB], ttl=0)
    reply = request_via_proxy(inspect, "GET", "http://two.any.example.com/fallback")
    assert reply.status == 200, reply.text


def test_the_gateway_does_not_talk_to_itself(inspect: Gateway) -> None:
    reply = request_via_proxy(inspect, "GET", f"http://127.0.0.1:{inspect.port}/loop")
    assert reply.status == 403


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_bodies_arrive_whole(inspect: Gateway, origin: Origins, size: int) -> None:
    origin.http(WEB)
    reply = request_via_proxy(inspect, "POST", "http://www.example.com/echo", body=b"x" * size)
    assert f'"size": {size}' in reply.text
    down = request_via_proxy(inspect, "GET", f"http://www.example.com/bytes/{size}")
    assert hashlib.sha256(down.body).hexdigest() == sha256_of_pseudo_random(size)
    entry = inspect.wait_for_log(path=f"/bytes/{size}")
    assert entry["bytes_sent"] == size
    assert inspect.wait_for_log(path="/echo", bytes_received=size)


def test_a_chunked_upload_with_extensions_and_trailers(inspect: Gateway, origin: Origins) -> None:
    server = origin.http(WEB)
    reply = inspect.raw(
        [
            b"POST http://www.example.com/echo HTTP/1.1\r\nHost: www.example.com\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            b"5;name=value\r\nhello\r\n6\r\n wor",
            b"ld\r\n0\r\nX-Trailer: 1\r\n\r\n",
        ]
    )
    assert reply.startswith(b"HTTP/1.1 200"), reply
    assert server.requests[0].body == b"hello world"


def test_pipelined_requests_are_answered_in_order(inspect: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    head = "GET http://{0}/{1} HTTP/1.1\r\nHost: {0}\r\n{2}\r\n"
    requests = "".join(
        head.format(host, number, "Connection: close\r\n" if number == 2 else "")
        for number, host in enumerate(["www.example.com", "evil.example", "www.example.com"])
    )
    reply = inspect.raw(requests.encode())
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", reply)
    assert statuses == [b"200", b"403", b"200"], reply


def test_a_denied_upload_is_refused_before_its_body_is_read(inspect: Gateway) -> None:
    before = inspect.rss_kib()
    with inspect.connect() as sock:
        sock.sendall(b"POST http://evil.example/up HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 300000000\r\n\r\n")
        sock.sendall(b"x" * 100_000)
        reply = read_response(sock)
        assert reply.status == 403
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, as the kernel likes
            sock.sendall(bytes(300_000_000))
    assert inspect.rss_kib() - before < 16_000


def refused_and_still_sending(gateway: Gateway) -> list[Reply]:
    """The answer to a client that sends more when it was refused; none where it was held up itself.

    The gateway waits for a second, and who comes later is reset.
    """
    latest = time.monotonic() + 0.7
    with gateway.connect() as sock:
        sock.sendall(b"POST http://evil.example/up HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 500000\r\n\r\n")
        assert sock.recv(1, socket.MSG_PEEK) == b"H"
        try:
            for _ in range(10):
                sock.sendall(b"x" * 5000)
                time.sleep(0.005)
        except ConnectionError:
            if time.monotonic() < latest:
                raise
        return [read_reply(sock)] if time.monotonic() < latest else []


def test_a_refusal_is_not_overtaken_by_a_reset(inspect: Gateway) -> None:
    """The client may still be sending for a moment."""
    (reply,) = eventually(lambda: refused_and_still_sending(inspect), "a client that is not held up")
    assert reply.startswith(b"HTTP/1.1 403")
    assert reply.ending == "closed"


def test_a_denied_upload_that_asks_first_is_not_told_to_go_on(inspect: Gateway) -> None:
    reply = inspect.raw(
        b"POST http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    )
    assert reply.startswith(b"HTTP/1.1 403"), reply


def test_a_client_that_has_said_everything_still_gets_its_answer(inspect: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    with inspect.connect() as sock:
        sock.sendall(b"GET http://www.example.com/slow HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        reply = read_response(sock)
    assert reply.body == b"." * 10


def test_an_upstream_that_says_101_unasked(inspect: Gateway, origin: Origins) -> None:
    origin.scripted(WEB, 80, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw bytes")
    reply = inspect.raw(b"GET http://www.example.com/101 HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 502"), reply
    assert b"upstream_malformed" in reply
    assert b"raw bytes" not in reply


def test_a_response_with_trailers(inspect: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    with inspect.connect() as sock:
        for _ in range(2):
            reply = request_over(sock, "GET", "http://www.example.com/chunked")
            assert reply.body == b"".join(b"chunk %d\n" % number for number in range(5))


def test_early_hints_are_not_the_answer(inspect: Gateway, origin: Origins) -> None:
    origin.scripted(
        WEB, 80, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    reply = request_via_proxy(inspect, "GET", "http://www.example.com/hints")
    assert (reply.status, reply.body) == (200, b"ok")


def test_a_connection_goes_on_after_a_refused_address(inspect: Gateway, origin: Origins, dns: DnsServer) -> None:
    origin.http(WEB)
    dns.set("inside.any.example.com", ["10.1.2.3"], ttl=0)
    with inspect.connect() as sock:
        assert request_over(sock, "GET", "http://inside.any.example.com/").status == 403
        assert request_over(sock, "GET", "http://www.example.com/").status == 200


def test_permissions_are_counted_once_a_request(inspect: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    rule: dict[str, Any] = {"rule": "default/allow-www-example-com", "action": "allow"}
    before = inspect.metric("egress_decisions_total", **rule)
    with inspect.connect() as sock:
        for _ in range(5):
            assert request_over(sock, "GET", "http://www.example.com/").status == 200
    assert inspect.wait_for_metric("egress_decisions_total", before + 5, **rule) == before + 5


def test_a_request_that_may_go_no_further(inspect: Gateway, origin: Origins) -> None:
    server = origin.http(WEB)
    last = {"Max-Forwards": "0"}
    assert request_via_proxy(inspect, "OPTIONS", "http://www.example.com/", last).status == 200
    assert request_via_proxy(inspect, "TRACE", "http://www.example.com/", last).status == 405
    assert not server.requests

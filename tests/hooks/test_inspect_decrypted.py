"""`egress_tls=inspect`: TLS is decrypted with mitmproxy's CA, and every request in it is judged."""

import contextlib
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import pytest

from support.ca import SessionCa
from support.gateway import Gateway
from support.http import client_hello, connect_tunnel, read_alert, read_response, request_over, tls_client
from support.lab import UNRECOGNIZED_NAME
from support.origin import Origins
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"


@pytest.fixture
def decrypting(shared_gateway: Callable[..., Gateway], names: object, rules: str) -> Gateway:
    return shared_gateway(rules, {"egress_tls": "inspect"}, data_path="inspect")


@contextlib.contextmanager
def decrypted(gateway: Gateway, name: str, alpn: tuple[str, ...] = ()) -> Iterator[ssl.SSLSocket]:
    status, sock = connect_tunnel(gateway, f"{name}:443")
    assert status == 200
    with sock, tls_client(sock, name, gateway.inspect_ca, alpn=alpn) as tls:
        yield tls


def test_requests_are_judged_one_by_one(decrypting: Gateway, origin: Origins, wire: Wire) -> None:
    server = origin.https(WEB, "www.example.com")
    with decrypted(decrypting, "www.example.com") as tls:
        for number in range(7):
            reply = request_over(tls, "GET", f"/in{number}", {"Host": "www.example.com"})
            assert reply.status == 200, reply.text
        denied = request_over(tls, "GET", "/x", {"Host": "other.example.com"})
        assert (denied.status, denied.header("x-egress-reason")) == (421, "host_mismatch")
    assert len(server.requests) == 7
    assert {connection.sni for connection in server.connections} == {"www.example.com"}
    entry = decrypting.wait_for_log(path="/in0")
    assert entry["tls_mode"] == "inspect"
    assert entry["requested_server_name"] == "www.example.com"
    assert not wire.syns_to(OTHER)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: www.example.com\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n", 421),
        (b"GET / HTTP/1.1\nHost: www.example.com\n\n", 400),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: www.example.com\r\n\r\n", 400),
    ],
)
def test_the_strict_parser_stands_inside_as_well(
    decrypting: Gateway, origin: Origins, wire: Wire, head: bytes, status: int
) -> None:
    server = origin.https(WEB, "www.example.com")
    with decrypted(decrypting, "www.example.com") as tls:
        tls.sendall(head)
        assert read_response(tls).status == status
    assert not server.requests
    wire.assert_nothing_left(SECOND)


def test_a_name_that_is_not_allowed_is_not_decrypted(decrypting: Gateway, wire: Wire) -> None:
    status, sock = connect_tunnel(decrypting, "www.example.com:443")
    assert status == 200
    with sock:
        sock.sendall(client_hello("evil.example"))
        assert read_alert(sock) == UNRECOGNIZED_NAME
    assert not wire.syns_to(WEB)


def test_an_upstream_certificate_that_does_not_verify(decrypting: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "wrong.example.com")
    with decrypted(decrypting, "www.example.com") as tls:
        reply = request_over(tls, "GET", "/bad", {"Host": "www.example.com"})
        assert (reply.status, reply.header("x-egress-reason")) == (502, "upstream_tls_failed")
    assert not server.requests


def test_a_client_that_does_not_trust_the_gateway(decrypting: Gateway, origin: Origins, ca: SessionCa) -> None:
    origin.https(WEB, "www.example.com")
    status, sock = connect_tunnel(decrypting, "www.example.com:443")
    assert status == 200
    with sock, pytest.raises(ssl.SSLError):
        tls_client(sock, "www.example.com", ca.pem_path)
    entry = decrypting.wait_for_log(response_flags="DC", authority="www.example.com:443")
    assert entry["tls_mode"] == "inspect"


def test_neither_http_inside_tls(decrypting: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "www.example.com")
    with decrypted(decrypting, "www.example.com") as tls:
        tls.sendall(b"SSH-2.0-x\r\n")
        with contextlib.suppress(ssl.SSLError):
            assert tls.recv(10) == b""
    assert not server.requests
    decrypting.wait_for_log(reason="protocol_unknown", tls_mode="inspect")


# --- HTTP/2 ---


class Http2:
    """An HTTP/2 client that sends whatever pseudo headers it is given."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        assert sock.selected_alpn_protocol() == "h2"
        self.sock = sock
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.whole: dict[int, bool] = {}
        """By stream, once it is over: whether it was not reset."""
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.connection.data_to_send())

    def ask(self, *headers: tuple[str, str], body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """The status, which is 0 where the stream was reset, the headers and the body."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, list(headers), end_stream=not body)
        self.flush()
        while body and self.whole.get(stream, True):
            size = min(self.connection.local_flow_control_window(stream), 16384, len(body))
            if size:
                self.connection.send_data(stream, body[:size], end_stream=size == len(body))
                body = body[size:]
                self.flush()
            else:
                self.take()
        while stream not in self.whole:
            self.take()
        found = self.headers.get(stream, {})
        return int(found[":status"]) if self.whole[stream] else 0, found, bytes(self.bodies[stream])

    def take(self) -> None:
        """Of whatever stream it is: an answer may come while its request is still sent."""
        received = self.sock.recv(65536)
        assert received, "closed"
        for event in self.connection.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.whole.setdefault(event.stream_id, isinstance(event, h2.events.StreamEnded))
        self.flush()


def pseudo(authority: str, path: str = "/", method: str = "GET") -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]


@contextlib.contextmanager
def http2(gateway: Gateway, name: str) -> Iterator[Http2]:
    with decrypted(gateway, name, alpn=("h2", "http/1.1")) as tls:
        yield Http2(tls)


def test_http2_streams_are_judged_one_by_one(decrypting: Gateway, origin: Origins, wire: Wire) -> None:
    server = origin.h2(WEB, "www.example.com")
    with http2(decrypting, "www.example.com") as client:
        assert client.ask(*pseudo("www.example.com", "/one"))[0] == 200
        cases = [
            ([*pseudo("evil.example")], 421, "host_mismatch"),
            ([*pseudo("other.example.com")], 421, "host_mismatch"),
            ([*pseudo("www.example.com:8080")], 400, "malformed_request"),
            ([*pseudo("www.example.com", "http://evil.example/")], 421, "connection_changed_host"),
        ]
        for headers, status, reason in cases:
            got, fields, _ = client.ask(*headers)
            assert (got, fields.get("x-egress-reason")) == (status, reason), headers
        assert client.ask(*pseudo("www.example.com", "/two"))[0] == 200
    assert [request.target for request in server.requests] == ["/one", "/two"]
    assert decrypting.wait_for_log(path="/one")["protocol"] == "HTTP/2"
    assert not wire.syns_to(OTHER)
    wire.assert_nothing_left(SECOND)


def test_http2_authority_and_host_differ(decrypting: Gateway, origin: Origins, wire: Wire) -> None:
    """Already hyper-h2 takes that for a protocol error and ends the connection."""
    server = origin.h2(WEB, "www.example.com")
    status = 0
    with http2(decrypting, "www.example.com") as client, contextlib.suppress(AssertionError, OSError):
        status, _, _ = client.ask(*pseudo("www.example.com"), ("host", "evil.example"))
    assert status in (0, 421)
    assert not server.requests
    wire.assert_nothing_left(SECOND)


def test_http2_bodies_with_and_without_a_length(decrypting: Gateway, origin: Origins) -> None:
    server = origin.h2(WEB, "www.example.com")
    with http2(decrypting, "www.example.com") as client:
        for size in (10, 2_000_000):
            status, _, _ = client.ask(*pseudo("www.example.com", "/up", "POST"), body=b"x" * size)
            assert status == 200
    assert len(server.requests) == 2


def test_http2_is_not_translated_for_a_host_that_speaks_http1(decrypting: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "www.example.com")
    with decrypted(decrypting, "www.example.com", alpn=("h2", "http/1.1")) as tls:
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert request_over(tls, "GET", "/", {"Host": "www.example.com"}).status == 200
    assert server.requests


def test_a_refused_http2_upload_is_not_kept(decrypting: Gateway, origin: Origins) -> None:
    origin.h2(WEB, "www.example.com")
    before = decrypting.rss_kib()
    with http2(decrypting, "www.example.com") as client:
        status, _, _ = client.ask(*pseudo("evil.example", "/", "POST"), body=b"x" * 20_000_000)
        assert status == 421
        assert client.ask(*pseudo("www.example.com", "/after"))[0] == 200
    assert decrypting.rss_kib() - before < 10_000

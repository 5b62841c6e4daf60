"""Threat 12: HTTP/2, whose requests name their host in several places, and of which many share a connection.

Without TLS it is not taken from clients; inside TLS it is seen where the gateway decrypts, stream by stream.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, read_reply
from support.http import connect_tunnel, request_over, socks5_connect, tls_client
from support.lab import ALLOWED, DENIED, OTHER, RULES, Lab, Places, Port, Way, answered, log_from_now, say
from support.sockets import free_port
from support.waiting import PATIENCE, eventually
from support.wire import Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def test_threat_12_to_the_proxy_itself(lab: Lab) -> None:
    with lab.refused("malformed_request", "http2_not_supported"):
        reply = lab.gateway.raw(PREFACE + SETTINGS)
    assert not reply or reply.startswith(b"HTTP/1.1 4")
    assert reply.ending != "quiet"


@pytest.mark.parametrize("way", ["connect", "socks5"])
@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("pieces", [[PREFACE + SETTINGS], [PREFACE[:3], PREFACE[3:10], PREFACE[10:] + SETTINGS]])
def test_threat_12_in_a_tunnel(lab: Lab, way: Way, port: int, pieces: list[bytes]) -> None:
    with lab.refused("http2_not_supported"), lab.tunnel(way, ALLOWED, port) as sock:
        say(sock, pieces, pause=0.01)
        assert read_reply(sock) == b""


def test_threat_12_a_preface_that_is_none(lab: Lab) -> None:
    with lab.refused("malformed_request"), lab.tunnel("connect", ALLOWED, 80) as sock:
        say(sock, b"PRI * HTTP/1.1\r\nHost: allowed.example\r\n\r\n")
        answered(read_reply(sock), 400, "malformed_request")


def test_threat_12_after_a_request(lab: Lab) -> None:
    with lab.gateway.connect() as sock:
        assert request_over(sock, "GET", f"http://{ALLOWED}/").status == 200
        with lab.refused("malformed_request"):
            say(sock, PREFACE + SETTINGS)
            answered(read_reply(sock), 400, "malformed_request")


# --- where the gateway decrypts ---


@pytest.fixture(scope="module")
def decrypting_socks() -> int:
    return free_port()


@pytest.fixture
def open_eyes(shared_gateway, decrypting_socks: int, dns: DnsServer, wire: Wire, places: Places, module_origin) -> Lab:
    """A gateway that decrypts; `a.wild.example:443` speaks HTTP/2."""
    options = {"egress_tls": "inspect"}
    gateway = shared_gateway(RULES, options, data_path="inspect", mode=["regular", f"socks5@{decrypting_socks}"])
    return Lab(gateway, dns, wire, places, Port(decrypting_socks))


@pytest.fixture(scope="module")
def h2_origin(module_origin):
    return module_origin.h2("203.0.113.13", "a.wild.example")


HOST = "a.wild.example"


@dataclass
class Answer:
    status: int = 0
    reason: str = ""
    body: bytes = b""
    reset: bool = False
    ended: bool = False


@dataclass
class Session:
    """HTTP/2 by hand over TLS in a tunnel; sends whatever it is told to."""

    sock: ssl.SSLSocket
    peer: h2.connection.H2Connection = field(init=False)
    closed: bool = False
    answers: dict[int, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.peer = h2.connection.H2Connection(config)
        self.peer.initiate_connection()
        self._send()

    def ask(self, *requests: list[tuple[str, str]]) -> list[Answer]:
        """All at once, each a stream; waits until all have ended or the connection has."""
        streams = []
        for headers in requests:
            stream = self.peer.get_next_available_stream_id()
            self.peer.send_headers(stream, headers, end_stream=True)
            streams.append(stream)
            self.answers[stream] = Answer()
        self._send()
        self.sock.settimeout(PATIENCE)
        while not self.closed and not all(self.answers[stream].ended for stream in streams):
            try:
                data = self.sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self.closed = True
            self._take(data)
        return [self.answers[stream] for stream in streams]

    def _take(self, data: bytes) -> None:
        for event in self.peer.receive_data(data) if data else []:
            answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
            if isinstance(event, h2.events.ConnectionTerminated):
                self.closed = True
            elif answer is None:
                continue
            elif isinstance(event, h2.events.ResponseReceived):
                headers = {str(name): str(value) for name, value in event.headers or []}
                answer.status, answer.reason = int(headers[":status"]), headers.get("x-egress-reason", "")
            elif isinstance(event, h2.events.DataReceived):
                answer.body += event.data or b""
                self.peer.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, h2.events.StreamEnded):
                answer.ended = True
            elif isinstance(event, h2.events.StreamReset):
                answer.ended = answer.reset = True
        if not self.closed:
            self._send()

    def _send(self) -> None:
        # To a gateway that has closed already: what it said before, and its end, are still to be read.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.sock.sendall(self.peer.data_to_send())


@pytest.fixture(params=["connect", "socks5"])
def session(request: pytest.FixtureRequest, open_eyes: Lab, h2_origin) -> Iterator[Session]:
    opened = _tunnel(open_eyes, request.param)
    with opened, tls_client(opened, HOST, open_eyes.gateway.inspect_ca, alpn=["h2"]) as secured:
        assert secured.selected_alpn_protocol() == "h2"
        yield Session(secured)


def _tunnel(lab: Lab, way: str) -> socket.socket:
    if way == "connect":
        status, sock = connect_tunnel(lab.gateway, f"{HOST}:443")
        assert status == 200
        return sock
    code, sock = socks5_connect(lab.socks, HOST, 443)
    assert code == 0
    return sock


def get(
    authority: str | None = HOST, path: str = "/", *more: tuple[str, str], method: str = "GET"
) -> list[tuple[str, str]]:
    named = [] if authority is None else [(":authority", authority)]
    return [(":method", method), (":scheme", "https"), *named, (":path", path), *more]


def test_threat_12_an_allowed_request(session: Session, h2_origin) -> None:
    before = len(h2_origin.requests)
    [answer] = session.ask(get(path="/fine"))
    assert (answer.status, answer.body) == (200, b"/fine of a.wild.example\n")
    assert [request.authority for request in h2_origin.requests[before:]] == [HOST]


BENT = {
    ":authority allowed, host denied": get(HOST, "/", ("host", DENIED)),
    ":authority denied, host allowed": get(DENIED, "/", ("host", HOST)),
    ":authority denied": get(DENIED),
    ":authority of another allowed host": get(OTHER),
    ":authority of another host below the wildcard": get("b.wild.example"),
    "no :authority, host denied": get(None, "/", ("host", DENIED)),
    "neither": get(None),
    "two hosts": get(HOST, "/", ("host", HOST), ("host", DENIED)),
    "two :authorities": [*get(HOST), (":authority", DENIED)],
    "a user in :authority": get(f"{HOST}@{DENIED}"),
    "a user before the allowed": get(f"{DENIED}@{HOST}"),
    "another port": get(f"{HOST}:8443"),
    "a comma": get(f"{HOST},{DENIED}"),
    "a space": get(f"{HOST} {DENIED}"),
    "a NUL": get(f"{HOST}\x00{DENIED}"),
    "a newline": get(f"{HOST}\r\nhost: {DENIED}"),
    "an address": get("203.0.113.13"),
    "a URI in :path": get(HOST, f"http://{DENIED}/"),
    "an https URI in :path": get(HOST, f"https://{DENIED}/"),
    "a path without a slash": get(HOST, f"@{DENIED}/"),
    "an empty path": get(HOST, ""),
    "a newline in the path": get(HOST, "/\r\nHost: denied.example"),
    "a newline in a value": get(HOST, "/", ("x", f"a\r\nHost: {DENIED}")),
    "a colon in a name": get(HOST, "/", ("x: y", "z")),
    "Transfer-Encoding": get(HOST, "/", ("transfer-encoding", "chunked")),
    "Connection": get(HOST, "/", ("connection", "upgrade"), ("upgrade", "h2c")),
    "CONNECT": [(":method", "CONNECT"), (":authority", f"{DENIED}:443")],
    "CONNECT to the same host": [(":method", "CONNECT"), (":authority", f"{HOST}:443")],
    "extended CONNECT": [*get(method="CONNECT"), (":protocol", "websocket")],
    "CONNECT to a path": get(method="CONNECT"),
}


WHY = ("host_mismatch", "connection_changed_host", "malformed_host", "malformed_request", "upgrade_not_allowed")


@pytest.mark.parametrize("headers", BENT.values(), ids=BENT.keys())
def test_threat_12_a_stream_that_names_another_host(session: Session, open_eyes: Lab, h2_origin, headers) -> None:
    """Refused with an answer, or with the stream's or the connection's end; nothing leaves in any case."""
    before, told = len(h2_origin.requests), log_from_now(open_eyes.gateway)
    [answer] = session.ask(headers)
    assert answer.status in (0, 400, 403, 421, 502), (answer.status, answer.body)
    assert answer.status or answer.reset or session.closed
    assert answer.reason in WHY or answer.status in (0, 400), answer  # a few 400s are mitmproxy's own
    if answer.status:
        [entry] = eventually(told, "a line in the access log")
        assert entry["verdict"] == "deny"
    assert h2_origin.requests[before:] == []
    open_eyes.wire.assert_nothing_left("203.0.113.66", name=DENIED)


def test_threat_12_streams_are_judged_one_by_one(session: Session, open_eyes: Lab, h2_origin) -> None:
    before = len(h2_origin.requests)
    answers = session.ask(get(path="/1"), get(DENIED, "/2"), get(path="/3"), get(OTHER, "/4"), get(path="/5"))
    assert [answer.status for answer in answers] == [200, 421, 200, 421, 200]
    assert sorted(request.target for request in h2_origin.requests[before:]) == ["/1", "/3", "/5"]
    open_eyes.wire.assert_nothing_left("203.0.113.66", name=DENIED)
    assert not open_eyes.wire.syns_to("203.0.113.11")


@pytest.mark.parametrize("host", [DENIED, OTHER])
def test_threat_12_http1_inside_decrypted_tls(open_eyes: Lab, ca, host: str) -> None:
    """The same question in the older protocol: the tunnel's host, the server name and Host must agree."""
    status, sock = connect_tunnel(open_eyes.gateway, f"{ALLOWED}:443")
    assert status == 200
    with sock, tls_client(sock, ALLOWED, open_eyes.gateway.inspect_ca) as tls:
        assert request_over(tls, "GET", "/1", {"Host": ALLOWED}).status == 200
        refusal = request_over(tls, "GET", "/2", {"Host": host})
        assert (refusal.status, refusal.header("x-egress-reason")) == (421, "host_mismatch")
    open_eyes.wire.assert_nothing_left("203.0.113.66", name=DENIED)


@pytest.mark.parametrize("sni", [DENIED, OTHER])
def test_threat_12_no_certificate_is_made_for_a_name_that_does_not_fit(open_eyes: Lab, sni: str) -> None:
    status, sock = connect_tunnel(open_eyes.gateway, f"{ALLOWED}:443")
    assert status == 200
    with open_eyes.refused("sni_mismatch"), sock, pytest.raises(OSError, match=r"(?i)unrecognized"):
        tls_client(sock, sni, None)


def test_threat_12_no_certificate_is_made_without_an_origin(open_eyes: Lab, ca) -> None:
    """An origin whose certificate does not verify is not dressed up with one that does."""
    gateway: Gateway = open_eyes.gateway
    status, sock = connect_tunnel(gateway, "b.wild.example:443")
    assert status == 200
    open_eyes.dns.set("b.wild.example", ["203.0.113.10"])  # which has a certificate for another name
    with sock:
        try:
            with tls_client(sock, "b.wild.example", gateway.inspect_ca) as tls:
                refusal = request_over(tls, "GET", "/", {"Host": "b.wild.example"})
                assert refusal.status == 502
        except OSError:
            pass
    entry = gateway.wait_for_log(reason="upstream_tls_failed")
    assert entry["authority"] == "b.wild.example:443"

"""The recording origins, talked to directly."""

import hashlib
import http.client
import json
import smtplib
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import websockets.sync.client

from support.ca import SessionCa
from support.client_hello import client_hello
from support.gateway import read_reply
from support.http import read_response, request_over, tls_client
from support.origin import (
    SSH_GREETING,
    FileOrigin,
    HttpOrigin,
    Origins,
    SmtpOrigin,
    pseudo_random,
    sha256_of_pseudo_random,
)
from support.sockets import read_exactly
from support.waiting import PATIENCE

pytestmark = pytest.mark.private_network

ADDRESS = "203.0.113.10"


@pytest.fixture
def server(origin: Origins) -> HttpOrigin:
    return origin.http(ADDRESS)


def dial(port: int = 80, address: str = ADDRESS) -> socket.socket:
    return socket.create_connection((address, port), timeout=PATIENCE)


def test_records_heads_as_they_came_over_one_connection(server: HttpOrigin) -> None:
    with dial() as sock:
        first = request_over(sock, "GET", "/a?b=c", {"Host": "x.example", "X-ODD": "  1 "})
        second = request_over(sock, "GET", "http://x.example/d?e")
    assert first.text == f"/a of {ADDRESS}:80\n"
    assert second.text == f"/d of {ADDRESS}:80\n"
    one, other = server.wait_for_requests(2)
    assert one.head == b"GET /a?b=c HTTP/1.1\r\nHost: x.example\r\nX-ODD:   1 \r\n\r\n"
    assert (one.method, one.target, one.version) == ("GET", "/a?b=c", "HTTP/1.1")
    assert one.headers == [("Host", "x.example"), ("X-ODD", "1")]
    assert one.header("x-odd") == "1"
    assert one.connection is other.connection
    assert len(server.connections) == 1
    assert server.connections[0].received == one.head + other.head


def test_records_bodies_by_size_and_digest(server: HttpOrigin) -> None:
    body = bytes(range(256)) * 1000
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:1], body[1:70000], body[70000:])) + b"0\r\n\r\n"
    with dial() as sock:
        echoed = request_over(sock, "POST", "/echo", {"Host": "x"}, body)
        request_over(sock, "PUT", "/", {"Host": "x", "Transfer-Encoding": "chunked"}, chunks)
    digest = hashlib.sha256(body).hexdigest()
    assert json.loads(echoed.body) == {
        "method": "POST",
        "target": "/echo",
        "headers": [["Host", "x"], ["Content-Length", "256000"]],
        "size": 256000,
        "sha256": digest,
    }
    assert [(r.body_size, r.body_sha256) for r in server.wait_for_requests(2)] == [(256000, digest)] * 2
    assert server.requests[0].body == body[: 64 * 1024]


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_003])
def test_streams_bytes_whose_digest_is_known(server: HttpOrigin, size: int) -> None:
    with dial() as sock:
        response = request_over(sock, "GET", f"/bytes/{size}")
    assert len(response.body) == size
    assert hashlib.sha256(response.body).hexdigest() == sha256_of_pseudo_random(size)


def test_no_two_pieces_of_the_pseudo_random_bytes_are_alike() -> None:
    pieces = list(pseudo_random(1_000_000))
    assert len(set(pieces)) == len(pieces) > 10


def test_every_route_leaves_the_connection_in_step(server: HttpOrigin) -> None:
    server.answers["/own"] = b"HTTP/1.1 299 Own\r\nContent-Length: 2\r\n\r\nok"
    with dial() as sock:
        assert request_over(sock, "GET", "/chunked").text == "".join(f"chunk {n}\n" for n in range(5))
        assert request_over(sock, "GET", "/status/204").status == 204
        assert request_over(sock, "GET", "/status/503").status == 503
        assert request_over(sock, "HEAD", "/bytes/10").header("content-length") == "10"
        assert request_over(sock, "GET", "/own").status == 299
        assert request_over(sock, "GET", "/slow").body == b"." * 10
        assert request_over(sock, "GET", "/end", {"Connection": "close"}).status == 200
        assert sock.recv(1) == b""
    assert len(server.connections) == 1


def test_waits_with_the_100_and_sees_a_body_that_does_not_wait(server: HttpOrigin) -> None:
    head = b"POST /continue HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with dial() as patient:
        patient.sendall(head)
        patient.settimeout(0.2)
        with pytest.raises(TimeoutError):
            patient.recv(1)
        server.let_continue.set()
        patient.settimeout(PATIENCE)
        assert read_exactly(patient, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        patient.sendall(b"ab")
        assert read_response(patient).status == 200
    with dial() as hasty:
        hasty.sendall(head + b"ab")
        assert read_response(hasty).status == 200
    assert [request.body_came_early for request in server.wait_for_requests(2)] == [False, True]


def test_echoes_web_sockets(server: HttpOrigin) -> None:
    with websockets.sync.client.connect(f"ws://{ADDRESS}/ws", proxy=None) as client:
        client.send("hello")
        assert client.recv() == "hello"
        client.send(b"\x00" * 100_000)
        assert client.recv() == b"\x00" * 100_000
    assert server.requests[0].frames[0] == b"hello"
    assert sum(map(len, server.requests[0].frames)) == 100_005


def test_an_interrupted_body_is_recorded_as_such(server: HttpOrigin) -> None:
    with dial() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
    server.wait_for(1)[0].closed.wait(PATIENCE)
    assert server.connections[0].error == "EOFError: closed in the middle of a message"
    assert not server.requests[0].complete
    with pytest.raises(AssertionError, match="1 requests"):
        server.wait_for_requests(1, timeout=0.05)


def test_wait_for_tells_what_did_not_come(server: HttpOrigin) -> None:
    with dial(), pytest.raises(AssertionError, match=rf"2 connections to {ADDRESS}:80, saw 1"):
        server.wait_for(2, timeout=0.1)


def test_a_tls_origin_records_the_hello(origin: Origins, ca: SessionCa) -> None:
    server = origin.https(ADDRESS, "www.example.com")
    with dial(443) as sock, tls_client(sock, "www.example.com", ca.pem_path, alpn=["http/1.1"]) as tls:
        assert request_over(tls, "GET", "/").text == "/ of www.example.com\n"
    connection = server.connections[0]
    assert (connection.sni, connection.alpn, connection.tls_version) == (
        "www.example.com",
        "http/1.1",
        "TLSv1.3",
    )
    assert connection.client_hello[:1] == b"\x16"
    assert b"www.example.com" in connection.client_hello
    assert connection.closed.wait(PATIENCE)
    assert connection.error is None


def test_a_tls_origin_keeps_exactly_the_records_of_the_hello(origin: Origins) -> None:
    server = origin.https(ADDRESS, "www.example.com")
    hello = client_hello("www.example.com", record_size=50)
    with dial(443) as sock:
        for at in range(0, len(hello), 33):
            sock.sendall(hello[at : at + 33])
        assert sock.recv(1) == b"\x16"
    assert server.connections[0].client_hello == hello
    assert server.connections[0].sni == "www.example.com"


def test_a_tls_origin_records_what_came_in_place_of_a_hello(origin: Origins) -> None:
    server = origin.https(ADDRESS, "www.example.com")
    with dial(443) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_reply(sock)
    connection = server.wait_for(1)[0]
    assert connection.closed.wait(PATIENCE)
    assert connection.client_hello == b"GET / HTTP/1.1\r\n\r\n"
    assert connection.error is not None
    assert not server.requests


def test_a_tls_origin_can_ask_for_a_client_certificate(origin: Origins, ca: SessionCa, tmp_path) -> None:
    server = origin.https(ADDRESS, "www.example.com", client_ca=ca.pem_path)
    context = ca.client_context()
    context.load_cert_chain(*ca.issue("client.example").write(tmp_path))
    with dial(443) as sock, context.wrap_socket(sock, server_hostname="www.example.com") as tls:
        assert request_over(tls, "GET", "/").status == 200
    assert b"client.example" in (server.connections[0].client_certificate or b"")
    refused = pytest.raises((ssl.SSLError, http.client.HTTPException, ConnectionError))
    with dial(443) as sock, tls_client(sock, "www.example.com", ca.pem_path) as tls, refused:
        request_over(tls, "GET", "/")
    assert len(server.requests) == 1


def test_http2_over_tls(origin: Origins, ca: SessionCa) -> None:
    server = origin.h2("203.0.113.20", "h2.example")
    context = ca.client_context()
    with httpx.Client(http2=True, http1=False, verify=context, trust_env=False) as client:
        extensions = {"sni_hostname": "h2.example"}
        first = client.get("https://203.0.113.20/bytes/100000", extensions=extensions)
        second = client.post(
            "https://203.0.113.20/echo?x=1",
            content=b"abc",
            headers={"host": "h2.example"},
            extensions=extensions,
        )
    assert first.http_version == "HTTP/2"
    assert hashlib.sha256(first.content).hexdigest() == sha256_of_pseudo_random(100_000)
    assert second.json()["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert server.server_names == ["h2.example"]
    assert len(server.wait_for(1)) == 1
    assert [(r.http_version, r.method, r.authority, r.target) for r in server.wait_for_requests(2)] == [
        ("2", "GET", "203.0.113.20", "/bytes/100000"),
        ("2", "POST", "h2.example", "/echo?x=1"),
    ]


def test_http2_in_the_clear(origin: Origins) -> None:
    server = origin.h2c("203.0.113.20", "h2c.example")
    with httpx.Client(http2=True, http1=False, trust_env=False) as client:
        assert client.get("http://203.0.113.20/").text == "/ of h2c.example\n"
    assert server.requests[0].http_version == "2"


def test_raw_echo_and_greeting(origin: Origins) -> None:
    server = origin.tcp(ADDRESS, 22, greeting=SSH_GREETING)
    with dial(22) as sock:
        assert read_exactly(sock, 14) == b"SSH-2.0-test\r\n"
        sock.sendall(b"abc")
        assert read_exactly(sock, 3) == b"abc"
    connection = server.wait_for(1)[0]
    assert connection.closed.wait(PATIENCE)
    assert (connection.received, connection.error) == (b"abc", None)


def test_scripted_answers_are_sent_as_they_stand(origin: Origins) -> None:
    hostile = b"HTTP/1.1 200 OK\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n\x00"
    server = origin.scripted("2001:db8::7", 80, b"HTTP/1.1 100 Continue\r\n\r\n", hostile)
    with dial(80, "2001:db8::7") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        reply = read_reply(sock)
    assert reply == b"HTTP/1.1 100 Continue\r\n\r\n" + hostile
    assert reply.ending == "closed"
    assert server.connections[0].received_size == 37


def test_a_port_is_free_again_after_the_end() -> None:
    for _ in range(2):
        with HttpOrigin(ADDRESS, 8080), dial(8080) as sock:
            assert request_over(sock, "GET", "/").status == 200
    with pytest.raises(ConnectionRefusedError):
        dial(8080)


def test_a_folder_is_served(origin: Origins, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("here\n")
    server = origin.start(FileOrigin(ADDRESS, 80, folder=tmp_path, headers={"X-More": "yes"}))
    with dial() as sock:
        found = request_over(sock, "GET", "/here.txt?a=b", {"Host": "files.example"})
        missing = request_over(sock, "GET", "/not-here.txt", {"Host": "files.example"})
    assert (found.status, found.text, found.header("x-more")) == (200, "here\n", "yes")
    assert missing.status == 404
    assert server.fetched == [
        ("files.example", "/here.txt?a=b", 200),
        ("files.example", "/not-here.txt", 404),
    ]


def test_a_mail_server_greets_first(origin: Origins) -> None:
    origin.start(SmtpOrigin(ADDRESS, 25))
    with smtplib.SMTP(ADDRESS, 25, local_hostname="client", timeout=PATIENCE) as client:
        assert client.noop() == (250, b"fine")

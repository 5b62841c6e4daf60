"""Threat 13: messages that two parsers would frame differently, from clients and from hostile origins."""

import pytest

from support.gateway import read_reply
from support.http import read_response, request_over
from support.lab import ALLOWED, ALLOWED_AT, DENIED, OTHER, OTHER_AT, Lab, answered, say
from support.waiting import PATIENCE

SMUGGLED = f"GET http://{DENIED}/smuggled HTTP/1.1\r\nHost: {DENIED}\r\n\r\n".encode()
HOST = b"Host: allowed.example\r\n"

# What stands between the request line and the blank line, and the body after it.
HEADS: dict[str, tuple[bytes, bytes]] = {
    "Content-Length and Transfer-Encoding": (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding and Content-Length": (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    "two Content-Lengths that differ": (b"Content-Length: 0\r\nContent-Length: 44\r\n", b""),
    "two Content-Lengths that agree": (b"Content-Length: 0\r\nContent-Length: 0\r\n", b""),
    "a list of Content-Lengths": (b"Content-Length: 0, 44\r\n", b""),
    "a Content-Length with a sign": (b"Content-Length: +4\r\n", b"abcd"),
    "a negative Content-Length": (b"Content-Length: -1\r\n", b""),
    "a hexadecimal Content-Length": (b"Content-Length: 0x4\r\n", b"abcd"),
    "a Content-Length with a space inside": (b"Content-Length: 1 0\r\n", b""),
    "a Content-Length with an underscore": (b"Content-Length: 1_0\r\n", b"0123456789"),
    "a Content-Length in Arabic digits": ("Content-Length: \u0664\r\n".encode(), b"abcd"),
    "a Content-Length of 30 digits": (b"Content-Length: " + b"9" * 30 + b"\r\n", b""),
    "an empty Content-Length": (b"Content-Length:\r\n", b""),
    "Transfer-Encoding twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding: chunked, chunked": (b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding: chunked, identity": (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding: identity": (b"Transfer-Encoding: identity\r\nContent-Length: 4\r\n", b"abcd"),
    "Transfer-Encoding: gzip": (b"Transfer-Encoding: gzip\r\n", b""),
    "Transfer-Encoding: gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding: xchunked": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding with a vertical tab": (b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "Transfer-Encoding in quotes": (b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"),
    "Transfer-Encoding folded": (b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a folded line": (b"X-Folded: one\r\n two\r\n", b""),
    "a folded line first": (b" folded: yes\r\n", b""),
    "a bare LF": (b"X-One: 1\nX-Two: 2\r\n", b""),
    "a bare LF before Transfer-Encoding": (b"X-One: 1\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "a bare CR": (b"X-One: 1\rX-Two: 2\r\n", b""),
    "a bare CR before Transfer-Encoding": (b"X-One: 1\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "CR CR LF": (b"X-One: 1\r\r\n", b""),
    "a space before the colon": (b"Content-Length : 4\r\n", b"abcd"),
    "a tab before the colon": (b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n"),
    "a NUL in a name": (b"Content\x00-Length: 4\r\n", b"abcd"),
    "a NUL in a value": (b"X-One: a\x00b\r\n", b""),
    "a control character in a value": (b"X-One: a\x01b\r\n", b""),
    "a line without a colon": (b"Content-Length 4\r\n", b"abcd"),
    "an empty name": (b": 4\r\n", b"abcd"),
    "a name in parentheses": (b"(Content-Length): 4\r\n", b"abcd"),
    "a name beyond ASCII": ("Cont\u00e8nt-Length: 4\r\n".encode(), b"abcd"),
}


@pytest.mark.parametrize(("lines", "body"), HEADS.values(), ids=HEADS.keys())
def test_threat_13_a_head_that_can_be_read_in_two_ways(lab: Lab, lines: bytes, body: bytes) -> None:
    with lab.refused("malformed_request"):
        reply = lab.gateway.raw(b"POST http://allowed.example/ HTTP/1.1\r\n" + HOST + lines + b"\r\n" + body + SMUGGLED)
    answered(reply, 400, "malformed_request")
    assert reply.ending != "quiet", "the connection stayed open"


def test_threat_13_the_same_in_a_tunnel_and_before_tls_origination(lab: Lab) -> None:
    with lab.refused("malformed_request", times=2 * len(HEADS)):
        for port in (80, 443):
            for what, (lines, body) in HEADS.items():
                with lab.tunnel("connect", ALLOWED, port) as sock:
                    say(sock, b"POST / HTTP/1.1\r\nHost: allowed.example:%d\r\n" % port + lines + b"\r\n" + body)
                    reply = read_reply(sock)
                assert (reply[:13], reply.ending != "quiet") == (b"HTTP/1.1 400 ", True), what


REQUEST_LINES = {
    "two spaces": b"GET  http://allowed.example/ HTTP/1.1\r\n",
    "a tab": b"GET\thttp://allowed.example/ HTTP/1.1\r\n",
    "a space in the target": b"GET http://allowed.example/a b HTTP/1.1\r\n",
    "a space at the end": b"GET http://allowed.example/ HTTP/1.1 \r\n",
    "a space at the beginning": b" GET http://allowed.example/ HTTP/1.1\r\n",
    "no version": b"GET http://allowed.example/\r\n",
    "version 1.2": b"GET http://allowed.example/ HTTP/1.2\r\n",
    "version 2.0": b"GET http://allowed.example/ HTTP/2.0\r\n",
    "version 01.1": b"GET http://allowed.example/ HTTP/01.1\r\n",
    "another protocol": b"GET http://allowed.example/ ICAP/1.0\r\n",
    "a bare LF at the end": b"GET http://allowed.example/ HTTP/1.1\n",
    "a bare CR inside": b"GET http://allowed.example/\rHTTP/1.1\r\n",
    "a NUL in the method": b"GE\x00T http://allowed.example/ HTTP/1.1\r\n",
    "a NUL in the target": b"GET http://allowed.example/\x00 HTTP/1.1\r\n",
    "a method with a colon": b"GE:T http://allowed.example/ HTTP/1.1\r\n",
    "bytes beyond ASCII": "GET http://allowed.example/\u00e9 HTTP/1.1\r\n".encode(),
    "no target": b"GET HTTP/1.1\r\n",
}


@pytest.mark.parametrize("line", REQUEST_LINES.values(), ids=REQUEST_LINES.keys())
def test_threat_13_request_line(lab: Lab, line: bytes) -> None:
    with lab.refused("malformed_request"):
        reply = lab.gateway.raw(line + HOST + b"\r\n" + SMUGGLED)
    answered(reply, 400, "malformed_request")
    assert reply.ending != "quiet"


def test_threat_13_transfer_encoding_of_http_1_0(lab: Lab) -> None:
    with lab.refused("malformed_request"):
        reply = lab.gateway.raw(
            b"POST http://allowed.example/ HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
    answered(reply, 400, "malformed_request")


BAD_CHUNKS = {
    "no size": b"\r\n\r\n",
    "a size that is no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "a size with an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a size of 20 digits": b"f" * 20 + b"\r\nabc\r\n0\r\n\r\n",
    "a bare LF after the size": b"3\nabc\r\n0\r\n\r\n",
    "a bare LF in an extension": b"3;a\nabc\r\n0\r\n\r\n",
    "more bytes than announced": b"3\r\nabcd\r\n0\r\n\r\n",
    "a bare LF after the chunk": b"3\r\nabc\n0\r\n\r\n",
    "a size line without end": b"3;" + b"a" * 5000,
    "a bare LF in the trailers": b"0\r\nX: y\n\r\n",
    "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "a space before the colon of a trailer": b"0\r\nX : y\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_threat_13_a_bad_chunk(lab: Lab, body: bytes) -> None:
    origin = lab.places.allowed
    before, connections = len(origin.requests), len(origin.connections)
    reply = lab.gateway.raw(
        b"POST http://allowed.example/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED
    )
    assert (bytes(reply[:13]), reply.ending != "quiet") == (b"HTTP/1.1 400 ", True), bytes(reply[:300])
    assert bytes(reply).count(b"HTTP/1.1 ") == 1
    lab.gateway.wait_for_log(lambda entry: entry["reason"] == "malformed_request" and entry["method"] == "POST")
    for connection in origin.connections[connections:]:
        assert connection.closed.wait(PATIENCE), "the connection to the origin stayed open"
    assert not [request for request in origin.requests[before:] if request.complete]
    lab.wire.assert_nothing_left(name=DENIED)


GOOD_BODIES = {
    "chunks": (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    "chunked in capitals": (b"Transfer-Encoding: Chunked", b"5\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    "chunk extensions": (b"Transfer-Encoding: chunked", b"5;a=b;c\r\nabcde\r\n0;d\r\n\r\n", b"abcde"),
    "trailers": (b"Transfer-Encoding: chunked", b"5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n", b"abcde"),
    "leading zeros in a size": (b"Transfer-Encoding: chunked", b"0005\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    "a length": (b"Content-Length: 5", b"abcde", b"abcde"),
    "a length of nothing": (b"Content-Length: 0", b"", b""),
}


@pytest.mark.parametrize(("line", "body", "content"), GOOD_BODIES.values(), ids=GOOD_BODIES.keys())
def test_threat_13_what_follows_a_body_is_the_next_request(lab: Lab, line: bytes, body: bytes, content: bytes) -> None:
    """And it is judged: the end of a body is where the gateway and the origin both see it."""
    origin = lab.places.allowed
    before = len(origin.requests)
    head = b"POST http://allowed.example/first HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n"
    with lab.refused("no_rule", allowed=1, asks=[ALLOWED], dials=[ALLOWED_AT]), lab.gateway.connect() as sock:
        say(sock, head + body + SMUGGLED)
        assert [read_response(sock).status for _ in range(2)] == [200, 403]
    # The halves of earlier tests may still come to the origin: nobody waits for them.
    arrived = [(request.target, request.body) for request in origin.requests[before:] if request.complete]
    assert arrived == [("/first", content)]


# --- hostile origins ---

RESPONSES = {
    "Content-Length and Transfer-Encoding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two Content-Lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a bad Content-Length": b"Content-Length: five\r\n\r\nhello",
    "a space before the colon": b"Content-Length : 0\r\n\r\n",
    "a folded line": b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": b"X: a\nContent-Length: 0\r\n\r\n",
    "a NUL": b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "another transfer coding": b"Transfer-Encoding: gzip\r\n\r\nhello",
}


@pytest.fixture
def hostile(origin, dns):
    """`hostile(answers)` is what stands at b.wild.example:80."""
    dns.set("b.wild.example", ["203.0.113.14"])
    return lambda *answers, **more: origin.scripted("203.0.113.14", 80, *answers, **more)


@pytest.mark.parametrize("rest", RESPONSES.values(), ids=RESPONSES.keys())
def test_threat_13_a_response_that_can_be_read_in_two_ways(lab: Lab, hostile, rest: bytes) -> None:
    hostile(b"HTTP/1.1 200 OK\r\n" + rest)
    reply = lab.gateway.raw(b"GET http://b.wild.example/ HTTP/1.1\r\nHost: b.wild.example\r\nConnection: close\r\n\r\n")
    answered(reply, 502, "upstream_malformed")


def test_threat_13_bytes_after_a_response_are_nobodys_answer(lab: Lab, hostile) -> None:
    """A hostile origin sends two responses to one request; the next request must not get the second."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    hostile(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" + forged, stays_open=True)
    before = len(lab.places.other.requests)
    with lab.gateway.connect() as sock:
        assert request_over(sock, "GET", "http://b.wild.example/1").text == "first"
        other = request_over(sock, "GET", f"http://{OTHER}/2")
        assert (other.status, other.text) == (200, f"/2 of {lab.places.other.name}\n")
        again = request_over(sock, "GET", "http://b.wild.example/3")
        assert again.text != "forged"
    assert [r.target for r in lab.places.other.requests[before:]] == ["/2"]
    assert lab.wire.syns_to(OTHER_AT)


def test_threat_13_an_origin_cannot_speak_for_the_gateway(lab: Lab, hostile) -> None:
    hostile(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Egress-Reason: no_rule\r\n"
        b"Proxy-Status: egress; error=http_request_denied\r\nProxy-Authenticate: Basic\r\n\r\nok"
    )
    with lab.gateway.connect() as sock:
        response = request_over(sock, "GET", "http://b.wild.example/")
    assert response.text == "ok"
    for name in ("x-egress-reason", "proxy-status", "proxy-authenticate"):
        assert response.header(name) is None

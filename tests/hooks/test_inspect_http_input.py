"""The bytes of an HTTP/1 client, cut into requests whatever way they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.gate.settings import Limits
from egress_gateway.hooks.inspect.http_input import HttpInput
from egress_gateway.relay.http1 import Malformed, parse_request, request_framing
from egress_gateway.relay.stream import TooLarge

LIMITS = Limits(header_bytes=200)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"
)


def cut(data: bytes, sizes: list[int]) -> list[tuple[bytes, bytes]]:
    """Head and content of each request in `data`, which comes in pieces of these sizes."""
    source, found = HttpInput(LIMITS), []
    framed = b""
    head: bytes | None = None
    while data or len(source):
        size = sizes.pop() if sizes else len(data)
        source.feed(data[:size])
        data = data[size:]
        while True:
            if head is None:
                head = source.take_head()
                if head is None:
                    break
                source.begin_body(request_framing(parse_request(head)))
            framed += source.take_body()[0]
            if source.in_body:
                break
            found.append((head, framed))
            head, framed = None, b""
    return found


@given(st.lists(st.sampled_from([GET, POST, CHUNKED]), max_size=4), st.lists(st.integers(1, 40), max_size=40))
def test_the_same_requests_come_out_however_they_come_in(requests: list[bytes], sizes: list[int]) -> None:
    found = cut(b"".join(requests), sizes)
    assert [head for head, _ in found] == [request[: request.index(b"\r\n\r\n") + 4] for request in requests]
    for request, (_, framed) in zip(requests, found, strict=True):
        if request is CHUNKED:
            assert framed.endswith(b"0\r\n\r\n")
            assert b"x=y" not in framed
            assert b"X: y" not in framed
        else:
            assert framed == request.partition(b"\r\n\r\n")[2]


def test_chunks_are_made_anew() -> None:
    assert cut(CHUNKED, [])[0][1] == b"b\r\nhello world\r\n0\r\n\r\n"


def test_a_head_is_limited_whole_or_in_part() -> None:
    for data in (b"GET / HTTP/1.1\r\nX: " + b"y" * 300, b"GET / HTTP/1.1\r\nX: " + b"y" * 200 + b"\r\n\r\n"):
        source = HttpInput(LIMITS)
        source.feed(data)
        with pytest.raises(TooLarge):
            source.take_head()


def test_a_bare_line_feed_is_seen_at_once() -> None:
    source = HttpInput(LIMITS)
    source.feed(b"GET / HTTP/1.1\nHost")
    with pytest.raises(Malformed):
        source.take_head()


def test_a_dropped_body_takes_everything_after_it_along() -> None:
    for request, end in ((POST, b""), (CHUNKED, b"0\r\n\r\n")):
        source = HttpInput(LIMITS)
        source.feed(request[:-1])
        head = source.take_head()
        assert head is not None
        source.begin_body(request_framing(parse_request(head)))
        assert source.drop_body() == end
        assert len(source) == 0
        assert not source.in_body

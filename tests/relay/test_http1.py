"""HTTP/1.1 as RFC 9112 has it and nothing else, held against h11 where both accept."""

from __future__ import annotations

import contextlib
import time

import h11
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from egress_gateway.relay.http1 import (
    Body,
    ChunkedBody,
    Framing,
    LastHead,
    LengthBody,
    Malformed,
    RequestHead,
    ResponseHead,
    UntilCloseBody,
    body_for,
    head_end,
    parse_request,
    parse_response,
    request_framing,
    response_framing,
)

# --- heads ---


def test_a_request_is_read_as_it_stands() -> None:
    head = parse_request(
        b"GET http://a.example/?q HTTP/1.1\r\nHost: A.example\r\nX-Y:\t 1, 2 \t\r\nx-y:3\r\nE:\r\n\r\n"
    )
    assert (head.method, head.target, head.minor) == ("GET", "http://a.example/?q", 1)
    assert head.headers == [(b"Host", b"A.example"), (b"X-Y", b"1, 2"), (b"x-y", b"3"), (b"E", b"")]
    assert head.values(b"x-y") == [b"1, 2", b"3"]
    assert head.tokens(b"x-y") == [b"1", b"2", b"3"]
    assert head.tokens(b"nothing") == []


def test_a_response_is_read_as_it_stands() -> None:
    head = parse_response(b"HTTP/1.0 404 Not \xe9 Found\r\nServer: x\r\n\r\n")
    assert (head.minor, head.status, head.phrase) == (0, 404, b"Not \xe9 Found")
    assert parse_response(b"HTTP/1.1 200 \r\n\r\n").phrase == b""
    assert parse_response(b"HTTP/1.1 200\r\n\r\n").phrase == b""


ANY = b"Host: a.example\r\n\r\n"
BAD_REQUESTS = {
    "no version": b"GET /\r\n" + ANY,
    "HTTP/0.9": b"GET / HTTP/0.9\r\n" + ANY,
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + ANY,
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + ANY,
    "HTTP/1.10": b"GET / HTTP/1.10\r\n" + ANY,
    "a version in lower case": b"GET / http/1.1\r\n" + ANY,
    "two spaces before the target": b"GET  / HTTP/1.1\r\n" + ANY,
    "two spaces after the target": b"GET /  HTTP/1.1\r\n" + ANY,
    "a tab for a space": b"GET\t/ HTTP/1.1\r\n" + ANY,
    "a space after the version": b"GET / HTTP/1.1 \r\n" + ANY,
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + ANY,
    "a NUL in the target": b"GET /\0 HTTP/1.1\r\n" + ANY,
    "a byte above ASCII in the target": b"GET /\xff HTTP/1.1\r\n" + ANY,
    "no method": b" / HTTP/1.1\r\n" + ANY,
    "a method that is no token": b"GE(T / HTTP/1.1\r\n" + ANY,
    "an empty line in front": b"\r\nGET / HTTP/1.1\r\n" + ANY,
    "only an empty line": b"\r\n\r\n",
    "a line feed alone after the request line": b"GET / HTTP/1.1\n" + ANY,
    "a line feed alone after a header": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "a carriage return alone in a header": b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "a carriage return alone at the end of a header": b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "obs-fold with a tab": b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
    "obs-fold on the first line": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a tab before the colon": b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    "a space in the name": b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
    "a NUL in the name": b"GET / HTTP/1.1\r\nHo\0st: a\r\n\r\n",
    "a byte above ASCII in the name": b"GET / HTTP/1.1\r\nHo\xffst: a\r\n\r\n",
    "a NUL in the value": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "an escape in the value": b"GET / HTTP/1.1\r\nHost: a\x1bb\r\n\r\n",
    "a delete in the value": b"GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n",
    "a vertical tab in the value": b"GET / HTTP/1.1\r\nHost: a\x0bb\r\n\r\n",
    "no end": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "something after the end": b"GET / HTTP/1.1\r\nHost: a\r\n\r\nX",
}


@pytest.mark.parametrize("head", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_malformed_request_is_refused_and_not_quoted(head: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_request(head)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


WHY = {
    "a header line begins with white space (obs-fold)": b" b",
    "a header line has no colon": b"abc",
    "white space stands before the colon of a header line": b"Host : a",
    "a header line holds a control character": b"X: a\x01",
    "a header name is not a token": b"X(y): a",
}


@pytest.mark.parametrize(("text", "line"), WHY.items(), ids=WHY)
def test_what_is_wrong_is_said(text: str, line: bytes) -> None:
    with pytest.raises(Malformed, match=text.replace("(", r"\(").replace(")", r"\)")):
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")


BAD_RESPONSES = {
    "no version": b"200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "no space before the phrase": b"HTTP/1.1 200OK\r\n\r\n",
    "a control character in the phrase": b"HTTP/1.1 200 O\x01K\r\n\r\n",
    "a line feed alone": b"HTTP/1.1 200 OK\n\r\n\r\n",
    "shoutcast": b"ICY 200 OK\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
}


@pytest.mark.parametrize("head", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_a_malformed_response_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_response(head)


@pytest.mark.parametrize(
    "filler",
    [b"X:" + b" " * 65_000 + b"\x01", b"X: a" + b" \t" * 32_000 + b"\x01", b"X: " + b"a " * 32_000 + b"\x01",
     b"X" * 65_000, b"X" * 65_000 + b" ", b"X:" + b"\t" * 65_000, b":" * 65_000],
    ids=["spaces", "spaces after a value", "words", "a name", "a name and a space", "tabs", "colons"],
)  # fmt: skip
def test_a_hostile_head_is_refused_in_linear_time(filler: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(Malformed):
        parse_request(b"GET / HTTP/1.1\r\n" + filler + b"\r\n\r\n")
    assert time.process_time() - started < 1  # going back for each byte takes some seconds


# --- what comes again ---


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"/", b"/x", b"/y"]),
            st.sampled_from([b"", b"A: 1\r\n", b"A: 1\r\nB: 2\r\n", b"B: 2\r\n", b"A:  1\r\n", b"A : 1\r\n"]),
            st.sampled_from([1, 256]),
        ),
        max_size=6,
    )
)
@example([(b"/", b"A: 1\r\nB: 2\r\n", 256), (b"/", b"A: 1\r\nB: 2\r\n", 1)])
@example([(b"/", b"A: 1\r\nB: 2\r\n", 256), (b"/x", b"A: 1\r\nB: 2\r\n", 1)])
def test_a_head_is_read_the_same_whatever_came_before_it(heads: list[tuple[bytes, bytes, int]]) -> None:
    last: LastHead[RequestHead] = LastHead()

    def read(raw: bytes, most: int, last: LastHead[RequestHead] | None) -> object:
        try:
            head = parse_request(raw, most, last)
        except Malformed as error:
            return type(error), str(error)
        return head.method, head.target, head.minor, head.headers

    for target, fields, most in heads:
        raw = b"GET %s HTTP/1.1\r\n%s\r\n" % (target, fields)
        assert read(raw, most, last) == read(raw, most, None)


def test_a_head_that_comes_again_is_not_read_again_and_a_large_one_is_not_kept() -> None:
    last: LastHead[ResponseHead] = LastHead()
    first = parse_response(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", last=last)
    assert parse_response(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", last=last) is first
    assert parse_response(b"HTTP/1.1 404 Not Found\r\nA: 1\r\n\r\n", last=last).section is first.section
    large = b"HTTP/1.1 200 OK\r\nA: " + b"1" * 5_000 + b"\r\n\r\n"
    assert parse_response(large, last=last).section is not first.section
    assert len(last.raw) < 100
    last.forget()
    assert parse_response(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", last=last) is not first


# --- against h11 ---

names = st.sampled_from([b"Host", b"X-Y", b"Accept", b"content-length", b"Transfer-Encoding", b"a!#$%&'*+.^_`|~9"])
values = st.one_of(
    st.sampled_from([b"a.example", b"", b"5", b"chunked", b"a b\tc", b"\xff\x80", b"0", b"1, 2"]),
    st.binary(max_size=6),
)
spaces = st.sampled_from([b"", b" ", b"\t", b"  "])
line_ends = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
lines = st.builds(
    lambda *parts: b"".join(parts), names, st.sampled_from([b":"] * 9 + [b" :"]), spaces, values, spaces, line_ends
)
request_lines = st.builds(
    lambda *parts: b"".join(parts),
    st.sampled_from([b"GET", b"POST", b"x-Custom", b"CONNECT", b"G(T", b""]),
    st.sampled_from([b" "] * 9 + [b"  ", b"\t"]),
    st.sampled_from([b"/", b"http://a.example/", b"a.example:443", b"*", b"/\xff", b"/a b", b'/%00?"<>`{}|']),
    st.sampled_from([b" "] * 9 + [b"  "]),
    st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"http/1.1"]),
    line_ends,
)
heads = st.builds(lambda first, rest: first + b"".join(rest) + b"\r\n", request_lines, st.lists(lines, max_size=4))


@st.composite
def bent(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of `source` with a few of them changed."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@given(bent(heads))
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xa0\xff\r\n\r\n")
@example(b"GET / HTTP/1.0\r\n\r\n")
def test_what_is_accepted_h11_accepts_and_reads_the_same(data: bytes) -> None:
    try:
        head = parse_request(data)
        framing = request_framing(head)
    except Malformed:
        return
    hosts = len(head.values(b"host"))
    assume(hosts == 1 or (hosts == 0 and head.minor == 0))  # `target` sees to that, and h11 as well
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(data)
    event = theirs.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == head.method.encode()
    assert event.target == head.target.encode()
    assert event.http_version == b"1.%d" % head.minor
    folded = (b"transfer-encoding",)  # h11 gives its value in lower case
    assert list(event.headers) == [
        (name.lower(), value.lower() if name.lower() in folded else value) for name, value in head.headers
    ]
    following = theirs.next_event()
    assert isinstance(following, h11.EndOfMessage) is not framing.has_body


@given(bent(heads))
def test_any_bytes_are_a_head_or_malformed(data: bytes) -> None:
    for parse in (parse_request, parse_response):
        try:
            parse(data)
        except Malformed:
            continue
        assert data.endswith(b"\r\n\r\n")


# --- framing ---


def request(*fields: bytes, minor: int = 1) -> bytes:
    return b"POST / HTTP/1.%d\r\n" % minor + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


FRAMINGS = {
    "nothing said": ((), 1, Framing()),
    "a length": ((b"Content-Length: 5",), 1, Framing(5)),
    "a length of nothing": ((b"Content-Length: 0",), 1, Framing(0)),
    "a length with zeros in front": ((b"Content-Length: 005",), 1, Framing(5)),
    "chunked": ((b"Transfer-Encoding: chunked",), 1, Framing(None, chunked=True)),
    "chunked in capitals": ((b"Transfer-Encoding: CHUNKED",), 1, Framing(None, chunked=True)),
    "a length in HTTP/1.0": ((b"Content-Length: 5",), 0, Framing(5)),
}


@pytest.mark.parametrize(("fields", "minor", "expected"), FRAMINGS.values(), ids=FRAMINGS)
def test_how_long_a_body_is(fields: tuple[bytes, ...], minor: int, expected: Framing) -> None:
    framing = request_framing(parse_request(request(*fields, minor=minor)))
    assert framing == expected
    assert framing.has_body is (expected.chunked or bool(expected.length))


BAD_FRAMINGS = {
    "a length and chunked": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunked and a length": (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "chunked and a length of nothing": (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    "two lengths": (b"Content-Length: 5", b"Content-Length: 6"),
    "two equal lengths": (b"Content-Length: 5", b"Content-Length: 5"),
    "two lengths in one field": (b"Content-Length: 5, 5",),
    "a length that is no number": (b"Content-Length: five",),
    "an empty length": (b"Content-Length:",),
    "a signed length": (b"Content-Length: +5",),
    "a negative length": (b"Content-Length: -5",),
    "a hexadecimal length": (b"Content-Length: 0x5",),
    "a length with a fraction": (b"Content-Length: 5.0",),
    "a length with an underscore": (b"Content-Length: 1_0",),
    "a length with a space": (b"Content-Length: 1 0",),
    "a length of digits that are not ASCII": (b"Content-Length: \xb2",),
    "a length beyond all bounds": (b"Content-Length: 1" + b"0" * 18,),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked",),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked",),
    "two codings in two fields": (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked, identity": (b"Transfer-Encoding: chunked, identity",),
    "identity": (b"Transfer-Encoding: identity",),
    "an unknown coding": (b"Transfer-Encoding: xchunked",),
    "an empty coding": (b"Transfer-Encoding:",),
    "a coding with a parameter": (b"Transfer-Encoding: chunked;q=1",),
    "a quoted coding": (b'Transfer-Encoding: "chunked"',),
}


@pytest.mark.parametrize("fields", BAD_FRAMINGS.values(), ids=BAD_FRAMINGS)
def test_what_two_parsers_could_frame_differently_is_refused(fields: tuple[bytes, ...]) -> None:
    with pytest.raises(Malformed):
        request_framing(parse_request(request(*fields)))
    with pytest.raises(Malformed):
        response_framing(parse_response(b"HTTP/1.1 200 OK\r\n" + request(*fields).partition(b"\r\n")[2]), "GET")


def test_a_transfer_coding_in_http_1_0_is_refused() -> None:
    with pytest.raises(Malformed):
        request_framing(parse_request(request(b"Transfer-Encoding: chunked", minor=0)))


RESPONSES = {
    "until it closes": (200, (), "GET", Framing(None, until_close=True)),
    "by length": (200, (b"Content-Length: 5",), "GET", Framing(5)),
    "chunked": (200, (b"Transfer-Encoding: chunked",), "GET", Framing(None, chunked=True)),
    "to HEAD": (200, (b"Content-Length: 5",), "HEAD", Framing()),
    "to HEAD, chunked": (200, (b"Transfer-Encoding: chunked",), "HEAD", Framing()),
    "204": (204, (b"Content-Length: 5",), "GET", Framing()),
    "304": (304, (b"Content-Length: 5",), "GET", Framing()),
    "304, chunked": (304, (b"Transfer-Encoding: chunked",), "GET", Framing()),
    "103": (103, (), "GET", Framing()),
    "404 to POST": (404, (), "POST", Framing(None, until_close=True)),
}


@pytest.mark.parametrize(("status", "fields", "method", "expected"), RESPONSES.values(), ids=RESPONSES)
def test_how_long_the_body_of_a_response_is(
    status: int, fields: tuple[bytes, ...], method: str, expected: Framing
) -> None:
    head = b"HTTP/1.1 %d X\r\n" % status + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
    assert response_framing(parse_response(head), method) == expected


# --- bodies ---


def feed(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The content, and what was left over."""
    buffer, content = bytearray(), b""
    for piece in pieces:
        buffer += piece
        content += body.take(buffer)
    return content, bytes(buffer)


@st.composite
def split(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    data = draw(source)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_chunks_give_their_content_however_they_arrive(chunks: list[bytes], data: st.DataObject) -> None:
    sizes = st.sampled_from(["%x", "%X", "0%x", "00000%x"])
    extensions = st.sampled_from([b"", b";a", b';a="b;c"', b" ", b"\t;x=1", b";\t"])
    wire = b""
    for chunk in chunks:
        wire += (data.draw(sizes) % len(chunk)).encode() + data.draw(extensions) + b"\r\n" + chunk + b"\r\n"
    wire += b"0\r\nX-T: 1\r\nY: 2\r\n\r\n" if data.draw(st.booleans()) else b"0\r\n\r\n"
    pieces = data.draw(split(st.just(wire + b"GET / next")))
    body = ChunkedBody()
    assert feed(body, pieces) == (b"".join(chunks), b"GET / next")
    assert body.done
    assert body.trailers in ([], [(b"X-T", b"1"), (b"Y", b"2")])


wires = st.lists(
    st.sampled_from(
        [b"5\r\n", b"hello", b"\r\n", b"0", b"0\r\n\r\n", b"A", b"3;x\r\nabc\r\n", b"1\r\n", b"X: y\r\n", b"5"]
    )
    | st.binary(max_size=3),
    max_size=8,
).map(b"".join)


@given(split(bent(wires)))
def test_where_chunks_are_accepted_h11_reads_the_same(pieces: list[bytes]) -> None:
    body = ChunkedBody()
    try:
        content, left = feed(body, pieces)
    except Malformed:
        return
    assume(body.done)
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(pieces))
    theirs.next_event()
    read = b""
    while isinstance(event := theirs.next_event(), h11.Data):
        read += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert read == content
    assert theirs.trailing_data[0] == left
    assert list(event.headers) == [(name.lower(), value) for name, value in body.trailers]


BAD_CHUNKS = {
    "no size": b"\r\nhello\r\n",
    "a size that is no number": b"xyz\r\nhello\r\n",
    "a negative size": b"-5\r\nhello\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n",
    "a size with an underscore": b"1_0\r\n",
    "a space before the size": b" 5\r\nhello\r\n",
    "a size of sixteen digits": b"1" * 16 + b"\r\n",
    "a line feed alone after the size": b"5\nhello\r\n",
    "a carriage return inside the size line": b"5\r;x\r\nhello\r\n",
    "a NUL in an extension": b"5;\0\r\nhello\r\n",
    "a line that goes on": b"5;" + b"x" * 2000,
    "too short a size": b"4\r\nhello\r\n0\r\n\r\n",
    "too long a size": b"6\r\nhello\r\n0\r\n\r\n",
    "a line feed alone after the data": b"5\r\nhello\n0\r\n\r\n",
    "data that ends in a carriage return alone": b"5\r\nhello\rX",
    "a malformed trailer": b"0\r\nX y\r\n\r\n",
    "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "a line feed alone in the trailers": b"0\r\nX: y\n\r\n",
    "a carriage return alone in the trailers": b"0\r\nX: y\rZ: z\r\n\r\n",
    "trailers without an end": b"0\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("wire", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
@pytest.mark.parametrize("size", [1, 100_000], ids=["bytewise", "at once"])
def test_a_bad_chunk_is_refused(wire: bytes, size: int) -> None:
    with pytest.raises(Malformed):
        feed(ChunkedBody(4096), [wire[start : start + size] for start in range(0, len(wire), size)])


def test_trailers_that_arrive_bytewise_take_linear_time() -> None:
    wire = b"0\r\n" + (b"X: " + b"y" * 295 + b"\r\n") * 200 + b"\r\n"
    started = time.process_time()
    body, buffer = ChunkedBody(), bytearray()
    for byte in wire:
        buffer.append(byte)
        body.take(buffer)
    assert body.done
    assert len(body.trailers) == 200
    assert time.process_time() - started < 2  # looking at all of it again with every byte takes half a minute


def test_a_body_by_length_takes_no_byte_more() -> None:
    body, buffer = LengthBody(5), bytearray(b"hel")
    assert (body.take(buffer), body.done) == (b"hel", False)
    buffer += b"lo, world"
    assert (body.take(buffer), body.done, bytes(buffer)) == (b"lo", True, b", world")
    assert LengthBody(0).done


def test_a_body_until_the_end_takes_everything_and_is_never_done() -> None:
    body = UntilCloseBody()
    assert feed(body, [b"a", b"", b"bc"]) == (b"abc", b"")
    assert not body.done


def test_each_framing_has_its_body() -> None:
    assert isinstance(body_for(Framing(None, chunked=True)), ChunkedBody)
    assert isinstance(body_for(Framing(None, until_close=True)), UntilCloseBody)
    assert isinstance(body_for(Framing(5)), LengthBody)
    assert body_for(Framing()).done


# --- where a head ends ---


@given(
    split(
        st.sampled_from(
            [b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", b"HTTP/1.1 200 OK\r\nX: y\r\nZ:\r\n\r\n", b"\r\n\r\n"]
        )
    )
)
def test_the_end_of_a_head_is_found_however_it_arrives(pieces: list[bytes]) -> None:
    buffer, searched, whole = bytearray(), 0, b"".join(pieces)
    for piece in pieces:
        buffer += piece
        end = head_end(buffer, searched)
        searched = len(buffer)
        if end is not None:
            break
    assert end == whole.index(b"\r\n\r\n") + 4


@given(
    split(
        st.sampled_from(
            [b"GET / HTTP/1.1\nHost", b"GET / HTTP/1.1\rHost", b"GET / HTTP/1.1\r\nHost: a\r\n\n", b"\n", b"\rx"]
        )
    )
)
def test_a_bare_line_end_is_found_however_it_arrives(pieces: list[bytes]) -> None:
    def look() -> None:
        buffer, searched = bytearray(), 0
        for piece in pieces:
            buffer += piece
            head_end(buffer, searched)
            searched = len(buffer)

    with pytest.raises(Malformed):
        look()


def test_what_follows_a_head_is_not_looked_at() -> None:
    assert head_end(bytearray(b"GET / HTTP/1.1\r\n\r\n\nbody\r"), 0) == 18


def test_a_head_that_arrives_bytewise_takes_linear_time() -> None:
    buffer, started = bytearray(), time.process_time()
    for position, byte in enumerate(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000):
        buffer.append(byte)
        assert head_end(buffer, position) is None
    assert time.process_time() - started < 5  # looking at all of it again with every byte takes a minute

"""One allowed request on one connection: bodies both ways, early ends, half messages, and rules that change."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from egress_gateway.dns.answer import Answer
from egress_gateway.gate.settings import Limits
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.ruleset import RuleSet
from support.relay_server import Origin, Peer, Script, Talk, answers, conversation, request, rule, talk
from support.waiting import until

pytestmark = pytest.mark.usefixtures("sent", "steady")

# RFC 6455, 1.3
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def saying(data: bytes, *, then: str = "close") -> Script:
    """A script that answers each request with `data`."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(data)
        if then == "reset":
            peer.reset()
        elif then == "stay":
            await peer.rest(quiet=30)

    return script


# --- bodies ---

BODIES: dict[str, tuple[str, bytes, bytes]] = {
    "by length": ("Content-Length: 11", b"hello world", b"Content-Length: 11\r\n\r\nhello world"),
    "chunked": (
        "Transfer-Encoding: chunked", b"5;x\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
    ),
    "chunked, with trailers": (
        "Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "chunked and empty": ("Transfer-Encoding: chunked", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "of no length": ("Content-Length: 0", b"", b"Content-Length: 0\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize(("field", "body", "arrives"), BODIES.values(), ids=BODIES)
async def test_a_request_body_goes_on_framed_as_it_was(field: str, body: bytes, arrives: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(arrives)
        await peer.answer(b"got it")
        await answers(peer)

    async with conversation(script) as (client, server, there):
        reply = await client.ask(request(there, "/", field, method="POST") + body)
        assert reply.body == b"got it"
        assert (await client.ask(request(there, "/next"))).body == b"GET /next HTTP/1.1"
        assert len(there.peers) == 1
        (first, _) = await server.finished(2)
        assert first.bytes_received == (11 if b"world" in body else 5 if b"hello" in body else 0)


@pytest.mark.parametrize(("field", "body", "arrives"), BODIES.values(), ids=BODIES)
async def test_a_response_body_goes_on_framed_as_it_was(field: str, body: bytes, arrives: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(f"HTTP/1.1 200 OK\r\n{field}\r\n\r\n".encode() + body)
        await answers(peer)

    async with conversation(script) as (client, _, there):
        reply = await client.ask(request(there))
        assert reply.body == (b"hello world" if b"world" in body else b"hello" if b"hello" in body else b"")
        assert reply.framing == ("chunked" if "chunked" in field else "length")
        assert b"evil" not in bytes(client.received)
        assert (await client.ask(request(there, "/next"))).body == b"GET /next HTTP/1.1"
        assert len(there.peers) == 1


async def test_a_chunked_response_arrives_one_byte_at_a_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.bytewise(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n")

    async with conversation(script) as (client, _, there):
        assert (await client.ask(request(there))).body == b"hello"


async def test_a_body_that_ends_with_the_connection() -> None:
    async with conversation(saying(b"HTTP/1.1 200 OK\r\n\r\nhello")) as (client, server, there):
        reply = await client.ask(request(there))
        assert (reply.body, reply.framing, reply.values("connection")) == (b"hello", "close", ["close"])
        assert (await server.finished())[0].failure is None


async def test_an_http_1_0_client_gets_a_chunked_body_until_the_connection_ends() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    async with conversation(saying(data, then="stay")) as (client, _, there):
        reply = await client.ask(request(there, version="1.0"))
        assert (reply.body, reply.framing) == (b"hello world", "close")
        assert reply.values("transfer-encoding") == []


BODYLESS = {
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "304, chunked": b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("data", BODYLESS.values(), ids=BODYLESS)
async def test_a_response_that_has_no_body_leaves_the_connection_in_step(data: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(data)
        await answers(peer)

    async with conversation(script) as (client, _, there):
        reply = await client.ask(request(there))
        assert (reply.status, reply.framing) == (int(data[9:12]), "none")
        assert b"204" not in reply.head or not reply.values("content-length")
        assert (await client.ask(request(there, "/next"))).body == b"GET /next HTTP/1.1"


async def test_a_large_body_for_a_slow_reader_stays_outside() -> None:
    size = 64 << 20

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(1 << 16)
        for _ in range(size >> 16):
            await peer.send(block)
            sent.append(len(block))

    sent: list[int] = []
    async with conversation(script) as (client, _, there):
        await client.send(request(there))
        await client.until(b"\r\n\r\n")
        client.pause()
        tracemalloc.start()
        await asyncio.sleep(0.3)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(sent) < size // 2, "the origin is held back"
        assert used < 4 << 20
        client.resume()


async def test_a_large_upload_to_a_slow_origin_stays_outside() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.pause()
        await go_on.wait()

    async with conversation(script) as (client, _server, there):
        await client.send(request(there, "/", f"Content-Length: {64 << 20}", method="PUT"))
        sent = 0
        try:
            async with asyncio.timeout(0.3):
                while sent < 64 << 20:
                    await client.send(bytes(1 << 16))
                    sent += 1 << 16
        except TimeoutError:
            pass
        assert sent < 32 << 20
        go_on.set()


# --- interim responses ---


async def test_interim_responses_go_on_as_they_come() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await goes_on.wait()
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await peer.answer(b"done")

    goes_on = asyncio.Event()
    async with conversation(script) as (client, _, there):
        hints = await client.ask(request(there))
        assert (hints.status, hints.values("link")) == (103, ["</a>"])
        goes_on.set()
        assert (await client.reply()).status == 102
        assert (await client.reply()).body == b"done"


async def test_an_http_1_0_client_gets_no_interim_response() -> None:
    data = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with conversation(saying(data)) as (client, _, there):
        assert (await client.ask(request(there, version="1.0"))).body == b"ok"


async def test_a_flood_of_interim_responses_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        while True:
            await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000)

    async with conversation(script) as (client, _, there):
        await client.send(request(there))
        for _ in range(100):
            reply = await client.reply()
            if reply.status != 103:
                break
        assert (reply.status, reply.reason) == (502, "upstream_malformed")


# --- Expect: 100-continue ---


async def test_a_body_that_waits_to_be_asked_for() -> None:
    async def script(peer: Peer) -> None:
        assert b"Expect: 100-continue\r\n" in await peer.head()
        assert await peer.silent(), "no byte of the body before it is asked for"
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.exactly(5) == b"hello"
        await peer.answer(b"thanks")

    async with conversation(script) as (client, _, there):
        reply = await client.ask(request(there, "/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert reply.status == 100
        assert (await client.ask(b"hello")).body == b"thanks"


async def test_a_body_that_the_origin_does_not_want() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", "Connection: close", status="417 Expectation Failed")

    async with conversation(script) as (client, _server, there):
        reply = await client.ask(request(there, "/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert (reply.status, reply.body) == (417, b"no")
        assert await client.rest() == b"", "what comes next could be the body, so nothing can follow"


async def test_a_body_that_the_origin_does_not_want_and_a_client_that_leaves() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status="417 Expectation Failed")
        await peer.rest()

    async with conversation(script) as (client, server, there):
        reply = await client.ask(request(there, "/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert reply.status == 417
        client.close()
        (exchange,) = await server.finished()
        assert (exchange.response_code, exchange.failure) == (417, Reason.CLIENT_CLOSED)


async def test_a_client_does_not_wait_to_be_asked_and_is_refused_by_the_gateway() -> None:
    async with conversation(answers) as (client, _, there):
        head = request(there, "/", "Expect: 100-continue", "Content-Length: 5", method="POST", host="evil.example")
        reply = await client.ask(head)
        assert (reply.status, reply.values("connection")) == (403, ["close"])
    assert there.peers == []


# --- early ends while the client is sending ---


@pytest.mark.usefixtures("long_linger")
@pytest.mark.parametrize("close", [True, False], ids=["and says so", "without saying so"])
async def test_an_early_answer_reaches_a_client_that_is_still_sending(close: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too much", *(["Connection: close"] if close else []), status="413 Content Too Large")
        await peer.rest()

    size = 4 << 20
    async with conversation(script) as (client, _, there):
        await client.send(request(there, "/", f"Content-Length: {size}", method="PUT"))
        sending = asyncio.create_task(keep_sending(client, size))
        reply = await client.reply()
        assert (reply.status, reply.body) == (413, b"too much")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def keep_sending(client: Talk, size: int) -> None:
    for _ in range(size >> 14):
        await client.send(bytes(1 << 14))
        await asyncio.sleep(0)


@pytest.mark.usefixtures("long_linger")
async def test_an_early_answer_reaches_a_client_that_sends_everything_before_it_reads() -> None:
    """What a closed socket has not read is answered with RST, which would overtake the answer."""
    answered = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too much", "Connection: close", status="413 Content Too Large")
        answered.set()
        await peer.rest()

    async with conversation(script) as (client, _, there):
        client.pause()
        await client.send(request(there, "/", "Content-Length: 900000", method="PUT"))
        await answered.wait()
        for _ in range(9):
            await asyncio.sleep(0.01)
            await client.send(bytes(100_000))
        client.resume()
        assert (await client.reply()).body == b"too much"


async def test_the_rest_of_a_body_is_never_read_as_a_request() -> None:
    """The origin answers early and leaves; what the client sends after that is still its body."""

    async def script(peer: Peer) -> None:
        await peer.until(b"first part")
        await peer.answer(b"enough")
        peer.reset()

    async with conversation(script) as (client, server, there):
        smuggled = request(there, "/smuggled")
        rest = 1 << 20
        head = request(there, "/", f"Content-Length: {10 + rest + len(smuggled)}", method="PUT")
        await client.send(head + b"first part")
        assert (await client.reply()).body == b"enough"
        await asyncio.sleep(0.05)
        try:
            for _ in range(rest >> 14):
                await client.send(bytes(1 << 14))
            await client.send(smuggled)
            left = await client.rest()
        except OSError:
            left = b""
        assert left == b""
        await server.finished()
    assert len(server.seen.exchanges) == 1
    assert b"smuggled" not in there.received


async def test_a_client_that_vanishes_within_its_body() -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.until(b"half")
        try:
            got.append(await peer.rest())
        except ConnectionResetError:
            got.append(b"reset")

    async with conversation(script) as (client, server, there):
        await client.send(request(there, "/", "Content-Length: 100", method="POST") + b"half")
        await until(lambda: b"half" in there.received, "half the body has arrived")
        client.reset()
        (exchange,) = await server.finished()
        assert exchange.failure is Reason.CLIENT_CLOSED
        await until(lambda: got, "the origin has seen the end")
    assert got == [b"reset"], "half a request must not look like a whole one"
    assert server.seen.failures == []


async def test_a_client_that_vanishes_within_a_response() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            await peer.send(bytes(1 << 16))

    async with conversation(script) as (client, server, there):
        await client.send(request(there))
        await client.until(b"\r\n\r\n")
        client.reset()
        (exchange,) = await server.finished()
        assert exchange.failure is Reason.CLIENT_CLOSED
        await until(lambda: there.peers[0].writer.is_closing(), "the origin is let go")


# --- origins that fail ---

MALFORMED = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "a line feed alone": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "a length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "another transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a head cut short": b"HTTP/1.1 200 OK\r\nContent-",
    "a header that is too large": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
    "a header without an end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
    "a 101 that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "a websocket that nobody asked for": (
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
    ),
    "a NUL in the head": b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_a_response_that_is_malformed_is_a_502(data: bytes) -> None:
    async with conversation(saying(data), limits=Limits(header_bytes=4096)) as (client, server, there):
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (502, "upstream_malformed")
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.failure, exchange.verdict.allowed) == (Reason.UPSTREAM_MALFORMED, True)
        assert server.seen.failures == [Reason.UPSTREAM_MALFORMED]


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_origin_that_leaves_without_a_word_is_a_502(then: str) -> None:
    async with conversation(saying(b"", then=then)) as (client, server, there):
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (502, "upstream_closed")
        assert len(there.peers) == 1, "a fresh connection is not tried again"
        assert server.seen.failures == [Reason.UPSTREAM_CLOSED]


HALF = {
    "by length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
    "within a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhello",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "before the last line of the trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "with a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
}


@pytest.mark.parametrize("data", HALF.values(), ids=HALF)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_half_a_response_never_looks_like_a_whole_one(data: bytes, version: str) -> None:
    async with conversation(saying(data)) as (client, server, there):
        await client.send(request(there, version=version))
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.reply()
        # Where the body ends with the connection, only a reset tells that it did not end in peace.
        assert client.reader.exception() is not None
        (exchange,) = await server.finished()
        assert exchange.failure in (Reason.UPSTREAM_CLOSED, Reason.UPSTREAM_MALFORMED)
        assert exchange.response_code == 200


async def test_a_body_until_the_end_that_is_reset_is_not_a_whole_one() -> None:
    async with conversation(saying(b"HTTP/1.1 200 OK\r\n\r\nhello", then="reset")) as (client, server, there):
        await client.send(request(there))
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.reply()
        assert (await server.finished())[0].failure is Reason.UPSTREAM_CLOSED


async def test_an_origin_that_never_answers_is_a_504() -> None:
    async with conversation(saying(b"", then="stay"), limits=Limits(idle_timeout=0.2)) as (client, server, there):
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (504, "upstream_timeout")
        await until(lambda: there.peers[0].writer.is_closing(), "the origin is let go")
        assert server.seen.failures == [Reason.UPSTREAM_TIMEOUT]


async def test_an_origin_that_stops_within_its_answer() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"
    async with conversation(saying(data, then="stay"), limits=Limits(idle_timeout=0.2)) as (client, server, there):
        await client.send(request(there))
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.reply()
        assert (await server.finished())[0].failure is Reason.UPSTREAM_TIMEOUT


async def test_what_moves_slowly_but_moves_does_not_time_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            await peer.send(b"x")

    async with conversation(script, limits=Limits(idle_timeout=0.4)) as (client, _, there):
        assert (await client.ask(request(there))).body == b"x" * 8


# --- a connection that is used again ---


def leaving_after(count: int) -> Script:
    """Answers so many requests on each connection; when the next one comes it closes without a word."""

    async def script(peer: Peer) -> None:
        for _ in range(count):
            await peer.answer((await peer.head()).partition(b"\r\n")[0])
        await peer.head()

    return script


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
async def test_a_connection_closed_just_when_it_was_used_again_is_tried_once_more(method: str) -> None:
    async with conversation(leaving_after(1)) as (client, server, there):
        assert (await client.ask(request(there, "/1"))).status == 200
        assert (await client.ask(request(there, "/2", method=method))).body == f"{method} /2 HTTP/1.1".encode()
        assert len(there.peers) == 2
        assert all(exchange.failure is None for exchange in await server.finished(2))
        assert server.seen.failures == []


async def test_but_only_once() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        if head.startswith(b"GET /1 "):
            await peer.answer()
            await peer.head()

    async with conversation(script) as (client, _, there):
        assert (await client.ask(request(there, "/1"))).status == 200
        assert (await client.ask(request(there, "/2"))).reason == "upstream_closed"
        assert len(there.peers) == 2


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [("POST", (), b""), ("PATCH", (), b""), ("PUT", ("Content-Length: 5",), b"hello")],
    ids=["POST", "PATCH", "PUT with a body"],
)
async def test_what_must_not_happen_twice_is_not_tried_again(method: str, fields: tuple[str, ...], body: bytes) -> None:
    async with conversation(leaving_after(1)) as (client, _, there):
        assert (await client.ask(request(there, "/1"))).status == 200
        reply = await client.ask(request(there, "/2", *fields, method=method) + body)
        assert (reply.status, reply.reason) == (502, "upstream_closed")
        assert len(there.peers) == 1


async def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"bye")

    async with conversation(script) as (client, _, there):
        assert (await client.ask(request(there))).body == b"bye"
        await asyncio.sleep(0.05)
        assert (await client.ask(request(there, method="POST") + b"")).body == b"bye", "a POST is safe on a new one"
        assert len(there.peers) == 2


async def test_an_answer_nobody_asked_for_is_never_the_answer_to_the_next_request() -> None:
    """It comes after the first answer, in a packet of its own, while the connection is idle."""

    async def script(peer: Peer) -> None:
        await peer.answer((await peer.head()).partition(b"\r\n")[0])
        if len(there.peers) == 1:
            await asyncio.sleep(0.02)
            await peer.answer(b"forged")
        await answers(peer)

    async with conversation(script) as (client, _, there):
        assert (await client.ask(request(there, "/1"))).body == b"GET /1 HTTP/1.1"
        await asyncio.sleep(0.1)
        assert (await client.ask(request(there, "/2"))).body == b"GET /2 HTTP/1.1"
        assert len(there.peers) == 2


LAST_ANSWERS = {
    "that says close": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("data", LAST_ANSWERS.values(), ids=LAST_ANSWERS)
async def test_a_connection_is_not_used_again_after_an_answer(data: bytes) -> None:
    async with conversation(saying(data, then="stay")) as (client, _, there):
        for _ in range(2):
            assert (await client.ask(request(there))).body == b"ok"
        assert len(there.peers) == 2


# --- WebSocket ---


def handshake(there: Origin, *fields: str) -> bytes:
    return request(
        there, "/chat", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13", *fields,
    )  # fmt: skip


def accepting(accept: str = ACCEPT, upgrade: str = "websocket", more: bytes = b"") -> Script:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            + more
        )
        while await peer.more():
            await peer.send(peer._take(len(peer.received)))

    return script


async def test_a_websocket_is_a_tunnel_on_the_connection_that_was_judged() -> None:
    async with conversation(accepting(more=b"hello")) as (client, server, there):
        reply = await client.ask(handshake(there) + b"first frame")
        assert reply.status == 101
        assert reply.values("upgrade") == ["websocket"]
        assert reply.values("sec-websocket-accept") == [ACCEPT]
        assert await client.until(b"first frame") == b"hellofirst frame"
        await client.send(b"second")
        assert await client.until(b"second") == b"second"
        client.half_close()
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.response_code, exchange.bytes_received, exchange.bytes_sent) == (101, 17, 22)
        assert exchange.failure is None


WRONG = {
    "a wrong accept": ("AAAALMBiTxaQ9kYGzzhZRbK+xOo=", "websocket"),
    "another protocol": (ACCEPT, "h2c"),
    "no accept": ("", "websocket"),
}


@pytest.mark.parametrize(("accept", "upgrade"), WRONG.values(), ids=WRONG)
async def test_a_101_that_does_not_fit_is_a_502_and_no_tunnel(accept: str, upgrade: str) -> None:
    async with conversation(accepting(accept, upgrade)) as (client, _, there):
        reply = await client.ask(handshake(there) + b"raw bytes")
        assert (reply.status, reply.reason) == (502, "upstream_malformed")
        assert await client.rest() == b""
        assert b"raw bytes" not in there.received


async def test_an_origin_that_does_not_want_a_websocket_answers_as_usual() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status="403 Forbidden")
        await answers(peer)

    async with conversation(script) as (client, _, there):
        reply = await client.ask(handshake(there))
        assert (reply.status, reply.body, reply.reason) == (403, b"no", "")
        assert (await client.ask(request(there, "/next"))).body == b"GET /next HTTP/1.1"


async def test_a_websocket_to_a_denied_host_is_refused() -> None:
    async with conversation(accepting()) as (client, _server, there):
        data = handshake(there).replace(b"a.example", b"evil.example")
        assert (await client.ask(data)).reason == "no_rule"
        assert await client.rest() == b"", "what follows could be frames"
    assert there.peers == []


async def test_an_idle_websocket_is_closed() -> None:
    async with conversation(accepting(), limits=Limits(idle_timeout=0.2)) as (client, server, there):
        assert (await client.ask(handshake(there))).status == 101
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert (await server.finished())[0].failure is Reason.UPSTREAM_TIMEOUT


# --- rules that change ---


async def test_a_change_of_rules_ends_what_they_no_longer_allow_and_leaves_the_rest() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        line = (await peer.head()).partition(b"\r\n")[0]
        await go_on.wait()
        await peer.answer(line)

    async with conversation(script) as (client, server, there), talk(server) as other:
        server.names.names["b.example"] = ["127.0.0.1"]
        both = [rule("a.example", (there.port, "http")), rule("b.example", (there.port, "http"))]
        server.gate.use(RuleSet.build(both))
        await client.send(request(there, "/a"))
        await other.send(request(there, "/b", host="b.example"))
        await until(lambda: there.received.count(b"\r\n\r\n") == 2, "both requests have arrived")
        assert server.gate.use(RuleSet.build(both[1:])) == 1
        reply = await client.reply()
        assert (reply.status, reply.reason) == (403, "no_rule")
        go_on.set()
        assert (await other.reply()).body == b"GET /b HTTP/1.1"
        assert len(server.gate.live) == 0


async def test_a_request_on_a_connection_used_again_is_not_sent_a_second_time_when_the_rules_end_it() -> None:
    """The end looks like a connection that closed just when it was used again, which is tried once more."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer()
        await peer.rest()

    async with conversation(script) as (client, server, there):
        assert (await client.ask(request(there, "/1"))).status == 200
        await client.send(request(there, "/2"))
        await until(lambda: b"GET /2 " in there.received, "the second request has arrived")
        assert server.gate.use(RuleSet.empty()) == 1
        reply = await client.reply()
        assert (reply.status, reply.reason) == (403, "no_rule")
        await asyncio.sleep(0.05)
        assert len(there.peers) == 1
        (_, second) = await server.finished(2)
        assert not second.verdict.allowed


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n", ""],
    ids=["length", "chunked", "until close"],
)
async def test_an_answer_that_the_rules_end_never_looks_like_a_whole_one(framing: str) -> None:
    data = f"HTTP/1.1 200 OK\r\n{framing}\r\n5\r\nhello\r\n".encode()
    async with conversation(saying(data, then="stay")) as (client, server, there):
        await client.send(request(there))
        await client.until(b"hello")
        server.gate.use(RuleSet.empty())
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_websocket_is_ended_at_once() -> None:
    async with conversation(accepting()) as (client, server, there):
        assert (await client.ask(handshake(there))).status == 101
        server.gate.use(RuleSet.empty())
        with pytest.raises(ConnectionResetError):
            await client.rest()
        (exchange,) = await server.finished()
        assert exchange.reason is Reason.NO_RULE


async def test_a_request_that_was_waiting_for_its_name_when_the_rules_changed_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with conversation(answers) as (client, server, there):
        resolve, goes_on = server.names.resolve, asyncio.Event()

        async def slowly(host: str) -> Answer:
            await goes_on.wait()
            return await resolve(host)

        monkeypatch.setattr(server.names, "resolve", slowly)
        await client.send(request(there, "/secret"))
        await asyncio.sleep(0.05)
        server.gate.use(RuleSet.empty())
        goes_on.set()
        assert (await client.reply()).reason == "no_rule"
    assert b"secret" not in there.received


async def test_closing_the_gateway_ends_exchanges_only_when_told_to() -> None:
    async with conversation(saying(b"", then="stay")) as (client, server, there):
        await client.send(request(there))
        await until(lambda: there.received, "the request has arrived")
        server.gate.close("shutting down")
        assert await client.silent()
        server.gate.end_all()
        assert (await client.reply()).reason == "not_ready"

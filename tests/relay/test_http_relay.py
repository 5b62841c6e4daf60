"""Requests of one client, each judged on its own: what is refused, what is kept open, and what goes where."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from egress_gateway.gate.settings import Limits
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.ruleset import RuleSet
from support.relay_server import Origin, Peer, answers, conversation, origin, relay_server, request, rule, talk
from support.waiting import until

pytestmark = pytest.mark.usefixtures("sent", "steady")

# --- allowed ---


async def test_a_request_reaches_the_origin_as_one_of_its_own() -> None:
    async with conversation(answers) as (client, server, there):
        reply = await client.ask(request(there, "/x?y", "Proxy-Connection: keep-alive", "X: 1"))
        assert (reply.status, reply.body, reply.reason) == (200, b"GET /x?y HTTP/1.1", "")
        assert there.received == (
            b"GET /x?y HTTP/1.1\r\nHost: a.example:%d\r\nX: 1\r\nVia: 1.1 egress-gateway\r\n\r\n" % there.port
        )
        (exchange,) = await server.finished()
    assert (exchange.reason, exchange.response_code, exchange.bytes_sent) == (Reason.ALLOWED, 200, 17)
    assert (exchange.method, exchange.path, exchange.protocol) == ("GET", "/x?y", "HTTP/1.1")
    assert exchange.upstream is not None
    assert server.names.asked == ["a.example"]


async def test_requests_of_one_connection_travel_on_one_connection() -> None:
    async with conversation(answers) as (client, server, there):
        for number in range(5):
            assert (await client.ask(request(there, f"/{number}"))).body == b"GET /%d HTTP/1.1" % number
        assert len(there.peers) == 1
        assert len(await server.finished(5)) == 5
    assert server.names.asked == ["a.example"], "resolved once, dialled once"
    assert [verdict.allowed for verdict in server.seen.decisions] == [True] * 5


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with conversation(answers) as (client, _, there):
        await client.send(b"".join(request(there, f"/{number}") for number in range(20)))
        for number in range(20):
            assert (await client.reply()).body == b"GET /%d HTTP/1.1" % number


async def test_a_request_that_arrives_one_byte_at_a_time() -> None:
    async with conversation(answers) as (client, _, there):
        await client.bytewise(request(there, "/slow"))
        assert (await client.reply()).body == b"GET /slow HTTP/1.1"


async def test_a_client_that_wants_to_close_is_told_so_and_closed() -> None:
    async with conversation(answers) as (client, _, there):
        reply = await client.ask(request(there, "/", "Connection: close"))
        assert reply.values("connection") == ["close"]
        assert await client.rest() == b""
        assert b"onnection" not in there.received, "what the client says about its hop is not the origin's business"


async def test_a_client_that_half_closes_gets_its_answer() -> None:
    async with conversation(answers) as (client, _, there):
        await client.send(request(there))
        client.half_close()
        assert (await client.reply()).status == 200
        assert await client.rest() == b""


async def test_an_http_1_0_client_is_answered_and_closed() -> None:
    async with conversation(answers) as (client, _, there):
        reply = await client.ask(request(there, "/", "Connection: keep-alive", version="1.0"))
        assert (reply.status, reply.framing) == (200, "length")
        assert await client.rest() == b""
        assert b"Via: 1.0 egress-gateway\r\n" in there.received


async def test_head_has_no_body_whatever_its_length_says() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        await answers(peer)

    async with conversation(script) as (client, _, there):
        reply = await client.ask(request(there, method="HEAD"), "HEAD")
        assert reply.values("content-length") == ["500"]
        assert (await client.ask(request(there, "/next"))).body == b"GET /next HTTP/1.1"
        assert len(there.peers) == 1


# --- each request on its own ---


async def two_hosts(there: Origin) -> dict[str, Any]:
    return {
        "rules": [rule("a.example", (there.port, "http")), rule("b.example", (there.port, "http"))],
        "names": {"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]},
    }


async def test_a_second_request_for_another_host_never_travels_on_the_first_ones_connection() -> None:
    async with origin(answers) as there, relay_server(**await two_hosts(there)) as server, talk(server) as client:
        for host in ("a.example", "b.example", "a.example"):
            assert (await client.ask(request(there, host=host))).status == 200
        assert len(there.peers) == 2
        first, second = (bytes(peer.received) for peer in there.peers)
        assert first.count(b"Host: a.example:") == 2
        assert second.count(b"Host: b.example:") == 1
        assert b"b.example" not in first
        assert server.names.asked == ["a.example", "b.example"]


async def test_after_an_allowed_request_a_denied_one_is_denied_and_the_next_allowed_again() -> None:
    async with conversation(answers) as (client, server, there):
        assert (await client.ask(request(there))).status == 200
        refused = await client.ask(request(there, host="evil.example"))
        assert (refused.status, refused.reason) == (403, "no_rule")
        assert (await client.ask(request(there))).status == 200
        assert len(there.peers) == 1
    assert server.names.asked == ["a.example"]
    assert b"evil" not in there.received


async def test_connections_kept_for_a_client_are_few() -> None:
    async with origin(answers) as there:
        hosts = [f"h{number}.example" for number in range(9)]
        rules = [rule(host, (there.port, "http")) for host in hosts]
        names = {host: ["127.0.0.1"] for host in hosts}
        async with relay_server(rules, names) as server, talk(server) as client:
            for host in hosts:
                assert (await client.ask(request(there, host=host))).status == 200
            assert len(there.peers) == 9
            await until(lambda: sum(peer.writer.is_closing() for peer in there.peers) == 5, "the oldest are closed")


async def test_two_clients_never_share_a_connection() -> None:
    async with conversation(answers) as (client, server, there), talk(server) as other:
        assert (await client.ask(request(there, "/1"))).status == 200
        assert (await other.ask(request(there, "/2"))).status == 200
        assert len(there.peers) == 2


# --- refused before anything leaves ---

OK = b"Host: a.example:%d\r\n"
SMUGGLED: dict[str, bytes] = {
    "a length and chunked": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "two equal lengths": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": OK + b"Content-Length: 4, 5\r\n\r\nabcde",
    "a signed length": OK + b"Content-Length: +4\r\n\r\nabcd",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": OK + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": OK + b"X: a\r\n b\r\n\r\n",
    "obs-fold in the framing": OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a line feed alone": OK + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a line feed alone at the end": OK + b"X: a\n\r\nGET / HTTP/1.1\r\n\r\n",
    "a carriage return alone": OK + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL": OK + b"X: a\0b\r\n\r\n",
    "no colon": OK + b"X\r\n\r\n",
    "two Hosts": OK + b"Host: evil.example\r\n\r\n",
    "no Host": b"X: y\r\n\r\n",
    "a Host with a comma": b"Host: a.example:%d, evil.example\r\n\r\n",
    "a Host with user information": b"Host: a.example:%d@evil.example\r\n\r\n",
    "a Host with a NUL": b"Host: a.example:%d\0.evil.example\r\n\r\n",
    "a folded Host": b"Host:\r\n a.example:%d\r\n\r\n",
    "a Host with another port": b"Host: a.example:1%d\r\n\r\n",
}


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_others_could_read_differently_is_refused_and_the_connection_closed(
    rest: bytes, method: str
) -> None:
    async with conversation(answers) as (client, server, there):
        data = b"%s http://a.example:%d/ HTTP/1.1\r\n" % (method.encode(), there.port) + rest.replace(
            b"%d", b"%d" % there.port
        )
        reply = await client.ask(data + request(there, "/smuggled"))
        assert reply.status == 400
        assert reply.reason in ("malformed_request", "malformed_host")
        assert reply.values("connection") == ["close"]
        assert await client.rest() == b"", "what follows is not read as a request"
        assert len(await server.finished()) == 1
    assert there.peers == []
    assert server.names.asked == []
    assert len(server.seen.decisions) == 1


BAD_BODIES = {
    "a chunk without a size": b"\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than said": b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk that ends with a line feed": b"3\r\nabc\n0\r\n\r\n",
    "a chunk with a negative size": b"-1\r\nabc\r\n0\r\n\r\n",
    "a chunk size that ends with a line feed": b"3\nabc\r\n0\r\n\r\n",
    "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_chunk_is_refused_and_the_origin_never_gets_a_whole_request(body: bytes) -> None:
    whole: list[bytes] = []

    async def script(peer: Peer) -> None:
        whole.append(await peer.until(b"0\r\n\r\n"))

    async with conversation(script) as (client, server, there):
        head = request(there, "/", "Transfer-Encoding: chunked", method="POST")
        reply = await client.ask(head + body + request(there, "/smuggled"))
        assert (reply.status, reply.reason) == (400, "malformed_request")
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert exchange.failure is Reason.MALFORMED_REQUEST
    assert whole == []
    assert b"smuggled" not in there.received
    assert server.seen.failures == [], "the client's fault is not counted as the destination's"


CLAIMS = {
    "a denied URI and an allowed Host": ("http://evil.example:{port}/", "a.example:{port}", 403, "no_rule"),
    "an allowed URI and a denied Host": ("http://a.example:{port}/", "evil.example:{port}", 421, "host_mismatch"),
    "an allowed URI and another allowed Host": ("http://a.example:{port}/", "b.example:{port}", 421, "host_mismatch"),
    "an allowed URI and an address as Host": ("http://a.example:{port}/", "127.0.0.1:{port}", 421, "host_mismatch"),
    "an allowed name and another port": ("http://a.example:1/", "a.example:1", 403, "port_not_allowed"),
    "the address of an allowed name": ("http://127.0.0.1:{port}/", "127.0.0.1:{port}", 403, "no_rule"),
    "https under an http rule": ("https://a.example:{port}/", "a.example:{port}", 403, "protocol_not_allowed"),
}


@pytest.mark.parametrize(("uri", "host", "status", "reason"), CLAIMS.values(), ids=CLAIMS)
async def test_claims_that_no_rule_allows_or_that_differ(uri: str, host: str, status: int, reason: str) -> None:
    async with origin(answers) as there, relay_server(**await two_hosts(there)) as server, talk(server) as client:
        text = f"GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n".format(port=there.port)
        reply = await client.ask(text.encode())
        assert (reply.status, reply.reason) == (status, reason)
        assert (await client.ask(request(there))).status == 200, "a refusal that was understood keeps the connection"
    assert len(there.peers) == 1
    assert server.names.asked == ["a.example"], "only for the request that was allowed"


async def test_a_refusal_to_head_has_no_body() -> None:
    async with conversation(answers) as (client, _, there):
        reply = await client.ask(request(there, method="HEAD", host="evil.example"), "HEAD")
        assert reply.status == 403
        assert (await client.ask(request(there))).status == 200


@pytest.mark.usefixtures("long_linger")
async def test_the_body_of_a_denied_request_is_not_kept() -> None:
    async with conversation(answers) as (client, server, there):
        head = request(there, "/", "Content-Length: 100000000", method="POST", host="evil.example")
        reply = await client.ask(head + b"x" * 100_000)
        assert (reply.status, reply.values("connection")) == (403, ["close"])
        client.close()
        (exchange,) = await server.finished()
        assert exchange.bytes_received == 0
    assert there.peers == []


UPGRADES = {
    "h2c": ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "TLS": ("Upgrade: TLS/1.0", "Connection: Upgrade"),
    "websocket or h2c": ("Upgrade: websocket, h2c", "Connection: Upgrade"),
    "websocket without Connection": ("Upgrade: websocket",),
    "websocket with a body": ("Upgrade: websocket", "Connection: Upgrade", "Content-Length: 5"),
    "nothing at all": ("Upgrade:", "Connection: Upgrade"),
}


@pytest.mark.parametrize("fields", UPGRADES.values(), ids=UPGRADES)
async def test_an_upgrade_to_anything_but_websocket_is_refused_and_the_connection_closed(
    fields: tuple[str, ...],
) -> None:
    async with conversation(answers) as (client, server, there):
        reply = await client.ask(request(there, "/", *fields) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (reply.status, reply.reason) == (403, "upgrade_not_allowed")
        assert await client.rest() == b""
    assert there.peers == []
    assert server.names.asked == []


# --- limits ---


async def test_a_header_that_is_too_large() -> None:
    async with conversation(answers, limits=Limits(header_bytes=2000)) as (client, _server, there):
        fits = 2000 - len(request(there, "/", "X: "))
        assert (await client.ask(request(there, "/", "X: " + "y" * fits))).status == 200
        reply = await client.ask(request(there, "/", "X: " + "y" * (fits + 1)))
        assert (reply.status, reply.reason) == (431, "headers_too_large")
        assert await client.rest() == b""
        assert len(there.peers) == 1


@pytest.mark.usefixtures("long_linger")
async def test_a_header_without_an_end_is_refused_in_bounded_memory() -> None:
    async with conversation(answers, limits=Limits(header_bytes=2000)) as (client, _, there):
        await client.send(request(there)[:-2] + b"X: y\r\n" * 100_000)
        assert (await client.reply()).status == 431
    assert there.peers == []


async def test_a_header_that_never_ends_in_time() -> None:
    async with conversation(answers, limits=Limits(header_timeout=0.2)) as (client, _server, there):
        await client.send(request(there)[:-2])
        for _ in range(3):
            await asyncio.sleep(0.05)
            await client.send(b"X: y\r\n")  # a byte now and then does not buy time
        reply = await client.reply()
        assert (reply.status, reply.reason) == (408, "client_timeout")
        assert await client.rest() == b""
    assert there.peers == []


async def test_a_client_that_says_nothing_is_closed_without_a_word() -> None:
    async with conversation(answers, limits=Limits(idle_timeout=0.1)) as (client, server, _):
        assert await client.rest() == b""
    assert server.seen.exchanges == []


async def test_a_connection_kept_open_is_closed_when_idle() -> None:
    async with conversation(answers, limits=Limits(idle_timeout=0.2)) as (client, server, there):
        assert (await client.ask(request(there))).status == 200
        assert await client.rest() == b""
        assert len(server.seen.exchanges) == 1
        await until(
            lambda: there.peers[0].reader.at_eof() or there.peers[0].writer.is_closing(), "the origin is closed"
        )


async def test_a_head_cut_short() -> None:
    async with conversation(answers) as (client, server, there):
        await client.send(request(there)[:-4])
        client.half_close()
        assert (await client.reply()).status == 400
        assert (await server.finished())[0].reason is Reason.MALFORMED_REQUEST


# --- the last hop ---


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("TRACE", 405)])
async def test_a_request_whose_hops_are_used_up_ends_here(method: str, status: int) -> None:
    async with conversation(answers) as (client, server, there):
        reply = await client.ask(request(there, "/", "Max-Forwards: 0", "Cookie: secret", method=method))
        assert reply.status == status
        assert b"secret" not in reply.head + reply.body
        refused = await client.ask(request(there, "/", "Max-Forwards: 0", method=method, host="evil.example"))
        assert refused.status == 403, "also the last hop answers only for what is allowed"
    assert there.peers == []
    assert server.names.asked == []


# --- destinations that cannot be reached ---


async def test_a_name_that_does_not_resolve() -> None:
    async with conversation(answers) as (client, server, there):
        server.names.names.clear()
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (502, "name_not_resolved")
        server.names.names["a.example"] = ["127.0.0.1"]
        assert (await client.ask(request(there))).status == 200, "the connection goes on"
        assert server.seen.failures == [Reason.NAME_NOT_RESOLVED]


async def test_a_destination_where_nobody_listens() -> None:
    async with conversation(answers) as (client, server, there):
        server.names.names["a.example"] = ["127.0.0.9"]
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (502, "connect_failed")
        assert server.seen.failures == [Reason.CONNECT_FAILED]


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
async def test_a_name_whose_address_may_not_be_reached(address: str) -> None:
    async with conversation(answers) as (client, server, there):
        server.names.names["a.example"] = [address]
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (403, "address_not_allowed")
    assert there.peers == []


async def test_the_gateway_itself_is_not_a_destination() -> None:
    """By its address, by a name, with and without a path that would go round and round."""
    async with relay_server(
        [rule("a.example", (1, "http")), rule("127.0.0.1", (1, "http"))],
        {"a.example": ["127.0.0.1"], "b.example": ["127.0.0.2", "::1"]},
        public_ranges=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
    ) as server:
        names = ("a.example", "b.example", "127.0.0.1", "127.1")
        server.gate.use(RuleSet.build([rule(name, (server.port, "http"), name=name) for name in names]))
        here = Origin(server.port)
        for host in names:
            async with talk(server) as client:
                reply = await client.ask(request(here, host=host))
                assert (reply.status, reply.reason) == (403, "own_address"), host
        assert len(server.seen.exchanges) == len(names), "no connection came back to us"
        assert server.seen.errors == []

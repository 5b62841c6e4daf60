"""Bytes both ways: each direction ends on its own, waits for the slower side, and nothing lives for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc

import pytest

from egress_gateway.dns.answer import Answer
from egress_gateway.gate.settings import Limits
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.relay import tunnel as tunnel_module
from egress_gateway.relay.client import Client
from egress_gateway.relay.deadline import Deadline
from egress_gateway.relay.http1 import LastHead, RequestHead
from egress_gateway.relay.poller import poller
from egress_gateway.relay.serve import serve
from egress_gateway.relay.stream import Input
from egress_gateway.relay.tunnel import Tunnel
from egress_gateway.relay.upstream import Upstream
from egress_gateway.relay.upstream_tls import TlsContexts
from egress_gateway.relay.waiting import Waiting
from egress_gateway.relay.way import Way
from support.relay_server import Origin, Peer, Talk, conversation, echo, origin, relay_server, rule, talk
from support.waiting import until


def authority(there: Origin) -> str:
    return f"a.example:{there.port}"


async def test_bytes_go_both_ways_as_they_are() -> None:
    async with conversation(echo, "tcp") as (client, server, there):
        await client.tunnel(authority(there))
        data = bytes(range(256)) * 4096
        sending = asyncio.create_task(client.send(data))
        assert await client.exactly(len(data)) == data
        await sending
        client.half_close()
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.bytes_received, exchange.bytes_sent) == (len(data), len(data))
        assert (exchange.protocol, exchange.failure, exchange.response_code) == ("TCP", None, 200)
        assert len(server.gate.live) == 0


async def test_a_server_that_speaks_first() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"220 mail.example\r\n")
        assert await peer.until(b"\r\n") == b"QUIT\r\n"

    async with conversation(script, "tcp") as (client, _, there):
        await client.tunnel(authority(there))
        assert await client.until(b"\r\n") == b"220 mail.example\r\n"
        await client.send(b"QUIT\r\n")
        assert await client.rest() == b""


async def test_bytes_sent_together_with_connect_are_not_lost() -> None:
    async with conversation(echo, "tcp") as (client, _, there):
        await client.send(b"CONNECT %s HTTP/1.0\r\n\r\nearly" % authority(there).encode())
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await client.until(b"early") == b"early"


async def test_the_client_ends_its_direction_and_still_hears_the_other() -> None:
    async def script(peer: Peer) -> None:
        question = await peer.rest()
        await asyncio.sleep(0.05)
        await peer.send(b"answer to " + question)

    async with conversation(script, "tcp") as (client, _, there):
        await client.tunnel(authority(there))
        await client.send(b"question")
        client.half_close()
        assert await client.rest() == b"answer to question"


async def test_the_destination_ends_its_direction_and_still_hears_the_other() -> None:
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.send(b"greeting")
        peer.half_close()
        heard.append(await peer.rest())

    async with conversation(script, "tcp") as (client, _, there):
        await client.tunnel(authority(there))
        assert await client.rest() == b"greeting"
        await client.send(b"farewell")
        client.half_close()
        await until(lambda: heard == [b"farewell"], "the rest has arrived")


async def test_a_reset_of_the_client_is_a_reset_for_the_destination() -> None:
    ends: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.until(b"half a mes")
        try:
            await peer.rest()
            ends.append("in peace")
        except ConnectionResetError:
            ends.append("reset")

    async with conversation(script, "tcp") as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(b"half a mes")
        await until(lambda: there.received, "the half has arrived")
        client.reset()
        await until(lambda: ends, "the end has arrived")
        assert ends == ["reset"]
        assert "connection lost" in (await server.finished())[0].detail


async def test_a_reset_of_the_destination_is_a_reset_for_the_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"half a mes")
        await peer.until(b"x")
        peer.reset()

    async with conversation(script, "tcp") as (client, server, there):
        await client.tunnel(authority(there))
        await client.until(b"half a mes")
        await client.send(b"x")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await server.finished()


@pytest.mark.parametrize("broken", [(Way, "move"), (Tunnel, "_begin")], ids=["while it runs", "as it begins"])
async def test_a_fault_of_our_own_resets_both_sides_and_is_counted(
    broken: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then what was moved and what was not."""

    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    ends: list[type[BaseException] | None] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.rest()
            ends.append(None)
        except OSError as error:
            ends.append(type(error))

    async with (
        origin(script) as there,
        relay_server([rule("a.example", (there.port, "tcp"))], {"a.example": ["127.0.0.1"]}) as server,
        talk(server) as client,
    ):
        monkeypatch.setattr(*broken, fail)
        await client.tunnel(authority(there))
        client.writer.write(b"something")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await until(lambda: ends, "the end of the destination's side")
        assert ends == [ConnectionResetError]
        await until(lambda: server.seen.errors, "the fault is counted")
        assert server.seen.errors == ["relay"]
        assert len(server.gate.live) == 0


async def test_what_a_slow_client_does_not_read_stays_outside() -> None:
    sent: list[int] = []

    async def script(peer: Peer) -> None:
        for _ in range(1024):
            await peer.send(bytes(1 << 16))
            sent.append(1 << 16)

    async with conversation(script, "tcp") as (client, _, there):
        await client.tunnel(authority(there))
        client.pause()
        tracemalloc.start()
        await asyncio.sleep(0.3)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(sent) < 32 << 20
        assert used < 4 << 20
        client.resume()
        assert len(await client.rest()) == 64 << 20


async def test_a_slow_direction_does_not_stop_the_other() -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.pause()
        for _ in range(20):
            await peer.send(b"tick\n")
            await asyncio.sleep(0.005)
        await heard.wait()

    async with conversation(script, "tcp") as (client, _, there):
        await client.tunnel(authority(there))
        sending = asyncio.create_task(client.send(bytes(32 << 20)))
        for _ in range(20):
            assert await client.until(b"\n") == b"tick\n"
        heard.set()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.usefixtures("steady")
async def test_a_tunnel_where_nothing_moves_is_ended_on_both_sides() -> None:
    async with conversation(echo, "tcp", limits=Limits(idle_timeout=0.2)) as (client, server, there):
        await client.tunnel(authority(there))
        for _ in range(3):
            await asyncio.sleep(0.1)
            await client.send(b"x")
            assert await client.exactly(1) == b"x", "as long as something moves it lives"
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await until(lambda: there.peers[0].writer.is_closing(), "the destination is let go")
        (exchange,) = await server.finished()
        assert (exchange.failure, exchange.detail) == (Reason.UPSTREAM_TIMEOUT, "nothing moved for 0.2 s")


async def test_a_tunnel_that_is_stuck_because_nobody_reads_is_ended_too() -> None:
    async def script(peer: Peer) -> None:
        peer.pause()
        await asyncio.sleep(60)

    async with conversation(script, "tcp", limits=Limits(idle_timeout=0.2)) as (client, server, there):
        await client.tunnel(authority(there))
        sending = asyncio.create_task(client.send(bytes(64 << 20)))
        (exchange,) = await server.finished()
        assert exchange.failure is Reason.UPSTREAM_TIMEOUT
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_rules_that_change_in_the_moment_in_which_it_begins_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with conversation(echo, "tcp") as (client, server, there):
        monkeypatch.setattr(server.seen, "tunnel_opened", lambda _: server.gate.use(RuleSet.empty()))
        await client.send(b"CONNECT %s HTTP/1.0\r\n\r\nsecret" % authority(there).encode())
        with pytest.raises(ConnectionResetError):
            await client.rest()
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.detail) == (Reason.NO_RULE, "the rules changed")
        assert len(server.gate.live) == 0
    assert there.received == b""


async def test_a_gateway_that_ends_lets_go_of_its_tunnels() -> None:
    async with conversation(echo, "tcp") as (client, _, there):
        await client.tunnel(authority(there))
        await client.send(b"hello")
        assert await client.exactly(5) == b"hello"
        assert len(poller()) == 2
        before = len(os.listdir("/proc/self/fd"))
    assert len(poller()) == len(poller().clock) == 0
    assert len(os.listdir("/proc/self/fd")) < before
    assert await client.rest() == b"", "and the client is told"


async def test_a_client_that_is_no_bare_socket_has_a_tunnel_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the modes of mitmproxy_rs, whose streams just read and write."""
    monkeypatch.setattr(tunnel_module, "Splice", None)
    async with conversation(echo, "tcp") as (_, server, there):

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            client = Client(server.gate, Input(reader), writer, writer.get_extra_info("peername"))
            await serve(client, "regular", TlsContexts(server.gate.settings.tls))

        listener = await asyncio.start_server(accept, "127.0.0.1", 0)
        client = Talk(*await asyncio.open_connection("127.0.0.1", listener.sockets[0].getsockname()[1]))
        await client.tunnel(authority(there))
        await client.send(b"hello")
        assert await client.exactly(5) == b"hello"
        client.half_close()
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.bytes_received, exchange.bytes_sent, exchange.failure) == (5, 5, None)
        client.close()
        listener.close()


async def test_what_led_to_a_tunnel_is_forgotten() -> None:
    """It may be idle for hours, and there may be thousands."""
    gc.collect()
    led_there = (Upstream, Deadline, LastHead, RequestHead)
    before = {id(found) for found in gc.get_objects() if isinstance(found, led_there)}
    async with conversation(echo, "tcp") as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(b"hello")
        assert await client.exactly(5) == b"hello"
        assert len(server.gate.live) == 1
        gc.collect()
        assert not [found for found in gc.get_objects() if isinstance(found, led_there) and id(found) not in before]
        loop = asyncio.get_running_loop()
        waiting = [found for found in gc.get_objects() if isinstance(found, Waiting) and found.get_loop() is loop]
        waiting = [found for found in waiting if found.is_awaited]
        assert len(waiting) == 1, "for the end, and for neither side"


async def test_new_rules_end_a_tunnel_they_no_longer_allow_and_leave_the_others() -> None:
    async with conversation(echo, "tcp") as (client, server, there), talk(server) as other:
        server.names.names["b.example"] = ["127.0.0.1"]
        both = [rule("a.example", (there.port, "tcp")), rule("b.example", (there.port, "tcp"))]
        server.gate.use(RuleSet.build(both))
        await client.tunnel(authority(there))
        await other.tunnel(f"b.example:{there.port}")
        await until(lambda: len(server.gate.live) == 2, "both tunnels are open")
        assert server.gate.use(RuleSet.build(both[1:])) == 1
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await other.send(b"still here")
        assert await other.until(b"here") == b"still here"
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.detail) == (Reason.NO_RULE, "the rules changed")


async def test_a_tunnel_that_was_waiting_for_its_name_when_the_rules_changed_carries_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with conversation(echo, "tcp") as (client, server, there):
        resolve, waits, goes_on = server.names.resolve, asyncio.Event(), asyncio.Event()

        async def slowly(host: str) -> Answer:
            waits.set()
            await goes_on.wait()
            return await resolve(host)

        monkeypatch.setattr(server.names, "resolve", slowly)
        await client.send(b"CONNECT %s HTTP/1.0\r\n\r\nsecret" % authority(there).encode())
        await waits.wait()
        server.gate.use(RuleSet.empty())
        goes_on.set()
        assert b" 403 no_rule" in await client.rest()
    assert there.received == b""

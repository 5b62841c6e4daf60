"""The questions of one TCP connection, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import pytest_asyncio

from dns import message, rcode
from egress_gateway.gate.settings import Limits
from egress_gateway.nameserver.serve import serve
from egress_gateway.relay.stream import Input
from support.dns_server import DnsServer
from support.relay_server import Talk, rule
from support.steady_time import steady_time
from support.waiting import until

from .conftest import Ask, Asking, said, shown

FOUR = "203.0.113.10"
RULES = [rule("a.example", (443, "https")), rule("*.wild.example", (80, "http"))]


@asynccontextmanager
async def conversation(asking: Asking, *, buffers: int = 0) -> AsyncIterator[Talk]:
    """A connection to the name server; what it leaves behind fails the test. `buffers`: bytes, of the system."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        if buffers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        await serve(asking.server, Input(reader), writer, ("127.0.0.1", 1))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    sock = socket.socket()
    if buffers:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.sockets[0].getsockname())
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
        server.close()
        await asyncio.wait(tasks, timeout=15)
        assert all(task.done() and task.exception() is None for task in tasks)


type Connect = Callable[..., AbstractAsyncContextManager[Talk]]


@pytest.fixture
def asking(ask: Ask, dns: DnsServer) -> Asking:
    dns.set("a.example", [FOUR])
    return ask(*RULES)


@pytest_asyncio.fixture
async def impatient(ask: Ask, dns: DnsServer) -> AsyncIterator[Asking]:
    """One that waits 0.2 s of the loop's own time, in which it has really waited."""
    dns.set("a.example", [FOUR])
    with steady_time(asyncio.get_running_loop()):
        yield ask(*RULES, idle_timeout=0.2, queries_per_second=1_000_000)


def framed(query: message.Message | bytes) -> bytes:
    data = query if isinstance(query, bytes) else query.to_wire()
    return len(data).to_bytes(2) + data


async def read_reply(client: Talk) -> message.Message:
    return message.from_wire(await client.exactly(int.from_bytes(await client.exactly(2))))


def query(name: str, number: int = 0) -> message.Message:
    return message.make_query(name, "A", id=number, use_edns=0)


async def test_a_question_and_its_answer_and_another(asking: Asking) -> None:
    async with conversation(asking) as client:
        await client.send(framed(query("a.example")))
        assert shown(await read_reply(client)) == [f"a.example. 60 IN A {FOUR}"]
        await client.send(framed(query("denied.example")))
        assert said(await read_reply(client)) == "REFUSED BLOCKED no_rule"


async def test_a_question_byte_by_byte(asking: Asking) -> None:
    async with conversation(asking) as client:
        await client.bytewise(framed(query("a.example")))
        assert shown(await read_reply(client))


async def test_questions_at_once_are_answered_as_their_answers_come(asking: Asking, dns: DnsServer) -> None:
    dns.set("slow.wild.example", [FOUR])
    async with conversation(asking) as client:
        with dns.held("slow.wild.example"):
            await client.send(framed(query("slow.wild.example", 1)) + framed(query("a.example", 2)))
            assert (await read_reply(client)).id == 2
        assert (await read_reply(client)).id == 1


async def test_an_answer_larger_than_a_datagram(asking: Asking, dns: DnsServer) -> None:
    dns.set("many.wild.example", [f"203.0.113.{number}" for number in range(1, 65)])
    async with conversation(asking) as client:
        await client.send(framed(message.make_query("many.wild.example", "A", use_edns=False)))
        assert len(shown(await read_reply(client))) == 64


async def test_who_has_half_closed_still_gets_the_answers(asking: Asking, dns: DnsServer) -> None:
    dns.set("slow.wild.example", [FOUR])
    async with conversation(asking) as client:
        with dns.held("slow.wild.example"):
            await client.send(framed(query("slow.wild.example")))
            client.half_close()
            await asyncio.sleep(0.05)
        assert shown(await read_reply(client))
        assert await client.rest() == b""


@pytest.mark.parametrize("started", [b"", b"\0", framed(query("a.example"))[:20]], ids=["nothing", "a byte", "half"])
async def test_who_sends_no_whole_question_is_closed(impatient: Asking, started: bytes) -> None:
    async with conversation(impatient) as client:
        await client.send(started)
        began = asyncio.get_running_loop().time()
        assert await client.rest() == b""
        assert 0.15 < asyncio.get_running_loop().time() - began < 1.5


async def test_one_byte_now_and_then_does_not_keep_it_open(impatient: Asking) -> None:
    async with conversation(impatient) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for byte in framed(query("a.example")):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
            if client.reader.at_eof() or client.writer.is_closing():
                break
        assert await client.rest_or_reset() == b""
        assert loop.time() - began < 3.0


async def wait_for_an_answer(client: Talk, dns: DnsServer, seconds: float) -> None:
    dns.set("slow.wild.example", [FOUR])
    with dns.held("slow.wild.example"):
        await client.send(framed(query("slow.wild.example")))
        await until(lambda: dns.count("slow.wild.example") == 2, "the question for either family")
        await asyncio.sleep(seconds)
    assert shown(await read_reply(client))


async def test_who_waits_for_an_answer_is_not_idle(impatient: Asking, dns: DnsServer) -> None:
    async with conversation(impatient) as client:
        await wait_for_an_answer(client, dns, 0.5)
        await client.send(framed(query("a.example")))
        assert shown(await read_reply(client)), "and may go on afterwards"


async def test_the_idle_time_begins_with_the_answer(impatient: Asking, dns: DnsServer) -> None:
    async with conversation(impatient) as client:
        await wait_for_an_answer(client, dns, 0.15)
        await asyncio.sleep(0.15)
        await client.send(framed(query("a.example")))
        assert shown(await read_reply(client)), "which came 0.3 s after the first question"


@pytest.mark.parametrize("length", [0, 1, 11, 4097, 65535])
async def test_what_can_be_no_question_by_its_length_ends_the_connection(
    asking: Asking, length: int, dns: DnsServer
) -> None:
    async with conversation(asking) as client:
        await client.send(length.to_bytes(2) + bytes(min(length, 100)) + framed(query("a.example")))
        assert await client.rest_or_reset() == b""
    assert dns.queries == []


async def test_a_response_is_not_answered_and_what_cannot_be_read_is(asking: Asking) -> None:
    async with conversation(asking) as client:
        await client.send(framed(b"\0\1\x80" + bytes(9)) + framed(b"\0\2\1" + bytes(9)) + framed(query("a.example", 3)))
        first, second = await read_reply(client), await read_reply(client)
        assert (first.id, first.rcode()) == (2, rcode.FORMERR)
        assert second.id == 3


async def test_so_many_questions_are_under_way_and_the_others_wait(ask: Ask, dns: DnsServer) -> None:
    asking = ask(*RULES, limits=Limits(lookups_per_client=3))
    names = [f"n{number}.wild.example" for number in range(9)]
    for name in names:
        dns.set(name, [FOUR])
    async with conversation(asking) as client:
        with dns.held(*names):
            await client.send(b"".join(framed(query(name, number)) for number, name in enumerate(names)))
            await until(lambda: len({asked.name for asked in dns.queries}) >= 3, "the first ones")
            await asyncio.sleep(0.05)
            assert len({asked.name for asked in dns.queries}) == 3
        replies = [await read_reply(client) for _ in range(9)]
    assert sorted(reply.id for reply in replies) == list(range(9))
    assert all(shown(reply) for reply in replies), "none of them was one too many"


async def test_who_takes_no_answers_is_not_read_from_and_is_ended(
    impatient: Asking, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(impatient.seen, "connection_closed", ended.append)
    dns.set("many.wild.example", [f"203.0.113.{number}" for number in range(1, 65)])
    async with conversation(impatient, buffers=8192) as client:
        client.pause()
        client.writer.write(framed(query("many.wild.example")) * 2_000)
        await until(lambda: ended, "the end")
        client.resume()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert impatient.reasons
        assert len(impatient.reasons) < 1_000, "far from all were answered"


async def test_many_questions_at_once_do_not_hold_up_everybody_else(ask: Ask) -> None:
    asking = ask(*RULES, queries_per_second=100_000)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            before = len(asking.seen.decisions)
            await asyncio.sleep(0)
            most = max(most, len(asking.seen.decisions) - before)

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    watching = asyncio.create_task(watch())
    try:
        async with conversation(asking) as client:
            await client.send(framed(query("denied.example")) * 1000)
            for _ in range(1000):
                await read_reply(client)
    finally:
        watching.cancel()
        asyncio.get_running_loop().set_task_factory(None)
    assert 1 <= most <= 5, "answers in one turn of the loop"


async def test_a_client_that_goes_away_leaves_nothing_behind(asking: Asking, dns: DnsServer) -> None:
    dns.set("slow.wild.example", [FOUR])
    before = asyncio.all_tasks()
    with dns.held("slow.wild.example"):
        async with conversation(asking) as client:
            await client.send(framed(query("slow.wild.example")))
            await until(lambda: dns.queries, "the question upstream")
            client.reset()
    # The lookup itself belongs to nobody, and goes on.
    await until(lambda: asyncio.all_tasks() == before, "the end of all tasks")


async def test_our_own_code_that_fails_ends_the_connection_and_is_said(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("egress_gateway.nameserver.serve._Conversation._next", fail)
    async with conversation(asking) as client:
        with pytest.raises(ConnectionResetError):
            await client.rest()
    assert asking.seen.errors == ["dns"]


async def test_connections_are_told_when_they_open_and_when_they_close(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(asking.seen, "connection_opened", lambda mode: told.append(f"+{mode}"))
    monkeypatch.setattr(asking.seen, "connection_closed", lambda mode: told.append(f"-{mode}"))
    async with conversation(asking) as client:
        await client.send(framed(query("a.example")))
        await read_reply(client)
    assert told == ["+dns", "-dns"]

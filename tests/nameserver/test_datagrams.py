"""A UDP socket on which questions come: real datagrams on loopback, and what a flood of them costs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from dns import message
from egress_gateway.nameserver.datagrams import DatagramServer
from support.dns_server import DnsServer
from support.relay_server import rule
from support.waiting import until

from .conftest import Ask, Asking, said, shown

FOUR = "203.0.113.10"
QUERY = message.make_query("a.example", "A")


@pytest.fixture
def asking(ask: Ask, dns: DnsServer) -> Asking:
    dns.set("a.example", [FOUR])
    return ask(rule("a.example", (443, "https")), rule("*.wild.example", (80, "http")), queries_per_second=100_000)


type Listen = Callable[..., Awaitable[DatagramServer]]


@pytest_asyncio.fixture
async def listen(asking: Asking) -> AsyncIterator[Listen]:
    with contextlib.ExitStack() as stack:

        async def start(host: str = "127.0.0.1", **more: Any) -> DatagramServer:
            server = await DatagramServer.listen(asking.server, host, 0, **more)
            stack.callback(server.close)
            return server

        yield start


@contextlib.contextmanager
def client_at(server: DatagramServer, host: str = "") -> Iterator[socket.socket]:
    """A socket that believes nobody but the server, at `host` or where it listens."""
    there = server.getsockname()
    family = socket.AF_INET6 if ":" in (host or there[0]) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((host or there[0], there[1]))
        yield sock


async def receive(sock: socket.socket, seconds: float = 15.0) -> bytes:
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().sock_recv(sock, 65535)


async def ask_it(sock: socket.socket, query: message.Message = QUERY) -> message.Message:
    sock.send(query.to_wire())
    reply = message.from_wire(await receive(sock))
    assert query.is_response(reply)
    return reply


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_question_is_a_datagram_and_so_is_its_answer(listen: Listen, host: str) -> None:
    server = await listen(host)
    with client_at(server) as sock:
        assert shown(await ask_it(sock)) == [f"a.example. 60 IN A {FOUR}"]
        assert said(await ask_it(sock, message.make_query("denied.example", "A", use_edns=0))) == (
            "REFUSED BLOCKED no_rule"
        )
    assert [one.family for one in server.sockets] == [socket.AF_INET6 if ":" in host else socket.AF_INET]


async def test_the_client_is_who_the_socket_says(listen: Listen, asking: Asking) -> None:
    with client_at(await listen("::1")) as sock:
        await ask_it(sock)
    assert asking.learned.told[0][3] == "::1"


async def test_datagrams_of_one_client_are_told_apart_and_a_slow_answer_holds_up_none(
    listen: Listen, dns: DnsServer
) -> None:
    dns.set("slow.wild.example", [FOUR])
    slow = message.make_query("slow.wild.example", "A")
    with client_at(await listen()) as sock:
        await ask_it(sock)
        with dns.held("slow.wild.example"):
            for data in (slow.to_wire(), b"", b"x", QUERY.to_wire(), bytes(70), QUERY.to_wire() + bytes(9000)):
                sock.send(data)
            replies = [await receive(sock) for _ in range(3)]
        replies.append(await receive(sock))
        assert [message.from_wire(replies[0]).rcode(), message.from_wire(replies[0]).id] == [0, QUERY.id]
        assert [len(reply) for reply in replies[1:3]] == [12, 12], "what cannot be read is answered by a header"
        assert slow.is_response(message.from_wire(replies[3]))


async def test_a_socket_that_was_answered_is_answered_again_at_any_time(listen: Listen) -> None:
    """A resolver that always asks from one port: nothing is kept of it, so nothing can be over."""
    with client_at(await listen()) as sock:
        for _ in range(3):
            await ask_it(sock)
            await asyncio.sleep(0.02)


@pytest.mark.private_network
@pytest.mark.parametrize(("host", "at"), [("0.0.0.0", "203.0.113.53"), ("::", "2001:db8::53")], ids=["IPv4", "IPv6"])
async def test_the_answer_comes_from_the_address_that_was_asked(listen: Listen, host: str, at: str) -> None:
    with client_at(await listen(host), at) as sock:
        assert shown(await ask_it(sock))


async def test_one_socket_is_for_one_family(listen: Listen) -> None:
    server = await listen("::")
    with client_at(server, "127.0.0.1") as sock:
        sock.send(QUERY.to_wire())
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            await receive(sock, 0.2)


async def test_who_is_not_admitted_is_not_heard(listen: Listen, asking: Asking, dns: DnsServer) -> None:
    heard: list[str] = []

    def admits(client: str) -> bool:
        heard.append(client)
        return False

    with client_at(await listen(admits=admits)) as sock:
        sock.send(QUERY.to_wire())
        await until(lambda: heard, "the question")
        with pytest.raises(TimeoutError):
            await receive(sock, 0.15)
    assert heard == ["127.0.0.1"]
    assert (asking.reasons, dns.queries) == ([], [])


async def test_where_admitting_fails_nobody_is_heard_and_it_is_said(listen: Listen, asking: Asking) -> None:
    def admits(_: str) -> bool:
        raise ZeroDivisionError

    with client_at(await listen(admits=admits)) as sock:
        sock.send(QUERY.to_wire())
        await until(lambda: asking.seen.errors, "the question")
        with pytest.raises(TimeoutError):
            await receive(sock, 0.15)
    assert asking.seen.errors == ["dns"]


async def test_senders_that_do_not_exist_leave_nothing_behind(listen: Listen, asking: Asking) -> None:
    server = await listen()
    for _ in range(2000):
        with client_at(server) as sock:
            sock.send(QUERY.to_wire())
        await asyncio.sleep(0)
    await until(lambda: not server._tasks, "the end of all that was begun")
    with client_at(server) as sock:
        assert shown(await ask_it(sock)), "and it still answers"


async def test_closing_ends_what_waits_and_frees_the_port(listen: Listen, dns: DnsServer) -> None:
    dns.set("slow.wild.example", [FOUR])
    server = await listen()
    port = server.getsockname()[1]
    with client_at(server) as sock, dns.held("slow.wild.example"):
        sock.send(message.make_query("slow.wild.example", "A").to_wire())
        await until(lambda: dns.queries, "the question upstream")
        assert len(server._tasks) == 1
        server.close()
        server.close()
        assert server.sockets == ()
        await until(lambda: not server._tasks, "the end of what waited")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


async def test_a_port_in_use_is_an_error_and_leaves_no_socket(listen: Listen, asking: Asking) -> None:
    server = await listen()
    with pytest.raises(OSError, match="in use"):
        await DatagramServer.listen(asking.server, "127.0.0.1", server.getsockname()[1])


async def test_with_tasks_that_start_eagerly_nothing_changes(listen: Listen) -> None:
    """mitmproxy runs with asyncio's eager task factory."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        with client_at(await listen()) as sock:
            for _ in range(3):
                assert shown(await ask_it(sock))
    finally:
        loop.set_task_factory(None)

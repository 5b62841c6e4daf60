"""Clients are accepted while there is room for them; without descriptors nobody spins or crashes. On both loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from egress_gateway.runner.accepting import Acceptor, Room
from egress_gateway.runner.loops import choose


class Host:
    """Greets who is let in, and keeps them."""

    def __init__(self) -> None:
        self.guests: list[socket.socket] = []
        self.turned_away = 0

    async def serve(self, sock: socket.socket, peer: tuple[str, int], mode: str) -> None:
        assert mode == "regular"
        assert peer == sock.getpeername()
        self.guests.append(sock)
        sock.send(b"welcome")

    def refuse(self, sock: socket.socket, _: tuple[str, int], __: str) -> None:
        self.turned_away += 1
        sock.close()


@contextlib.contextmanager
def accepting(host: Host, room: Room | None = None) -> Iterator[tuple[Acceptor, tuple[str, int]]]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    listening.setblocking(False)
    address = listening.getsockname()
    acceptor = Acceptor(listening, "regular", room or Room(lambda: len(host.guests)), host.serve, host.refuse)
    try:
        yield acceptor, address
    finally:
        acceptor.close()
        for guest in host.guests:
            guest.close()


async def said_to(client: socket.socket) -> bytes:
    client.setblocking(False)
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 15)
    return b""


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address)


async def least_cpu(seconds: float, tries: int) -> float:
    """Of processor time, in so many seconds. Other things may need some now and then; who spins always does."""
    used = []
    for _ in range(tries):
        before = time.process_time()
        await asyncio.sleep(seconds)
        used.append(time.process_time() - before)
    return min(used)


type Conversation = Callable[[], object]


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], object]], None]]:
    loop = choose(relays=request.param)
    assert loop.name == ("uvloop" if request.param else "asyncio")
    with asyncio.Runner(loop_factory=loop.make) as runner:
        runner.get_loop().set_task_factory(asyncio.eager_task_factory)  # as the worker does
        yield lambda conversation: runner.run(conversation())  # type: ignore[arg-type]


def test_many_at_once(run: Callable[[Conversation], None]) -> None:
    async def conversation() -> None:
        host = Host()
        with accepting(host) as (_, address), contextlib.ExitStack() as stack:
            clients = [stack.enter_context(closing(connect(address))) for _ in range(90)]
            assert [await said_to(client) for client in clients] == [b"welcome"] * 90

    run(conversation)


def test_no_more_than_there_is_room_for(run: Callable[[Conversation], None]) -> None:
    async def conversation() -> None:
        host = Host()
        room = Room(lambda: len(host.guests), lambda: 3, most=5)
        with accepting(host, room) as (_, address), contextlib.ExitStack() as stack:
            clients = [stack.enter_context(closing(connect(address))) for _ in range(4)]
            assert [await said_to(client) for client in clients] == [b"welcome", b"welcome", b"", b""]
            assert host.turned_away == 2

    run(conversation)


def test_who_was_let_in_by_the_system_is_served_when_listening_ends(run: Callable[[Conversation], None]) -> None:
    async def conversation() -> None:
        host = Host()
        with accepting(host) as (acceptor, address), closing(connect(address)) as client:
            assert select.select([acceptor._listening], [], [], 15)[0]
            acceptor.close()
            assert await said_to(client) == b"welcome"
            with pytest.raises(ConnectionRefusedError):
                connect(address)
            acceptor.close()

    run(conversation)


def test_without_a_descriptor_one_is_turned_away_and_the_rest_waits(
    run: Callable[[Conversation], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def conversation() -> None:
        host = Host()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with accepting(host, Room(lambda: 0, limit=100_000)) as (_, address), contextlib.ExitStack() as stack:
            # More than are turned away meanwhile, one each time.
            clients = [stack.enter_context(closing(connect(address))) for _ in range(90)]
            gc.disable()  # nor are descriptors closed that nobody thinks of
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), hard))
            try:
                assert await least_cpu(0.12, tries=3) < 0.02
                assert host.guests == []
                assert await said_to(clients[0]) == b""
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                gc.enable()
            assert [await said_to(client) for client in clients].count(b"welcome") >= 1
            with closing(connect(address)) as late:
                assert await said_to(late) == b"welcome"

    run(conversation)
    assert len([line for line in caplog.messages if "no room for more clients" in line]) == 1


def lowest_free() -> int:
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    return probe

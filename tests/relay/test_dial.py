"""Dialling several addresses: who wins, what is said when nobody does, and that no socket stays open.

A black hole is a socket that listens with a full queue: Linux then drops the SYN, as a firewall does.
"""

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import FrozenInstanceError
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
import pytest_asyncio

from egress_gateway.relay import dial as module
from egress_gateway.relay.connection import Connection
from egress_gateway.relay.dial import DialError, Dialled, dial
from egress_gateway.relay.poller import poller
from support.waiting import until

pytestmark = pytest.mark.usefixtures("steady")

type Address = IPv4Address | IPv6Address


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


@pytest.fixture(autouse=True)
def no_resolving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in this file may look anything up, not even a literal address."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("getaddrinfo was called")

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", forbidden)


@pytest.fixture
def port() -> int:
    """One port number that is free on all loopback addresses, below the range of outgoing connections."""
    for number in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as four, socket.socket(socket.AF_INET6) as six:
            four.bind(("0.0.0.0", number))
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", number))
            return number
    raise OSError("no free port")


_PORTS = itertools.cycle(range(10_000 + os.getpid() % 10_000, 32_000))


@pytest_asyncio.fixture
async def serve(port: int) -> AsyncIterator[Callable]:
    """`await serve(address)` starts a server there that says its own address and then echoes one line."""
    servers: list[asyncio.Server] = []
    connections: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(ConnectionError):
            writer.write(f"{writer.get_extra_info('sockname')[0]}\n".encode())
            writer.write(await reader.readline())
        writer.close()

    async def start(address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.create_server((address, port), family=family)
        servers.append(await asyncio.start_server(talk, sock=sock))

    yield start
    for connection in connections:  # a test that failed may have left its end open
        connection.transport.abort()
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture
def black_hole(port: int) -> Iterator[Callable[[str], None]]:
    """`black_hole(address)` makes an address that answers no SYN."""
    held: list[socket.socket] = []

    def make(address: str) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        held.append(listener)
        for number in range(4):
            held.append(filler := socket.socket())
            filler.setblocking(number == 0)  # with the first the queue is full, and no other is let in
            filler.connect_ex((address, port))

    yield make
    for sock in held:
        sock.close()


@pytest.fixture
def open_sockets() -> Callable[[], int]:
    """How many sockets are open in this process that were not when this was called first."""

    def look() -> set[str]:
        found = set()
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        return {name for name in found if name.startswith("socket:")}

    before: list[set[str]] = []

    def more() -> int:
        if not before:
            before.append(look())
        return len(look() - before[0])

    return more


async def all_closed(open_sockets: Callable[[], int], which: str = "every socket") -> None:
    """Waits until the other ends are closed as well."""
    await until(lambda: open_sockets() == 0, f"{which} is closed")


def now() -> float:
    """The time that the event loop has waited, whatever the machine did meanwhile."""
    return asyncio.get_running_loop().time()


async def who_answers(dialled: Dialled) -> str:
    try:
        dialled.connection.write(b"hello\n")
        said = b""
        while data := await dialled.connection.read():
            said += data
        name, echoed = said.decode().splitlines()
        assert echoed == "hello"
    finally:
        dialled.connection.close()
    assert name == str(dialled.address)
    return name


async def refusal(*texts: str, port: int, connect_timeout: float = 10.0, **more: Any) -> DialError:
    with pytest.raises(DialError) as caught:
        async with asyncio.timeout(15.0):
            await dial(addresses(*texts), port, connect_timeout=connect_timeout, **more)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_one_address_that_answers(serve: Callable, port: int, address: str) -> None:
    await serve(address)
    dialled = await dial(addresses(address), port, connect_timeout=10.0)
    assert await who_answers(dialled) == address


async def test_the_first_address_wins_when_all_answer(serve: Callable, port: int) -> None:
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        await serve(address)
    dialled = await dial(addresses("127.0.0.2", "::1", "127.0.0.1"), port, connect_timeout=20.0, attempt_delay=10.0)
    assert await who_answers(dialled) == "127.0.0.2"


async def test_an_address_that_refuses_is_followed_by_the_next_at_once(serve: Callable, port: int) -> None:
    await serve("127.0.0.2")
    started = now()
    dialled = await dial(addresses("::1", "127.0.0.1", "127.0.0.2"), port, connect_timeout=9.0, attempt_delay=5.0)
    assert await who_answers(dialled) == "127.0.0.2"
    assert now() - started < 1.0


async def test_an_address_that_is_silent_is_followed_by_the_next_after_the_delay(
    serve: Callable, black_hole: Callable[[str], None], port: int, open_sockets: Callable[[], int]
) -> None:
    black_hole("127.0.0.1")
    await serve("127.0.0.2")
    open_sockets()
    started = now()
    dialled = await dial(addresses("127.0.0.1", "127.0.0.2"), port, connect_timeout=5.0, attempt_delay=0.2)
    assert 0.19 < now() - started < 0.5
    assert await who_answers(dialled) == "127.0.0.2"
    await all_closed(open_sockets, "the loser's socket")


async def test_a_refusal_while_another_is_silent_starts_the_next_at_once(
    serve: Callable, black_hole: Callable[[str], None], port: int
) -> None:
    black_hole("127.0.0.1")
    await serve("127.0.0.3")
    started = now()
    dialled = await dial(
        addresses("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"),
        port,
        connect_timeout=5.0,
        attempt_delay=0.3,
    )
    assert 0.29 < now() - started < 0.55
    assert await who_answers(dialled) == "127.0.0.3"


async def test_a_silent_address_may_still_answer_while_the_next_is_tried(
    serve: Callable, black_hole: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has a head start, and is not given up when the second begins."""
    await serve("127.0.0.1")
    black_hole("127.0.0.2")
    connect = module._connect

    async def slow_first(address: Address, *rest: Any) -> Connection:
        if address == ip_address("127.0.0.1"):
            await asyncio.sleep(0.3)
        return await connect(address, *rest)

    monkeypatch.setattr(module, "_connect", slow_first)
    dialled = await dial(addresses("127.0.0.1", "127.0.0.2"), port, connect_timeout=5.0, attempt_delay=0.1)
    assert await who_answers(dialled) == "127.0.0.1"


async def test_when_two_answer_at_the_same_moment_one_is_closed(
    serve: Callable, port: int, monkeypatch: pytest.MonkeyPatch, open_sockets: Callable[[], int]
) -> None:
    for address in ("127.0.0.1", "127.0.0.2"):
        await serve(address)
    connect = module._connect
    both = asyncio.Barrier(2)

    async def together(address: Address, *rest: Any) -> Connection:
        sock = await connect(address, *rest)
        await both.wait()
        return sock

    monkeypatch.setattr(module, "_connect", together)
    open_sockets()
    dialled = await dial(addresses("127.0.0.1", "127.0.0.2"), port, connect_timeout=5.0, attempt_delay=0.05)
    assert await who_answers(dialled) in ("127.0.0.1", "127.0.0.2")
    await all_closed(open_sockets)


async def test_when_all_fail_each_is_named_with_its_reason(port: int, open_sockets: Callable[[], int]) -> None:
    open_sockets()
    error = await refusal("127.0.0.1", "::1", port=port)
    assert str(error) == f"port {port}: 127.0.0.1: connection refused; ::1: connection refused"
    assert not error.timed_out
    assert open_sockets() == 0


async def test_of_many_that_fail_four_are_named(port: int) -> None:
    error = await refusal(*(f"127.0.0.{number}" for number in range(1, 8)), port=port)
    assert str(error).count("connection refused") == 4
    assert str(error).endswith("; and 3 more")


async def test_without_an_address_there_is_an_error(port: int) -> None:
    error = await refusal(port=port)
    assert str(error) == f"port {port}: no address to dial"
    assert not error.timed_out


async def test_silence_ends_after_the_time_given(
    black_hole: Callable[[str], None], port: int, open_sockets: Callable[[], int]
) -> None:
    black_hole("127.0.0.1")
    open_sockets()
    started = now()
    error = await refusal("127.0.0.2", "127.0.0.1", port=port, connect_timeout=0.3)
    assert 0.29 < now() - started < 0.6
    assert error.timed_out
    assert str(error) == f"port {port}: 127.0.0.2: connection refused; 127.0.0.1: no answer in 0.3 s"
    await all_closed(open_sockets)


async def test_the_system_giving_up_is_a_timeout_too(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up(*_: object) -> socket.socket:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(module, "_connect", give_up)
    error = await refusal("127.0.0.1", port=port)
    assert error.timed_out
    assert str(error).endswith("127.0.0.1: connection timed out")


async def test_a_failure_of_our_own_code_is_a_failed_attempt(
    serve: Callable, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    await serve("127.0.0.1")
    monkeypatch.setattr(module, "_met_itself", fail)
    assert "127.0.0.1: ZeroDivisionError" in str(await refusal("127.0.0.1", port=port))


@pytest.mark.parametrize("after", [0.0, 0.05, 0.25])
async def test_cancelling_closes_every_socket(
    black_hole: Callable[[str], None], port: int, open_sockets: Callable[[], int], after: float
) -> None:
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        black_hole(address)
    open_sockets()
    others = asyncio.all_tasks()
    dialling = asyncio.create_task(
        dial(addresses("127.0.0.1", "127.0.0.2", "127.0.0.3"), port, connect_timeout=5.0, attempt_delay=0.1)
    )
    await asyncio.sleep(after)
    assert (open_sockets() > 0) == (after > 0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    await all_closed(open_sockets)
    await until(lambda: asyncio.all_tasks() == others, "every attempt is over")


@pytest.mark.parametrize("where", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]], ids=["one address", "two"])
async def test_cancelling_at_any_moment_of_a_successful_dial_closes_every_socket(
    serve: Callable, port: int, open_sockets: Callable[[], int], where: list[str]
) -> None:
    """One more turn of the loop each time, until the dial is done before it can be cancelled."""
    await serve("127.0.0.1")
    open_sockets()
    for turns in range(50):
        dialling = asyncio.create_task(dial(addresses(*where), port, connect_timeout=5.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await dialling).connection.close()
            break
        await all_closed(open_sockets, f"what was cancelled after {turns} turns of the loop")
    else:
        pytest.fail("the dial never was done")
    assert turns >= len(where)
    await all_closed(open_sockets)


async def test_the_connection_does_not_wait_to_fill_packets(serve: Callable, port: int) -> None:
    await serve("127.0.0.1")
    dialled = await dial(addresses("127.0.0.1"), port, connect_timeout=10.0)
    assert dialled.connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await who_answers(dialled)


async def test_the_local_address_is_the_one_given(serve: Callable, port: int) -> None:
    await serve("127.0.0.1")
    dialled = await dial(addresses("127.0.0.1"), port, connect_timeout=10.0, local_address="127.0.0.7")
    assert dialled.connection.sock.getsockname()[0] == "127.0.0.7"
    await who_answers(dialled)


async def test_an_address_of_another_family_than_the_local_one_is_passed_over(serve: Callable, port: int) -> None:
    await serve("127.0.0.1")
    await serve("::1")
    dialled = await dial(addresses("::1", "127.0.0.1"), port, connect_timeout=10.0, local_address="127.0.0.7")
    assert await who_answers(dialled) == "127.0.0.1"
    assert "not the family" in str(await refusal("::1", port=port, local_address="127.0.0.7"))


@pytest.mark.parametrize("local_address", ["localhost", "127.1", "", "eth0"])
async def test_a_local_address_that_is_a_name_is_a_failure_and_nobody_looks_it_up(
    port: int, local_address: str
) -> None:
    error = await refusal("127.0.0.1", port=port, local_address=local_address)
    assert f"127.0.0.1: {local_address!a} is no local address" in str(error)


async def test_an_address_with_a_zone_is_not_dialled(serve: Callable, port: int) -> None:
    await serve("::1")
    assert "zone" in str(await refusal("::1%lo", port=port))


async def test_the_last_descriptors_are_not_for_connections(serve: Callable, port: int) -> None:
    await serve("127.0.0.1")
    poller()  # there is one as soon as there are clients
    gc.collect()  # or the number of something forgotten becomes free meanwhile
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(DialError, match=os.strerror(errno.EMFILE).lower()):
            await dial(addresses("127.0.0.1"), port, connect_timeout=5)
        os.close(os.dup(0))  # there is one for everything else
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    dialled = await dial(addresses("127.0.0.1"), port, connect_timeout=5)
    dialled.connection.close()


def test_a_socket_that_met_itself_is_recognised() -> None:
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        assert module._met_itself(alone, alone.getsockname()[1])


async def test_meeting_itself_is_a_refusal(
    serve: Callable, port: int, monkeypatch: pytest.MonkeyPatch, open_sockets: Callable[[], int]
) -> None:
    await serve("127.0.0.1")
    monkeypatch.setattr(module, "_met_itself", lambda sock, port: True)
    open_sockets()
    assert "connection refused" in str(await refusal("127.0.0.1", port=port))
    await all_closed(open_sockets)


async def test_with_tasks_that_start_eagerly_nothing_changes(
    serve: Callable, black_hole: Callable[[str], None], port: int
) -> None:
    """mitmproxy runs with asyncio's eager task factory."""
    black_hole("127.0.0.1")
    await serve("127.0.0.3")
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        dialled = await dial(
            addresses("127.0.0.1", "127.0.0.2", "127.0.0.3"), port, connect_timeout=5.0, attempt_delay=0.1
        )
    finally:
        loop.set_task_factory(None)
    assert await who_answers(dialled) == "127.0.0.3"


async def test_what_was_dialled_cannot_be_exchanged(serve: Callable, port: int) -> None:
    await serve("127.0.0.1")
    dialled = await dial(addresses("127.0.0.1"), port, connect_timeout=10.0)
    with pytest.raises(FrozenInstanceError):
        dialled.address = ip_address("127.0.0.2")  # type: ignore[misc]  # that is what is tested
    await who_answers(dialled)

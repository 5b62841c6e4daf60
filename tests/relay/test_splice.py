"""A tunnel between two sockets: nothing is lost, nothing is added, and every end arrives as the end it was."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import random
import select
import socket
import sys
import termios
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from egress_gateway.relay import poller as poller_module
from egress_gateway.relay import splice as splice_module
from egress_gateway.relay import way
from egress_gateway.relay.idle_clock import IdleClock
from egress_gateway.relay.poller import Poller, poller
from egress_gateway.relay.splice import Ending, Splice
from egress_gateway.relay.way import Way
from support.hand_time import HandTime
from support.socket_pair import pair, reset
from support.waiting import until

ON_EVERY_LOOP = True


@pytest.fixture(params=["spliced", "copied", "gathering"])
def copied(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether bytes are copied. "gathering" splices them, and takes all that comes for fast."""
    if request.param == "gathering":
        monkeypatch.setattr(Way, "is_fast", lambda *_: True)
    return bool(request.param == "copied")


class Told:
    """Who is told how it ended, once."""

    def __init__(self) -> None:
        self.over: asyncio.Future[tuple[Ending, Exception | None]] = asyncio.get_running_loop().create_future()

    def ended(self, how: Ending, error: Exception | None) -> None:
        assert not self.over.done(), "said once"
        self.over.set_result((how, error))


@dataclass
class Tunnel:
    client: socket.socket
    """The far end of the client's connection, which the test has in its hands; and so on."""
    upstream: socket.socket
    near_client: socket.socket
    near_upstream: socket.socket
    splice: Splice
    over: asyncio.Future[tuple[Ending, Exception | None]]

    def state(self) -> str:
        """All that could tell why nothing moves."""
        lines = []
        for name, each in (("up", self.splice._up), ("down", self.splice._down)):
            facts = ("may_read", "may_write", "unsure", "waits", "_wholesale", "_in_pipe", "waiting", "moved", "done")
            lines.append(f"{name}: " + ", ".join(f"{fact}={getattr(each, fact)}" for fact in facts))
        for name in ("client", "near_client", "near_upstream", "upstream"):
            sock, events = getattr(self, name), select.poll()
            events.register(sock, select.POLLIN | select.POLLPRI | select.POLLOUT | select.POLLRDHUP)
            unread, unacknowledged = (
                int.from_bytes(fcntl.ioctl(sock, asked, bytes(4)), sys.byteorder)
                for asked in (termios.FIONREAD, termios.TIOCOUTQ)
            )
            lines.append(f"{name} {sock.fileno()}: {unread=} {unacknowledged=} events={events.poll(0)}")
        there = poller()
        lines.append(f"poller: {list(there._watchers)} again={list(there._again)} later={list(there._later)}")
        lines.append(f"ready: {there._epoll.poll(0)}")
        return "\n".join(lines)

    async def ending(self, seconds: float = 15.0) -> Ending:
        """How it ended. The near ends are then closed as the relay does it: in peace, or with RST."""
        async with asyncio.timeout(seconds):
            how, _ = await self.over
        for sock in (self.near_client, self.near_upstream):
            sock.close() if how is Ending.PEACE else reset(sock)
        return how


@contextlib.contextmanager
def tunnel(copied: bool = False, idle_seconds: float = 30.0, **read_already: bytes) -> Iterator[Tunnel]:
    client, near_client = pair()
    upstream, near_upstream = pair()
    owner = Told()
    splice = Splice(near_client, near_upstream, owner, idle_seconds=idle_seconds, **read_already)
    pipes, watched = poller().pipes, len(poller())
    pipes.available = not copied
    splice.start()
    made = Tunnel(client, upstream, near_client, near_upstream, splice, owner.over)
    try:
        yield made
    except TimeoutError as error:
        error.add_note(made.state())
        raise
    finally:
        splice.stop()
        for sock in (client, upstream, near_client, near_upstream):
            sock.close()
    assert len(poller()) == watched, "no descriptor is watched any more"
    assert pipes.in_use == 0, "no pipe is kept"
    assert len(poller().clock) == watched // 2, "nor is it asked for the time"


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, most: int = 1 << 16, seconds: float = 15.0) -> bytes:
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().sock_recv(sock, most)


async def exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = await receive(sock, count - len(data))
        assert piece, "it ends too early"
        data += piece
    return bytes(data)


async def rest(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := await receive(sock):
        data += piece
    return bytes(data)


async def hear_or_send(sock: socket.socket) -> None:
    """Who has heard the end of the other direction before is told of a reset only when it sends."""
    assert await receive(sock) == b""
    both = select.poll()
    both.register(sock, 0)  # of an end of both directions it tells unasked
    await until(lambda: both.poll(0), "a reset has come")
    await send(sock, b"x")


def some_bytes(count: int) -> bytes:
    return random.Random(count).randbytes(count)


# --- bytes ---


async def test_small_messages_go_to_and_fro(copied: bool) -> None:
    with tunnel(copied) as there:
        for number in range(50):
            await send(there.client, b"question %d" % number)
            assert await receive(there.upstream) == b"question %d" % number
            await send(there.upstream, b"answer %d" % number)
            assert await receive(there.client) == b"answer %d" % number
        assert (there.splice.received, there.splice.sent) == (540, 440)


async def test_what_was_read_already_goes_first(copied: bool) -> None:
    with tunnel(copied, from_client=b"first, ", from_upstream=b"greeting, ") as there:
        await send(there.client, b"second")
        await send(there.upstream, b"more")
        assert await exactly(there.upstream, 13) == b"first, second"
        assert await exactly(there.client, 14) == b"greeting, more"
        assert (there.splice.received, there.splice.sent) == (13, 14)


async def test_what_is_there_before_it_starts_is_not_forgotten(copied: bool) -> None:
    """Both edges lie before the moment in which the sockets are first watched."""
    client, near_client = pair()
    upstream, near_upstream = pair()
    await send(client, b"early")
    client.shutdown(socket.SHUT_WR)
    owner = Told()
    splice = Splice(near_client, near_upstream, owner, idle_seconds=30)
    poller().pipes.available = not copied
    splice.start()
    assert await rest(upstream) == b"early"
    upstream.close()
    assert await owner.over == (Ending.PEACE, None)
    for sock in (client, near_client, near_upstream):
        sock.close()


@pytest.mark.parametrize("size", [1, 32_767, 32_768, 65_537, 5_000_001])
async def test_a_transfer_of_any_size_arrives_as_it_was_sent(copied: bool, size: int) -> None:
    data = some_bytes(size)
    with tunnel(copied) as there:
        sending = asyncio.create_task(send(there.client, data))
        assert await exactly(there.upstream, size) == data
        await sending
        sending = asyncio.create_task(send(there.upstream, data))
        assert await exactly(there.client, size) == data
        await sending
        there.client.shutdown(socket.SHUT_WR)
        there.upstream.shutdown(socket.SHUT_WR)
        assert await there.ending() is Ending.PEACE
        assert (there.splice.received, there.splice.sent) == (size, size)


async def test_a_large_transfer_goes_through_the_kernel_and_none_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    splice = os.splice

    def counting(*arguments: int, **flags: int) -> int:
        moved.append(count := splice(*arguments, **flags))
        return count

    monkeypatch.setattr(os, "splice", counting)
    with tunnel() as there:
        sending = asyncio.create_task(send(there.client, bytes(8 << 20)))
        await exactly(there.upstream, 8 << 20)
        await sending
        assert sum(moved) / 2 > 0.9 * (8 << 20), "each byte twice: into the pipe and out of it"


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_what_stands_behind_urgent_data_goes_on_too(copied: bool, who: str) -> None:
    """tcp(7): a read stops there, and no more need come that the kernel would tell of."""
    with tunnel(copied) as there:
        near, far = (there.client, there.upstream) if who == "client" else (there.upstream, there.client)
        near.sendall(b"before")
        near.send(b"!", socket.MSG_OOB)
        near.sendall(b"after")
        assert await exactly(far, 11) == b"beforeafter"


@pytest.mark.parametrize("ends", [True, False], ids=["FIN", "more"])
@pytest.mark.parametrize("before", [32_767, 32_768, 65_536, 1_000_000])
async def test_what_stands_behind_urgent_data_goes_on_where_much_stood_before(
    copied: bool, before: int, ends: bool
) -> None:
    """splice(2) says there that there is nothing, or that this was the end."""
    with tunnel(copied) as there:
        sending = asyncio.create_task(send(there.client, bytes(before)))
        got = await exactly(there.upstream, before) if before > 100_000 else b""
        await sending
        there.client.send(b"!", socket.MSG_OOB)
        there.client.sendall(b"after")
        if ends:
            there.client.shutdown(socket.SHUT_WR)
        got += await exactly(there.upstream, before + 5 - len(got))
        assert got == bytes(before) + b"after"
        if ends:
            assert await receive(there.upstream) == b""
        else:
            there.client.sendall(b"more")
            assert await exactly(there.upstream, 4) == b"more"


# --- what gathers ---


@pytest.fixture
def gathers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """All that comes is fast, and gathers until the test says that the moment is over."""
    monkeypatch.setattr(Way, "is_fast", lambda *_: True)
    monkeypatch.setattr(poller_module, "MOMENT", 60)
    return lambda: poller()._after_a_moment()


async def test_what_comes_fast_gathers_and_what_comes_later_does_not(gathers: Callable[[], None]) -> None:
    the_moment_is_over = gathers
    with tunnel() as there:
        await send(there.client, b"first")
        assert await exactly(there.upstream, 5) == b"first"
        for piece in (b"these ", b"come ", b"together"):
            await send(there.client, piece)
            await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            there.upstream.recv(1)
        the_moment_is_over()
        assert await receive(there.upstream) == b"these come together"
        the_moment_is_over()  # one in which nothing has come
        await send(there.client, b"later")
        assert await exactly(there.upstream, 5) == b"later"


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.usefixtures("gathers")
async def test_an_end_does_not_wait_until_the_moment_is_over(end: str) -> None:
    with tunnel() as there:
        await send(there.client, b"first")
        assert await exactly(there.upstream, 5) == b"first"
        await send(there.client, b"last")
        if end == "FIN":
            there.client.shutdown(socket.SHUT_WR)
            assert await rest(there.upstream) == b"last"
        else:
            reset(there.client)
            assert await there.ending() is Ending.LOST


async def test_a_tunnel_that_ends_meanwhile_is_not_looked_at_again(
    gathers: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with tunnel() as there:
        await send(there.client, b"first")
        assert await exactly(there.upstream, 5) == b"first"
        await send(there.client, b"never")
        there.splice.stop()
        monkeypatch.setattr(Poller, "watch_for", lambda *_, **__: told.append("it is watched"))
        gathers()
        await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            there.upstream.recv(1)
        assert told == [], "the number may be another connection's by now"


@pytest.mark.usefixtures("gathers")
async def test_the_other_direction_goes_on_while_one_gathers() -> None:
    with tunnel() as there:
        await send(there.client, b"question")
        assert await exactly(there.upstream, 8) == b"question"
        await send(there.upstream, b"answer")
        assert await exactly(there.client, 6) == b"answer"


# --- ends ---


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_one_direction_ends_and_the_other_goes_on(copied: bool, first: str) -> None:
    with tunnel(copied) as there:
        one, other = (there.client, there.upstream) if first == "client" else (there.upstream, there.client)
        data = some_bytes(300_000)
        sending = asyncio.create_task(send(one, data))
        sending.add_done_callback(lambda _: one.shutdown(socket.SHUT_WR))
        assert await rest(other) == data
        assert not there.over.done()
        await send(other, b"still here")
        assert await exactly(one, 10) == b"still here"
        other.shutdown(socket.SHUT_WR)
        assert await rest(one) == b""
        assert await there.ending() is Ending.PEACE


@pytest.mark.parametrize("who", ["client", "upstream"])
@pytest.mark.parametrize("after", ["nothing", "some bytes", "the end of its direction", "the end of the other"])
async def test_a_reset_is_passed_on_as_a_reset(copied: bool, who: str, after: str) -> None:
    with tunnel(copied) as there:
        one, other = (there.client, there.upstream) if who == "client" else (there.upstream, there.client)
        if after == "some bytes":
            await send(one, b"half a mes")
            assert await exactly(other, 10) == b"half a mes"
        elif after == "the end of its direction":
            one.shutdown(socket.SHUT_WR)
            assert await receive(other) == b""
        elif after == "the end of the other":
            other.shutdown(socket.SHUT_WR)
            assert await receive(one) == b""
        reset(one)
        assert await there.ending() is Ending.LOST
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await hear_or_send(other)


async def test_bytes_that_come_together_with_a_reset_end_in_the_reset(copied: bool) -> None:
    with tunnel(copied) as there:
        there.client.send(b"half a mes")
        reset(there.client)
        assert await there.ending() is Ending.LOST
        with pytest.raises(ConnectionResetError):
            await rest(there.upstream)


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_an_end_and_a_reset_that_come_together_are_a_reset(copied: bool, who: str) -> None:
    with tunnel(copied) as there:
        one, other = (there.client, there.upstream) if who == "client" else (there.upstream, there.client)
        one.send(b"all of it")
        one.shutdown(socket.SHUT_WR)
        reset(one)
        assert await there.ending() is Ending.LOST
        with pytest.raises(ConnectionResetError):
            await rest(other)


@pytest.mark.parametrize("ends", [True, False], ids=["FIN and RST", "RST"])
async def test_a_reset_while_the_other_side_is_slow_is_a_reset(copied: bool, ends: bool) -> None:
    with tunnel(copied) as there:
        with contextlib.suppress(BlockingIOError):
            while True:
                there.client.send(bytes(1 << 20))
                await asyncio.sleep(0.001)
        if ends:
            there.client.shutdown(socket.SHUT_WR)
        reset(there.client)
        ending = asyncio.create_task(there.ending())
        with pytest.raises(ConnectionResetError):
            await rest(there.upstream)
        assert await ending is Ending.LOST


async def test_stopped_from_outside_it_says_and_moves_nothing_more(copied: bool) -> None:
    with tunnel(copied) as there:
        await send(there.client, b"before")
        assert await exactly(there.upstream, 6) == b"before"
        await send(there.client, b"after")
        there.splice.stop()
        await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            there.upstream.recv(1)
        assert not there.over.done()


# --- slowness ---


async def test_what_a_slow_reader_does_not_take_stays_outside(copied: bool) -> None:
    with tunnel(copied) as there:
        piece, sent, refused = bytes(1 << 20), 0, 0
        tracemalloc.start()
        while refused < 20 and sent < 64 << 20:  # turn after turn nothing is taken any more
            try:
                sent += there.client.send(piece)
                refused = 0
            except BlockingIOError:
                refused += 1
            await asyncio.sleep(0.005)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 1 << 20
        assert there.splice.received < sent < 64 << 20
        assert poller().pipes.in_use <= 1


async def test_a_slow_direction_does_not_stop_the_other(copied: bool) -> None:
    with tunnel(copied) as there:
        sending = asyncio.create_task(send(there.client, bytes(64 << 20)))
        await asyncio.sleep(0.05)
        for _ in range(20):
            await send(there.upstream, b"tick\n")
            assert await exactly(there.client, 5) == b"tick\n"
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_what_is_left_of_a_turn_is_taken_up_in_the_next(copied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "TURN_BYTES", 1)
    data = some_bytes(2_000_000)
    with tunnel(copied) as there:
        sending = asyncio.create_task(send(there.client, data))
        assert await exactly(there.upstream, len(data)) == data
        await sending


@pytest.fixture
async def tunnels_time(monkeypatch: pytest.MonkeyPatch) -> HandTime:
    made: Any = HandTime()
    monkeypatch.setattr(splice_module, "asyncio", SimpleNamespace(get_running_loop=lambda: made))
    monkeypatch.setattr(poller(), "clock", IdleClock(made))
    return made


@pytest.mark.parametrize("stuck", [False, True], ids=["nothing comes", "nobody reads"])
async def test_a_tunnel_where_nothing_moves_ends_as_idle(copied: bool, stuck: bool, tunnels_time: HandTime) -> None:
    with tunnel(copied, idle_seconds=30) as there:
        for _ in range(3):
            tunnels_time.passes(20)
            await send(there.client, b"x")
            assert await exactly(there.upstream, 1) == b"x", "as long as something moves it lives"
        tunnels_time.passes(29)
        assert not there.over.done()
        sending = asyncio.create_task(send(there.client, bytes(64 << 20) if stuck else b""))
        moved = 0
        while moved != there.splice.received:
            moved = there.splice.received
            await asyncio.sleep(0.02)
        # What nobody reads moved just now, and does once more where the kernel makes room of its own.
        for seconds in [31, 31, 31] if stuck else [2]:
            tunnels_time.passes(seconds)
        await until(there.over.done, "it is over")
        assert await there.ending() is Ending.IDLE
        await asyncio.gather(sending, return_exceptions=True)


async def test_what_an_idle_tunnel_waits_for_is_its_loops_own_time() -> None:
    with tunnel(idle_seconds=0.1) as there:
        assert await there.ending() is Ending.IDLE


# --- where the kernel does not help ---


@pytest.mark.parametrize("at", ["into the pipe", "out of the pipe"])
async def test_sockets_that_the_kernel_does_not_splice_are_copied(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    splice = os.splice

    def refusing(source: int, sink: int, *arguments: int, **flags: int) -> int:
        into_socket = sink in (there.near_client.fileno(), there.near_upstream.fileno())
        if into_socket is (at == "out of the pipe"):
            raise OSError(22, "Invalid argument")
        return splice(source, sink, *arguments, **flags)

    data = some_bytes(3_000_000)
    with tunnel() as there:
        monkeypatch.setattr(os, "splice", refusing)
        sending = asyncio.create_task(send(there.client, data))
        assert await exactly(there.upstream, len(data)) == data
        await sending
        assert there.splice.received == len(data)
    assert [record.message for record in caplog.records] == [
        "egress gateway: splice() failed: Invalid argument; bytes of tunnels are copied, which costs more."
    ]


# --- at random ---


async def one_conversation(copied: bool, dice: random.Random) -> None:
    """Random bytes in random pieces both ways, ended in a random order: each side hears exactly what the other said."""

    async def say(sock: socket.socket, already: bytes, size: int, wait: asyncio.Event) -> bytes:
        digest = hashlib.sha256(already)
        while size > 0:
            piece = dice.randbytes(min(size, dice.choice([1, 10, 1000, 20_000, 70_000, 300_000])))
            size -= len(piece)
            digest.update(piece)
            await send(sock, piece)
            if not dice.randrange(4):
                await asyncio.sleep(0)
        await wait.wait()
        sock.shutdown(socket.SHUT_WR)
        return digest.digest()

    async def hear(sock: socket.socket, heard: asyncio.Event) -> bytes:
        digest = hashlib.sha256()
        while piece := await receive(sock, dice.choice([100, 5000, 1 << 18])):
            digest.update(piece)
            if not dice.randrange(8):
                await asyncio.sleep(0)
        heard.set()
        return digest.digest()

    at_once, first, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
    at_once.set()
    order = dice.randrange(3)
    early = [dice.randbytes(dice.choice([0, 0, 5, 3000])) for _ in range(2)]
    with tunnel(copied, from_client=early[0], from_upstream=early[1]) as there:
        sizes = [dice.choice([0, 1, 500, 20_000, 200_000, 1_500_000]) for _ in range(2)]
        up, heard_up, down, heard_down = await asyncio.gather(
            say(there.client, early[0], sizes[0], first if order == 1 else at_once),
            hear(there.upstream, second),
            say(there.upstream, early[1], sizes[1], second if order == 2 else at_once),
            hear(there.client, first),
        )
        assert await there.ending() is Ending.PEACE
        assert there.splice.received == len(early[0]) + sizes[0]
        assert there.splice.sent == len(early[1]) + sizes[1]
        assert (up, down) == (heard_up, heard_down)


async def test_random_conversations_arrive_as_they_were_said(copied: bool) -> None:
    dice = random.Random("tunnels")
    for _ in range(40):
        await one_conversation(copied, dice)

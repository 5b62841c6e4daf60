"""What is written soon: with everything else of a turn, never later, never out of order, and never after an abort."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from egress_gateway.relay.connection import Connection
from egress_gateway.relay.poller import poller
from egress_gateway.relay.stream import write_soon
from support.socket_pair import arrive, fill, pair, reset
from support.waiting import eventually, until

ON_EVERY_LOOP = True


class Acts:
    """Does something when it is told of a change for the first time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.done = False

    def changed(self, descriptor: int, event: int) -> None:
        if not self.done:
            self.done = True
            self._act()


async def in_one_turn(*acts: Callable[[], object]) -> None:
    """Does all of them, one after another, in one turn of the poller."""
    lines = [(*pair(), Acts(act)) for act in acts]
    for _, near, watcher in lines:
        poller().watch(near.fileno(), watcher)
    for far, _, _ in lines:
        far.send(b"x")
    arrive(*(near for _, near, _ in lines))
    await until(lambda: all(watcher.done for *_, watcher in lines), "all of them have been told")
    for far, near, _ in lines:
        poller().forget(near.fileno())
        far.close()
        near.close()


class Line:
    """A connection of ours, and the socket at its other end."""

    def __init__(self) -> None:
        self.theirs, ours = pair()
        self.ours = Connection(ours)
        self.seen: list[bytes | str] = []

    def look(self) -> None:
        """Notes what has come, which is all that was sent."""
        if not self.ours.closed:
            eventually(lambda: self.ours.on_the_way == self.ours.unsent, "the other end has what was sent")
        elif self.theirs.fileno() >= 0:
            arrive(self.theirs)
        try:
            self.seen.append(self.theirs.recv(100))
        except BlockingIOError:
            self.seen.append("nothing")
        except ConnectionResetError:
            self.seen.append("reset")


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    made = Line()
    yield made
    made.ours.abort()
    made.theirs.close()


async def test_it_is_sent_when_all_that_came_in_this_turn_is_served(line: Line) -> None:
    await in_one_turn(lambda: write_soon(line.ours, b"hello"), line.look, line.look)
    line.look()
    assert line.seen == ["nothing", "nothing", b"hello"]
    assert line.ours.unsent == 0


async def test_where_nobody_else_is_to_be_served_it_is_sent_at_once(line: Line) -> None:
    def act() -> None:
        line.ours.write_soon(b"hello")
        line.look()

    await in_one_turn(act)
    line.ours.write_soon(b"more")
    line.look()
    assert line.seen == [b"hello", b"more"]


async def test_it_goes_before_what_is_written_afterwards(line: Line) -> None:
    def act() -> None:
        line.ours.write_soon(b"one ")
        line.ours.write_soon(b"two ")
        line.look()
        line.ours.write_soon(b"three ")
        assert line.ours.unsent == 6
        line.ours.write(b"four")

    await in_one_turn(act, line.look)
    assert line.seen == [b"one two ", b"three four"]


async def test_it_goes_after_what_was_written_before(line: Line) -> None:
    def act() -> None:
        line.ours.write(b"one ")
        line.ours.write_soon(b"two")

    await in_one_turn(act, line.look)
    line.look()
    assert line.seen == [b"one ", b"two"]


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_an_end_comes_after_it(line: Line, end: str) -> None:
    def act() -> None:
        line.ours.write_soon(b"hello")
        getattr(line.ours, end)()

    await in_one_turn(act, line.look, line.look)
    assert line.seen == [b"hello", b""]


async def test_what_is_aborted_sends_nothing_any_more(line: Line) -> None:
    def act() -> None:
        line.ours.write_soon(b"never")
        line.ours.abort()

    await in_one_turn(act, line.look)
    assert line.seen == ["reset"]


async def test_whoever_is_given_the_socket_comes_after_it(line: Line) -> None:
    taken: list[socket.socket] = []

    def act() -> None:
        line.ours.write_soon(b"one ")
        taken.append(line.ours.hand_over())
        taken[0].send(b"two")

    await in_one_turn(act, line.look)
    assert line.seen == [b"one two"]


async def test_it_is_not_waited_for(line: Line) -> None:
    served: list[str] = []

    async def serve() -> None:
        await line.ours.read()
        line.ours.write_soon(b"answer")
        await line.ours.drain()
        served.append("drained")
        line.look()

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0.01)
    line.theirs.send(b"question")
    arrive(line.ours.sock)
    await in_one_turn(lambda: served.append("other"))
    await serving
    line.look()
    assert sorted(served) == ["drained", "other"]
    assert line.seen == ["nothing", b"answer"]


async def test_what_is_large_is_not_held(line: Line) -> None:
    def act() -> None:
        line.ours.write_soon(bytes(20_000))
        line.look()

    await in_one_turn(act, lambda: None)
    assert line.seen == [bytes(100)]


async def test_what_does_not_fit_any_more_is_sent_when_there_is_room(line: Line) -> None:
    line.ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)
    filled = await fill(line.ours.sock)
    await in_one_turn(lambda: line.ours.write_soon(bytes(10_000)), lambda: None)
    assert line.ours.unsent
    draining = asyncio.create_task(line.ours.drain())
    await asyncio.sleep(0.01)
    assert not draining.done(), "once it was tried it is waited for"
    left = filled + 10_000
    while left:
        left -= len(await asyncio.get_running_loop().sock_recv(line.theirs, 1 << 20))
    await draining
    assert line.ours.unsent == 0


async def test_a_peer_that_has_gone_is_noticed_by_who_reads(line: Line) -> None:
    def act() -> None:
        line.ours.write_soon(b"never")

    reset(line.theirs)
    await in_one_turn(act, lambda: None)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await line.ours.read()


async def test_to_whoever_takes_over_a_connection_that_is_lost_that_is_said(line: Line) -> None:
    reset(line.theirs)
    arrive(line.ours.sock)
    line.ours.write(b"never")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        line.ours.hand_over()


async def test_after_half_a_message_nothing_else_is_sent(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: Connection, data: bytes) -> int:
        self.sock.send(data[:3])
        raise MemoryError("of ours")

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_send", send)
        await in_one_turn(lambda: line.ours.write_soon(b"first"), lambda: None)
    line.ours.write(b"second")
    line.look()
    line.look()
    assert line.seen[-1] == "reset"
    assert b"second" not in line.seen


async def test_a_turn_that_is_left_in_the_middle_sends_what_it_holds(line: Line) -> None:
    def leave() -> None:
        line.ours.write_soon(b"hello")
        raise KeyboardInterrupt

    far, near = pair()
    other, also_near = pair()
    poller().watch(near.fileno(), Acts(leave))
    poller().watch(also_near.fileno(), Acts(lambda: None))
    far.send(b"x")
    other.send(b"x")
    arrive(near, also_near)
    with pytest.raises(KeyboardInterrupt):
        poller()._turn()
    line.look()
    assert line.seen == [b"hello"]
    assert not poller().hold(line.ours), "the turn is over"
    for sock in (near, also_near):
        poller().forget(sock.fileno())
    for sock in (far, near, other, also_near):
        sock.close()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_to_what_is_closed_nothing_is_sent(line: Line, end: str) -> None:
    def act() -> None:
        getattr(line.ours, end)()
        line.ours.write_soon(b"never")

    await in_one_turn(act, line.look)
    assert line.seen in ([b""], ["reset"])


async def test_one_that_raises_does_not_keep_the_others_from_sending(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    class Raising:
        def send_held(self) -> None:
            raise RuntimeError("of ours")

    def act() -> None:
        assert poller().hold(Raising())
        line.ours.write_soon(b"hello")

    await in_one_turn(act, lambda: None)
    line.look()
    assert line.seen == [b"hello"]
    assert "of ours" in caplog.text

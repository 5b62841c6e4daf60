"""The relay's epoll: everybody is told, nobody is told too late, and nobody stops the others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import socket
import subprocess
import sys
import time

import pytest

from egress_gateway.relay import poller as module
from egress_gateway.relay.poller import ENDING, FAILED, READABLE, WRITABLE, poller
from support.socket_pair import fill, pair, reset
from support.waiting import until

ON_EVERY_LOOP = True


class Told:
    def __init__(self) -> None:
        self.events: list[int] = []

    def changed(self, descriptor: int, event: int) -> None:
        self.events.append(event)


class Raising:
    def changed(self, descriptor: int, event: int) -> None:
        raise RuntimeError("of ours")


async def test_a_socket_is_told_of_once_for_each_change() -> None:
    far, near = pair()
    watcher = Told()
    events = watcher.events
    far.send(b"x")
    poller().watch(near.fileno(), watcher)
    await until(lambda: events, "it says that there is something already")
    assert events.pop() & READABLE
    far.send(b"x")
    await until(lambda: events, "it says that there is more")
    assert events.pop() & READABLE
    await asyncio.sleep(0.01)
    assert events == [], "though nobody has read it"
    far.shutdown(socket.SHUT_WR)
    await until(lambda: events, "it says that this was all")
    assert events.pop() & ENDING
    poller().forget(near.fileno())
    far.close()
    near.close()


async def test_of_writing_it_is_told_when_it_has_asked() -> None:
    far, near = pair()
    watcher = Told()
    events = watcher.events
    poller().watch(near.fileno(), watcher)
    await fill(near)
    poller().watch_for(near.fileno(), reading=True, writing=True)
    await asyncio.sleep(0.01)
    assert not any(event & WRITABLE for event in events)
    while not any(event & WRITABLE for event in events):
        with contextlib.suppress(BlockingIOError):
            far.recv(1 << 20)
        await asyncio.sleep(0)
    poller().forget(near.fileno())
    far.close()
    near.close()


async def test_of_writing_it_is_told_at_once_where_it_can_write() -> None:
    far, near = pair()
    watcher = Told()
    events = watcher.events
    poller().watch(near.fileno(), watcher)
    poller().watch_for(near.fileno(), reading=True, writing=True)
    await until(lambda: events, "it says that it can be written")
    assert events.pop() & WRITABLE
    poller().forget(near.fileno())
    far.close()
    near.close()


async def test_who_does_not_want_to_read_is_not_told_of_what_comes_but_of_the_end() -> None:
    far, near = pair()
    watcher = Told()
    events = watcher.events
    poller().watch(near.fileno(), watcher)
    poller().watch_for(near.fileno(), reading=False, writing=False)
    far.send(b"x")
    await asyncio.sleep(0.01)
    assert events == []
    poller().watch_for(near.fileno(), reading=True, writing=False)
    await until(lambda: events, "it says that something has come")
    assert events.pop() & READABLE
    poller().watch_for(near.fileno(), reading=False, writing=False)
    reset(far)
    await until(lambda: events, "it says that the connection is gone")
    assert events.pop() & FAILED
    poller().forget(near.fileno())
    near.close()


async def test_for_packets_that_nobody_wants_to_read_the_process_is_not_woken() -> None:
    """The kernel wakes who waits for urgent data with every packet; the event loop sees nothing of that, and pays."""
    far, near = pair()
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a packet for each
    poller().watch(near.fileno(), Told())
    poller().watch_for(near.fileno(), reading=False, writing=False)
    # Another process, since who waits for another thread's turn of the interpreter sleeps and is woken as well.
    sends = f"import os, time; [(os.write({far.fileno()}, b'x'), time.sleep(0.001)) for _ in range(200)]"
    command = [sys.executable, "-I", "-S", "-c", sends]  # it makes no difference that its start is waited for
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    with subprocess.Popen(command, pass_fds=[far.fileno()], stdout=subprocess.PIPE) as sending:  # noqa: ASYNC220
        assert sending.stdout is not None
        loop.add_reader(sending.stdout, over.set)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        await over.wait()
        woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
        loop.remove_reader(sending.stdout)
    await until(lambda: len(near.recv(1000, socket.MSG_PEEK)) == 200, "all have come")
    assert woken < 50, "three or four times where nobody is woken, more than a hundred times where they are"
    poller().forget(near.fileno())
    far.close()
    near.close()


async def test_who_was_forgotten_is_told_nothing_though_its_connection_is_still_open_elsewhere() -> None:
    """As under mitmdump, whose streams have a descriptor of their own."""
    far, near = pair()
    copy, number, new = near.dup(), near.fileno(), Told()
    poller().watch(number, Told())
    poller().forget(number)
    other_far, other_near = pair()
    near.close()
    os.dup2(other_near.fileno(), number)
    poller().watch(number, new)
    far.send(b"x")
    await asyncio.sleep(0.01)
    assert new.events == []
    poller().forget(number)
    os.close(number)
    for sock in (far, copy, other_far, other_near):
        sock.close()


async def test_nobody_is_told_what_was_said_of_who_had_the_same_number_before() -> None:
    """Both are in one answer of the kernel, and the first to be told closes the second."""
    far, near = pair()
    other_far, other_near = pair()
    new = Told()

    class Replacing:
        def changed(self, descriptor: int, event: int) -> None:
            number = other_near.fileno() if descriptor == near.fileno() else near.fileno()
            poller().forget(number)
            os.dup2(quiet.fileno(), number)
            poller().watch(number, new)

    quiet_far, quiet = pair()
    replacing = Replacing()
    for sock in (near, other_near):
        poller().watch(sock.fileno(), replacing)
    await asyncio.sleep(0.01)
    far.send(b"x")
    other_far.send(b"x")
    await asyncio.sleep(0.01)
    assert new.events == []
    for sock in (near, other_near):
        poller().forget(sock.fileno())
    for sock in (far, near, other_far, other_near, quiet_far, quiet):
        sock.close()


async def test_who_is_watched_already_is_told_as_if_it_were_new() -> None:
    far, near = pair()
    old, new = Told(), Told()
    far.send(b"x")
    poller().watch(near.fileno(), old)
    await until(lambda: old.events, "it says that there is something")
    poller().watch(near.fileno(), new, writing=True)
    await until(lambda: new.events, "it says so again")
    event = new.events.pop()
    assert event & READABLE
    assert event & WRITABLE
    assert len(old.events) == 1
    poller().forget(near.fileno())
    far.close()
    near.close()


async def test_a_reset_is_told_after_bytes_that_nobody_has_read() -> None:
    far, near = pair()
    watcher = Told()
    events = watcher.events
    poller().watch(near.fileno(), watcher)
    far.send(b"x")
    await until(lambda: events and events[-1] & READABLE, "it says that there is something")
    reset(far)
    await until(lambda: events[-1] & FAILED, "it says that the connection is gone")
    poller().forget(near.fileno())
    near.close()


async def test_who_was_forgotten_is_told_nothing_and_its_number_is_free() -> None:
    far, near = pair()
    other_far, other_near = pair()
    old, new = Told(), Told()
    poller().watch(near.fileno(), old)
    number = near.fileno()
    poller().forget(number)
    poller().forget(number)
    near.close()
    os.dup2(other_near.fileno(), number)
    other_far.send(b"x")
    poller().watch(number, new)
    await until(lambda: new.events, "the new one is told")
    assert old.events == []
    poller().forget(number)
    os.close(number)
    for sock in (far, other_far, other_near):
        sock.close()


async def test_one_that_raises_does_not_keep_the_others_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [pair() for _ in range(3)]
    others = Told()
    told = others.events
    raising = Raising()
    poller().watch(pairs[0][1].fileno(), raising)
    for _, near in pairs[1:]:
        poller().watch(near.fileno(), others)
    for far, _ in pairs:
        far.send(b"x")
    poller().again(lambda: raising.changed(0, 0))
    poller().again(lambda: told.append(0))
    await until(lambda: len(told) == 3, "the others are told")
    await until(lambda: len(caplog.records) == 2, "both are logged")
    for far, near in pairs:
        poller().forget(near.fileno())
        far.close()
        near.close()


async def test_what_is_to_be_done_again_waits_for_the_next_turn() -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        poller().again(lambda: order.append("again"))

    poller().again(first)
    asyncio.get_running_loop().call_soon(order.append, "others")
    await until(lambda: "again" in order, "it is done")
    assert order == ["first", "others", "again"]


async def test_what_is_asked_for_several_times_is_done_once_so_that_nobody_has_several_turns() -> None:
    """Both directions of a tunnel ask for the same, each of them in each turn: it would double with every turn."""
    done: list[int] = []

    class Busy:
        def go_on(self) -> None:
            done.append(len(done))
            if len(done) < 20:
                poller().again(self.go_on)
                poller().again(self.go_on)

    poller().again(Busy().go_on)
    turns = 0
    while len(done) < 20 and turns < 100:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 20


async def test_what_is_to_be_done_later_is_done_after_a_moment_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOMENT", 0.05)
    done: list[str] = []
    started = time.monotonic()
    poller().later(append := functools.partial(done.append, "one"))
    poller().later(functools.partial(done.append, "other"))
    poller().later(append)
    await until(lambda: done, "the moment is over")
    assert time.monotonic() - started > 0.04
    assert done == ["one", "other"]
    poller().later(append)
    await until(lambda: len(done) == 3, "the next one is, too")
    await asyncio.sleep(0.1)
    assert done == ["one", "other", "one"]

"""A connection on a bare socket: nothing lost, nothing reordered, nobody kept waiting; on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from egress_gateway.relay.connection import NO_LINGER, Connection
from support.waiting import until

ON_EVERY_LOOP = True

BIG = os.urandom(12_000_000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, ours first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.settimeout(15)
    with ours, theirs:
        yield ours, theirs


type Pair = tuple[socket.socket, socket.socket]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    sock.close()


async def at_the_other_end(theirs: socket.socket, size: int) -> bytes:
    def take() -> bytes:
        got = bytearray()
        while len(got) < size and (data := theirs.recv(65_536)):
            got += data
        return bytes(got)

    return await asyncio.to_thread(take)


async def test_bytes_go_both_ways(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    connection.write(b"hello")
    await connection.drain()
    assert theirs.recv(10) == b"hello"
    reading = asyncio.create_task(connection.read())
    await asyncio.sleep(0.01)
    theirs.sendall(b"world")
    assert await reading == b"world"
    connection.close()
    assert theirs.recv(1) == b""


async def test_what_the_kernel_does_not_take_at_once_arrives_in_order(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    connection.write(BIG)
    assert connection.unsent
    taking = asyncio.create_task(at_the_other_end(theirs, len(BIG) + 4))
    connection.write(b"more")
    await connection.drain()
    assert not connection.unsent
    assert await taking == BIG + b"more"


async def test_what_is_still_to_be_sent_goes_before_the_end(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    connection.write(BIG)
    connection.write_eof()
    connection.write(b"never")
    assert await at_the_other_end(theirs, len(BIG) + 1) == BIG
    theirs.sendall(b"still here")
    assert await connection.read() == b"still here"
    connection.close()
    await connection.wait_closed()
    assert connection.closed


async def test_closing_waits_for_what_is_still_to_be_sent(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    connection.write(BIG)
    reading = asyncio.create_task(connection.read())
    await asyncio.sleep(0)
    connection.close()
    assert await reading == b"", "who reads is told at once"
    assert (connection.is_closing(), connection.closed) == (True, False)
    assert await at_the_other_end(theirs, len(BIG) + 1) == BIG
    await connection.wait_closed()
    assert connection.closed


async def test_bytes_and_a_reset_that_come_together(pair: Pair) -> None:
    """The kernel tells of the two once, and never again."""
    ours, theirs = pair
    connection = Connection(ours)
    reading = asyncio.create_task(connection.read(3))
    await asyncio.sleep(0.01)
    theirs.sendall(b"abc")
    reset(theirs)
    with contextlib.suppress(ConnectionResetError):
        assert await reading == b"abc"
    with pytest.raises(ConnectionResetError):
        await connection.read()
    assert connection.has_gone()


async def test_a_reset_never_looks_like_an_end_in_peace(pair: Pair) -> None:
    """Sending uses the error up, and the kernel would then report the end of the stream."""
    ours, theirs = pair
    connection = Connection(ours)
    assert not connection.has_gone()
    reset(theirs)
    await until(connection.has_gone, "the reset has come")
    connection.write(b"x")
    connection.write(b"y")
    with pytest.raises(OSError, match=r"reset|pipe"):
        await connection.drain()
    with pytest.raises(OSError, match=r"reset|pipe"):
        await connection.read()


async def test_an_abort_is_a_reset_for_the_peer_and_an_end_for_who_waits(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    connection.write(BIG)
    waits = [asyncio.create_task(connection.read()), asyncio.create_task(connection.drain())]
    await asyncio.sleep(0)
    connection.abort()
    connection.abort()
    assert await waits[0] == b""
    with pytest.raises(ConnectionResetError):
        await waits[1]
    with pytest.raises(ConnectionResetError):
        await at_the_other_end(theirs, len(BIG))


async def test_a_read_that_is_cancelled_loses_nothing(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    sent, got = bytearray(), bytearray()
    for number in range(200):
        reading = asyncio.create_task(connection.read())
        await asyncio.sleep(0)
        theirs.sendall(piece := b"%d," % number)
        sent += piece
        for _ in range(number % 4):
            await asyncio.sleep(0)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got += await reading
    theirs.close()
    while data := await connection.read():
        got += data
    assert got == sent


async def test_an_event_that_nobody_waits_for_does_not_keep_the_loop_busy(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    told = 0
    changed = Connection.changed

    def count(connection: Connection, descriptor: int, event: int) -> None:
        nonlocal told
        told += 1
        changed(connection, descriptor, event)

    monkeypatch.setattr(Connection, "changed", count)
    connection = Connection(ours)
    reading = asyncio.create_task(connection.read())
    await asyncio.sleep(0.01)
    theirs.sendall(b"a")
    assert await reading == b"a"
    assert told == 1
    theirs.sendall(b"b")
    await until(lambda: told > 1, "it is told")
    await asyncio.sleep(0.02)
    assert told == 2
    assert await connection.read() == b"b"


async def test_reads_on_behind_urgent_data(pair: Pair) -> None:
    """tcp(7): a read stops there, so it gets less than it asked for, and nothing new need come."""
    ours, theirs = pair
    connection = Connection(ours)
    reading = asyncio.create_task(connection.read())
    await asyncio.sleep(0.01)
    theirs.sendall(b"before")
    theirs.send(b"!", socket.MSG_OOB)
    theirs.sendall(b"after")
    got = await reading
    while not got.endswith(b"after"):
        got += await asyncio.wait_for(connection.read(), 15.0)
    assert got == b"beforeafter"


async def test_reads_the_end_that_came_while_it_connected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        connection = Connection(ours)
        assert ours.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        theirs, _ = listener.accept()
        theirs.sendall(b"all")
        theirs.close()
        assert await connection.connected() == 0
        assert await asyncio.wait_for(connection.read(), 15.0) == b"all"
        assert await asyncio.wait_for(connection.read(), 15.0) == b""
        connection.close()


async def test_one_busy_reader_lets_others_have_their_turn(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    theirs.sendall(bytes(4_000))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(4_000):
        assert len(await connection.read(1)) == 1
    task.cancel()
    assert turns > 100


async def test_what_was_read_before_comes_first(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours, already_read=b"before")
    theirs.sendall(b"after")
    with pytest.raises(RuntimeError):
        connection.hand_over()
    assert await connection.read(3) == b"bef"
    assert await connection.read() == b"ore"
    assert await connection.read() == b"after"
    assert connection.hand_over() is ours


async def test_a_shared_connection_tells_its_peer_that_it_has_ended(pair: Pair) -> None:
    ours, theirs = pair
    with ours.dup():
        connection = Connection(ours, shared=True)
        connection.close()
        assert await asyncio.to_thread(theirs.recv, 1) == b""


async def test_a_shared_connection_that_is_aborted_is_reset_when_the_other_closes_too(pair: Pair) -> None:
    ours, theirs = pair
    other = ours.dup()
    Connection(ours, shared=True).abort()
    await asyncio.sleep(0.01)
    other.close()
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(theirs.recv, 1)


async def test_who_closes_in_place_of_a_process_that_was_killed_sends_a_reset(pair: Pair) -> None:
    """Closing the socket is what the kernel does then."""
    ours, theirs = pair
    connection = Connection(ours)
    connection.write(b"half a")
    assert theirs.recv(100) == b"half a"
    connection.sock.close()
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)


async def test_who_is_given_the_socket_ends_it_in_peace(pair: Pair) -> None:
    ours, theirs = pair
    Connection(ours).hand_over().close()
    assert theirs.recv(1) == b""


async def test_a_number_that_is_used_again_is_watched_for_its_new_owner() -> None:
    """The kernel gives the number of a closed descriptor to the next one; nothing of the old one may be left on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for number in range(300):
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
            connection = Connection(ours)
            reading = asyncio.create_task(connection.read())
            await asyncio.sleep(0)
            connection.write(BIG)
            if number % 3:
                theirs.sendall(b"x")
                assert await reading == b"x"
            if number % 2:
                connection.abort()
            else:
                reset(theirs)
                await asyncio.wait({reading})
                connection.abort()
            theirs.close()
            await asyncio.gather(reading, return_exceptions=True)


async def test_is_silent_while_nothing_has_come_and_not_even_an_end(pair: Pair) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    assert connection.is_silent()
    theirs.send(b"x")
    await until(lambda: not connection.is_silent(), "a byte has come")
    assert await connection.read() == b"x"
    assert connection.is_silent()
    theirs.shutdown(socket.SHUT_WR)
    await until(lambda: not connection.is_silent(), "the end has come")
    assert await connection.read() == b""
    connection.close()
    assert not connection.is_silent()


async def test_what_was_read_before_is_not_silence(pair: Pair) -> None:
    connection = Connection(pair[0], already_read=b"x")
    assert not connection.is_silent()
    connection.close()


@pytest.mark.parametrize("ending", ["an end", "a reset"])
async def test_what_comes_with_an_ending_is_read_and_then_the_ending(pair: Pair, ending: str) -> None:
    """Bytes that were less than one would have taken, with nobody waiting when the rest came."""
    ours, theirs = pair
    connection = Connection(ours)
    reading = asyncio.create_task(connection.read())
    await asyncio.sleep(0)
    theirs.send(b"hello")
    if ending == "an end":
        theirs.shutdown(socket.SHUT_WR)
    else:
        reset(theirs)
    try:
        got = await reading
    except ConnectionResetError:
        return  # the kernel may throw away what a reset overtakes
    assert got == b"hello"
    if ending == "an end":
        assert await connection.read() == b""
    else:
        with pytest.raises(ConnectionResetError):
            await connection.read()
    connection.close()

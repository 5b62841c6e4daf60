"""Mutated conversations thrown at the relay: bounded, and the same every time.

Whatever comes, no origin that no rule allows is reached, nothing of ours raises, and nothing hangs. What it has found
stands as an example in the test file of the room it was found in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from egress_gateway.gate.settings import Limits
from support.client_hello import client_hello
from support.relay_server import Origin, Peer, RelayServer, origin, relay_server, rule, talk

EVIL = "127.0.0.66"
LIMITS = Limits(
    header_bytes=8192, header_timeout=0.2, hello_bytes=8192, hello_timeout=0.2, idle_timeout=0.3, connect_timeout=1.0
)
SEED, CONVERSATIONS = "egress", 400
AT_ONCE = 20


async def obliging(peer: Peer) -> None:
    """Answers whatever comes, so that a conversation goes on."""
    while await peer.more():
        data = peer._take(len(peer.received))
        if b"\r\n\r\n" in data:
            await peer.answer(b"ok")
        elif data[:1] == b"\x16":
            await peer.send(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00")


@asynccontextmanager
async def surroundings(mode: str, dialled: str) -> AsyncIterator[tuple[RelayServer, Origin, Origin]]:
    async with origin(obliging) as allowed, origin(obliging, address=EVIL, port=allowed.port) as evil:
        port = allowed.port
        rules = [
            rule("a.example", (port, "http"), (port + 1, "https")),
            rule("b.example", (port, "https")),
            rule("bytes.example", (port, "tcp")),
        ]
        good = ["127.0.0.1"]
        names = {"a.example": good, "b.example": good, "bytes.example": good, "evil.example": [EVIL]}
        original = (dialled, port) if dialled else None
        async with relay_server(rules, names, mode=mode, limits=LIMITS, original=original) as server:
            yield server, allowed, evil


def seeds(mode: str, port: int) -> list[bytes]:
    a, b, evil, tcp = (f"{name}.example:{port}" for name in ("a", "b", "evil", "bytes"))
    get = f"GET / HTTP/1.1\r\nHost: {a}\r\n\r\n".encode()
    made = [
        get,
        f"POST /x HTTP/1.1\r\nHost: {a}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n".encode(),
        f"POST /x HTTP/1.1\r\nHost: {a}\r\nContent-Length: 5\r\n\r\nhello".encode() + get,
        f"GET / HTTP/1.1\r\nHost: {a}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: {evil}\r\n\r\n".encode() + get,
        client_hello("a.example"),
        client_hello("b.example", grease=True, ech=True) + b"\x17\x03\x03\x00\x05hello",
        client_hello("evil.example"),
    ]
    if mode == "transparent":
        return made
    if mode == "socks5":
        greeting = b"\x05\x01\x00"
        asked = [b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2) for name in
                 (b"a.example", b"b.example", b"evil.example", b"bytes.example")]  # fmt: skip
        asked += [b"\x05\x01\x00\x01\x7f\x00\x00\x42" + port.to_bytes(2)]
        return [greeting + one + data for one in asked for data in made]
    absolute = [data.replace(b" /", b" http://a.example:%d/" % port, 1) for data in made[:5]]
    absolute += [b"GET http://evil.example:%d/ HTTP/1.1\r\nHost: evil.example:%d\r\n\r\n" % (port, port) + get]
    tunnels = [f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode() for where in (a, b, evil, tcp)]
    return absolute + [tunnel + data for tunnel in tunnels for data in made]


TOKENS = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"%", b"@", b"\xff", b"HTTP/1.0", b"0\r\n\r\n"]
TOKENS += [b"evil.example", b"a.example", b"127.0.0.66", b"\x16\x03\x01", b"ffffffffffffffff"]
TOKENS += [b"Host: evil.example\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
TOKENS += [b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"]


def bent(data: bytes, dice: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3, 6])):
        at = dice.randrange(len(made) + 1)
        kind = dice.randrange(6)
        if kind == 0:
            made[at:at] = dice.choice(TOKENS)
        elif kind == 1:
            del made[at : at + dice.choice([1, 1, 2, 8, 50])]
        elif kind == 2 and made:
            made[at % len(made)] = dice.randrange(256)
        elif kind == 3:
            made[at : at + dice.randrange(12)] = dice.choice(TOKENS)
        elif kind == 4:
            piece = made[at : at + dice.randrange(40)]
            made[at:at] = piece
        else:
            del made[at:]
    return bytes(made)


async def converse(server: RelayServer, data: bytes, dice: random.Random) -> None:
    """Sends `data` in random pieces and ends in a random way, reading whatever comes."""
    ending, sizes = dice.randrange(4), [dice.choice([1, 7, 100, 5000]) for _ in range(50)]
    async with talk(server) as client:
        try:
            position = 0
            for size in sizes:
                if position >= len(data):
                    break
                await client.send(data[position : position + size])
                position += size
                await asyncio.sleep(0)
            await client.send(data[position:])
            if ending == 0:
                client.reset()
                return
            if ending == 1:
                client.half_close()
            await client.rest(quiet=30)
        except TimeoutError:
            raise  # it hangs
        except OSError:
            pass


@pytest.mark.parametrize(
    ("mode", "dialled"),
    [("regular", ""), ("socks5", ""), ("transparent", "127.0.0.1"), ("transparent", EVIL)],
    ids=["regular", "socks5", "transparent", "transparent, to an evil address"],
)
async def test_nothing_forbidden_is_reached_nothing_raises_and_nothing_hangs(mode: str, dialled: str) -> None:
    dice = random.Random(f"{SEED} {mode} {dialled}")
    async with surroundings(mode, dialled) as (server, allowed, evil):
        made = seeds(mode, allowed.port)
        limit = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            data = bent(dice.choice(made), dice)
            async with limit:
                await converse(server, data, dice)

        async with asyncio.timeout(180):
            await asyncio.gather(*(one() for _ in range(CONVERSATIONS)))
        assert server.seen.errors == []
        assert evil.peers == []
        assert "evil.example" not in server.names.asked
        assert set(server.names.asked) <= {"a.example", "b.example", "bytes.example"}
        for peer in allowed.peers:
            assert_only_what_was_judged(bytes(peer.received))
    assert not all(verdict.allowed for verdict in server.seen.decisions)
    # Some of it must have been right, or nothing was tried; but nobody may be reached at an evil address.
    assert bool(allowed.peers) is (dialled != EVIL)


def assert_only_what_was_judged(received: bytes) -> None:
    """HTTP that reached the origin was written by the relay, for the host that was allowed."""
    if b"Via: 1." not in received:
        return  # bytes of a tunnel
    first = received.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert first[1].startswith((b"Host: a.example", b"Host: b.example", b"Host: bytes.example")), first
    assert [line for line in first if line.lower().startswith(b"host:")] == first[1:2]

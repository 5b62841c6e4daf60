"""Many tunnels at once whose bytes come in pieces of any size, in any order, and end in any way; both ends are here.

What each side is to say follows from a number that the client sends, so that either side knows every byte that it must
hear, and how it must end: in peace after the last byte, in either order, or with a reset and never before one in peace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
import time
from dataclasses import dataclass

CONTENT = random.Random("stress").randbytes(1 << 22)
_SIZES = [0, 1, 100, 5_000, 30_000, 33_000, 70_000, 300_000]
_LARGE = 3_000_000
_PIECES = [1, 10, 500, 4_000, 20_000, 33_000, 70_000, 300_000]
_PATIENCE = 60.0
"""Seconds for one tunnel; by then it has stalled."""
_ANSWER = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + bytes(range(32)) + b"\x00\x13\x01\x00"
"""Begins as a ServerHello does; what comes after it is nobody's but the two ends'."""
_NO_LINGER = struct.pack("ii", 1, 0)


class Wrong(Exception):
    """The text says which end was told what."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one tunnel is to carry, by its number."""

    number: int
    up: bytes
    down: bytes
    ending: str
    """`together`, `client first`, `origin first`, `client resets` or `origin resets`."""
    together: bool
    """The client says all that it may say early in one go, before anybody has answered."""

    @classmethod
    def of(cls, number: int) -> Plan:
        dice = random.Random(f"plan {number}")

        def some() -> bytes:
            size = _LARGE if not dice.randrange(60) else dice.choice(_SIZES)
            start = dice.randrange(len(CONTENT) - size)
            return CONTENT[start : start + size]

        endings = ["together", "client first", "origin first"] * 3 + ["client resets", "origin resets"]
        return cls(number, some(), some(), dice.choice(endings), bool(dice.randrange(2)))


class End:
    """One end of a tunnel: says `mine`, must hear `theirs`."""

    def __init__(self, sock: socket.socket, plan: Plan, me: str) -> None:
        self.sock = sock
        self.me = me
        self.mine, self.theirs = (plan.up, plan.down) if me == "client" else (plan.down, plan.up)
        self.resets = plan.ending == f"{me} resets"
        self.is_reset = plan.ending.endswith("resets") and not self.resets
        self.waits = plan.ending == ("origin first" if me == "client" else "client first")
        self.dice = random.Random(f"{me} {plan.number}")
        self.heard_all = asyncio.Event()

    async def converse(self) -> None:
        both = [asyncio.create_task(self._say()), asyncio.create_task(self._hear())]
        try:
            await asyncio.gather(*both)
        except ConnectionError:
            if not (self.is_reset or self.resets):
                raise Wrong(f"the {self.me} was reset") from None
        else:
            if self.is_reset:
                raise Wrong(f"the {self.me} was told of an end in peace, and not of a reset")
        finally:
            # The event loop must have forgotten the socket before it is closed.
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _say(self) -> None:
        loop, position = asyncio.get_running_loop(), 0
        end = self.dice.randrange(len(self.mine) + 1) if self.resets else len(self.mine)
        while position < end:
            piece = self.mine[position : min(end, position + self.dice.choice(_PIECES))]
            await loop.sock_sendall(self.sock, piece)
            position += len(piece)
            if not self.dice.randrange(3):
                await asyncio.sleep(self.dice.choice([0, 0, 0.001]))
        if self.resets:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            raise ConnectionResetError
        if self.waits:
            await self.heard_all.wait()
        if not self.is_reset:
            self.sock.shutdown(socket.SHUT_WR)

    async def _hear(self) -> None:
        loop, position = asyncio.get_running_loop(), 0
        while piece := await loop.sock_recv(self.sock, self.dice.choice([1_000, 10_000, 1 << 18])):
            if piece != self.theirs[position : position + len(piece)]:
                raise Wrong(f"the {self.me} heard other bytes at {position} to {position + len(piece)}")
            position += len(piece)
            if not self.dice.randrange(10):
                await asyncio.sleep(self.dice.choice([0, 0.001, 0.003]))
        if position < len(self.theirs) and not self.is_reset:
            raise Wrong(f"the {self.me} heard {position} bytes of {len(self.theirs)}")
        self.heard_all.set()


class Origin:
    """Waits for the number of a plan and follows it."""

    def __init__(self) -> None:
        self.outcomes: dict[int, asyncio.Future[str]] = {}

    async def serve(self, listener: socket.socket) -> None:
        loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            running.add(task := asyncio.create_task(self._one(sock)))
            task.add_done_callback(running.discard)

    async def _one(self, sock: socket.socket) -> None:
        loop, number = asyncio.get_running_loop(), -1
        try:
            header = await exactly(sock, 5)
            await exactly(sock, int.from_bytes(header[3:]))
            await loop.sock_sendall(sock, _ANSWER)
            number = int.from_bytes(await exactly(sock, 8))
            await End(sock, Plan.of(number), "origin").converse()
        except (Wrong, OSError) as error:
            self._tell(number, str(error) or type(error).__name__)
        else:
            self._tell(number, "")
        finally:
            sock.close()

    def _tell(self, number: int, wrong: str) -> None:
        outcome = self.outcomes.get(number)
        if outcome is not None and not outcome.done():
            outcome.set_result(wrong)


async def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        if not piece:
            raise Wrong(f"closed after {data!r}")
        data += piece
    return data


def client_hello(host: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def tunnel(options: argparse.Namespace, number: int, hello: bytes, origin: Origin) -> None:
    """Raises Wrong, OSError or TimeoutError where anything was not as it must be."""
    loop, plan = asyncio.get_running_loop(), Plan.of(number)
    outcome = origin.outcomes[number] = loop.create_future()
    sock = socket.socket()
    sock.setblocking(False)
    authority = f"{options.host}:{options.port}"
    request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii")
    try:
        await loop.sock_connect(sock, ("127.0.0.1", options.proxy))
        await loop.sock_sendall(sock, request + (hello + number.to_bytes(8) if plan.together else b""))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await exactly(sock, 1)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Wrong(f"CONNECT: {head!r}")
        if not plan.together:
            await loop.sock_sendall(sock, hello)
        if await exactly(sock, len(_ANSWER)) != _ANSWER:
            raise Wrong("another answer than the origin's")
        if not plan.together:
            await loop.sock_sendall(sock, number.to_bytes(8))
        await End(sock, plan, "client").converse()
    finally:
        sock.close()
    if wrong := await outcome:
        raise Wrong(wrong)


async def run(options: argparse.Namespace) -> dict[str, object]:
    listener = socket.create_server((options.address, options.port), backlog=1024)
    listener.setblocking(False)
    origin, hello = Origin(), client_hello(options.host)
    serving = asyncio.create_task(origin.serve(listener))
    good, wrong, moved = 0, list[str](), 0
    numbers = iter(range(options.seed, options.seed + options.count))

    async def work() -> None:
        nonlocal good, moved
        for number in numbers:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await tunnel(options, number, hello, origin)
            except (Wrong, OSError, TimeoutError) as error:
                plan = Plan.of(number)
                about = f"{len(plan.up)} up, {len(plan.down)} down, {plan.ending}"
                wrong.append(f"{number} ({about}): {str(error) or type(error).__name__}")
            else:
                good += 1
                moved += len(Plan.of(number).up) + len(Plan.of(number).down)
            del origin.outcomes[number]

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(options.at_once)))
    serving.cancel()
    listener.close()
    seconds = time.monotonic() - started
    return {"good": good, "wrong": len(wrong), "examples": wrong[:5], "seconds": seconds, "moved": moved}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=int, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--address", required=True, help="of that host, where the origin is to listen")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first tunnel")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()

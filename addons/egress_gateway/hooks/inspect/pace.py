"""A client that nobody reads from is made to wait.

mitmproxy reads from a client whatever its layers are waiting for, and queues what it has read: while a name is being
resolved, a client could fill the memory. The gates say when they cannot take the client's bytes; then the reader
delivers at most `MOST` more bytes and stops, so that the kernel's buffers fill up and the client has to wait.
"""

from __future__ import annotations

import asyncio

from egress_gateway.relay.stream import Reader

MOST = 262_144
"""Bytes read ahead while nobody takes them."""


class Pace:
    """Knows who cannot take the client's bytes at the moment."""

    def __init__(self) -> None:
        self._stalled: set[object] = set()
        self._ahead = 0
        self._go = asyncio.Event()

    def stall(self, who: object, stalled: bool = True) -> None:
        """Says whether `who` has no use for more bytes now."""
        if stalled:
            self._stalled.add(who)
            return
        self._stalled.discard(who)
        if not self._stalled:
            self._ahead = 0
            self._go.set()

    async def room(self) -> None:
        """Returns when more may be read."""
        while self._stalled and self._ahead >= MOST:
            self._go.clear()
            await self._go.wait()

    def took(self, count: int) -> None:
        """`count` bytes were read."""
        if self._stalled:
            self._ahead += count


class PacedReader:
    """Takes the place of a client's reader."""

    def __init__(self, reader: Reader, pace: Pace) -> None:
        self._reader = reader
        self._pace = pace

    async def read(self, n: int = -1, /) -> bytes:
        await self._pace.room()
        data = await self._reader.read(n)
        self._pace.took(len(data))
        return data

"""The questions of one TCP connection: RFC 1035 4.2.2, RFC 7766.

- Questions may follow each other without waiting, and each is answered as soon as its answer is there.
- A whole question has to come within the idle time-out, which counts from the last answer and not while one is due;
  who has too many questions under way, or does not take the answers, is not read from.
- What can be no question by its length ends the connection: nobody knows what the bytes after it are.
"""

from __future__ import annotations

import asyncio

from egress_gateway.relay.client import abort, finish
from egress_gateway.relay.stream import Input, Writer

from .message import LONGEST_QUESTION, SHORTEST_QUESTION
from .questions import NameServer
from .refusals import PROTOCOL

_LENGTH = 2


async def serve(server: NameServer, incoming: Input, writer: Writer, client: tuple[str, int]) -> None:
    """Answers `client` until it goes or is idle. Never raises but for cancellation."""
    gate = server.gate
    gate.observer.connection_opened(PROTOCOL)
    try:
        await _Conversation(server, incoming, writer, client).run()
    except (OSError, TimeoutError):
        abort(writer)
    except Exception:
        gate.failed(PROTOCOL)
        abort(writer)
    finally:
        try:
            await finish(writer)
        finally:
            gate.observer.connection_closed(PROTOCOL)


class _Conversation:
    def __init__(self, server: NameServer, incoming: Input, writer: Writer, client: tuple[str, int]) -> None:
        self._server = server
        self._incoming = incoming
        self._writer = writer
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._idle = server.gate.settings.name_server.idle_timeout
        self._idle_at = self._loop.time() + self._idle
        # A client waits for so many names at most, so more questions of it would only be refused.
        self._places = asyncio.Semaphore(server.gate.settings.limits.lookups_per_client)
        self._answering: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        try:
            while (data := await self._next()) is not None:
                await self._places.acquire()
                await asyncio.sleep(0)  # many questions may have come at once, and others are waiting too
                task = asyncio.create_task(self._answer(data))
                self._answering.add(task)
                task.add_done_callback(self._answered)
            # Who has half-closed still wants its answers.
            await asyncio.gather(*self._answering)
        finally:
            for task in self._answering:
                task.cancel()

    async def _next(self) -> bytes | None:
        """The next question; None where there is no other."""
        self._wait_anew()
        while not self._writer.is_closing():
            limit = asyncio.timeout_at(self._idle_at)
            try:
                async with limit:
                    return await self._frame()
            except TimeoutError:
                if not limit.expired():  # the system's own, of a client that is gone
                    raise
                if self._answering:
                    self._wait_anew()
                elif self._loop.time() >= self._idle_at:
                    return None
        return None

    def _wait_anew(self) -> None:
        self._idle_at = self._loop.time() + self._idle

    async def _frame(self) -> bytes | None:
        """Can be cancelled and called again: what has come stays in the buffer."""
        buffer = self._incoming.buffer
        while len(buffer) < _LENGTH:
            if not await self._incoming.fill():
                return None
        end = _LENGTH + int.from_bytes(buffer[:_LENGTH])
        if not SHORTEST_QUESTION <= end - _LENGTH <= LONGEST_QUESTION:
            return None
        while len(buffer) < end:
            if not await self._incoming.fill():
                return None
        data = bytes(buffer[_LENGTH:end])
        del buffer[:end]
        return data

    async def _answer(self, data: bytes) -> None:
        reply = await self._server.answer(data, self._client, udp=False)
        if reply is None:
            return
        async with self._sending:
            if self._writer.is_closing():
                return
            self._writer.write(len(reply).to_bytes(_LENGTH) + reply)
            try:
                async with asyncio.timeout(self._idle):
                    await self._writer.drain()
            except (OSError, TimeoutError):
                abort(self._writer)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._places.release()
        self._wait_anew()
        if not task.cancelled() and task.exception() is not None:
            abort(self._writer)

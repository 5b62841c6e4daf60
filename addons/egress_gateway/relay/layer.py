"""Where mitmproxy hands a client connection over to the relay.

mitmproxy drives layers with events, one lock and one write buffer drain for all connections of a client. Relaying as
plain coroutines is simpler to reason about and several times cheaper, so one layer with one blocking hook takes the
place of a stack of layers: mitmproxy's life cycle of the connection goes on as usual around it, the bytes go through
`serve`, on a duplicate of the descriptor. See docs/decisions/0002-relay-takes-over-the-streams.md and 0016.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import cast

from mitmproxy import connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler

from .connection import CHUNK, Connection
from .stream import Reader, Writer


@dataclass
class RelayData:
    client: connection.Client
    reader: Reader
    writer: Writer


@dataclass
class EgressRelayHook(commands.StartHook):
    """A client connection is to be relayed; the hook ends when the connection does."""

    data: RelayData


class _Parked:
    """Stands in for the reader that mitmproxy would read from, and never has anything to say."""

    async def read(self, _: int = -1) -> bytes:
        await asyncio.Event().wait()
        return b""


class RelayLayer(layer.Layer):
    """The only layer of a relayed connection."""

    def __init__(self, context: Context, reader: Reader, writer: Writer) -> None:
        super().__init__(context)
        self._data = RelayData(context.client, reader, writer)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield EgressRelayHook(self._data)
            yield commands.CloseConnection(self.context.client)


def _on_the_socket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
    """The same connection on a descriptor of our own; the streams keep theirs, and close it at the end."""
    read = bytearray()
    while data := _read_already(reader):
        read += data
    transport = cast(asyncio.ReadTransport, writer.transport)
    transport.pause_reading()
    duplicate = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    return Connection(duplicate, shared=True, already_read=bytes(read))


def _read_already(reader: asyncio.StreamReader) -> bytes:
    """What the streams hold; empty where they hold nothing. Does not wait."""
    look = reader.read(CHUNK)
    try:
        look.send(None)
    except StopIteration as got:
        return bytes(got.value)
    except OSError:
        return b""  # reset: the socket says so again
    finally:
        look.close()
    return b""


# mitmproxy's own watchdog counts only what passes through its layers; the relay keeps its own time.
_NO_WATCHDOG = 10**9


def take_over(handler: ConnectionHandler) -> None:
    """Makes `handler` relay its client. Call it before the handler has sent Start to its layer."""
    io = handler.transports[handler.client]
    reader, writer = cast(Reader, io.reader), cast(Writer, io.writer)
    if isinstance(io.reader, asyncio.StreamReader) and isinstance(io.writer, asyncio.StreamWriter):
        reader = writer = _on_the_socket(io.reader, io.writer)
    handler.layer = RelayLayer(handler.layer.context, reader, writer)
    io.reader = _Parked()  # type: ignore[assignment]  # it only reads
    handler.timeout_watchdog.timeout = _NO_WATCHDOG

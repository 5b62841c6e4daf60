"""Where mitmproxy hands a client connection over: one layer, one hook, and then the connection is closed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context

from egress_gateway.relay.layer import EgressRelayHook, RelayLayer, take_over

READER: Any = "reader"
WRITER: Any = "writer"
"""Stand-ins: they are handed on, and nothing is asked of them."""


def context() -> Context:
    client = Client(peername=("192.0.2.1", 1), sockname=("192.0.2.2", 2), state=ConnectionState.OPEN)
    return Context(client, options.Options())


def test_it_relays_once_and_then_closes_the_client() -> None:
    made = context()
    layer = RelayLayer(made, READER, WRITER)
    commands_ = layer.handle_event(events.Start())
    hook = next(commands_)
    assert isinstance(hook, EgressRelayHook)
    assert hook.blocking, "mitmproxy waits for the relay"
    assert (hook.data.client, hook.data.reader, hook.data.writer) == (made.client, READER, WRITER)
    (close,) = layer.handle_event(events.HookCompleted(hook, None))
    assert isinstance(close, commands.CloseConnection)
    assert close.connection is made.client


def test_the_hook_has_the_name_that_addons_listen_to() -> None:
    assert EgressRelayHook.name == "egress_relay"


def test_data_and_closing_that_reach_the_layer_change_nothing() -> None:
    made = context()
    layer = RelayLayer(made, READER, WRITER)
    assert list(layer._handle_event(events.DataReceived(made.client, b"x"))) == []
    assert list(layer._handle_event(events.ConnectionClosed(made.client))) == []


async def test_taking_over_gives_the_streams_to_the_relay_and_none_to_mitmproxy() -> None:
    made = context()
    io = SimpleNamespace(reader=READER, writer=WRITER)
    watchdog = SimpleNamespace(timeout=600)
    handler: Any = SimpleNamespace(
        client=made.client,
        transports={made.client: io},
        layer=SimpleNamespace(context=made),
        timeout_watchdog=watchdog,
    )
    take_over(handler)
    assert isinstance(handler.layer, RelayLayer)
    assert (handler.layer._data.reader, handler.layer._data.writer) == (READER, WRITER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await io.reader.read(65_536)
    assert watchdog.timeout > 10**6, "the relay keeps its own time"

"""What an accepted tunnel begins with, in bounded time and memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Limits, Settings
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Spoken
from egress_gateway.relay.client import Client
from egress_gateway.relay.client_hello import ClientHello
from egress_gateway.relay.first_bytes import await_first_bytes, await_hello
from egress_gateway.relay.stream import Input
from egress_gateway.relay.target import NotUnderstood
from support.client_hello import client_hello
from support.relay_server import Names, Recorder

HELLO = client_hello("a.example")


def client(data: bytes = b"", *, eof: bool = False, error: Exception | None = None) -> Client:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    if eof:
        reader.feed_eof()
    if error:
        reader.set_exception(error)
    settings = Settings(limits=Limits(hello_timeout=0.05, hello_bytes=4096))
    gate = Gatekeeper(Names({}), Recorder(), settings)
    writer: Any = None  # nothing is written
    return Client(gate, Input(reader), writer, ("192.0.2.1", 1))


def why(found: object) -> Reason:
    assert isinstance(found, NotUnderstood)
    return found.reason


@pytest.mark.parametrize(
    ("data", "spoken"),
    [(HELLO, Spoken.TLS), (b"GET / HTTP/1.1\r\n\r\n", Spoken.HTTP), (b"SSH-2.0", Spoken.OTHER)],
)
async def test_what_is_looked_at_stays_to_be_read(data: bytes, spoken: Spoken) -> None:
    made = client(data)
    assert await await_first_bytes(made) is spoken
    assert bytes(made.input.buffer) == data


async def test_silence_takes_only_so_long() -> None:
    assert why(await await_first_bytes(client())) is Reason.CLIENT_TIMEOUT
    assert why(await await_first_bytes(client(b"GE"))) is Reason.CLIENT_TIMEOUT
    assert why(await await_hello(client(HELLO[:50]))) is Reason.CLIENT_TIMEOUT


async def test_a_client_that_closes() -> None:
    assert await await_first_bytes(client(eof=True)) is None
    assert await await_first_bytes(client(b"GE", eof=True)) is Spoken.OTHER
    assert why(await await_hello(client(HELLO[:50], eof=True))) is Reason.MALFORMED_HELLO


async def test_a_client_that_is_gone() -> None:
    assert await await_first_bytes(client(error=ConnectionResetError())) is None
    assert await await_hello(client(error=ConnectionResetError())) is None


async def test_a_hello_stays_to_be_passed_on() -> None:
    made = client(HELLO + b"more")
    assert await await_hello(made) == ClientHello(Hostname("a.example"), ech=False)
    assert bytes(made.input.buffer) == HELLO + b"more"


async def test_a_hello_that_is_refused_says_why() -> None:
    assert why(await await_hello(client(client_hello("a..example")))) is Reason.SNI_MALFORMED
    assert why(await await_hello(client(client_hello(padding=5000, record_size=100)))) is Reason.HELLO_TOO_LARGE

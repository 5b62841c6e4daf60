"""A hello that was judged is passed on alone; what the destination answers decides what may follow it."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from egress_gateway.gate.settings import Limits
from egress_gateway.policy.reason import Reason
from support.ca import SessionCa
from support.client_hello import client_hello
from support.relay_server import Origin, Peer, Script, answers, conversation
from support.waiting import until

UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
HELLO = client_hello("a.example")
_BODY = b"\x03\x03" + hashlib.sha256(b"HelloRetryRequest").digest() + b"\x00\x13\x01\x00\x00\x00"
RETRY = b"\x16\x03\x03" + (len(_BODY) + 4).to_bytes(2) + b"\x02" + len(_BODY).to_bytes(3) + _BODY


def where(there: Origin) -> str:
    return f"a.example:{there.port}"


async def test_a_real_handshake_with_a_second_hello_passes(ca: SessionCa) -> None:
    """The server knows only a group that the client has sent no key share for."""
    context = ca.issue("a.example").server_context()
    context.set_ecdh_curve("secp384r1")
    async with conversation(answers, "https", tls=context) as (client, server, there):
        await client.tunnel(where(there))
        await client.start_tls(ca.client_context(), "a.example")
        assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).status == 200
        client.close()
        assert (await server.finished())[0].failure is None


def retrying() -> Script:
    async def script(peer: Peer) -> None:
        await peer.exactly(len(HELLO))
        await peer.send(RETRY)
        while await peer.more():
            await peer.send(peer._take(len(peer.received)))

    return script


async def test_a_second_hello_that_says_the_same_passes() -> None:
    async with conversation(retrying(), "https") as (client, _, there):
        await client.tunnel(where(there))
        await client.send(HELLO)
        assert await client.exactly(len(RETRY)) == RETRY
        await client.send(HELLO)
        assert await client.exactly(len(HELLO)) == HELLO


@pytest.mark.parametrize("at_once", [True, False], ids=["sent ahead", "sent when asked for"])
async def test_a_second_hello_with_another_name_never_arrives(at_once: bool) -> None:
    evil = client_hello("evil.example")
    async with conversation(retrying(), "https") as (client, server, there):
        await client.tunnel(where(there))
        await client.send(HELLO + evil if at_once else HELLO)
        assert await client.exactly(len(RETRY)) == RETRY
        if not at_once:
            await client.send(evil)
        assert await client.rest() == UNRECOGNIZED_NAME
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.verdict.allowed) == (Reason.SNI_MISMATCH, False)
        await asyncio.sleep(0.02)
        assert there.received == HELLO


async def test_nothing_but_the_hello_passes_until_the_destination_has_answered() -> None:
    goes_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.exactly(len(HELLO))
        assert await peer.silent()
        await goes_on.wait()
        await peer.send(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00" + bytes(60))
        assert await peer.until(b"early") == b"\x17\x03\x03\x00\x05early"
        await peer.send(b"done")

    async with conversation(script, "https") as (client, _, there):
        await client.tunnel(where(there))
        await client.send(HELLO + b"\x17\x03\x03\x00\x05early")
        await until(lambda: len(there.received) >= len(HELLO), "the hello has come")
        await asyncio.sleep(0.1)
        assert there.received == HELLO
        goes_on.set()
        await client.until(b"done")


@pytest.mark.usefixtures("steady")
async def test_a_destination_that_does_not_answer_the_hello_is_given_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.rest(quiet=30)

    async with conversation(script, "https", limits=Limits(hello_timeout=0.2)) as (client, server, there):
        await client.tunnel(where(there))
        await client.send(HELLO)
        assert (await client.rest())[:6] == b"\x15\x03\x01\x00\x02\x02"
        assert (await server.finished())[0].reason is Reason.UPSTREAM_TIMEOUT


async def test_a_destination_that_leaves_before_it_answers() -> None:
    async def script(peer: Peer) -> None:
        await peer.exactly(len(HELLO))

    async with conversation(script, "https") as (client, server, there):
        await client.tunnel(where(there))
        await client.send(HELLO)
        assert await client.rest() == b""
        client.close()
        await server.finished()

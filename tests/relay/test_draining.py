"""A process that is about to end answers what it has, and says of each answer that no other follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.relay_server import Peer, answers, conversation, request

pytestmark = pytest.mark.usefixtures("sent", "steady")

ASKED = {
    "an allowed one": ({}, 200),
    "a denied one": ({"host": "evil.example"}, 403),
    "one whose hops are used up": ({"method": "OPTIONS", "fields": ("Max-Forwards: 0",)}, 200),
    "one to a host without an address": ({"without_names": True}, 502),
}


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize(("asked", "status"), ASKED.values(), ids=ASKED)
async def test_the_connection_ends_with_the_answer(asked: dict[str, Any], status: int, draining: bool) -> None:
    how = dict(asked)
    fields = how.pop("fields", ())
    async with conversation(answers) as (client, server, there):
        if how.pop("without_names", False):
            server.names.names.clear()
        server.gate.draining = draining
        await client.send(request(there, "/", *fields, **how) + request(there, "/", *fields, **how))
        reply = await client.reply()
        assert reply.status == status
        assert (reply.values("connection") == ["close"]) is draining
        if draining:
            assert await client.rest() == b"", "whatever was asked behind it"
        else:
            assert (await client.reply()).status == status


MUCH = 3_000_000


async def large(peer: Peer, *, length: bool) -> None:
    """A script: answers when another request may have come behind the first."""
    await peer.head()
    await asyncio.sleep(0.1)
    if length:
        await peer.answer(bytes(MUCH))
    else:
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MUCH))
        peer.half_close()


@pytest.mark.parametrize("why", ["it drains", "the end of the answer is the end of the connection"])
async def test_the_last_answer_arrives_whole_whatever_was_asked_behind_it(why: str) -> None:
    """Who closes with something unread resets, and what is still to be sent is lost."""
    drains = why == "it drains"
    async with conversation(lambda peer: large(peer, length=drains)) as (client, server, there):
        server.gate.draining = drains
        await client.send(request(there))
        await asyncio.sleep(0.02)
        await client.send(request(there, "/next"))
        client.pause()
        await asyncio.sleep(0.5)
        client.resume()
        head = await client.until(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert len(await client.exactly(MUCH)) == MUCH
        assert await client.rest() == b""

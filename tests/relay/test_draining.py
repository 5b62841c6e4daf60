"""A process that is about to end answers what it has, and says of each answer that no other follows."""

from __future__ import annotations

from typing import Any

import pytest

from support.relay_server import answers, conversation, request

pytestmark = pytest.mark.usefixtures("sent")

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

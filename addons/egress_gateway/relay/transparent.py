"""Transparent modes: the client thinks it talks to the destination itself, so the address it dialled is one more claim.

The name comes from SNI or Host; the address the client dialled must be one that this name has. Under a `tcp` rule
there is no such name: the rule's own name is found by the address. Where nothing that the client could say would make
a difference, it is refused without waiting for a word.
"""

from __future__ import annotations

from egress_gateway.gate.byte_names import find_byte_name
from egress_gateway.policy.request import Spoken
from egress_gateway.policy.verdict import Treatment

from .client import Client
from .stream_relay import Destination, describe, note_failure, relay_bytes, relay_judged_later
from .upstream import Failed, connect
from .upstream_tls import TlsContexts


async def serve_transparent(client: Client, contexts: TlsContexts) -> None:
    """Serves one redirected connection."""
    assert client.original is not None
    gate = client.gate
    address, port = client.original
    destination = Destination(address, port, original=address)
    # Refusals do not count here: a name may still speak for the connection.
    by_address = gate.peek(destination.request(Spoken.UNKNOWN))
    if by_address.treatment is not Treatment.BYTES:
        name = await find_byte_name(gate, address, port, client.peer[0])
        if name is not None:
            destination = Destination(name, port, original=address)
        elif by_address.allowed or not gate.ruleset.by_port.goes_by_address(port):
            await relay_judged_later(client, destination, contexts)
            return
    request = destination.request(Spoken.UNKNOWN)
    exchange = client.begin()
    describe(exchange, destination)
    exchange.protocol = "TCP"
    exchange.verdict = verdict = gate.decide(request, "tcp")
    try:
        if verdict.allowed:
            opened = await connect(gate, contexts, request, verdict, exchange, "tcp")
            if isinstance(opened, Failed):
                note_failure(exchange, opened)
            else:
                await relay_bytes(client, opened, request, verdict, exchange)
        else:
            exchange.hint = gate.explain(request, verdict).hint
            await client.linger()
    finally:
        gate.finish(exchange)

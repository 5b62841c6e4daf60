"""Transparent modes: the client thinks it talks to the destination itself, so the address it dialled is one more claim.

The name comes from SNI or Host; the address the client dialled must be one that this name has. Under a `tcp` rule
there is no such name: the rule's own name is found by the address (`gate.byte_names`).
"""

from __future__ import annotations

from egress_gateway.gate.byte_names import find_byte_host
from egress_gateway.policy.request import Spoken

from .client import Client
from .stream_relay import Destination, Rest, describe, note_failure, relay_judged_later
from .tunnel import JudgedTunnel
from .upstream import Failed, connect
from .upstream_tls import TlsContexts


async def serve_transparent(client: Client, contexts: TlsContexts) -> Rest | None:
    """Serves one redirected connection."""
    assert client.original is not None
    gate = client.gate
    address, port = client.original
    host = await find_byte_host(gate, address, port, client.peer[0])
    if host is None:
        return await relay_judged_later(client, Destination(address, port, original=address), contexts)
    destination = Destination(host, port, original=address)
    request = destination.request(Spoken.UNKNOWN)
    exchange = client.begin()
    describe(exchange, destination)
    exchange.protocol = "TCP"
    exchange.verdict = verdict = gate.decide(request, "tcp")
    rest: Rest | None = None
    try:
        if verdict.allowed:
            opened = await connect(gate, contexts, request, verdict, exchange, "tcp")
            if isinstance(opened, Failed):
                note_failure(exchange, opened)
            else:
                rest = JudgedTunnel(client, opened, request, verdict, exchange).run
        else:
            exchange.hint = gate.explain(request, verdict).hint
            await client.linger()
    finally:
        if rest is None:
            gate.finish(exchange)
    return rest

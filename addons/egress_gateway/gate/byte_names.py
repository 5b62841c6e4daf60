"""Transparent modes: is a connection one of plain bytes, and which name's `tcp` rule covers the dialled address?

Under a `tcp` rule nobody looks at the bytes, and the destination may speak first, so no SNI and no Host can name the
host. The rule means the addresses that its name has: the ones that clients were told, and for exact names also the
ones that the resolver sees now, since a client may hold on to an answer from before the gateway was started.

Where other rules allow names on the same port by HTTP or TLS, a client has to speak first, and the name that it says
counts: otherwise plain HTTP for a host with TLS origination would leave as it is, because it shares an address with a
host of a `tcp` rule. Where nothing that the client could say would make a difference, it is refused without waiting for
a word.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from egress_gateway.dns.answer import Answer, ResolveError
from egress_gateway.policy.destination import plain
from egress_gateway.policy.hostname import Address, Host, Hostname
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment

from .gatekeeper import Gatekeeper


async def find_byte_host(gate: Gatekeeper, address: Address, port: int, client: str) -> Host | None:
    """The host that a connection to `address` is for, whatever is spoken; None where the client has to say a word.

    What this finds is judged again when it is dialled; it may be an address that is refused then.
    """
    # A refusal does not count yet: a name may still speak for the connection.
    by_address = gate.peek(Request(address, port, original=address))
    if by_address.treatment is Treatment.BYTES:
        return address
    if gate.ruleset.by_port.is_spoken(port):
        return None
    name = await find_byte_name(gate, address, port, client)
    if name is None and not by_address.allowed and gate.ruleset.by_port.goes_by_address(port):
        return address
    return name


async def find_byte_name(gate: Gatekeeper, address: Address, port: int, client: str) -> Hostname | None:
    """A name that `address` belongs to and that a rule allows as bytes on `port`; None where there is none.

    Only names that rules allow are ever asked for. What this finds is judged again when it is dialled.
    """

    def is_allowed(name: Hostname) -> bool:
        return gate.peek(Request(name, port, original=address)).treatment is Treatment.BYTES

    for name in gate.names.names_of(address):
        if is_allowed(name):
            return name
    names = filter(is_allowed, gate.ruleset.by_port.byte_names(port))
    asked = list(islice(names, gate.settings.limits.names_per_dial))
    answers = await asyncio.gather(*(_look_up(gate, name, client) for name in asked))
    for name, answer in zip(asked, answers, strict=True):
        if answer is not None and plain(address) in map(plain, answer.addresses):
            # The next look-up may see other addresses of the name, and this one is its own all the same.
            gate.names.learn_answer(name, answer, client)
            return name
    return None


async def _look_up(gate: Gatekeeper, name: Hostname, client: str) -> Answer | None:
    try:
        return await gate.look_up(name, client)
    except ResolveError:
        return None

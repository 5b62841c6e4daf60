"""Which addresses does a host have, for a client that may have dialled one of them already?

In explicit modes that is what the resolver sees. In transparent modes it is also what clients were told, which counts
first and asks nobody, so that a client goes on while the name servers are silent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from egress_gateway.dns.answer import Answer, ResolveError
from egress_gateway.policy.destination import plain
from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.rule import AddressCheck

from .names import Names

_KNOWN_ADDRESSES_DIALLED = 16
"""A redialled client is not sent to hundreds of addresses, one after the other, that a name once had."""

LookUp = Callable[[Hostname, str], Awaitable[Answer]]


async def addresses_of(
    host: Hostname, dialled: Address | None, check: AddressCheck, client: str, names: Names, look_up: LookUp
) -> tuple[Address, ...]:
    """The addresses of `host`, as far as they matter: only `dialled`, where the host is known to have it.

    What `look_up` finds on the way is learned. Raises ResolveError.
    """
    if dialled is None:
        return (await look_up(host, client)).addresses
    if names.has(host, dialled):
        return (plain(dialled),)
    try:
        answer = await look_up(host, client)
    except ResolveError:
        known = names.addresses_of(host)[:_KNOWN_ADDRESSES_DIALLED]
        if known and check is not AddressCheck.ENFORCE:
            return known
        raise
    names.learn_answer(host, answer, client)
    return answer.addresses
